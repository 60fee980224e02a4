/** An app without the gateway asks the service, and keeps its answers for a moment. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Tenant } from '../../src/features/tenants/contract.ts'
import { createResolver, type ResolverOptions } from '../../src/integrations/resolver.ts'
import type { StratumClient } from '../../src/sdk/client.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { refusal } from '../support/tree.ts'

let installation: Installation
let alpha: Tenant
let beta: Tenant
let client: StratumClient
const tokens = { alpha: '', beta: '' }
const HOST = { alpha: 'mw-alpha.stratum.test', beta: 'mw-beta.stratum.test' }
beforeAll(async () => {
  installation = await createInstallation()
  const root = await installation.stratum.createOrganization({ slug: 'mw_root', name: 'Root' })
  alpha = await installation.stratum.createTenant({ slug: 'mw_alpha', name: 'Alpha', parent_id: root.id })
  beta = await installation.stratum.createTenant({ slug: 'mw_beta', name: 'Beta', parent_id: root.id })
  await installation.stratum.setConfig(root.id, 'max_users', { value: { soft: 10 } })
  await installation.stratum.setConfig(root.id, 'smtp_password', { value: 'hunter2', sensitive: true })
  await installation.stratum.createPermission(root.id, { key: 'export', value: true })
  tokens.alpha = await installation.token({ tenant: 'mw_alpha', scope: 'read' }, { subject: 'ann' })
  tokens.beta = await installation.token({ tenant: 'mw_beta', scope: 'read' }, { subject: 'bob' })
  client = await installation.clientFor(null, ['read'])
})
afterAll(() => installation.close())

/** A resolver that counts what it asks, with a clock of its own. */
function counting(options: Partial<ResolverOptions> = {}) {
  const clock = { now: Date.now() }
  const asked: unknown[] = []
  const counted: ResolverOptions['client'] = {
    resolve(input) {
      asked.push(input)
      return client.resolve(input)
    },
  }
  return { asked, clock, resolver: createResolver({ client: counted, now: () => clock.now, ...options }) }
}

describe('what it answers', () => {
  it('is the tenant, who asks, and what holds there without secrets', async () => {
    const tenant = await counting().resolver.resolve({ host: HOST.alpha, token: tokens.alpha })
    expect(tenant).toEqual({
      ...{ tenant_id: alpha.id, slug: 'mw_alpha', ancestor_ids: [alpha.parent_id], truncated: false, region: null, version: expect.any(String) },
      isolation: { strategy: 'SHARED_RLS', name: null, status: 'ready' },
      principal: { type: 'token', id: 'ann', issuer: 'https://issuer.test', scopes: ['read'] },
      ...{ config: { max_users: { soft: 10 } }, permissions: { export: true } },
    })
    expect(() => Object.assign(tenant.config['max_users'] as object, { soft: 99 })).toThrow(TypeError)
  })
  it("does not pass the app's own key off as the user", async () => {
    // The service says that the key asks, and acts as the tenant.
    expect((await client.resolve({ host: HOST.alpha })).principal.type).toBe('api_key')
    const tenant = await counting().resolver.resolve({ host: HOST.alpha })
    expect([tenant.tenant_id, tenant.principal, tenant.acting_as]).toEqual([alpha.id, null, undefined])
  })
  it('says on whose behalf a user of a tenant above acts', async () => {
    const token = await installation.token({ tenant: 'mw_root', scope: 'read' })
    expect((await counting().resolver.resolve({ host: HOST.alpha, token })).acting_as).toBe(alpha.id)
  })
})

describe('what it keeps', () => {
  it('serves one question for 2 seconds, counted from when it was asked', async () => {
    const { resolver, asked, clock } = counting()
    await resolver.resolve({ host: HOST.alpha })
    clock.now += 1_999
    await resolver.resolve({ host: HOST.alpha })
    // Forms of one host are one host.
    await resolver.resolve({ host: `${HOST.alpha.toUpperCase()}.:8443` })
    expect(asked).toEqual([{ host: HOST.alpha }])
    clock.now += 1
    await resolver.resolve({ host: HOST.alpha })
    expect(asked).toHaveLength(2)
  })
  it('never serves one host, path or user the answer of another', async () => {
    const { resolver, asked } = counting()
    const questions = [
      { host: HOST.alpha },
      { host: HOST.beta },
      { token: tokens.alpha },
      { token: tokens.beta },
      { host: HOST.alpha, token: tokens.alpha },
      { host: HOST.beta, token: tokens.beta },
      { path: '/t/mw_alpha' },
      { path: '/t/mw_beta' },
    ]
    const ask = () => Promise.all(questions.map(async (question) => resolver.resolve(question)))
    const told = (await ask()).map(({ slug, principal }) => [slug, principal?.id ?? null])
    expect(told).toEqual([
      ...[
        ['mw_alpha', null],
        ['mw_beta', null],
        ['mw_alpha', 'ann'],
        ['mw_beta', 'bob'],
      ],
      ...[
        ['mw_alpha', 'ann'],
        ['mw_beta', 'bob'],
        ['mw_alpha', null],
        ['mw_beta', null],
      ],
    ])
    expect((await ask()).map(({ slug, principal }) => [slug, principal?.id ?? null])).toEqual(told)
    expect(asked).toHaveLength(questions.length)
    await refusal(resolver.resolve({ host: HOST.alpha, token: tokens.beta }), 'TENANT_MISMATCH')
  })
  it('asks once for concurrent questions that are alike, and anew for one that comes too late to share the answer', async () => {
    const { resolver, asked, clock } = counting()
    await Promise.all(Array.from({ length: 20 }, () => resolver.resolve({ host: HOST.alpha })))
    expect(asked).toHaveLength(1)
    clock.now += 2_000
    const early = resolver.resolve({ host: HOST.alpha })
    await expect.poll(() => asked.length).toBe(2)
    clock.now += 2_000
    await Promise.all([early, resolver.resolve({ host: HOST.alpha })])
    expect(asked).toHaveLength(3)
  })
  it('is nothing with a ttl of 0', async () => {
    const { resolver, asked } = counting({ ttl: 0 })
    await Promise.all([resolver.resolve({ host: HOST.alpha }), resolver.resolve({ host: HOST.alpha })])
    await resolver.resolve({ host: HOST.alpha })
    expect(asked).toHaveLength(3)
  })
  it('includes refusals, which drive out no tenant', async () => {
    const { resolver, asked } = counting({ maximum: 1 })
    await resolver.resolve({ host: HOST.alpha })
    for (const host of ['nobody.stratum.test', 'nobody.stratum.test', 'nobody-else.stratum.test']) await refusal(resolver.resolve({ host }), 'TENANT_NOT_FOUND')
    await resolver.resolve({ host: HOST.alpha })
    expect(asked).toHaveLength(3)
  })
  it('is bounded, and what was used longest ago goes first', async () => {
    const { resolver, asked } = counting({ maximum: 2 })
    for (const question of [{ host: HOST.alpha }, { host: HOST.beta }, { host: HOST.alpha }, { path: '/t/mw_beta' }, { host: HOST.alpha }])
      await resolver.resolve(question)
    expect(asked).toHaveLength(3)
    await resolver.resolve({ host: HOST.beta })
    expect(asked).toHaveLength(4)
  })
  it('is asked for anew where the clock was put back, as nobody knows then how old it is', async () => {
    const { resolver, asked, clock } = counting()
    await resolver.resolve({ host: HOST.alpha })
    clock.now -= 3_600_000
    await resolver.resolve({ host: HOST.alpha })
    await resolver.resolve({ host: HOST.alpha })
    expect(asked).toHaveLength(2)
  })
  it('ends with the token', async () => {
    const token = await installation.token({ tenant: 'mw_alpha', scope: 'read' }, { expires: '30s' })
    const { resolver, asked, clock } = counting({ ttl: 60_000 })
    await resolver.resolve({ token })
    await resolver.resolve({ token })
    expect(asked).toHaveLength(1)
    clock.now += 30_000
    await resolver.resolve({ token })
    expect(asked).toHaveLength(2)
  })
  it('shows a suspension once it is over, and the resumption too', async () => {
    const { resolver, clock } = counting()
    await resolver.resolve({ host: HOST.beta })
    await installation.stratum.suspendTenant(beta.id)
    expect((await resolver.resolve({ host: HOST.beta })).slug).toBe('mw_beta')
    clock.now += 2_000
    await refusal(resolver.resolve({ host: HOST.beta }), 'TENANT_SUSPENDED')
    await installation.stratum.resumeTenant(beta.id)
    clock.now += 2_000
    expect((await resolver.resolve({ host: HOST.beta })).slug).toBe('mw_beta')
  })
})

describe('what cannot be answered', () => {
  it('is refused as the service refuses it', async () => {
    const { resolver } = counting()
    await refusal(resolver.resolve({ host: 'stratum.test' }), 'TENANT_REQUIRED')
    await refusal(resolver.resolve({ host: 'nowhere.example' }), 'TENANT_NOT_FOUND')
    await refusal(resolver.resolve({ host: HOST.alpha, token: 'nonsense' }), 'TOKEN_INVALID')
  })
  it('is not even asked where it is no question', async () => {
    const { resolver, asked } = counting()
    await refusal(resolver.resolve({}), 'TENANT_REQUIRED')
    for (const host of ['', 'a b', 'evil.test/path', 'x'.repeat(400)]) await refusal(resolver.resolve({ host, token: tokens.alpha }), 'TENANT_NOT_FOUND')
    for (const token of ['', 'x'.repeat(20_000)]) await refusal(resolver.resolve({ host: HOST.alpha, token }), 'TOKEN_INVALID')
    await refusal(resolver.resolve({ path: `/t/${'x'.repeat(3_000)}` }), 'TENANT_NOT_FOUND')
    expect(asked).toEqual([])
  })
  it('for characters that no name has, is nobody rather than a failure', async () => {
    await refusal(counting().resolver.resolve({ path: '/t/\0' }), 'TENANT_NOT_FOUND')
  })
  it("because the app's own credential is wrong is the app's failure, and not kept", async () => {
    const { key, id } = await installation.stratum.createApiKey(null, { scopes: ['read'] })
    const asked: string[] = []
    const fetch = (request: Request) => {
      asked.push(request.url)
      return installation.fetch(request)
    }
    const { resolver } = counting({ client: installation.client({ apiKey: key, fetch }) })
    await installation.stratum.revokeApiKey(id)
    for (let count = 0; count < 2; count++) {
      const error = await refusal(resolver.resolve({ host: HOST.alpha }), 'INTERNAL_ERROR')
      expect(error).toMatchObject({ cause: { code: 'API_KEY_INVALID' } })
    }
    expect(asked).toHaveLength(2)
  })
  it('because the service is away is said to be so', async () => {
    await refusal(createResolver({ baseUrl: 'http://127.0.0.1:9', apiKey: 'sk_test_x' }).resolve({ host: HOST.alpha }), 'SERVER_UNREACHABLE')
  })
})

describe('options that cannot work', () => {
  const cases: Array<[what: string, options: ResolverOptions]> = [
    ['nothing', {}],
    ['no key', { baseUrl: 'https://stratum.test' }],
    ['no URL', { baseUrl: 'stratum.test', apiKey: 'sk_test_x' }],
    ['a client beside a key', { client: { resolve: () => Promise.reject() }, apiKey: 'sk_test_x' }],
    ['a ttl of an hour', { baseUrl: 'https://stratum.test', apiKey: 'sk_test_x', ttl: 3_600_000 }],
    ['room for nothing', { baseUrl: 'https://stratum.test', apiKey: 'sk_test_x', maximum: 0 }],
  ]
  it.each(cases)('%s', (_, options) => {
    expect(() => createResolver(options)).toThrow(expect.objectContaining({ code: 'CONFIGURATION_INVALID' }))
  })
})
