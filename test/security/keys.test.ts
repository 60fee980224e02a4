/** Nobody makes, sees or revokes a key beyond its own reach and scopes. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { SCOPES } from '../../src/core/scopes.ts'
import type { Tenant } from '../../src/features/tenants/contract.ts'
import type { StratumClient } from '../../src/sdk/client.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { plantTree, refusal } from '../support/tree.ts'

let installation: Installation
let t: Record<'acme' | 'north' | 'alpha' | 'south', Tenant>
let global: StratumClient
let north: StratumClient
beforeAll(async () => {
  installation = await createInstallation()
  global = await installation.clientFor(null)
  t = await plantTree(global, { acme: null, north: 'acme', alpha: 'north', south: 'acme' })
  north = await installation.clientFor(t.north.id)
})
afterAll(() => installation.close())

describe('creating a key', () => {
  it("without a tenant binds it to the caller's own reach", async () => {
    expect((await north.createApiKey()).tenant_id).toBe(t.north.id)
    expect((await global.createApiKey()).tenant_id).toBeNull()
    const onHost = await installation.clientFor(null, ['admin'], { baseUrl: `http://${t.alpha.subdomain}.stratum.test` })
    expect((await onHost.createApiKey()).tenant_id).toBe(t.alpha.id)
    const byHeader = await installation.clientFor(null, ['admin'], { headers: { 'x-tenant-id': t.alpha.id } })
    expect((await byHeader.createApiKey()).tenant_id).toBe(t.alpha.id)
  })
  it('is limited to the reach of its maker', async () => {
    expect((await north.createApiKey({ tenant_id: t.alpha.id, scopes: ['admin'] })).scopes).toEqual(['admin'])
    for (const tenant of [t.acme, t.south]) await refusal(north.createApiKey({ tenant_id: tenant.id }), 'TENANT_NOT_FOUND')
    await refusal(north.createApiKey({ tenant_id: crypto.randomUUID() }), 'TENANT_NOT_FOUND')
  })
  it('needs the scope admin, which no other set of scopes makes up for', async () => {
    const lesser = await installation.clientFor(t.north.id, ['write', 'secrets:read'])
    for (const scope of SCOPES) await refusal(lesser.createApiKey({ scopes: [scope] }), 'SCOPE_REQUIRED')
  })
  it('gives a key exactly the scopes it was made with', async () => {
    const { key } = await north.createApiKey({ tenant_id: t.alpha.id, scopes: ['read'] })
    const reader = installation.client({ apiKey: key })
    expect((await reader.getContext()).principal).toMatchObject({ tenant_id: t.alpha.id, scopes: ['read'] })
    await refusal(reader.setConfig({ id: t.alpha.id, key: 'k', value: 1 }), 'SCOPE_REQUIRED')
    await refusal(reader.resolveConfig({ id: t.alpha.id, reveal: true }), 'SCOPE_REQUIRED')
  })
  it('shows the key once and never again', async () => {
    const made = await north.createApiKey({ name: 'once' })
    const key = String(made.key)
    expect(key).toMatch(/^sk_test_.{43}$/)
    const { rows } = await installation.owner.query('select row_to_json(k)::text as row from stratum.api_keys k where id = $1', [made.id])
    const trail = await installation.owner.query('select payload from stratum.audit_entries union all select payload::text from stratum.outbox')
    for (const text of [JSON.stringify(await north.getApiKey({ id: made.id })), rows[0].row, JSON.stringify(trail.rows), JSON.stringify(installation.log)]) {
      expect(text).not.toContain(key)
      expect(text).not.toContain(key.slice(12))
    }
  })
})

describe('revoking a key', () => {
  it('ends it at once, and again is no error', async () => {
    const made = await north.createApiKey({ tenant_id: t.alpha.id })
    const holder = installation.client({ apiKey: made.key })
    expect((await holder.getContext()).tenant_id).toBe(t.alpha.id)
    const revoked = await north.revokeApiKey({ id: made.id })
    await refusal(holder.getContext(), 'API_KEY_INVALID')
    expect((await north.revokeApiKey({ id: made.id })).revoked_at).toBe(revoked.revoked_at)
  })
  it('reaches neither keys of others, nor of tenants above, nor global ones', async () => {
    const others = [await global.createApiKey({ tenant_id: t.south.id }), await global.createApiKey({ tenant_id: t.acme.id }), await global.createApiKey()]
    const absent = await refusal(north.revokeApiKey({ id: crypto.randomUUID() }), 'API_KEY_NOT_FOUND')
    for (const { id, key } of others) {
      expect((await refusal(north.revokeApiKey({ id }), 'API_KEY_NOT_FOUND')).message).toBe(absent.message)
      await refusal(north.getApiKey({ id }), 'API_KEY_NOT_FOUND')
      await refusal(installation.client({ apiKey: key }).getApiKey({ id }), 'SCOPE_REQUIRED')
    }
  })
  it('of its own leaves a caller outside', async () => {
    const made = await north.createApiKey({ scopes: ['admin'] })
    const holder = installation.client({ apiKey: made.key })
    await holder.revokeApiKey({ id: made.id })
    await refusal(holder.listApiKeys(), 'API_KEY_INVALID')
  })
})
