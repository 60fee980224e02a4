/** A principal reaches its tenant and what is below, in lists as in single reads; the rest is not there for it. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Tenant } from '../../src/features/tenants/contract.ts'
import type { StratumClient } from '../../src/sdk/client.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { idsOf, plantTree, refusal, uniqueSlug, walk } from '../support/tree.ts'

type Name = 'acme' | 'north' | 'alpha' | 'beta' | 'leaf' | 'south' | 'apex' | 'gamma'
let installation: Installation
let t: Record<Name, Tenant>
let global: StratumClient
/** An admin of `north`. */
let north: StratumClient
beforeAll(async () => {
  installation = await createInstallation()
  global = await installation.clientFor(null)
  t = await plantTree(global, { acme: null, north: 'acme', alpha: 'north', beta: 'north', leaf: 'alpha', south: 'acme', apex: null, gamma: 'apex' })
  north = await installation.clientFor(t.north.id)
})
afterAll(() => installation.close())

const within = () => [t.north.id, t.alpha.id, t.leaf.id, t.beta.id].sort()
const at = (tenant: Tenant) => ({ baseUrl: `http://${tenant.subdomain}.stratum.test` })

describe('lists', () => {
  it('hold the tenant of the key and all below, page by page', async () => {
    expect(idsOf(await walk((page) => north.listTenants({ limit: 1, ...page }))).sort()).toEqual(within())
    expect((await north.listTenants({ root: true })).data).toEqual([])
  })
  it('go on from no cursor of a place outside', async () => {
    const { next_cursor } = await global.listTenants({ limit: 1 })
    await refusal(north.listTenants({ limit: 1, cursor: String(next_cursor) }), 'INVALID_CURSOR')
  })
  it('of keys hold neither global ones nor those of others', async () => {
    const ours = await north.createApiKey({ tenant_id: t.alpha.id })
    const theirs = [await global.createApiKey(), await global.createApiKey({ tenant_id: t.south.id }), await global.createApiKey({ tenant_id: t.acme.id })]
    const listed = idsOf(await walk((page) => north.listApiKeys({ limit: 2, ...page })))
    expect(listed).toContain(ours.id)
    for (const key of theirs) expect(listed).not.toContain(key.id)
    await refusal(north.listApiKeys({ tenant_id: t.south.id }), 'TENANT_NOT_FOUND')
  })
  it('of ancestors show those above the reach by id and depth alone', async () => {
    const { data } = await north.getAncestors({ id: t.leaf.id })
    expect(data[0]).toEqual({ id: t.acme.id, depth: 0 })
    expect(data.slice(1).map((ancestor) => 'slug' in ancestor && ancestor.slug)).toEqual([t.north.slug, t.alpha.slug])
    expect(await north.getRoot({ id: t.leaf.id })).toEqual({ id: t.acme.id, depth: 0 })
  })
})

describe('moving', () => {
  it('needs reach of the old and of the new parent', async () => {
    await refusal(north.moveTenant({ id: t.alpha.id, new_parent_id: t.south.id }), 'TENANT_NOT_FOUND')
    await refusal(north.moveTenant({ id: t.alpha.id, new_parent_id: t.acme.id }), 'TENANT_NOT_FOUND')
    await refusal(north.moveTenant({ id: t.gamma.id, new_parent_id: t.north.id }), 'TENANT_NOT_FOUND')
    await refusal(north.moveTenant({ id: t.south.id, new_parent_id: t.north.id }), 'TENANT_NOT_FOUND')
    await refusal(north.moveTenant({ id: t.north.id, new_parent_id: t.beta.id }), 'TENANT_NOT_FOUND')
    const moved = await north.moveTenant({ id: t.leaf.id, new_parent_id: t.beta.id })
    expect(moved.parent_id).toBe(t.beta.id)
    await north.moveTenant({ id: t.leaf.id, new_parent_id: t.alpha.id })
  })
  it('to the top needs a global admin, for the parent of what is moved is not enough', async () => {
    const globalWriter = await installation.clientFor(null, ['write'])
    await refusal(north.moveTenant({ id: t.alpha.id, new_parent_id: null }), 'GLOBAL_ADMIN_REQUIRED')
    await refusal(globalWriter.moveTenant({ id: t.alpha.id, new_parent_id: null }), 'GLOBAL_ADMIN_REQUIRED')
    await refusal(globalWriter.moveTenant({ id: t.apex.id, new_parent_id: t.acme.id }), 'GLOBAL_ADMIN_REQUIRED')
    expect((await global.moveTenant({ id: t.alpha.id, new_parent_id: null })).depth).toBe(0)
    await global.moveTenant({ id: t.alpha.id, new_parent_id: t.north.id })
  })
  it('takes a tenant out of the reach of its former parent at once', async () => {
    const wanderer = await north.createTenant({ slug: uniqueSlug('wanderer'), name: 'W', parent_id: t.north.id })
    await global.moveTenant({ id: wanderer.id, new_parent_id: t.gamma.id })
    await refusal(north.getTenant({ id: wanderer.id }), 'TENANT_NOT_FOUND')
    await refusal(north.setConfig({ id: wanderer.id, key: 'k', value: 1 }), 'TENANT_NOT_FOUND')
  })
})

describe('roots', () => {
  it('are made by global admins only', async () => {
    await refusal(north.createTenant({ slug: uniqueSlug('root'), name: 'Root' }), 'GLOBAL_ADMIN_REQUIRED')
    await refusal((await installation.clientFor(null, ['write'])).createTenant({ slug: uniqueSlug('root'), name: 'Root' }), 'GLOBAL_ADMIN_REQUIRED')
    expect((await global.createTenant({ slug: uniqueSlug('root'), name: 'Root' })).parent_id).toBeNull()
  })
  it('change status for global admins only, not for their own admin', async () => {
    const apex = await installation.clientFor(t.apex.id)
    const globalWriter = await installation.clientFor(null, ['write'])
    for (const change of ['suspendTenant', 'resumeTenant', 'archiveTenant', 'deleteTenant'] as const) {
      await refusal(apex[change]({ id: t.apex.id }), 'TENANT_NOT_FOUND')
      await refusal(globalWriter[change]({ id: t.apex.id }), 'GLOBAL_ADMIN_REQUIRED')
    }
    expect((await apex.getTenant({ id: t.apex.id })).status).toBe('active')
  })
})

describe('status', () => {
  it('of a tenant is changed from its parent, not from itself', async () => {
    const alpha = await installation.clientFor(t.alpha.id)
    await refusal(alpha.suspendTenant({ id: t.alpha.id }), 'TENANT_NOT_FOUND')
    expect((await alpha.suspendTenant({ id: t.leaf.id })).status).toBe('suspended')
    expect((await alpha.resumeTenant({ id: t.leaf.id })).status).toBe('active')
  })
  it('blocks the keys of a suspended tenant and leaves it to the keys above', async () => {
    const leaf = await installation.clientFor(t.leaf.id)
    await north.suspendTenant({ id: t.leaf.id })
    await refusal(leaf.getTenant({ id: t.leaf.id }), 'TENANT_SUSPENDED')
    expect((await north.getTenant({ id: t.leaf.id })).status).toBe('suspended')
    await refusal(north.createApiKey({ tenant_id: t.leaf.id }), 'TENANT_INVALID_STATE')
    await north.resumeTenant({ id: t.leaf.id })
    expect((await leaf.getTenant({ id: t.leaf.id })).status).toBe('active')
  })
})

describe('policies', () => {
  it('of another tenant are not found through one within reach', async () => {
    const theirs = await global.createPermission({ id: t.south.id, key: 'theirs' })
    const [absent, foreign] = [crypto.randomUUID(), theirs.id]
    for (const call of [north.deletePermission, (input: { id: string; policy_id: string }) => north.updatePermission({ ...input, value: 1 })]) {
      const unknown = await refusal(call({ id: t.alpha.id, policy_id: absent }), 'PERMISSION_NOT_FOUND')
      const outside = await refusal(call({ id: t.alpha.id, policy_id: foreign }), 'PERMISSION_NOT_FOUND')
      expect([outside.message, Object.keys(outside.details)]).toEqual([unknown.message, Object.keys(unknown.details)])
    }
    expect((await global.resolvePermissions({ id: t.south.id })).permissions['theirs']?.policy_id).toBe(theirs.id)
  })
  it('and config that are locked above name only where, by id and depth', async () => {
    await global.createPermission({ id: t.acme.id, key: 'held', mode: 'LOCKED', value: 'secret-of-acme' })
    await global.setConfig({ id: t.acme.id, key: 'held', value: 'secret-of-acme', locked: true })
    const where = { key: 'held', source_tenant_id: t.acme.id, source_depth: 0, request_id: expect.any(String) }
    expect((await refusal(north.createPermission({ id: t.alpha.id, key: 'held' }), 'PERMISSION_LOCKED')).details).toEqual(where)
    expect((await refusal(north.setConfig({ id: t.alpha.id, key: 'held', value: 1 }), 'CONFIG_LOCKED')).details).toEqual(where)
  })
})

describe('on the host of a tenant', () => {
  it('the reach narrows to that tenant, a global admin included', async () => {
    const there = await installation.clientFor(null, ['admin'], at(t.north))
    expect(idsOf(await walk((page) => there.listTenants(page))).sort()).toEqual(within())
    await refusal(there.getTenant({ id: t.acme.id }), 'TENANT_NOT_FOUND')
    await refusal(there.createTenant({ slug: uniqueSlug('root'), name: 'Root' }), 'GLOBAL_ADMIN_REQUIRED')
    await refusal(there.suspendTenant({ id: t.north.id }), 'TENANT_NOT_FOUND')
    await refusal(there.getTenantBySlug({ slug: t.apex.slug }), 'TENANT_NOT_FOUND')
    expect((await there.getContext()).acting_as).toBe(t.north.id)
  })
  it('outside its reach a key is told what it would be told on the host of nobody', async () => {
    const apiKey = await installation.apiKey(t.north.id)
    const outside = await refusal(installation.client({ apiKey, ...at(t.south) }).listTenants(), 'TENANT_NOT_FOUND')
    const above = await refusal(installation.client({ apiKey, ...at(t.acme) }).listTenants(), 'TENANT_NOT_FOUND')
    const nobody = await refusal(installation.client({ apiKey, baseUrl: 'http://nobody.stratum.test' }).listTenants(), 'TENANT_NOT_FOUND')
    expect(new Set([outside.message, above.message, nobody.message]).size).toBe(1)
  })
})
