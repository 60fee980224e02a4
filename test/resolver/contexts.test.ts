/** Kept contexts: how fresh they are, what evicts them, and what happens without the database. */
import fc from 'fast-check'
import pg from 'pg'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { stratumError } from '../../src/core/error-classes.ts'
import type { Database } from '../../src/db/database.ts'
import { keepContexts } from '../../src/features/context/kept.ts'
import type { Tenant } from '../../src/features/tenants/contract.ts'
import { createApp } from '../../src/http/app.ts'
import { contextKey } from '../../src/resolver/context-cache.ts'
import { Contexts, type ContextsOptions, type Loaded } from '../../src/resolver/contexts.ts'
import { createEmptyDatabase, createInstallation, type Installation } from '../support/installation.ts'
import { plantTree } from '../support/tree.ts'

let installation: Installation
let tenants: Record<'root' | 'mid' | 'leaf' | 'other', Tenant>
beforeAll(async () => {
  installation = await createInstallation()
})
beforeEach(async () => {
  tenants = await plantTree(await installation.clientFor(null), { root: null, mid: 'root', leaf: 'mid', other: 'root' })
})
afterAll(() => installation.close())

/** An isolate of its own, with a clock that stands still until it is moved. */
function isolate(options: ContextsOptions = {}, db: Database = installation.services.db) {
  let time = 1_000_000
  const services = { ...installation.services, db }
  const contexts = keepContexts(db, { now: () => time, ...options })
  const app = createApp({ services: { ...services, contexts }, version: 'test' })
  const ask = async (token: string, headers: Record<string, string> = {}, host = 'http://stratum.test') => {
    const credential: Record<string, string> = token.startsWith('sk_') ? { 'x-api-key': token } : { authorization: `Bearer ${token}` }
    const response = await app.fetch(new Request(`${host}/api/v1/context`, { headers: { ...credential, ...headers } }))
    const body = (await response.json()) as {
      config: Record<string, { value: unknown }>
      principal: { id: string }
      tenant_id: string
      error: { code: string }
    }
    return { status: response.status, body, outcome: response.headers.get('server-timing'), stale: response.headers.get('stratum-stale') }
  }
  const pass = (ms: number) => {
    time += ms
  }
  return { contexts, ask, pass, app }
}

const tokenOf = (tenant: Tenant, subject = 'user-1') => installation.token({ tenant: tenant.slug, scope: 'read' }, { subject })
const set = (tenant: Tenant, value: number) => installation.stratum.setConfig(tenant.id, 'max_users', { value })
/** Requests to the database while `work` runs. */
async function requestsOf(work: () => Promise<unknown>): Promise<number> {
  const before = installation.databaseRequests()
  await work()
  return installation.databaseRequests() - before
}

describe('a kept context', () => {
  it('costs one database request when it is cold and none when it is warm', async () => {
    const { ask, contexts } = isolate()
    const token = await tokenOf(tenants.leaf)
    expect(await requestsOf(() => ask(token))).toBe(1)
    expect(await requestsOf(() => ask(token))).toBe(0)
    expect(contexts.counts).toMatchObject({ hits: 1, misses: 1, entries: 1 })
  })

  it('is stale without the feed, and no older than the bound with it', async () => {
    const token = await tokenOf(tenants.leaf)
    const [naive, fresh] = [isolate({ maximumStaleness: Number.POSITIVE_INFINITY, pollInterval: Number.POSITIVE_INFINITY }), isolate()]
    for (const { ask } of [naive, fresh]) await ask(token)
    await set(tenants.root, 7)
    for (const { pass } of [naive, fresh]) pass(2_001)
    expect((await naive.ask(token)).body.config['max_users']).toBeUndefined()
    expect((await fresh.ask(token)).body.config['max_users']?.value).toBe(7)
  })

  it('is evicted exactly: by what is above or on it, and by nothing beside it', async () => {
    const { ask, pass } = isolate()
    const [leaf, other] = [await tokenOf(tenants.leaf), await tokenOf(tenants.other)]
    for (const token of [leaf, other]) await ask(token)
    await set(tenants.mid, 3)
    pass(2_001)
    // one poll and one load; the other tenant's stays
    expect(await requestsOf(() => ask(leaf))).toBe(2)
    expect(await requestsOf(() => ask(other))).toBe(0)
  })

  it('is shared by the users of a tenant, and each gets it with the own name', async () => {
    const { ask } = isolate()
    expect((await ask(await tokenOf(tenants.leaf, 'ann'))).body.principal.id).toBe('ann')
    let answer: Awaited<ReturnType<typeof ask>> | undefined
    const requests = await requestsOf(async () => {
      answer = await ask(await tokenOf(tenants.leaf, 'bob'))
    })
    expect([requests, answer?.body.principal.id]).toEqual([0, 'bob'])
  })

  it('of a user is never that of nobody, though the user is just such a one as who asks', async () => {
    const { app } = isolate()
    const [server, user] = [await tokenOf(tenants.leaf, 'server'), await tokenOf(tenants.leaf, 'ann')]
    const resolve = async (body: object) => {
      const headers = { authorization: `Bearer ${server}`, 'content-type': 'application/json' }
      const response = await app.fetch(new Request('http://stratum.test/api/v1/resolve', { method: 'POST', headers, body: JSON.stringify(body) }))
      const answer = (await response.json()) as { principal?: { id: string }; error?: { code: string } }
      return answer.error?.code ?? answer.principal?.id
    }
    for (let round = 0; round < 2; round++) {
      expect(await resolve({ path: '/nothing', token: user })).toBe('ann')
      expect(await resolve({ path: '/nothing' })).toBe('TENANT_REQUIRED')
      expect(await resolve({ host: 'stratum.test' })).toBe('TENANT_REQUIRED')
    }
  })

  it('holds no secret', async () => {
    const { ask, contexts } = isolate()
    await installation.stratum.setConfig(tenants.leaf.id, 'password', { value: 'planted-marker', sensitive: true })
    const { body } = await ask(await tokenOf(tenants.leaf))
    expect(body.config['password']).toMatchObject({ value: null, sensitive: true })
    expect(contexts.counts.entries).toBe(1)
  })

  it.each<[string, (tenant: Tenant) => Promise<unknown>, number]>([
    ['a suspension', (tenant) => installation.stratum.suspendTenant(tenant.id), 403],
    ['an archiving', (tenant) => installation.stratum.archiveTenant(tenant.id), 410],
  ])('is refused after %s of its tenant, and so is the host, within the bound', async (_name, change, status) => {
    const { ask, pass } = isolate()
    const token = await tokenOf(tenants.leaf)
    await ask(token)
    await change(tenants.leaf)
    pass(2_001)
    expect((await ask(token)).status).toBe(status)
    expect(await requestsOf(() => ask(token))).toBe(0)
    await installation.stratum.resumeTenant(tenants.leaf.id)
    pass(2_001)
    expect((await ask(token)).status).toBe(200)
  })

  it('goes with the API key that asked for it, also where it asked on behalf of a user, and at its expiry', async () => {
    const { ask, pass, app } = isolate()
    const server = await installation.stratum.createApiKey(tenants.mid.id, { scopes: ['read'] })
    const body = JSON.stringify({ token: await tokenOf(tenants.leaf) })
    const headers = { 'x-api-key': server.key, 'content-type': 'application/json' }
    const resolve = () => app.fetch(new Request('http://stratum.test/api/v1/resolve', { method: 'POST', headers, body }))
    expect((await resolve()).status).toBe(200)
    expect(await requestsOf(async () => resolve())).toBe(0)
    await installation.stratum.revokeApiKey(server.id)
    pass(2_001)
    expect((await resolve()).status).toBe(401)

    const { key, id } = await installation.stratum.createApiKey(tenants.leaf.id, { scopes: ['read'] })
    await ask(key)
    await installation.stratum.revokeApiKey(id)
    pass(2_001)
    expect((await ask(key)).status).toBe(401)
    // the clock of the isolate stands in 1970, so whatever expires at all has not expired yet
    const expiring = await installation.stratum.createApiKey(tenants.leaf.id, { scopes: ['read'], expires_at: '2099-01-01T00:00:00Z' })
    const later = isolate({ now: () => Date.parse('2099-01-01T00:00:01Z') })
    await later.ask(expiring.key)
    expect(await requestsOf(() => later.ask(expiring.key))).toBe(1)
  })

  it('of a host that nobody has is kept too, until somebody has it', async () => {
    const { ask, pass } = isolate()
    const key = await installation.apiKey(null)
    const host = 'http://not-there-yet.stratum.test'
    await ask(key, {}, `http://${tenants.leaf.subdomain}.stratum.test`)
    expect((await ask(key, {}, host)).status).toBe(404)
    expect(await requestsOf(() => ask(key, {}, host))).toBe(0)
    await installation.stratum.createTenant({ slug: 'not_there_yet', name: 'There', parent_id: tenants.root.id })
    pass(2_001)
    expect((await ask(key, {}, host)).status).toBe(200)
  })
})

describe('who wrote', () => {
  it('sees the own write at once, from an isolate that had kept what was before', async () => {
    const { ask } = isolate()
    const token = await tokenOf(tenants.leaf)
    await ask(token)
    const key = await installation.apiKey(null)
    const written = await installation.fetch(
      new Request(`http://stratum.test/api/v1/tenants/${tenants.root.id}/config/max_users`, {
        method: 'PUT',
        headers: { 'x-api-key': key, 'content-type': 'application/json' },
        body: '{"value": 9}',
      }),
    )
    const version = written.headers.get('stratum-version') ?? ''
    expect(version).toMatch(/^\d+$/)
    expect((await ask(token)).body.config['max_users']).toBeUndefined()
    expect((await ask(token, { 'stratum-min-version': version })).body.config['max_users']?.value).toBe(9)
    expect(await requestsOf(() => ask(token, { 'stratum-min-version': version }))).toBe(0)
    const issues = [{ path: 'Stratum-Min-Version', message: 'must be what an answer said in Stratum-Version' }]
    const unread = await ask(token, { 'stratum-min-version': 'newest' })
    expect(unread).toMatchObject({ status: 400, body: { error: { code: 'INVALID_REQUEST', details: { issues } } } })
    // what the database has not given out, be it made up or of before a restore: as of now, as nothing is later
    expect((await ask(token, { 'stratum-min-version': '9999999999999999999' })).body.config['max_users']?.value).toBe(9)
  })

  it('is served from what is kept though a transaction is held open in another database of the server', async () => {
    const elsewhere = await createEmptyDatabase()
    const holder = new pg.Client(elsewhere.adminUrl)
    await holder.connect()
    try {
      await holder.query('begin; create table held (id int)')
      const { ask } = isolate()
      const token = await tokenOf(tenants.leaf)
      await ask(token)
      const client = await installation.clientFor(null)
      let version = ''
      await set(tenants.root, 1)
      const { rows } = await installation.owner.query('select xid::text from stratum.changes order by id desc limit 1')
      version = rows[0].xid
      await client.getTenant({ id: tenants.leaf.id })
      await ask(token, { 'stratum-min-version': version })
      expect(await requestsOf(() => ask(token, { 'stratum-min-version': version }))).toBe(0)
    } finally {
      await holder.end()
      await elsewhere.drop()
    }
  })
})

describe('the feed', () => {
  const settle = async (ask: ReturnType<typeof isolate>['ask'], token: string, pass: (ms: number) => void) => {
    pass(2_001)
    return (await ask(token)).body.config['max_users']?.value
  }
  /** A change of config by hand, in a transaction of the test's. */
  async function changing(tenant: Tenant, value: number) {
    const client = new pg.Client(installation.urls.owner)
    await client.connect()
    const actor = { credential: { type: 'embedded', actor_id: 'test', actor_type: 'system' }, named: [], exposed: false, request_id: null, source_ip: null }
    const input = { id: tenant.id, key: 'max_users', value, locked: false, sensitive: false }
    await client.query('begin')
    await client.query('select stratum.set_config($1, $2)', [actor, input])
    return {
      commit: async () => {
        await client.query('commit')
        await client.end()
      },
    }
  }

  it('tells of a transaction that began first and committed last, which a reader of the greatest id misses', async () => {
    const { ask, pass } = isolate()
    const token = await tokenOf(tenants.leaf)
    await ask(token)
    const first = await changing(tenants.leaf, 1)
    await set(tenants.other, 2)
    const { rows: seen } = await installation.owner.query('select max(id) as id from stratum.changes')
    await settle(ask, token, pass)
    await first.commit()

    const { rows: naive } = await installation.owner.query('select from stratum.changes where id > $1', [seen[0].id])
    expect(naive).toEqual([])
    expect(await settle(ask, token, pass)).toBe(1)
  })

  it('that was trimmed past us empties everything, and so does a restored database', async () => {
    const { ask, pass, contexts } = isolate()
    const token = await tokenOf(tenants.leaf)
    const whole = async (change: string, back?: string) => {
      await ask(token)
      const evicted = contexts.counts.evictions
      await installation.owner.query(change)
      pass(2_001)
      // a poll, and a load as nothing was left
      expect(await requestsOf(() => ask(token))).toBe(2)
      expect(contexts.counts.evictions).toBeGreaterThan(evicted)
      if (back) await installation.owner.query(back)
      pass(2_001)
      expect(await requestsOf(() => ask(token))).toBe(1)
    }
    await set(tenants.other, 1)
    // Trimmed up to now it is trimmed past whatever runs in another database, too; a real one is trimmed up to an hour ago.
    await whole('update stratum.installation set changes_trimmed_to = pg_current_xact_id()', `update stratum.installation set changes_trimmed_to = '0'`)
    await whole('update stratum.installation set feed_epoch = gen_random_uuid()')
    await whole('update stratum.changes set nonce = gen_random_uuid() where id = (select max(id) from stratum.changes)')
  })

  it('is trimmed of what is old, and remembers how far', async () => {
    await set(tenants.other, 1)
    const { rows: before } = await installation.owner.query('select max(xid)::text as xid from stratum.changes')
    await installation.owner.query(`update stratum.changes set created_at = now() - interval '2 hours'`)
    await installation.owner.query(`select stratum.trim_changes(interval '1 hour')`)
    const { rows } = await installation.owner.query(
      'select (select count(*)::int from stratum.changes) as left, changes_trimmed_to::text as up_to from stratum.installation',
    )
    expect(rows[0]).toEqual({ left: 0, up_to: before[0].xid })
  })
})

describe('a cold tenant', () => {
  it('that many ask for at once costs one database request', async () => {
    const { ask, contexts } = isolate()
    const token = await tokenOf(tenants.leaf)
    const answers: Awaited<ReturnType<typeof ask>>[] = []
    const requests = await requestsOf(async () => {
      answers.push(...(await Promise.all(Array.from({ length: 50 }, () => ask(token)))))
    })
    expect(requests).toBe(1)
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]))
    expect(contexts.counts.misses).toBe(50)
  })

  const answer = (value: string): Loaded<string> => ({
    value,
    tags: { path: 'a.b', names: [], principal: null, issuers: [] },
    feed: { snapshot: '5:5:', identity: 'x', anchor: null },
  })

  it('is asked for again by who waited long enough for a request that never ends', async () => {
    const contexts = new Contexts<string>(async () => ({}), { followerTimeout: 20 })
    const hung = contexts.resolve('key', () => new Promise(() => {}))
    void hung.catch(() => undefined)
    expect(await contexts.resolve('key', async () => answer('second'))).toEqual({ value: 'second', outcome: 'miss' })
  })

  it('is not kept as it was read before a change that was told of meanwhile', async () => {
    let time = 0
    const changes: string[][][] = [[], [['subtree', 'a']]]
    const poll = async () => ({ snapshot: '9:9:', identity: 'x', anchor: null, rows: changes.shift() ?? [], complete: true })
    const contexts = new Contexts<string>(poll, { now: () => time })
    await contexts.resolve('begins', async () => answer('begun'))
    let release = (_: Loaded<string>) => {}
    const racing = contexts.resolve('racing', () => new Promise((resolve) => (release = resolve)))
    for (let round = 0; round < 2; round++) {
      time += 3_000
      await contexts.resolve('begins', async () => answer('again'))
    }
    release(answer('old'))
    expect(await racing).toEqual({ value: 'old', outcome: 'miss' })
    expect(await contexts.resolve('racing', async () => answer('new'))).toEqual({ value: 'new', outcome: 'miss' })
  })
})

describe('without the database', () => {
  function failing() {
    let away = false
    let asked = 0
    const { db } = installation.services
    const call: Database['call'] = (...input) => {
      asked++
      return away ? Promise.reject(stratumError('DATABASE_UNAVAILABLE')) : db.call(...input)
    }
    const fail = (now: boolean) => {
      away = now
    }
    return { db: { call }, fail, asked: () => asked }
  }

  it('what is kept is served within the grace and marked, then refused; it comes back by itself', async () => {
    const { db, fail } = failing()
    const { ask, pass, contexts } = isolate({ grace: 60_000 }, db)
    const token = await tokenOf(tenants.leaf)
    await ask(token)
    fail(true)
    pass(10_000)
    expect(await ask(token)).toMatchObject({ status: 200, stale: 'true', outcome: expect.stringContaining('context;desc=stale') })
    expect(contexts.counts.stale).toBe(1)
    pass(60_000)
    expect(await ask(token)).toMatchObject({ status: 503, body: { error: { code: 'DATABASE_UNAVAILABLE' } } })
    expect((await ask(await tokenOf(tenants.other))).status).toBe(503)
    fail(false)
    pass(60_000)
    expect(await ask(token)).toMatchObject({ status: 200, stale: null })
  })

  it('is not asked again and again while it does not answer', async () => {
    const { db, fail, asked } = failing()
    const { ask, pass } = isolate({}, db)
    const token = await tokenOf(tenants.leaf)
    await ask(token)
    fail(true)
    pass(3_000)
    for (let request = 0; request < 20; request++) await ask(token)
    expect(asked()).toBeLessThanOrEqual(1 + 3)
    fail(false)
    pass(30_000)
    expect((await ask(token)).outcome).toContain('context;desc=hit')
  })
})

describe('the key of what is kept', () => {
  const credential = fc.record({
    type: fc.constant('token' as const),
    issuer: fc.string(),
    tenant: fc.option(fc.string()),
    scopes: fc.array(fc.constantFrom('read' as const, 'write' as const)),
  })
  const named = fc.array(fc.record({ source: fc.constantFrom('path' as const, 'header' as const), tenant: fc.string() }), { maxLength: 3 })
  const question = fc.tuple(credential, fc.string(), named)

  it('is the same only for the same question, whoever of the tenant asks', () => {
    const keyOf = ([who, operation, names]: typeof question extends fc.Arbitrary<infer T> ? T : never, subject: string) =>
      contextKey({ ...who, subject, issuer_tenant_id: null, global: false }, operation, names)
    fc.assert(
      fc.property(question, question, (a, b) => {
        expect(keyOf(a, 'ann') === keyOf(b, 'bob')).toBe(JSON.stringify(a) === JSON.stringify(b))
      }),
    )
  })
})
