/** The feed read by itself: what each reader is told while transactions overlap, and how far it believes to have seen. */
import fc from 'fast-check'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ChangeFeed, type Changes, Snapshot } from '../../src/resolver/change-feed.ts'
import { createEmptyDatabase, createInstallation, type Installation } from '../support/installation.ts'
import { beginFeed, ITSELF, positionIn, readerOfIds, readerOfTimes, readerOfXmin, refs } from './feed-readers.ts'
import { Overlap } from './overlap.ts'

let installation: Installation
beforeAll(async () => {
  installation = await createInstallation()
})
afterAll(() => installation.close())

const begin = async () => beginFeed(installation.services.db, await positionIn(installation.owner))
const write = `insert into stratum.changes (kind, ref) values ('host', $1)`
const change = (ref: string) => installation.owner.query(write, [ref])

/** A transaction of the test's, with the id by which its changes are versioned. */
async function open(url = installation.urls.owner) {
  const client = new pg.Client(url)
  await client.connect()
  await client.query('begin')
  const { rows } = await client.query<{ xid: string }>('select pg_current_xact_id()::text as xid')
  const end = async (how: 'commit' | 'rollback') => {
    await client.query(how)
    await client.end()
  }
  return { version: rows[0]?.xid ?? '', write: (ref: string) => client.query(write, [ref]), commit: () => end('commit'), rollback: () => end('rollback') }
}

/** A transaction that writes in another database of the same server, and goes on. */
async function openElsewhere() {
  const elsewhere = await createEmptyDatabase()
  const held = await open(elsewhere.adminUrl)
  const close = async () => {
    await held.rollback()
    await elsewhere.drop()
  }
  return { version: held.version, close }
}

describe('a transaction that began first and commits last', () => {
  it('is missed by readers of ids and times, met over and over by a reader of xmin, and told once by ours', async () => {
    const readers = { ids: readerOfIds(installation.owner), times: readerOfTimes(installation.owner), xmin: await readerOfXmin(installation.owner) }
    const ours = await begin()
    const poll = async () => ({
      ids: await readers.ids.poll(),
      times: await readers.times.poll(),
      xmin: await readers.xmin.poll(),
      ours: refs(await ours.poll()),
    })
    await poll()

    const first = await open()
    await first.write('first')
    await change('second')
    expect(await poll()).toEqual({ ids: ['second'], times: ['second'], xmin: ['second'], ours: ['second'] })
    expect(await poll()).toEqual({ ids: [], times: [], xmin: ['second'], ours: [] })
    await first.commit()
    expect(await poll()).toEqual({ ids: [], times: [], xmin: ['first', 'second'], ours: ['first'] })
    expect((await poll()).ours).toEqual([])
  })
})

describe('polls between transactions that overlap as they like', () => {
  const CONNECTIONS = 3
  const what = fc.constantFrom('write', 'write', 'kept', 'undone', 'commit', 'rollback')
  const step = fc.oneof(fc.record({ at: fc.nat(CONNECTIONS - 1), what }), fc.constant({ at: 0, what: 'poll' as const }))
  let clients: pg.Client[]
  beforeAll(async () => {
    clients = Array.from({ length: CONNECTIONS }, () => new pg.Client(installation.urls.owner))
    await Promise.all(clients.map((client) => client.connect()))
  })
  afterAll(() => Promise.all(clients.map((client) => client.end())))

  it('tell each change once, and at the first poll after its commit; a version is seen from then on and not before', async () => {
    const play = fc.asyncProperty(fc.array(step, { minLength: 15, maxLength: 40 }), async (steps) => {
      const overlap = new Overlap(clients)
      const feed = await begin()
      const poll = async () => {
        expect([...refs(await feed.poll())].sort()).toEqual(overlap.committed())
        expect(overlap.ended.filter((version) => !feed.sees(version))).toEqual([])
        expect(overlap.running.filter((version) => feed.sees(version))).toEqual([])
      }
      try {
        for (const { at, what } of steps) {
          if (what === 'poll') await poll()
          else if (what === 'commit' || what === 'rollback') await overlap.end(at, what)
          else await overlap.write(at, what === 'write' ? undefined : what)
        }
        await overlap.endAll('commit')
        await poll()
        await poll()
      } finally {
        await overlap.endAll('rollback')
      }
    })
    await fc.assert(play, { numRuns: 20 })
  })
})

describe('a write transaction that is held open in another database of the server', () => {
  it('makes a reader of xmin read all again and never see a version; ours reads once, and sees it', async () => {
    const held = await openElsewhere()
    try {
      const [naive, ours] = [await readerOfXmin(installation.owner), await begin()]
      const changed = await open()
      await changed.write('while it is open')
      await changed.commit()
      for (const told of [['while it is open'], [], []]) {
        expect(await naive.poll()).toContain('while it is open')
        expect(refs(await ours.poll())).toEqual(told)
        expect({ naive: naive.sees(changed.version), ours: ours.sees(changed.version) }).toEqual({ naive: false, ours: true })
      }
      expect(BigInt(held.version)).toBeLessThan(BigInt(changed.version))
      expect(ours.sees(held.version)).toBe(false)
    } finally {
      await held.close()
    }
  })
})

describe('what a snapshot sees', () => {
  it('is the same here as in the database', async () => {
    const snapshots = fc.tuple(fc.nat(20), fc.nat(20), fc.uniqueArray(fc.nat(19))).map(([low, length, running]) => {
      const [xmin, xmax] = [low + 3, low + 3 + length]
      const open = running.filter((each) => each < length).sort((a, b) => a - b)
      return `${xmin + (open[0] === undefined ? length : open[0])}:${xmax}:${open.map((each) => each + xmin)}`
    })
    const cases = fc.sample(fc.tuple(snapshots, fc.integer({ min: 3, max: 50 })), 1_000)
    const { rows } = await installation.owner.query<{ sees: boolean }>(
      `select pg_visible_in_snapshot(version::xid8, snapshot::pg_snapshot) as sees
       from unnest($1::text[], $2::text[]) with ordinality as c (snapshot, version, number) order by number`,
      [cases.map(([snapshot]) => snapshot), cases.map(([, version]) => String(version))],
    )
    expect(cases.map(([snapshot, version]) => new Snapshot(snapshot).sees(BigInt(version)))).toEqual(rows.map(({ sees }) => sees))
    expect(new Set(rows.map(({ sees }) => sees)).size).toBe(2)
  })
})

describe('a poll', () => {
  it('tells a thousand changes apart, and no more', async () => {
    const feed = await begin()
    const many = (count: number) =>
      installation.owner.query(`insert into stratum.changes (kind, ref) select 'host', 'of ' || $1::int from generate_series(1, $1)`, [count])
    await many(1_000)
    expect(await feed.poll()).toEqual(Array.from({ length: 1_000 }, () => ({ kind: 'host', ref: 'of 1000' })))
    await many(1_001)
    expect(await feed.poll()).toBe('everything')
    expect(await feed.poll()).toEqual([])
  })

  it('reads what is new and not what else the feed holds, also behind a transaction that has run for long', async () => {
    const held = await openElsewhere()
    const client = new pg.Client(installation.urls.owner)
    await client.connect()
    try {
      await installation.owner.query(`insert into stratum.changes (kind, ref) select 'host', 'seen before' from generate_series(1, 5000)`)
      const position = await positionIn(installation.owner)
      for (const ref of ['one', 'two']) await change(ref)
      await client.query('begin')
      const { rows: told } = await client.query(`select stratum.read_changes('{}', $1) -> 'rows' as rows`, [position])
      expect(told[0].rows).toEqual([
        ['host', 'one'],
        ['host', 'two'],
      ])
      const { rows } = await client.query(`select seq_tup_read + idx_tup_fetch as read from pg_stat_xact_user_tables where relid = 'stratum.changes'::regclass`)
      expect(Number(rows[0].read)).toBeLessThan(20)
    } finally {
      await client.end()
      await held.close()
    }
  })

  it('that a later one has overtaken tells nothing and moves nothing back', async () => {
    const { db } = installation.services
    const late: Array<() => void> = []
    let delays = true
    const feed = new ChangeFeed(
      async (since) => {
        const answer = await db.call('read_changes', ITSELF, since)
        if (delays) await new Promise<void>((resolve) => late.push(resolve))
        return answer
      },
      () => 0,
    )
    feed.begin(await positionIn(installation.owner), 0)
    const overtaken = feed.poll()
    while (late.length === 0) await change('asks until the first answer waits')
    delays = false
    const changed = await open()
    await changed.write('later')
    await changed.commit()
    expect(refs(await feed.poll())).toContain('later')
    late[0]?.()
    expect(await overtaken).toEqual([])
    expect(feed.sees(changed.version)).toBe(true)
    expect(await feed.poll()).toEqual([])
  })

  it('is as old as the moment in which it was sent', async () => {
    let time = 100
    const position = await positionIn(installation.owner)
    const feed = new ChangeFeed(
      async () => {
        time = 900
        return { ...position, rows: [], complete: true }
      },
      () => time,
    )
    expect(feed.begun).toBe(false)
    expect(feed.begin(position, time)).toBe(true)
    expect(await feed.poll()).toEqual([])
    expect(feed.sentAt).toBe(100)
  })

  it('has had its changes taken before anybody is told that it sees them', async () => {
    const feed = await begin()
    const changed = await open()
    await changed.write('taken first')
    await changed.commit()
    let taken: Changes = []
    let seen = true
    await feed.poll((changes) => {
      taken = changes
      seen = feed.sees(changed.version)
    })
    expect({ taken: refs(taken), seen }).toEqual({ taken: ['taken first'], seen: false })
    expect(feed.sees(changed.version)).toBe(true)
  })

  it('without a position tells where the feed is', async () => {
    const feed = new ChangeFeed((since) => installation.services.db.call('read_changes', ITSELF, since), Date.now)
    await feed.open()
    await change('from there on')
    expect(refs(await feed.poll())).toEqual(['from there on'])
  })

  it.each([undefined, null, {}, { snapshot: 'x', identity: 'i', anchor: null }, { snapshot: '5:5:', identity: 'i', anchor: ['1', '5', 'n'] }])(
    'is not made from what is no position: %j',
    async (position) => {
      const feed = new ChangeFeed(() => Promise.reject(new Error('nobody is asked')), Date.now)
      expect([feed.begin(position, 0), feed.begun, feed.sees('3')]).toEqual([false, false, false])
      expect(await feed.poll()).toBe('everything')
    },
  )
})
