/** POST /resolve: a server asks which tenant its own caller's host, path and token mean. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ErrorCode } from '../../src/core/errors.ts'
import type { Tenant } from '../../src/features/tenants/contract.ts'
import type { StratumClient } from '../../src/sdk/client.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { refusal } from '../support/tree.ts'

type Slug = 'acme' | 'north_star' | 'alpha' | 'apex' | 'paused'
let installation: Installation
const t = {} as Record<Slug, Tenant>
let global: StratumClient
/** A server of NorthStar's. */
let server: StratumClient
const tokens = {} as Record<Slug, string>
beforeAll(async () => {
  installation = await createInstallation()
  const parents: Array<[Slug, Slug | null]> = [
    ['acme', null],
    ['north_star', 'acme'],
    ['alpha', 'north_star'],
    ['apex', null],
    ['paused', 'north_star'],
  ]
  for (const [slug, parent] of parents) {
    t[slug] = await installation.stratum.createTenant({ slug, name: slug, parent_id: parent === null ? null : t[parent].id })
    tokens[slug] = await installation.token({ tenant: slug, scope: 'read' }, { subject: `user of ${slug}` })
  }
  await installation.stratum.suspendTenant(t.paused.id)
  global = await installation.clientFor(null, ['read'])
  server = await installation.clientFor(t.north_star.id, ['read'])
})
afterAll(() => installation.close())

const hostOf = (slug: string) => `${slug.replaceAll('_', '-')}.stratum.test`
const pathOf = (slug: string) => `/t/${slug}/orders`

describe('host, path and token', () => {
  it('each alone name the tenant', async () => {
    for (const question of [{ host: hostOf('alpha') }, { path: pathOf('alpha') }, { token: tokens.alpha }]) {
      expect((await global.resolve(question)).tenant_id).toBe(t.alpha.id)
    }
  })
  it('together must agree, and then the token is who asks', async () => {
    const { tenant_id, principal, acting_as } = await global.resolve({ host: hostOf('alpha'), path: pathOf('alpha'), token: tokens.alpha })
    expect(tenant_id).toBe(t.alpha.id)
    expect(principal).toEqual({ type: 'token', id: 'user of alpha', tenant_id: t.alpha.id, scopes: ['read'] })
    expect(acting_as).toBeUndefined()
  })
  it('of an ancestor and a tenant below: the one acts as the other', async () => {
    const { tenant_id, acting_as, ancestors } = await global.resolve({ host: hostOf('alpha'), token: tokens.north_star })
    expect([tenant_id, acting_as]).toEqual([t.alpha.id, t.alpha.id])
    expect(ancestors).toEqual([t.acme, t.north_star].map(({ id, depth }) => ({ id, depth })))
  })
  it('without a token, the server itself is who asks', async () => {
    const { principal, acting_as } = await server.resolve({ host: hostOf('alpha') })
    expect([principal.type, principal.tenant_id, acting_as]).toEqual(['api_key', t.north_star.id, t.alpha.id])
  })
})

describe('what does not fit', () => {
  const cases: Array<[what: string, question: () => { host?: string; path?: string; token?: string }, code: ErrorCode]> = [
    ['a token of northstar on an unrelated host', () => ({ host: hostOf('apex'), token: tokens.north_star }), 'TENANT_MISMATCH'],
    ['a token of northstar under an unrelated path', () => ({ path: pathOf('apex'), token: tokens.north_star }), 'TENANT_MISMATCH'],
    ['a token of northstar on the host of its parent', () => ({ host: hostOf('acme'), token: tokens.north_star }), 'TENANT_MISMATCH'],
    ['a host and a path that differ', () => ({ host: hostOf('alpha'), path: pathOf('north_star') }), 'TENANT_MISMATCH'],
    ['a host and a path that differ, with the token of both', () => ({ host: hostOf('alpha'), path: pathOf('apex'), token: tokens.alpha }), 'TENANT_MISMATCH'],
    ['an unknown host', () => ({ host: 'nowhere.example' }), 'TENANT_NOT_FOUND'],
    ['an unknown host with a good token', () => ({ host: 'nowhere.example', token: tokens.alpha }), 'TENANT_NOT_FOUND'],
    ['a host of nobody', () => ({ host: hostOf('nobody') }), 'TENANT_NOT_FOUND'],
    ['a path of nobody with a good host', () => ({ host: hostOf('alpha'), path: pathOf('nobody') }), 'TENANT_NOT_FOUND'],
    ['a suspended host', () => ({ host: hostOf('paused') }), 'TENANT_SUSPENDED'],
    ['a suspended host with the token of its parent', () => ({ host: hostOf('paused'), token: tokens.north_star }), 'TENANT_SUSPENDED'],
    ['a token of a suspended tenant', () => ({ token: tokens.paused }), 'TENANT_SUSPENDED'],
    ['a token that is none', () => ({ host: hostOf('alpha'), token: 'nonsense' }), 'TOKEN_INVALID'],
    ['an API key as token', () => ({ token: `sk_test_${'D'.repeat(43)}` }), 'TOKEN_INVALID'],
    ['the host of the API', () => ({ host: 'stratum.test' }), 'TENANT_REQUIRED'],
    ['a path without the prefix', () => ({ path: '/orders' }), 'TENANT_REQUIRED'],
    ['a reserved subdomain', () => ({ host: hostOf('www') }), 'TENANT_NOT_FOUND'],
    ['nothing', () => ({}), 'VALIDATION_FAILED'],
    ['an empty host', () => ({ host: '' }), 'VALIDATION_FAILED'],
    ['a host longer than hosts are', () => ({ host: `${'a.'.repeat(200)}stratum.test` }), 'VALIDATION_FAILED'],
  ]
  it.each(cases)('is refused to a global server: %s', async (_, question, code) => {
    await refusal(global.resolve(question()), code)
  })
  it('names nothing beyond the reach of the server that asks', async () => {
    const absent = await refusal(server.resolve({ host: hostOf('nobody') }), 'TENANT_NOT_FOUND')
    const beyond = [
      { host: hostOf('apex') },
      { host: hostOf('acme') },
      { path: pathOf('apex') },
      { token: tokens.apex },
      { token: tokens.acme },
      { host: hostOf('alpha'), token: tokens.apex },
      { host: hostOf('alpha'), path: pathOf('apex') },
      { host: hostOf('apex'), token: tokens.alpha },
    ]
    for (const question of beyond) expect((await refusal(server.resolve(question), 'TENANT_NOT_FOUND')).message).toBe(absent.message)
  })
  it('within its reach it is told that they differ', async () => {
    await refusal(server.resolve({ host: hostOf('north_star'), token: tokens.alpha }), 'TENANT_MISMATCH')
    await refusal(server.resolve({ host: hostOf('alpha'), path: pathOf('north_star') }), 'TENANT_MISMATCH')
  })
})

describe('hosts as people and proxies write them', () => {
  it.each(['NORTH-STAR.STRATUM.TEST', 'north-star.stratum.test:443', 'north-star.stratum.test.', ' north-star.stratum.test'])('%j resolves', async (host) => {
    expect((await server.resolve({ host })).tenant_id).toBe(t.north_star.id)
  })
  it.each([
    '[::1]',
    '[2001:db8::1]:443',
    'xn--north-star-9g.stratum.test',
    'deep.north-star.stratum.test',
    `${'n'.repeat(63)}.stratum.test`,
    '例え.stratum.test',
  ])('%j is nobody’s', async (host) => {
    await refusal(server.resolve({ host }), 'TENANT_NOT_FOUND')
  })
})

it('shows a secret only as one, and none of what lies above the bearer', async () => {
  const { stratum } = installation
  await stratum.setConfig(t.acme.id, 'api_secret', { value: 'planted-marker-7f3a', sensitive: true })
  const context = await global.resolve({ token: tokens.alpha })
  expect(context.config['api_secret']).toMatchObject({ value: null, sensitive: true, source_tenant_id: t.acme.id })
  expect(JSON.stringify(context)).not.toContain('planted-marker-7f3a')
  expect(context.ancestors.map((ancestor) => Object.keys(ancestor))).toEqual([
    ['id', 'depth'],
    ['id', 'depth'],
  ])
})
