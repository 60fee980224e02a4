/** Which tenant a request is for: by host, path, header and credential; and whether they fit. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { TenantContext } from '../../src/features/context/contract.ts'
import type { Tenant } from '../../src/features/tenants/contract.ts'
import { type Asked, ask, expectRefusal } from '../support/answers.ts'
import { createInstallation, type Installation } from '../support/installation.ts'

let installation: Installation
const t = {} as Record<'acme' | 'north_star' | 'alpha' | 'paused' | 'closed' | 'apex' | 'www' | 'odd_', Tenant>
let keys: Record<'global' | 'acme' | 'north' | 'apex', string>
beforeAll(async () => {
  installation = await createInstallation()
  const { stratum } = installation
  const plant = async (slug: keyof typeof t, parent: keyof typeof t | null) => {
    t[slug] = await stratum.createTenant({ slug, name: slug, parent_id: parent === null ? null : t[parent].id })
  }
  await plant('acme', null)
  await plant('north_star', 'acme')
  await plant('alpha', 'north_star')
  for (const slug of ['paused', 'closed', 'www', 'odd_'] as const) await plant(slug, 'acme')
  await plant('apex', null)
  await stratum.suspendTenant(t.paused.id)
  await stratum.archiveTenant(t.closed.id)
  const [global, acme, north, apex] = await Promise.all([null, t.acme.id, t.north_star.id, t.apex.id].map((id) => installation.apiKey(id, ['read'])))
  keys = { global, acme, north, apex } as typeof keys
})
afterAll(() => installation.close())

const host = (name: string): Asked => ({ base: `http://${name}.stratum.test` })
const context = (asked: Asked, prefix = '') => ask(installation.fetch, `${prefix}/api/v1/context`, asked)
async function resolved(asked: Asked, prefix = ''): Promise<TenantContext> {
  const answer = await context(asked, prefix)
  expect(answer.status, answer.text.slice(0, 200)).toBe(200)
  return answer.body as TenantContext
}

describe('a tenant is named', () => {
  it('by the subdomain, the path and the header alike', async () => {
    const ways = [
      await resolved({ apiKey: keys.acme, ...host('north-star') }),
      await resolved({ apiKey: keys.acme }, '/t/north_star'),
      await resolved({ apiKey: keys.acme }, `/t/${t.north_star.id}`),
      await resolved({ apiKey: keys.acme, headers: { 'x-tenant-id': t.north_star.id } }),
      await resolved({ apiKey: keys.acme, headers: { 'x-tenant-id': 'north_star' } }),
      await resolved({ apiKey: keys.acme, ...host('north-star'), headers: { 'x-tenant-id': t.north_star.id.toUpperCase() } }, '/t/north_star'),
    ]
    for (const { tenant_id, acting_as, principal } of ways) {
      expect([tenant_id, acting_as, principal.tenant_id]).toEqual([t.north_star.id, t.north_star.id, t.acme.id])
    }
  })
  it('by the credential, where nothing else does', async () => {
    const own = await resolved({ apiKey: keys.north })
    expect([own.tenant_id, own.acting_as]).toEqual([t.north_star.id, undefined])
    expectRefusal(await context({ apiKey: keys.global }), 'TENANT_REQUIRED')
  })
  it('by the host as it is written: capitals, port and final dot do not matter', async () => {
    for (const written of ['NORTH-STAR.Stratum.Test', 'north-star.stratum.test:8787', 'north-star.stratum.test.', 'North-Star.stratum.test.:80']) {
      expect((await resolved({ apiKey: keys.acme, headers: { host: written } })).tenant_id).toBe(t.north_star.id)
    }
  })
  it('by its own host to itself, which is no acting', async () => {
    expect(await resolved({ apiKey: keys.north, ...host('north-star') })).not.toHaveProperty('acting_as')
  })
})

describe('nothing falls back silently', () => {
  const unknown = [
    '',
    'nowhere.example',
    'north_star.stratum.test',
    'a.north-star.stratum.test',
    'xn--north-star.stratum.test',
    `${'n'.repeat(200)}.stratum.test`,
  ]
  it.each([...unknown, '[::1]:8787', '127.0.0.1', 'stratum.test.evil.example', 'odd-.stratum.test'])('host %j is nobody’s', async (name) => {
    for (const apiKey of [keys.north, keys.global]) expectRefusal(await context({ apiKey, headers: { host: name } }), 'TENANT_NOT_FOUND')
  })
  it.each(['', 'No Such', "x' or '1'='1", 'nobody_here', '00000000-0000-4000-8000-000000000000'])('x-tenant-id %j is nobody', async (name) => {
    expectRefusal(await context({ apiKey: keys.global, headers: { 'x-tenant-id': name } }), 'TENANT_NOT_FOUND')
  })
  it.each(['Nobody', 'nobody_here', 'north-star', '%00', '%ff'])('path /t/%s is nobody', async (name) => {
    expectRefusal(await context({ apiKey: keys.global }, `/t/${name}`), 'TENANT_NOT_FOUND')
  })
  it('a reserved subdomain is nobody, though a tenant has that slug', async () => {
    expectRefusal(await context({ apiKey: keys.north, ...host('www') }), 'TENANT_NOT_FOUND')
    expectRefusal(await context({ apiKey: keys.global, ...host('www') }), 'TENANT_NOT_FOUND')
    expect(t.www.subdomain).toBeNull()
  })
})

describe('where sources differ', () => {
  it('TENANT_MISMATCH is for who reaches both', async () => {
    const both = { ...host('north-star'), headers: { 'x-tenant-id': t.alpha.id } }
    expectRefusal(await context({ apiKey: keys.acme, ...both }), 'TENANT_MISMATCH')
    expectRefusal(await context({ apiKey: keys.global, ...host('north-star') }, '/t/apex'), 'TENANT_MISMATCH')
    expectRefusal(await context({ apiKey: keys.acme, headers: { 'x-tenant-id': 'alpha' } }, '/t/north_star'), 'TENANT_MISMATCH')
  })
  it('the one that is out of reach is as unknown, whichever it is', async () => {
    const reached = t.north_star
    for (const other of ['apex', 'nobody_here']) {
      expectRefusal(await context({ apiKey: keys.acme, ...host('north-star'), headers: { 'x-tenant-id': other } }), 'TENANT_NOT_FOUND')
      expectRefusal(await context({ apiKey: keys.acme, ...host(other.replaceAll('_', '-')), headers: { 'x-tenant-id': reached.id } }), 'TENANT_NOT_FOUND')
      expectRefusal(await context({ apiKey: keys.acme, headers: { 'x-tenant-id': reached.id } }, `/t/${other}`), 'TENANT_NOT_FOUND')
    }
  })
  it('a credential of another tenant does not fit the host', async () => {
    const token = await installation.token({ tenant: 'apex', scope: 'read' })
    expectRefusal(await context({ token, ...host('north-star') }), 'TENANT_NOT_FOUND')
    expectRefusal(await context({ apiKey: keys.north, ...host('acme') }), 'TENANT_NOT_FOUND')
    expectRefusal(await context({ token: await installation.token({ tenant: 'alpha', scope: 'read' }), ...host('north-star') }), 'TENANT_NOT_FOUND')
  })
})

describe('a token', () => {
  it('of an ancestor acts on the host of a tenant below, and reaches no further there', async () => {
    const token = await installation.token({ tenant: 'acme', scope: 'read' })
    const there = await resolved({ token, ...host('north-star') })
    expect([there.tenant_id, there.acting_as, there.principal.tenant_id]).toEqual([t.north_star.id, t.north_star.id, t.acme.id])
    expect(there.ancestors).toEqual([{ id: t.acme.id, depth: 0 }])
    const acme = installation.client({ token, baseUrl: 'http://north-star.stratum.test' })
    expect((await acme.listTenants()).data.map(({ slug }) => slug)).toEqual(['north_star', 'alpha'])
  })
  it('is not believed about x-tenant-id, its own tenant included', async () => {
    const token = await installation.token({ tenant: 'north_star', scope: 'read' })
    for (const name of [t.north_star.id, 'apex', '', 'No Such']) {
      expectRefusal(await context({ token, headers: { 'x-tenant-id': name } }), 'TENANT_HEADER_UNTRUSTED')
    }
  })
})

describe('a tenant that is not active', () => {
  it('does not resolve: suspended is 403, archived 410, to who reaches it', async () => {
    for (const asked of [host('paused'), { headers: { 'x-tenant-id': 'paused' } }])
      expectRefusal(await context({ apiKey: keys.acme, ...asked }), 'TENANT_SUSPENDED')
    for (const asked of [host('closed'), { headers: { 'x-tenant-id': 'closed' } }])
      expectRefusal(await context({ apiKey: keys.acme, ...asked }), 'TENANT_ARCHIVED')
    expectRefusal(await context({ apiKey: keys.global }, '/t/paused'), 'TENANT_SUSPENDED')
  })
  it('is as unknown to everybody else', async () => {
    for (const name of ['paused', 'closed']) {
      for (const apiKey of [keys.north, keys.apex]) expectRefusal(await context({ apiKey, ...host(name) }), 'TENANT_NOT_FOUND')
    }
  })
})

describe('credentials', () => {
  it('are one: two are refused, whatever they are', async () => {
    for (const authorization of [`Bearer ${keys.north}`, 'Basic abc', '', 'nonsense']) {
      expectRefusal(await context({ apiKey: keys.north, headers: { authorization } }), 'CREDENTIALS_AMBIGUOUS')
    }
  })
  it.each(['Basic dXNlcjpwYXNz', 'Bearer', 'Bearer ', 'bearertoken', 'Token abc', 'Digest x=y', '', 'Bearer a b', 'Bearer a, Bearer b'])(
    'Authorization %j is refused',
    async (authorization) => {
      expectRefusal(await context({ headers: { authorization } }), 'TOKEN_INVALID')
    },
  )
  it('are read in any spelling of Bearer, and an empty x-api-key is an API key that is none', async () => {
    for (const authorization of [`bearer ${keys.north}`, `BEARER   ${keys.north}  `]) {
      expect((await resolved({ headers: { authorization } })).tenant_id).toBe(t.north_star.id)
    }
    expectRefusal(await context({ apiKey: '' }), 'API_KEY_INVALID')
  })
})
