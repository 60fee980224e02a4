/** Whose context a forwarded request gets, and what that costs the database. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parseIssuers } from '../../src/auth/issuers.ts'
import { TokenVerifier } from '../../src/auth/tokens.ts'
import { stratumError } from '../../src/core/error-classes.ts'
import { StratumError } from '../../src/core/errors.ts'
import type { Database } from '../../src/db/database.ts'
import { keepContexts } from '../../src/features/context/kept.ts'
import { askDatabaseForIssuer } from '../../src/features/issuers/stored.ts'
import type { Tenant } from '../../src/features/tenants/contract.ts'
import { generateContextKey } from '../../src/gateway/context-keys.ts'
import { ContextTokens } from '../../src/gateway/context-token.ts'
import { createGateway } from '../../src/gateway/gateway.ts'
import { Origins } from '../../src/gateway/origins.ts'
import { resolveArrivals } from '../../src/gateway/resolve.ts'
import type { RequestFacts } from '../../src/http/log.ts'
import { type Limit, RateLimiter } from '../../src/http/rate-limit.ts'
import { startOrigin } from '../edge/gateway-origin.ts'
import { AUDIENCE, createInstallation, type Installation, ISSUER, JWT_SECRET } from '../support/installation.ts'
import { ownIssuer } from '../support/issuers.ts'
import { plantTree } from '../support/tree.ts'

let installation: Installation
let t: Record<'acme' | 'north' | 'other', Tenant>
beforeAll(async () => {
  installation = await createInstallation()
  t = await plantTree(await installation.clientFor(null), { acme: null, north: 'acme', other: null })
})
afterAll(() => installation.close())

const FIVE = { requests: 5, seconds: 60 }
const KEY = { kty: 'oct', k: Buffer.from(JWT_SECRET).toString('base64url') }
const ENVIRONMENT = JSON.stringify([{ issuer: ISSUER, audience: AUDIENCE, algorithms: ['HS256'], keys: [KEY], max_scopes: ['admin'] }])

/** An isolate of its own, with a clock that stands still until it is moved. */
function isolate({ refused }: { refused?: Limit } = {}) {
  let time = Date.now()
  let away = false
  let asked: string[] = []
  const now = () => time
  const db: Database = {
    async call(operation, ...rest) {
      asked.push(operation)
      if (away) throw stratumError('DATABASE_UNAVAILABLE')
      return installation.services.db.call(operation, ...rest)
    },
  }
  const tokens = new TokenVerifier(parseIssuers(ENVIRONMENT), { stored: askDatabaseForIssuer(db), now })
  const services = { ...installation.services, db, tokens, contexts: keepContexts(db, { now, onChanges: (changes) => tokens.changed(changes) }) }
  const resolve = resolveArrivals(services, new RateLimiter({ refused, now }))

  /** What a request to a tenant's host resolves to, as far as it differs, or the code of its refusal; once all is done that goes on beside it. */
  async function visit(host: string | Tenant, headers: Record<string, string> = {}, { address = '192.0.2.1' } = {}) {
    const beside: Promise<unknown>[] = []
    const facts: RequestFacts = {}
    const named = { source: 'subdomain', tenant: typeof host === 'string' ? host : host.slug.replaceAll('_', '-') } as const
    const fields = new Map(Object.entries({ 'cf-connecting-ip': address, ...headers }))
    try {
      const context = await resolve({ fields, named, requestId: 'one', facts, waitUntil: (work) => beside.push(work) })
      await Promise.all(beside)
      return { tenant_id: context?.tenant_id ?? null, principal: context?.principal?.id ?? null, facts, context }
    } catch (error) {
      if (!(error instanceof StratumError)) throw error
      return { refused: error.code, retryAfter: error.retryAfter, facts }
    }
  }
  return {
    resolve,
    visit,
    pass: (milliseconds: number) => {
      time += milliseconds
    },
    setAway: (value: boolean) => {
      away = value
    },
    /** What the database was asked for since the last look. */
    asked() {
      const before = asked
      asked = []
      return before
    },
  }
}

const bearer = (token: string) => ({ authorization: `Bearer ${token}` })
const foreign = () => ownIssuer().token()

describe('tokens of issuers that nobody knows', () => {
  it('would each cost a request to the database, and so are asked about from one address so often and no oftener', async () => {
    const unlimited = isolate()
    await unlimited.visit(t.acme)
    unlimited.asked()
    for (let n = 0; n < 8; n++) expect(await unlimited.visit(t.acme, bearer(await foreign()))).toMatchObject({ tenant_id: t.acme.id, principal: null })
    expect(unlimited.asked()).toEqual(Array(8).fill('read_issuer'))

    const { visit, asked, pass } = isolate({ refused: FIVE })
    await visit(t.acme)
    asked()
    for (let n = 0; n < 5; n++) expect(await visit(t.acme, bearer(await foreign()))).toMatchObject({ tenant_id: t.acme.id, principal: null })
    for (let n = 0; n < 3; n++) {
      expect(await visit(t.acme, bearer(await foreign()))).toMatchObject({ refused: 'RATE_LIMITED', retryAfter: expect.any(Number) })
    }
    expect(asked()).toHaveLength(5)
    // What needs no guess is served to the same address, and another one may guess for itself.
    expect(await visit(t.acme)).toMatchObject({ tenant_id: t.acme.id, principal: null })
    expect(await visit(t.acme, bearer('opaque'))).toMatchObject({ tenant_id: t.acme.id, principal: null })
    expect(await visit(t.acme, bearer(await foreign()), { address: '192.0.2.2' })).toMatchObject({ tenant_id: t.acme.id })
    pass(60_000)
    expect(await visit(t.acme, bearer(await foreign()))).toMatchObject({ tenant_id: t.acme.id })
  })

  it("that are an app's own are asked about once, and the feed tells when that changes", async () => {
    const { visit, asked, pass, setAway } = isolate()
    const own = bearer(await foreign())
    await visit(t.acme)
    expect(await visit(t.acme, own)).toMatchObject({ tenant_id: t.acme.id, principal: null })
    asked()
    for (let second = 1; second <= 12; second++) {
      pass(1_000)
      await visit(t.acme, own)
    }
    expect(asked().filter((operation) => operation === 'read_issuer')).toEqual([])
    setAway(true)
    pass(20_000)
    expect(await visit(t.acme, own)).toMatchObject({ tenant_id: t.acme.id, principal: null, facts: { context: 'stale' } })
    // One that was never met may be one of ours.
    expect(await visit(t.acme, bearer(await foreign()))).toMatchObject({ refused: 'DATABASE_UNAVAILABLE' })
  })

  it('are no guesses where their issuer is known to be none of ours, and pass though the database is away', async () => {
    const { visit, pass, setAway, asked } = isolate({ refused: { requests: 2, seconds: 1_000_000 } })
    const issuer = ownIssuer()
    await visit(t.acme, bearer(await issuer.token({ index: 0 })))
    asked()
    for (let index = 1; index <= 5; index++) {
      pass(6_000)
      expect(await visit(t.acme, bearer(await issuer.token({ index })))).toMatchObject({ tenant_id: t.acme.id, principal: null })
    }
    expect(asked().filter((operation) => operation === 'read_issuer')).toEqual([])
    setAway(true)
    pass(20_000)
    expect(await visit(t.acme, bearer(await issuer.token({ index: 6 })))).toMatchObject({ principal: null, facts: { context: 'stale' } })
  })

  it('are somebody’s within the bound once their issuer is stored, however long nobody asked', async () => {
    const { visit, pass } = isolate()
    const issuer = ownIssuer()
    const token = bearer(await issuer.token({ tenant: t.acme.slug }))
    expect(await visit(t.acme, token)).toMatchObject({ principal: null })
    await installation.stratum.createIssuer({ ...issuer.fields(), tenant_claim: 'tenant', tenant_id: t.acme.id })
    pass(300_000)
    expect(await visit(t.acme, token)).toMatchObject({ tenant_id: t.acme.id, principal: 'ada' })
  })

  it.each([false, true])('are judged anew in the very request that finds their issuer gone, replaced: %s', async (replaced) => {
    const { visit, pass } = isolate()
    const issuer = ownIssuer()
    const fields = issuer.fields({ tenant_id: t.acme.id })
    const stored = await installation.stratum.createIssuer(fields)
    const token = bearer(await issuer.token({ tenant: t.acme.slug }))
    expect(await visit(t.acme, token)).toMatchObject({ principal: 'ada' })
    await installation.stratum.deleteIssuer(stored.id)
    if (replaced) await installation.stratum.createIssuer(fields)
    pass(2_001)
    expect(await visit(t.acme, token)).toMatchObject({ tenant_id: t.acme.id, principal: replaced ? 'ada' : null })
  })
})

describe('hosts that nobody has', () => {
  it('count once each: what is answered from memory is no guess', async () => {
    const { visit, asked } = isolate({ refused: FIVE })
    await visit(t.acme)
    asked()
    for (let n = 0; n < 8; n++) expect(await visit('nobody')).toMatchObject({ refused: 'TENANT_NOT_FOUND' })
    expect(asked()).toEqual(['visit_tenant'])
    expect(await visit(t.other)).toMatchObject({ tenant_id: t.other.id })
    for (let n = 0; n < 4; n++) expect(await visit(`nobody-${n}`)).toMatchObject({ refused: 'TENANT_NOT_FOUND' })
    expect(await visit('nobody-else')).toMatchObject({ refused: 'RATE_LIMITED' })
    expect(await visit(t.other)).toMatchObject({ tenant_id: t.other.id })
  })
})

describe('Stratum-Min-Version', () => {
  it('counts for who is known, and is nothing for a visitor, to whom it would give the database', async () => {
    const { visit, asked } = isolate()
    const token = bearer(await installation.token({ tenant: t.acme.slug, scope: 'read' }))
    const unseen = { 'stratum-min-version': '9999999999999999999' }
    await visit(t.acme)
    await visit(t.acme, token)
    asked()
    expect(await visit(t.acme, unseen)).toMatchObject({ facts: { principal: 'visitor', context: 'hit' } })
    expect(asked()).toEqual([])
    expect(await visit(t.acme, { ...token, ...unseen })).toMatchObject({ principal: 'user-1' })
    expect(asked()).toContain('read_changes')
    expect(await visit(t.acme, { ...token, 'stratum-min-version': 'latest' })).toMatchObject({ refused: 'REQUEST_NOT_FORWARDABLE' })
  })
})

describe('while the database is away', () => {
  it('what is kept goes on to the app, and the answer says that it may be stale', async () => {
    const origin = await startOrigin()
    const { resolve, pass, setAway } = isolate()
    const origins = new Origins({ services: {}, development: true })
    const tokens = new ContextTokens([await generateContextKey('one')], { issuer: 'https://gateway.test', configKeys: [] })
    const gateway = createGateway({ hosts: installation.services.hosts, resolve, tokens, origins, origin: origins.ofEnvironment(origin.url) })
    const url = `http://${t.acme.slug.replaceAll('_', '-')}.stratum.test/`
    const visit = async () => (await gateway(new Request(url))) ?? new Response(null, { status: 418 })
    try {
      expect((await visit()).headers.get('stratum-stale')).toBeNull()
      setAway(true)
      pass(10_000)
      const stale = await visit()
      expect([stale.status, stale.headers.get('stratum-stale')]).toEqual([200, 'true'])
      const { headers } = (await stale.json()) as { headers: Record<string, string> }
      expect(headers).toHaveProperty('stratum-context')
      pass(60_000)
      expect([(await visit()).status, (await visit()).headers.get('stratum-error')]).toEqual([503, '1'])
    } finally {
      await origin.close()
    }
  })
})

describe('what is found out for the log', () => {
  it('says what named the tenant, what kind of principal asked, where the context came from and what it cost', async () => {
    const { visit } = isolate()
    const token = bearer(await installation.token({ tenant: t.acme.slug, scope: 'read' }))
    const key = { 'x-api-key': await installation.apiKey(t.acme.id, ['read']) }
    expect((await visit(t.north, token)).facts).toEqual({ sources: 'subdomain token', principal: 'token', context: 'miss', database_ms: expect.any(Number) })
    expect((await visit(t.north, token)).facts).toEqual({ sources: 'subdomain token', principal: 'token', context: 'hit' })
    expect((await visit(t.north, key)).facts).toMatchObject({ principal: 'api_key', context: 'miss' })
    expect((await visit(t.north)).facts).toMatchObject({ principal: 'visitor', context: 'miss' })
  })
})

describe('contexts that are kept', () => {
  it('are one and the same for one user, and show no user another', async () => {
    const { visit } = isolate()
    const [ann, bob] = await Promise.all(['ann', 'bob'].map((subject) => installation.token({ tenant: t.acme.slug, scope: 'read' }, { subject })))
    const contextFor = async (token: string | undefined) => (await visit(t.acme, bearer(token ?? ''))).context
    const first = await contextFor(ann)
    expect(await contextFor(ann)).toEqual(first)
    expect([first?.principal?.id, (await contextFor(bob))?.principal?.id, (await contextFor(ann))?.principal?.id]).toEqual(['ann', 'bob', 'ann'])
    expect((await visit(t.acme)).context?.principal).toBeNull()
  })
})
