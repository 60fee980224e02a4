/** The change feed under many writers: what naive readers miss or meet again, and that ours does neither. */
import { setTimeout as delay, setImmediate as immediate } from 'node:timers/promises'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Actor } from '../../src/core/actor.ts'
import { Contexts } from '../../src/resolver/contexts.ts'
import { beginFeed, ITSELF, positionIn, type Reader, readerOfIds, readerOfTimes, readerOfXmin, refs } from '../resolver/feed-readers.ts'
import { createEmptyDatabase, createInstallation, type Installation } from '../support/installation.ts'
import { tenantInput } from './arena.ts'
import { RACER } from './operations.ts'

const WRITERS = 6
const CHANGES = 2_500

let installation: Installation
beforeAll(async () => {
  installation = await createInstallation()
})
afterAll(() => installation.close())

interface Tally {
  missed: number
  again: number
  polls: number
}

/** Writers whose transactions take from one round trip to ten, so that they end in another order than they began. */
async function writeAtOnce(prefix: string, clients: readonly pg.Client[]): Promise<string[]> {
  const committed: string[] = []
  let number = 0
  const write = async (client: pg.Client) => {
    while (number < CHANGES) {
      const ref = `${prefix} ${++number}`
      await client.query('begin')
      await client.query(`insert into stratum.changes (kind, ref) values ('host', $1)`, [ref])
      for (let trips = Math.random() * 9; trips > 1; trips--) await client.query('select')
      const undone = Math.random() < 0.1
      await client.query(undone ? 'rollback' : 'commit')
      if (!undone) committed.push(ref)
    }
  }
  await Promise.all(clients.map(write))
  return committed
}

/** Poll until the writers are done, and a last time; what was told how often. */
async function follow(reader: Reader, done: () => boolean): Promise<{ told: string[]; polls: number }> {
  const told: string[] = []
  let polls = 0
  for (let last = false; !last; ) {
    last = done()
    for (const ref of await reader.poll()) told.push(ref)
    polls++
  }
  return { told, polls }
}

async function race(prefix: string): Promise<{ tallies: Record<string, Tally>; committed: number }> {
  const clients = Array.from({ length: WRITERS }, () => new pg.Client(installation.urls.owner))
  await Promise.all(clients.map((client) => client.connect()))
  const feed = await beginFeed(installation.services.db, await positionIn(installation.owner))
  const readers: Record<string, Reader> = {
    ids: readerOfIds(installation.owner),
    times: readerOfTimes(installation.owner),
    xmin: await readerOfXmin(installation.owner),
    ours: { poll: async () => refs(await feed.poll()) },
  }
  for (const reader of Object.values(readers)) await reader.poll()
  let done = false
  try {
    const following = Object.entries(readers).map(async ([name, reader]) => [name, await follow(reader, () => done)] as const)
    const committed = await writeAtOnce(prefix, clients).finally(() => {
      done = true
    })
    const tallies = (await Promise.all(following)).map(([name, { told, polls }]) => {
      const distinct = new Set(told)
      return [name, { missed: committed.filter((ref) => !distinct.has(ref)).length, again: told.length - distinct.size, polls }] as const
    })
    return { tallies: Object.fromEntries(tallies), committed: committed.length }
  } finally {
    await Promise.all(clients.map((client) => client.end()))
  }
}

const print = (title: string, { tallies, committed }: Awaited<ReturnType<typeof race>>) => {
  const lines = Object.entries(tallies).map(([name, { missed, again, polls }]) => `  ${name}: missed ${missed}, met again ${again}, in ${polls} polls`)
  console.info([`${title}: ${committed} changes by ${WRITERS} writers`, ...lines].join('\n'))
}

describe(`${WRITERS} writers at once`, () => {
  it('are missed in part by readers of ids and times, met again by one of xmin, and told once by ours', async () => {
    const result = await race('alone')
    print('feed', result)
    const { ids, times, xmin, ours } = result.tallies
    expect({ ids: ids?.missed, times: times?.missed }).toEqual({
      ids: expect.toSatisfy((missed) => missed > 0),
      times: expect.toSatisfy((missed) => missed > 0),
    })
    expect(xmin).toMatchObject({ missed: 0, again: expect.toSatisfy((again) => again > 0) })
    expect(ours).toMatchObject({ missed: 0, again: 0 })
  })

  it('beside a transaction held open in another database are met at every poll by a reader of xmin, and told once by ours', async () => {
    const elsewhere = await createEmptyDatabase()
    const held = new pg.Client(elsewhere.adminUrl)
    await held.connect()
    try {
      await held.query('begin; select pg_current_xact_id()')
      const result = await race('held')
      print('feed beside a held transaction', result)
      expect(result.tallies['xmin']?.again).toBeGreaterThan(10 * result.committed)
      expect(result.tallies['ours']).toMatchObject({ missed: 0, again: 0 })
    } finally {
      await held.end()
      await elsewhere.drop()
    }
  })
})

describe('isolates beside writers', () => {
  const [TENANTS, ISOLATES, SECONDS, STALENESS] = [8, 4, 8, 200]

  it('serve nobody less than the version asked for, nor what is older than the bound', async () => {
    const { db } = installation.services
    const ids = await Promise.all(
      Array.from({ length: TENANTS }, async (_, n) => ((await db.call('create_tenant', RACER, tenantInput(null, `kept_${n}`))) as { id: string }).id),
    )
    /** Each write's value, its version, and when it was known to be committed; values of a tenant only grow. */
    const written = ids.map(() => [{ value: 0, version: '0', at: 0 }])
    const end = performance.now() + SECONDS * 1_000
    const write = async (tenant: number) => {
      for (let value = 1; performance.now() < end; value++) {
        // What is wrongly kept shows when no other write drops it soon.
        await delay(Math.random() < 0.1 ? 4 * STALENESS : Math.random() * 20)
        let version = ''
        const input = { id: ids[tenant], key: 'count', value, locked: false, sensitive: false }
        await db.call('set_config', RACER, input, (facts) => {
          version = facts.version ?? ''
        })
        written[tenant]?.push({ value, version, at: performance.now() })
      }
    }
    const isolate = () => {
      const contexts = new Contexts<number>((since) => db.call('read_changes', ITSELF, since), {
        now: () => performance.now(),
        maximumStaleness: STALENESS,
        pollInterval: STALENESS / 2,
      })
      const load = (tenant: number) => async () => {
        const named: Actor['named'] = [{ source: 'subdomain', tenant: `kept-${tenant}` }]
        const answer = await db.call('visit_tenant', { ...RACER, credential: { type: 'visitor' }, named }, { keep: true })
        const { config, keeping } = answer as { config: Record<string, { value: number }>; keeping: { path: string; feed: unknown } }
        const tags = { path: keeping.path, names: [`kept_${tenant}`], principal: null, issuers: [] }
        return { value: config['count']?.value ?? 0, tags, feed: keeping.feed }
      }
      return { contexts, ask: (tenant: number, minimumVersion?: string) => contexts.resolve(String(tenant), load(tenant), { minimumVersion }) }
    }
    const isolates = Array.from({ length: ISOLATES }, isolate)
    const tooOld: unknown[] = []
    let asked = 0
    const read = async ({ ask }: ReturnType<typeof isolate>, versions: boolean) => {
      while (performance.now() < end) {
        const tenant = Math.floor(Math.random() * TENANTS)
        const writes = written[tenant] ?? []
        const newest = writes.at(-1)
        const own = versions && newest?.version !== '0' && Math.random() < 0.5
        const must = own ? newest : writes.findLast(({ at }) => at < performance.now() - STALENESS)
        const { value, outcome } = await ask(tenant, own ? newest?.version : undefined)
        // Answers from what is kept never leave the microtask queue.
        await immediate()
        asked++
        if (must && value < must.value) tooOld.push({ tenant, value, must, outcome })
      }
    }
    await Promise.all([...ids.keys()].map(write).concat(isolates.flatMap((each, n) => Array.from({ length: 3 }, () => read(each, n % 2 === 0)))))
    const writes = written.reduce((sum, list) => sum + list.length - 1, 0)
    const counts = isolates.map(({ contexts }) => contexts.counts)
    const sum = (name: 'hits' | 'misses' | 'polls' | 'evictions') => counts.reduce((total, each) => total + each[name], 0)
    console.info(
      `isolates: ${asked} answers over ${writes} writes; ${sum('hits')} hits, ${sum('misses')} misses, ${sum('polls')} polls, ${sum('evictions')} evictions`,
    )
    expect(tooOld).toEqual([])
    expect(writes).toBeGreaterThan(100)
    expect(sum('hits')).toBeGreaterThan(100)
  })
})
