/** What a bearer token reaches, by its issuer and its claims; and that a bad one is refused for good. */
import { decodeJwt, SignJWT } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parseIssuers } from '../../src/auth/issuers.ts'
import { TokenVerifier } from '../../src/auth/tokens.ts'
import type { Scope } from '../../src/core/scopes.ts'
import type { Tenant } from '../../src/features/tenants/contract.ts'
import { createApp } from '../../src/http/app.ts'
import type { StratumClient } from '../../src/sdk/client.ts'
import { type Answer, ask, expectRefusal } from '../support/answers.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { idsOf, plantTree, refusal, uniqueSlug } from '../support/tree.ts'

type IssuerName = 'open' | 'bound' | 'global' | 'paused' | 'gone'
let installation: Installation
let t: Record<'acme' | 'north' | 'alpha' | 'paused' | 'apex', Tenant>
let fetchApp: (request: Request) => Response | Promise<Response>

const secretOf = (name: string) => `the-secret-of-${name}-which-is-long-enough-for-HS512-and-then-some-more-characters`
const urlOf = (name: string) => `https://${name}.test`
const issuer = (name: IssuerName, more: object) => ({
  issuer: urlOf(name),
  audience: 'stratum',
  algorithms: ['HS256'],
  keys: [{ kty: 'oct', k: Buffer.from(secretOf(name)).toString('base64url') }],
  max_scopes: ['admin'],
  ...more,
})
const sign = (name: IssuerName, claims: Record<string, unknown>, { alg = 'HS256', audience = 'stratum', expires = '5m', secret = secretOf(name) } = {}) =>
  new SignJWT({ scope: 'admin', ...claims })
    .setProtectedHeader({ alg })
    .setIssuer(urlOf(name))
    .setAudience(audience)
    .setSubject('user-7')
    .setExpirationTime(expires)
    .sign(new TextEncoder().encode(secret))

beforeAll(async () => {
  installation = await createInstallation()
  t = await plantTree(await installation.clientFor(null), { acme: null, north: 'acme', alpha: 'north', paused: 'acme', apex: null })
  await installation.stratum.suspendTenant(t.paused.id)
  const issuers = [
    issuer('open', { max_scopes: ['write'] }),
    issuer('bound', { tenant_id: t.north.id }),
    issuer('global', { global: true }),
    issuer('paused', { tenant_id: t.paused.id }),
    issuer('gone', { tenant_id: crypto.randomUUID() }),
  ]
  const services = { ...installation.services, tokens: new TokenVerifier(parseIssuers(JSON.stringify(issuers))) }
  const app = createApp({ services, version: 'test' })
  fetchApp = (request) => app.fetch(request)
})
afterAll(() => installation.close())

const clientWith = (token: string, more: object = {}): StratumClient => installation.client({ token, fetch: fetchApp, ...more })
const contextOf = (token: string): Promise<Answer> => ask(fetchApp, '/api/v1/context', { token })
const refusedFor = async (token: string) => expectRefusal(await contextOf(token), 'TOKEN_INVALID')['reason']

describe('a token of an issuer bound to nothing', () => {
  it('is bound to the tenant it names, by id or by slug', async () => {
    for (const tenant of [t.north.id, t.north.id.toUpperCase(), t.north.slug]) {
      const { principal, tenant_id, acting_as } = await clientWith(await sign('open', { tenant })).getContext()
      expect({ tenant_id, acting_as, principal }).toEqual({
        tenant_id: t.north.id,
        acting_as: undefined,
        principal: { type: 'token', id: 'user-7', tenant_id: t.north.id, scopes: ['read', 'write'] },
      })
    }
  })
  it('reaches that subtree and no more', async () => {
    const north = clientWith(await sign('open', { tenant: t.north.slug }))
    expect(idsOf((await north.listTenants()).data)).toEqual([t.north.id, t.alpha.id])
    await refusal(north.getTenant({ id: t.acme.id }), 'TENANT_NOT_FOUND')
  })
  it('that names no tenant, or one that is not there, is refused, never everything', async () => {
    expect(await refusedFor(await sign('open', {}))).toMatch(/names no tenant and its issuer is bound to none/)
    expect(await refusedFor(await sign('open', { tenant: uniqueSlug('nobody') }))).toMatch(/no tenant that its issuer may speak for/)
    for (const tenant of [null, '', 7, ['north'], { id: t.north.id }]) expect(await refusedFor(await sign('open', { tenant }))).toMatch(/not a text/)
  })
})

describe('a token of an issuer bound to a tenant', () => {
  it('without a claim is bound to that tenant', async () => {
    expect((await clientWith(await sign('bound', {})).getContext()).tenant_id).toBe(t.north.id)
  })
  it('may name a tenant below it, and is bound there', async () => {
    const alpha = clientWith(await sign('bound', { tenant: t.alpha.slug }))
    expect(idsOf((await alpha.listTenants()).data)).toEqual([t.alpha.id])
  })
  it('may name no tenant above or beside it, and is told of those what it is told of none', async () => {
    const reasons = await Promise.all(
      [t.acme.slug, t.apex.id, t.paused.slug, 'nobody_at_all'].map(async (tenant) => refusedFor(await sign('bound', { tenant }))),
    )
    expect(new Set(reasons)).toEqual(new Set(['it names no tenant that its issuer may speak for']))
  })
  it('is blocked while that tenant is suspended, and refused when it is no more', async () => {
    expectRefusal(await contextOf(await sign('paused', {})), 'TENANT_SUSPENDED')
    expect(await refusedFor(await sign('gone', {}))).toMatch(/tenant that does not exist/)
    expect(await refusedFor(await sign('gone', { tenant: t.apex.slug }))).toMatch(/tenant that does not exist/)
  })
})

describe('a token of a global issuer', () => {
  it('without a claim reaches everything, with one no more than that tenant', async () => {
    const all = clientWith(await sign('global', {}))
    expect(idsOf((await all.listTenants()).data)).toContain(t.apex.id)
    expectRefusal(await contextOf(await sign('global', {})), 'TENANT_REQUIRED')
    const north = clientWith(await sign('global', { tenant: t.north.id }))
    await refusal(north.getTenant({ id: t.apex.id }), 'TENANT_NOT_FOUND')
    await refusal(north.createTenant({ slug: uniqueSlug('root'), name: 'Root' }), 'GLOBAL_ADMIN_REQUIRED')
  })
})

describe('the scopes of a token', () => {
  const cases: Array<[claim: unknown, scopes: Scope[]]> = [
    ['admin', ['read', 'write']],
    ['read', ['read']],
    [
      ['write', 'made:up'],
      ['read', 'write'],
    ],
    ['secrets:read read', ['read']],
  ]
  it.each(cases)('are those of the claim %j that its issuer may grant', async (scope, scopes) => {
    const { principal } = await clientWith(await sign('open', { tenant: t.north.slug, scope })).getContext()
    expect(principal.scopes).toEqual(scopes)
  })
  it.each([[''], ['owner'], [[]], ['ADMIN'], ['admin,write']])('that are none of ours (%j) allow nothing', async (scope) => {
    expectRefusal(await contextOf(await sign('open', { tenant: t.north.slug, scope })), 'SCOPE_REQUIRED')
  })
})

describe('a token that is not right', () => {
  const tampered = (token: string, claims: object) => {
    const [header, , signature] = token.split('.')
    return `${header}.${Buffer.from(JSON.stringify({ ...decodeJwt(token), ...claims })).toString('base64url')}.${signature}`
  }
  const withHeader = (token: string, header: object, signature = token.split('.')[2]) =>
    `${Buffer.from(JSON.stringify(header)).toString('base64url')}.${token.split('.')[1]}.${signature}`
  const bad: Array<[what: string, make: () => Promise<string> | string]> = [
    ['expired', () => sign('bound', {}, { expires: '-1m' })],
    ['of another audience', () => sign('bound', {}, { audience: 'elsewhere' })],
    ['of an algorithm its issuer does not use', () => sign('bound', {}, { alg: 'HS512' })],
    ['signed with the key of another issuer', () => sign('bound', {}, { secret: secretOf('open') })],
    ['with claims changed after signing', async () => tampered(await sign('bound', {}), { tenant: t.apex.slug })],
    ['with its expiry changed after signing', async () => tampered(await sign('bound', {}, { expires: '-1h' }), { exp: 4_000_000_000 })],
    ['with its issuer changed after signing', async () => tampered(await sign('open', {}), { iss: urlOf('global') })],
    ['of algorithm none', async () => withHeader(await sign('bound', {}), { alg: 'none' }, '')],
    ['of algorithm none with a signature', async () => withHeader(await sign('bound', {}), { alg: 'none' })],
    ['with its signature cut off', async () => `${(await sign('bound', {})).split('.').slice(0, 2).join('.')}.`],
    ['of two parts', async () => (await sign('bound', {})).split('.').slice(0, 2).join('.')],
    ['with critical headers', async () => withHeader(await sign('bound', {}), { alg: 'HS256', crit: ['b64'], b64: false })],
    ['longer than anybody needs', () => sign('bound', { padding: 'x'.repeat(20_000) })],
    ['no token at all', () => 'not-a-token'],
  ]
  it.each(bad)('is refused: %s', async (_, make) => {
    const token = await make()
    const answer = await contextOf(token)
    expect(expectRefusal(answer, 'TOKEN_INVALID')['reason']).toMatch(/\w/)
    expect(answer.headers.get('www-authenticate')).toBe('Bearer')
    expect(answer.text).not.toContain(token)
  })
  it('never falls back to what else the request names', async () => {
    const token = await sign('bound', {}, { expires: '-1m' })
    const base = `http://${t.north.subdomain}.stratum.test`
    expectRefusal(await ask(fetchApp, '/api/v1/context', { token, base }), 'TOKEN_INVALID')
    expectRefusal(await ask(fetchApp, `/t/${t.north.slug}/api/v1/context`, { token }), 'TOKEN_INVALID')
    expectRefusal(await ask(fetchApp, '/api/v1/context', { token, headers: { 'x-tenant-id': t.north.id } }), 'TOKEN_INVALID')
    expectRefusal(await ask(fetchApp, '/api/v1/health', { token }), 'TOKEN_INVALID')
  })
  it('is no API key, and an API key no token', async () => {
    expectRefusal(await ask(fetchApp, '/api/v1/context', { apiKey: await sign('bound', {}) }), 'API_KEY_INVALID')
    expectRefusal(await ask(fetchApp, '/api/v1/context', { token: `sk_test_${'C'.repeat(43)}` }), 'API_KEY_INVALID')
    expect((await ask(fetchApp, '/api/v1/context', { token: await installation.apiKey(t.north.id) })).status).toBe(200)
  })
})
