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
  it('drops nothing that others are served', async () => {
    const contexts = new Contexts<string>(nothingNew, { now: () => 0 })
    for (const key of ['mine', 'theirs']) await contexts.resolve(key, async () => answer(key))
    const mine = await contexts.resolve('mine', async () => answer('read anew'), { minimumVersion: '9999999999999999999' })
    expect(mine).toEqual({ value: 'read anew', outcome: 'miss' })
    expect(contexts.counts.polls).toBe(1)
    expect(await contexts.resolve('theirs', async () => answer('read anew'))).toEqual({ value: 'theirs', outcome: 'hit' })
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

  it('is shared only as long as it is no older than what may be served', async () => {
    expect(await joined(2_000)).toEqual(['old', 'old'])
    expect(await joined(99)).toEqual(['old', 'new'])
    expect(await joined(0)).toEqual(['old', 'new'])
  })
})
