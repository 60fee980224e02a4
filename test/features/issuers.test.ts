/** Storing issuers: who may, for whom, and what is refused. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Tenant } from '../../src/features/tenants/contract.ts'
import type { StratumClient } from '../../src/sdk/client.ts'
import { ask, expectRefusal } from '../support/answers.ts'
import { AUDIENCE, createInstallation, type Installation, ISSUER } from '../support/installation.ts'
import { ownIssuer } from '../support/issuers.ts'
import { idsOf, plantTree, refusal, uniqueSlug, walk } from '../support/tree.ts'

let installation: Installation
let t: Record<'acme' | 'north' | 'alpha' | 'south' | 'off' | 'apex', Tenant>
let global: StratumClient
/** An admin of `north`. */
let north: StratumClient
beforeAll(async () => {
  installation = await createInstallation()
  global = await installation.clientFor(null)
  t = await plantTree(global, { acme: null, north: 'acme', alpha: 'north', south: 'acme', off: 'north', apex: null })
  await global.suspendTenant({ id: t.off.id })
  north = await installation.clientFor(t.north.id)
})
afterAll(() => installation.close())

describe('an issuer', () => {
  it('is answered as it was given, with what was left out', async () => {
    const fields = ownIssuer().fields({ tenant_id: t.alpha.id, tenant_claim: 'app.tenant', scopes_claim: null, max_scopes: ['read', 'write'] })
    const created = await global.createIssuer(fields)
    expect(created).toEqual({ ...fields, id: expect.any(String), global: false, created_at: expect.any(String) })
    const remote = ownIssuer()
    const { keys: _, ...bare } = remote.fields()
    const other = await global.createIssuer({ ...bare, jwks_uri: 'https://id.example.com/keys' })
    expect(other).toMatchObject({ jwks_uri: 'https://id.example.com/keys', tenant_id: null, tenant_claim: 'tenant', scopes_claim: 'scope' })
    expect(other).not.toHaveProperty('keys')
    expect((await global.listIssuers({ limit: 2 })).data).toEqual([other, created])
  })
  it('is made, listed and deleted by the embedded class alike', async () => {
    const { stratum } = installation
    const created = await stratum.createIssuer(ownIssuer().fields({ tenant_id: t.alpha.id }))
    expect((await stratum.listIssuers({ limit: 1 })).data).toEqual([created])
    await stratum.deleteIssuer(created.id)
    await refusal(stratum.deleteIssuer(created.id), 'ISSUER_NOT_FOUND')
  })
  it('is there once for an audience, whoever stored it first', async () => {
    const own = ownIssuer()
    await global.createIssuer(own.fields({ tenant_id: t.apex.id }))
    await refusal(global.createIssuer(own.fields({ tenant_id: t.apex.id })), 'ISSUER_EXISTS')
    await refusal(north.createIssuer(own.fields()), 'ISSUER_EXISTS')
    expect((await north.createIssuer(own.fields({ audience: 'other' }))).tenant_id).toBe(t.north.id)
  })
  it('has no twin in the environment', async () => {
    await refusal(global.createIssuer(ownIssuer(ISSUER, AUDIENCE).fields()), 'ISSUER_EXISTS')
    const other = await global.createIssuer(ownIssuer(ISSUER, 'another').fields())
    await global.deleteIssuer({ id: other.id })
  })
  it('is one of a hundred to a tenant at most', async () => {
    const full = await global.createTenant({ slug: uniqueSlug('full'), name: 'Full', parent_id: t.north.id })
    const store = () => north.createIssuer(ownIssuer().fields({ tenant_id: full.id }))
    const first = await store()
    await installation.owner.query(
      `insert into stratum.issuers (id, tenant_id, issuer, audience, settings)
       select stratum.uuid_v7(), tenant_id, issuer, 'filler ' || n, settings from stratum.issuers, generate_series(1, 98) as n where id = $1`,
      [first.id],
    )
    const outcomes = await Promise.all([1, 2, 3].map(() => store().catch((error: { code: string }) => error.code)))
    expect(outcomes.filter((outcome) => outcome === 'ISSUERS_FULL')).toHaveLength(2)
    expect((await refusal(store(), 'ISSUERS_FULL')).details).toMatchObject({ maximum: 100 })
    await north.createIssuer(ownIssuer().fields())
    await north.deleteIssuer({ id: first.id })
    await store()
  })
  it('of two who store it at once is stored by one', async () => {
    const own = ownIssuer()
    const codes = await Promise.all(
      [t.north.id, t.apex.id, t.alpha.id, null].map((tenant_id) =>
        global.createIssuer(own.fields({ tenant_id })).then(
          () => 'stored',
          (error: { code: string }) => error.code,
        ),
      ),
    )
    expect(codes.toSorted()).toEqual(['ISSUER_EXISTS', 'ISSUER_EXISTS', 'ISSUER_EXISTS', 'stored'])
  })
})

describe('what it reaches', () => {
  it("is its creator's own tenant, unless one below is named", async () => {
    expect((await north.createIssuer(ownIssuer().fields())).tenant_id).toBe(t.north.id)
    expect((await north.createIssuer(ownIssuer().fields({ tenant_id: t.alpha.id }))).tenant_id).toBe(t.alpha.id)
    for (const tenant of [t.acme, t.south, t.apex]) await refusal(north.createIssuer(ownIssuer().fields({ tenant_id: tenant.id })), 'TENANT_NOT_FOUND')
    await refusal(north.createIssuer(ownIssuer().fields({ tenant_id: t.off.id })), 'TENANT_INVALID_STATE')
  })
  it('is bound to none, or everything, for global admins only, and not on the host of a tenant', async () => {
    await refusal(north.createIssuer(ownIssuer().fields({ global: true })), 'GLOBAL_ADMIN_REQUIRED')
    const there = await installation.clientFor(null, ['admin'], { baseUrl: `http://${t.north.subdomain}.stratum.test` })
    await refusal(there.createIssuer(ownIssuer().fields({ global: true })), 'GLOBAL_ADMIN_REQUIRED')
    expect((await there.createIssuer(ownIssuer().fields())).tenant_id).toBe(t.north.id)
    expect(await global.createIssuer(ownIssuer().fields({ global: true }))).toMatchObject({ tenant_id: null, global: true })
  })
  it('takes an admin, who may do no more than an admin', async () => {
    await refusal((await installation.clientFor(t.north.id, ['write'])).createIssuer(ownIssuer().fields()), 'SCOPE_REQUIRED')
  })
  it('lasts no longer than the key that made it: one that expires makes none', async () => {
    const { key } = await installation.stratum.createApiKey(t.north.id, { scopes: ['admin'], expires_at: '2099-01-01T00:00:00Z' })
    await refusal(installation.client({ apiKey: key }).createIssuer(ownIssuer().fields()), 'ISSUER_OUTLIVES_KEY')
  })
})

describe('within reach', () => {
  it('are those of the tenant and below: listed, and no others deleted', async () => {
    const store = (tenant_id: string | null) => global.createIssuer(ownIssuer().fields({ tenant_id }))
    const ours = [await store(t.north.id), await store(t.alpha.id), await store(t.off.id).catch(() => null)].filter((made) => made !== null)
    const theirs = [await store(null), await store(t.acme.id), await store(t.south.id), await store(t.apex.id)]
    const listed = idsOf(await walk((page) => north.listIssuers({ limit: 2, ...page })))
    expect(listed).toEqual([...listed].sort().reverse())
    for (const { id } of ours) expect(listed).toContain(id)
    for (const { id } of theirs) {
      expect(listed).not.toContain(id)
      await refusal(north.deleteIssuer({ id }), 'ISSUER_NOT_FOUND')
    }
    const all = idsOf(await walk((page) => global.listIssuers({ limit: 100, ...page })))
    for (const { id } of [...ours, ...theirs]) expect(all).toContain(id)
  })
  it('one is deleted once, by whoever comes first, and its name is free again', async () => {
    const own = ownIssuer()
    const { id } = await north.createIssuer(own.fields())
    const codes = await Promise.all(
      [north, global, north].map((client) =>
        client.deleteIssuer({ id }).then(
          () => 'deleted',
          (error: { code: string }) => error.code,
        ),
      ),
    )
    expect(codes.toSorted()).toEqual(['ISSUER_NOT_FOUND', 'ISSUER_NOT_FOUND', 'deleted'])
    expect((await north.createIssuer(own.fields())).id).not.toBe(id)
  })
})

describe('what is refused', () => {
  const secret = { kty: 'oct', k: Buffer.alloc(64, 'a-secret').toString('base64url') }
  const key = ownIssuer().fields().keys?.[0] as { kty: string; x: string }
  const cases: Array<[what: string, change: object, reason: RegExp]> = [
    ['a shared secret', { algorithms: ['HS256'], keys: [secret] }, /^algorithms: A shared secret belongs in STRATUM_ISSUERS$/],
    ['a shared secret beside a key', { algorithms: ['HS256', 'ES256'], keys: [secret, key] }, /Must not mix HS/],
    ['a private key', { keys: [{ ...key, d: key.x }] }, /^keys\.0\.d: Is private/],
    ['keys and a key set', { jwks_uri: 'https://id.example.com/keys' }, /exactly one of jwks_uri and keys/],
    ['neither', { keys: undefined }, /exactly one of jwks_uri and keys/],
    ['a key that fits no algorithm', { algorithms: ['RS256'] }, /Fits, by type and size, none/],
    ['a tenant and everything', { tenant_id: '0197a000-0000-4000-8000-00000000000a', global: true }, /^global: Must not be set together with tenant_id/],
    ['an empty name', { issuer: '' }, /^issuer: /],
    ['a name with NUL', { issuer: 'a\0b' }, /^issuer: /],
    ['a key with NUL in what else it says', { keys: [{ ...key, x5t: 'a\0b' }] }, /NUL/],
    ['a key that says more than it may', { keys: [{ ...key, x5c: 'x'.repeat(70_000) }] }, /^keys: is larger than 65536 bytes/],
    ['a key with a number that Postgres writes at length', { keys: [{ ...key, more: Array.from({ length: 400 }, () => 1.5e-300) }] }, /^keys: is larger/],
    ['an unknown scope', { max_scopes: ['root'] }, /^max_scopes\.0: /],
    ['an unknown field', { of_environment: true }, /of_environment/],
  ]
  it.each(cases)('%s', async (_, change, reason) => {
    const answer = await ask(installation.fetch, '/api/v1/issuers', {
      method: 'POST',
      json: { ...ownIssuer().fields(), ...change },
      apiKey: await installation.apiKey(null),
    })
    expect(expectRefusal(answer, 'VALIDATION_FAILED')['reason']).toMatch(reason)
    expect(answer.text).not.toContain(secret.k.slice(0, 20))
    expect(answer.text.length).toBeLessThan(2_000)
  })
  const hosts = ['localhost', '127.0.0.1', '10.0.0.1', '169.254.169.254', '[::1]', '[fd00::1]', '0x7f.1', '192.168.1.1:8080']
  it.each([
    ...hosts.map((host) => `https://${host}/keys`),
    'http://id.example.com/keys',
    'https://user@id.example.com/',
    'file:///etc/passwd',
    'https://id.example.com/\0',
  ])('a key set at %j', async (jwks_uri) => {
    const { keys: _, ...bare } = ownIssuer().fields({ jwks_uri })
    await refusal(global.createIssuer(bare), 'VALIDATION_FAILED')
    // the embedded class checks no less
    await refusal(installation.stratum.createIssuer(bare), 'VALIDATION_FAILED')
  })
  it('is told to nobody unknown, and before the scope that is missing', async () => {
    const json = { ...ownIssuer().fields(), algorithms: ['HS256'], keys: [secret] }
    const send = (apiKey: string) => ask(installation.fetch, '/api/v1/issuers', { method: 'POST', json, apiKey })
    expectRefusal(await send(`sk_test_${'B'.repeat(43)}`), 'API_KEY_INVALID')
    expectRefusal(await send(await installation.apiKey(null, ['read'])), 'VALIDATION_FAILED')
  })
})
