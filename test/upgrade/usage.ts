/** An installation in use: what is put there before an upgrade, what is seen of it, and every operation of the release once. */
import { expect } from 'vitest'
import type { Endpoint } from '../../src/core/endpoint.ts'
import type { StratumClient } from '../../src/sdk/client.ts'

/** What was put there. `key` is the API key of a tenant, `ids` are all tenants. */
export interface Filled {
  ids: string[]
  key: string
}

/** Tenants in every status, moved, renamed and put in order; config with a secret, a lock and a past; policies; keys. */
export async function fill(client: StratumClient): Promise<Filled> {
  const acme = await client.createTenant({ slug: 'acme', name: 'Acme' })
  const { tenants } = await client.batchCreateTenants({
    tenants: [
      { slug: 'north', name: 'North', parent_id: acme.id, metadata: { region: 'cold' } },
      { slug: 'oslo', name: 'Oslo', parent_slug: 'north' },
      { slug: 'south', name: 'South', parent_id: acme.id },
      { slug: 'rome', name: 'Rome', parent_slug: 'south' },
    ],
  })
  const [north = '', oslo = '', south = '', rome = ''] = tenants.map(({ id }) => id)
  const globex = await client.createTenant({ slug: 'globex', name: 'Globex' })
  const closed = await client.createTenant({ slug: 'closed', name: 'Closed' })
  await client.putConfigDefinitions({ definitions: [{ key: 'max_users', schema: { type: 'integer', minimum: 1 }, default: 10 }] })
  await client.setConfig({ id: acme.id, key: 'theme', value: { dark: true }, locked: true })
  await client.setConfig({ id: acme.id, key: 'token', value: 'a secret of Acme', sensitive: true })
  for (const value of [5, 7, 9]) await client.setConfig({ id: oslo, key: 'max_users', value })
  await client.deleteConfig({ id: oslo, key: 'max_users' })
  await client.batchSetConfig({
    id: rome,
    entries: [
      { key: 'max_users', value: 3 },
      { key: 'key', value: { private: [1] }, sensitive: true },
    ],
  })
  await client.createPermission({ id: acme.id, key: 'edit', mode: 'DELEGATED', revocation_mode: 'SOFT' })
  await client.createPermission({ id: north, key: 'edit', value: { rooms: 3 }, mode: 'LOCKED' })
  await client.createPermission({ id: acme.id, key: 'export', revocation_mode: 'PERMANENT' })
  await client.updateTenant({ id: oslo, slug: 'bergen', name: 'Bergen' })
  await client.reorderTenant({ id: south, position: 0 })
  await client.moveTenant({ id: rome, new_parent_id: globex.id })
  await client.suspendTenant({ id: north, cascade: true })
  await client.archiveTenant({ id: closed.id })
  const { key } = await client.createApiKey({ tenant_id: south, name: 'of South', scopes: ['write'] })
  const revoked = await client.createApiKey({ tenant_id: globex.id, name: 'revoked' })
  await client.revokeApiKey({ id: revoked.id })
  return { ids: [acme.id, north, oslo, south, rome, globex.id, closed.id], key: key ?? '' }
}

/** What the API says of the tenants, all of it that stays as it is. */
export async function see(client: StratumClient, { ids }: Filled): Promise<unknown> {
  const tenants = []
  for (const id of ids) {
    const context: Record<string, unknown> = { ...(await client.getTenantContext({ id })) }
    // of the moment
    delete context['version']
    const { config } = await client.resolveConfig({ id, reveal: true })
    tenants.push({
      ...{ tenant: await client.getTenant({ id }), context, config, levels: await client.getConfigInheritance({ id }) },
      ...{ permissions: await client.resolvePermissions({ id }), explained: await client.explainPermission({ id, key: 'edit' }) },
      ...{ ancestors: await client.getAncestors({ id }), children: await client.getChildren({ id, include_archived: true }) },
      ...{ counts: await client.getTenantCounts({ id }), history: await client.getConfigHistory({ id, key: 'max_users' }) },
      keys: await client.listApiKeys({ tenant_id: id }),
    })
  }
  return { tenants, list: await client.listTenants({ include_archived: true, limit: 100 }), definitions: await client.listConfigDefinitions() }
}

/** The client, noting each operation, and holding each answer against the contract that the client was made of. */
export function watched(client: StratumClient, endpoints: readonly Endpoint[], called: Set<string>): StratumClient {
  const methods = endpoints.map((endpoint) => {
    const method = client[endpoint.id as 'getTenant'] as (...input: unknown[]) => Promise<unknown>
    const watching = async (...input: unknown[]) => {
      called.add(endpoint.id)
      const answer = await method(...input)
      const parsed = endpoint.output.safeParse(answer)
      expect(parsed.error?.issues ?? [], endpoint.id).toEqual([])
      return answer
    }
    return [endpoint.id, watching]
  })
  return { ...client, ...Object.fromEntries(methods) }
}

/** Every operation at least once, in a tree of its own whose slugs begin with `prefix`. */
export async function useAll(client: StratumClient, prefix: string, host: (slug: string) => string): Promise<void> {
  await client.getHealth()
  const top = await client.createTenant({ slug: `${prefix}_top`, name: 'Top' }, { idempotencyKey: `${prefix}-top` })
  expect(await client.createTenant({ slug: `${prefix}_top`, name: 'Top' }, { idempotencyKey: `${prefix}-top` })).toEqual(top)
  const [one, two] = (
    await client.batchCreateTenants({ tenants: ['one', 'two'].map((name) => ({ slug: `${prefix}_${name}`, name, parent_id: top.id })) })
  ).tenants.map(({ id }) => id) as [string, string]
  await useTree(client, top.id, one, two, prefix)
  await useConfig(client, top.id, one, `${prefix}_limit`)
  await usePermissions(client, top.id, one)
  const made = await client.createApiKey({ tenant_id: top.id, name: 'made', scopes: ['read'] })
  await client.getApiKey({ id: made.id })
  expect((await client.listApiKeys({ tenant_id: top.id })).data.map(({ id }) => id)).toEqual([made.id])
  await client.revokeApiKey({ id: made.id })
  const context = await client.getTenantContext({ id: one })
  expect(await client.resolve({ host: host(`${prefix}_one`) })).toMatchObject({ tenant_id: one, config: context.config })
  await client.deleteTenant({ id: two })
}

async function useTree(client: StratumClient, top: string, one: string, two: string, prefix: string) {
  const shown = await client.dryRun.moveTenant({ id: two, new_parent_id: one })
  expect((await client.moveTenant({ id: two, new_parent_id: one }, { ifMatch: shown.version })).parent_id).toBe(one)
  await client.suspendTenant({ id: one, cascade: true })
  expect((await client.getTenantCounts({ id: top })).by_status).toEqual({ active: 0, suspended: 2, archived: 0 })
  await client.resumeTenant({ id: one })
  await client.archiveTenant({ id: two })
  await client.resumeTenant({ id: two })
  await client.moveTenant({ id: two, new_parent_id: top })
  await client.reorderTenant({ id: two, position: 0 })
  expect((await client.getChildren({ id: top })).data.map(({ id }) => id)).toEqual([two, one])
  await client.updateTenant({ id: two, slug: `${prefix}_second`, metadata: { a: 1 } })
  expect((await client.getTenantBySlug({ slug: `${prefix}_second` })).id).toBe((await client.getTenant({ id: two })).id)
  expect((await client.getAncestors({ id: two })).data.map(({ id }) => id)).toEqual([(await client.getRoot({ id: two })).id])
  expect((await client.getDescendants({ id: top })).data).toHaveLength(2)
  await client.listTenants({ root: true })
}

async function useConfig(client: StratumClient, top: string, one: string, key: string) {
  await client.putConfigDefinitions({ definitions: [{ key, schema: { type: 'integer' } }] })
  expect((await client.listConfigDefinitions()).data.map((definition) => definition.key)).toContain(key)
  await client.setConfig({ id: top, key, value: 1 })
  await client.setConfig({ id: top, key: 'token', value: 'hidden', sensitive: true })
  const { failed } = await client.batchSetConfig({
    id: one,
    entries: [
      { key, value: 2 },
      { key: 'colour', value: 'red' },
    ],
  })
  expect(failed).toBe(0)
  await expect(client.setConfig({ id: one, key, value: 'no integer' })).rejects.toMatchObject({ code: 'CONFIG_INVALID', status: 422 })
  expect((await client.resolveConfig({ id: one, reveal: true })).config['token']).toMatchObject({ value: 'hidden', source_tenant_id: top })
  await client.explainConfig({ id: one, key })
  await client.getConfigInheritance({ id: one })
  expect((await client.diffConfig({ tenant_a: top, tenant_b: one })).data).not.toEqual([])
  expect((await client.computeDrift({ id: top, child: one })).data).not.toEqual([])
  await client.deleteConfig({ id: one, key })
  expect((await client.getConfigHistory({ id: one, key })).data).toHaveLength(2)
}

async function usePermissions(client: StratumClient, top: string, one: string) {
  const policy = await client.createPermission({ id: top, key: 'edit', mode: 'DELEGATED' })
  await client.createPermission({ id: one, key: 'edit', value: { rooms: 2 } })
  await client.updatePermission({ id: top, policy_id: policy.id, mode: 'LOCKED' })
  expect((await client.resolvePermissions({ id: one })).permissions['edit']).toMatchObject({ policy_id: policy.id, locked: true })
  await client.explainPermission({ id: one, key: 'edit' })
  await expect(client.createPermission({ id: one, key: 'edit' })).rejects.toMatchObject({ status: 409 })
  await client.deletePermission({ id: top, policy_id: policy.id })
  expect((await client.resolvePermissions({ id: one })).permissions).toEqual({})
}
