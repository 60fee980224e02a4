/** Kept contexts where requests, polls and changes overlap, or somebody asks for what cannot be. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { stratumError } from '../../src/core/error-classes.ts'
import { keepContexts } from '../../src/features/context/kept.ts'
import { createApp } from '../../src/http/app.ts'
import { Contexts, type Loaded } from '../../src/resolver/contexts.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { uniqueSlug } from '../support/tree.ts'
import { untilWaiting, whileOpen } from '../support/waiting.ts'

const answer = (value: string): Loaded<string> => ({
  value,
  tags: { path: 'a.b', names: [], principal: null, issuers: [] },
  feed: { snapshot: '5:5:', identity: 'x', anchor: null },
})
const nothingNew = async () => ({ snapshot: '9:9:', identity: 'x', anchor: null, rows: [], complete: true })

describe('the first answer of an isolate', () => {
  let installation: Installation
  beforeAll(async () => {
    installation = await createInstallation()
  })
  afterAll(() => installation.close())

  it.each(['/context', '/resolve'])('of %s is dropped for a change that was committed while it was read', async (path) => {
    const tenant = await installation.stratum.createTenant({ slug: uniqueSlug('torn'), name: 'Torn' })
    const { key, id } = await installation.stratum.createApiKey(tenant.id, { scopes: ['read'] })
    let time = 1_000_000
    const contexts = keepContexts(installation.services.db, { now: () => time })
    const app = createApp({ services: { ...installation.services, contexts }, version: 'test' })
    const asked = path === '/context' ? {} : { method: 'POST', body: JSON.stringify({ host: `${tenant.subdomain}.stratum.test` }) }
    const ask = async () => (await app.fetch(new Request(`http://stratum.test/api/v1${path}`, { ...asked, headers: { 'x-api-key': key } }))).status

    const first = await whileOpen(
      installation.owner,
      (held) => held.query('lock table stratum.permission_policies in access exclusive mode'),
      async (commit) => {
        const reading = ask()
        await untilWaiting(installation.owner)
        await installation.stratum.revokeApiKey(id)
        await commit()
        return reading
      },
    )
    expect(first).toBe(200)
    time += 2_001
    expect(await ask()).toBe(401)
  })
})

describe('a version that nobody has seen', () => {
  const kept = async (poll: () => Promise<unknown>) => {
    const contexts = new Contexts<string>(poll, { now: () => 0 })
    for (const key of ['mine', 'theirs']) await contexts.resolve(key, async () => answer(key))
    return contexts
  }

  it('costs one poll where the database has not given it out yet: nothing can hold it', async () => {
    const contexts = await kept(nothingNew)
    const mine = await contexts.resolve('mine', async () => answer('read anew'), { minimumVersion: '9999999999999999999' })
    expect(mine).toEqual({ value: 'mine', outcome: 'hit' })
    expect(contexts.counts.polls).toBe(1)
  })

  it('is read anew where its transaction runs, and drops nothing that others are served', async () => {
    const contexts = await kept(async () => ({ snapshot: '7:9:7', identity: 'x', anchor: null, rows: [], complete: true }))
    expect(await contexts.resolve('mine', async () => answer('read anew'), { minimumVersion: '7' })).toEqual({ value: 'read anew', outcome: 'miss' })
    expect(contexts.counts.polls).toBe(1)
    expect(await contexts.resolve('theirs', async () => answer('read anew'))).toEqual({ value: 'theirs', outcome: 'hit' })
  })
})

describe('a database that does not answer polls', () => {
  it('leaves nothing to be served past the grace, nor anything past the bound unmarked, however many ask', async () => {
    let time = 0
    const contexts = new Contexts<string>(() => new Promise(() => {}), { now: () => time, followerTimeout: 5, grace: 10_000 })
    await contexts.resolve('key', async () => answer('kept'))
    const outcomes = async () => {
      const asked = Array.from({ length: 20 }, async () => (await contexts.resolve('key', async () => answer('never'))).outcome)
      return new Set((await Promise.allSettled(asked)).map((each) => (each.status === 'fulfilled' ? each.value : each.reason.code)))
    }
    for (const [at, expected] of [
      [1_000, 'hit'],
      [2_001, 'stale'],
      [9_999, 'stale'],
      [10_001, 'DATABASE_UNAVAILABLE'],
      [500_000, 'DATABASE_UNAVAILABLE'],
    ] as const) {
      time = at
      for (let round = 0; round < 3; round++) expect(await outcomes(), `at ${at}`).toEqual(new Set([expected]))
    }
  })
})

describe('what a poll has dropped', () => {
  it('is not served as stale where the next poll fails', async () => {
    let time = 0
    let release = (_: unknown) => {}
    const dropped = { snapshot: '9:9:', identity: 'x', anchor: null, rows: [['subtree', 'a']], complete: true }
    const polls = [() => new Promise((resolve) => (release = resolve)), () => Promise.reject(stratumError('DATABASE_UNAVAILABLE'))]
    const contexts = new Contexts<string>(() => (polls.shift() ?? nothingNew)(), { now: () => time, maximumStaleness: 500, grace: 60_000 })
    await contexts.resolve('key', async () => answer('kept'))
    time = 1_000
    const first = contexts.resolve('key', async () => answer('new'))
    // joins a poll that was sent before it came, and so needs another
    time = 1_900
    const second = contexts.resolve('key', async () => answer('new'))
    time = 2_500
    release(dropped)
    expect((await first).value).toBe('new')
    expect(await second.catch((error: { code: string }) => error.code)).not.toMatchObject({ value: 'kept' })
  })
})

describe('what a poll tells of', () => {
  it('is dropped before the poll counts: nothing that runs in between is served it as fresh', async () => {
    let time = 0
    const tells = async () => ({ snapshot: '9:9:', identity: 'x', anchor: null, rows: [['subtree', 'a']], complete: true })
    const contexts = new Contexts<string>(tells, { now: () => time })
    await contexts.resolve('key', async () => answer('old'))
    time = 10_000
    const found = new Set<string | undefined>()
    const polling = contexts.resolve('key', async () => answer('new'))
    for (let turn = 0; turn < 50; turn++) {
      found.add(contexts.served('key', { minimumVersion: '8' })?.value)
      await Promise.resolve()
    }
    expect((await polling).value).toBe('new')
    expect(found).not.toContain('old')
  })

  it('is told to who else keeps something', async () => {
    let time = 0
    const told: unknown[] = []
    const tells = async () => ({ snapshot: '9:9:', identity: 'x', anchor: null, rows: [['issuer', 'https://a.test']], complete: true })
    const contexts = new Contexts<string>(tells, { now: () => time, onChanges: (changes) => told.push(changes) })
    await contexts.resolve('key', async () => answer('kept'))
    time = 3_000
    await contexts.resolve('key', async () => answer('never'))
    expect(told).toEqual([[{ kind: 'issuer', ref: 'https://a.test' }]])
  })
})

describe('a refusal', () => {
  const refused = (loads: { count: number }) => async (): Promise<Loaded<string>> => {
    loads.count++
    throw stratumError('TENANT_SUSPENDED')
  }

  it('is kept though nobody was answered anything else yet: the feed is asked where it is', async () => {
    const [loads, beside] = [{ count: 0 }, [] as Promise<unknown>[]]
    const position = { snapshot: '9:9:', identity: 'x', anchor: null }
    const contexts = new Contexts<string>(async (since) => (since === null ? position : { ...position, rows: [], complete: true }), { now: () => 0 })
    for (let request = 0; request < 20; request++) {
      await expect(contexts.resolve('key', refused(loads), { waitUntil: (work) => beside.push(work) })).rejects.toMatchObject({ code: 'TENANT_SUSPENDED' })
      await Promise.all(beside.splice(0))
    }
    expect(loads.count).toBe(2)
  })

  it('tells where it came from', async () => {
    const [loads, told] = [{ count: 0 }, [] as string[]]
    const contexts = new Contexts<string>(nothingNew, { now: () => 0 })
    await contexts.resolve('begins', async () => answer('begun'))
    for (let request = 0; request < 2; request++) {
      await expect(contexts.resolve('key', refused(loads), { tell: (outcome) => told.push(outcome) })).rejects.toMatchObject({ code: 'TENANT_SUSPENDED' })
    }
    expect(told).toEqual(['miss', 'hit'])
  })
})

describe('a poll that never ends, as its request was cut off', () => {
  it('is waited for once, and then there is another', async () => {
    let time = 0
    let hangs = true
    const contexts = new Contexts<string>(() => (hangs ? new Promise(() => {}) : nothingNew()), { now: () => time, followerTimeout: 20, grace: 0 })
    await contexts.resolve('key', async () => answer('kept'))
    time += 3_000
    await expect(contexts.resolve('key', async () => answer('never'))).rejects.toMatchObject({ code: 'DATABASE_UNAVAILABLE' })
    hangs = false
    expect(await contexts.resolve('key', async () => answer('never'))).toEqual({ value: 'kept', outcome: 'hit' })
  })

  it('makes who had joined it poll by itself', async () => {
    let time = 0
    let polls = 0
    const contexts = new Contexts<string>(() => (++polls === 1 ? new Promise(() => {}) : nothingNew()), { now: () => time, followerTimeout: 20, grace: 0 })
    await contexts.resolve('key', async () => answer('kept'))
    time += 3_000
    const first = contexts.resolve('key', async () => answer('never'))
    const joined = contexts.resolve('key', async () => answer('never'))
    await expect(first).rejects.toMatchObject({ code: 'DATABASE_UNAVAILABLE' })
    expect(await joined).toEqual({ value: 'kept', outcome: 'hit' })
    expect(polls).toBe(2)
  })

  it('is followed by another beside the requests that are still served', async () => {
    let time = 0
    let polls = 0
    const beside: Promise<unknown>[] = []
    const contexts = new Contexts<string>(() => (++polls === 1 ? new Promise(() => {}) : nothingNew()), { now: () => time })
    const served = () => contexts.resolve('key', async () => answer('never'), { waitUntil: (work) => beside.push(work) })
    await contexts.resolve('key', async () => answer('kept'))
    time += 1_100
    // Only who begins a poll keeps it alive: on Workers another's promise is not to be waited for after one's own answer.
    for (let request = 0; request < 3; request++) expect(await served()).toEqual({ value: 'kept', outcome: 'hit' })
    expect([polls, beside.length]).toEqual([1, 1])
    time += 1_000 - 100
    await served()
    expect([polls, beside.length]).toEqual([1, 1])
    time += 100
    await served()
    expect([polls, beside.length]).toEqual([2, 2])
  })

  it('is kept alive beside its request where the platform can', async () => {
    let time = 0
    const beside: Promise<unknown>[] = []
    const contexts = new Contexts<string>(nothingNew, { now: () => time })
    await contexts.resolve('key', async () => answer('kept'))
    time += 3_000
    await contexts.resolve('key', async () => answer('never'), { waitUntil: (work) => beside.push(work) })
    expect(beside).toHaveLength(1)
  })
})

describe('a poll for which the database is too busy', () => {
  it('leaves what is kept to be served within the grace', async () => {
    let time = 0
    const contexts = new Contexts<string>(() => Promise.reject(stratumError('DATABASE_BUSY')), { now: () => time, grace: 10_000 })
    await contexts.resolve('key', async () => answer('kept'))
    time += 3_000
    expect(await contexts.resolve('key', async () => answer('never'))).toEqual({ value: 'kept', outcome: 'stale' })
    time += 10_000
    await expect(contexts.resolve('key', async () => answer('never'))).rejects.toMatchObject({ code: 'DATABASE_BUSY' })
  })
})

describe('an answer that another request has asked for', () => {
  const joined = async (maximumStaleness: number) => {
    let time = 0
    const contexts = new Contexts<string>(nothingNew, { now: () => time, maximumStaleness })
    await contexts.resolve('begins', async () => answer('begun'))
    let release = (_: Loaded<string>) => {}
    let asked = () => {}
    const isAsked = new Promise<void>((resolve) => (asked = resolve))
    const first = contexts.resolve('key', () => {
      asked()
      return new Promise((resolve) => (release = resolve))
    })
    await isAsked
    time += 100
    const second = contexts.resolve('key', async () => answer('new'))
    await Promise.resolve()
    release(answer('old'))
    return [(await first).value, (await second).value]
  }

  it('is shared by who has to see a version that it holds, and by nobody else', async () => {
    const ask = async (minimumVersion: string) => {
      const contexts = new Contexts<string>(nothingNew, { now: () => 0 })
      let loads = 0
      const load = async () => {
        loads++
        await new Promise((resolve) => setImmediate(resolve))
        return answer('loaded')
      }
      await Promise.all(Array.from({ length: 50 }, () => contexts.resolve('key', load, { minimumVersion })))
      return loads
    }
    // the answer stands at snapshot 5:5:
    expect(await ask('4')).toBe(1)
    // one more that all of them may share would do, and a few are no flood
    expect(await ask('5')).toBeLessThanOrEqual(50)
  })

  it('is shared only as long as it is no older than what may be served', async () => {
    expect(await joined(2_000)).toEqual(['old', 'old'])
    expect(await joined(99)).toEqual(['old', 'new'])
    expect(await joined(0)).toEqual(['old', 'new'])
  })
})
