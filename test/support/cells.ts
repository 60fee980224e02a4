/** What the deny matrix is made of: tenants and credentials around a target, and for every endpoint a valid input. */
import { generateKeyPairSync, randomUUID } from 'node:crypto'
import type { Endpoint } from '../../src/core/endpoint.ts'
import { SCOPES, type Scope } from '../../src/core/scopes.ts'
import type { endpoints } from '../../src/features/endpoints.ts'
import type { Tenant } from '../../src/features/tenants/contract.ts'
import { type Answer, readAnswer } from './answers.ts'
import type { Installation } from './installation.ts'
import { uniqueSlug } from './tree.ts'

/** The tenant that an operation is tried on, with something of every kind in it. */
export interface Target {
  id: string
  slug: string
  /** A tenant below it. */
  child: Tenant
  api_key_id: string
  policy_id: string
  /** A domain it claims, whose record is published. */
  domain: string
  /** An issuer bound to it, by id and by name, and what that calls it. */
  issuer_id: string
  issuer: string
  external_id: string
  /** A job about it that waits for its next try. */
  job_id: string
}

export interface World {
  /** The target's parent. */
  parent: Tenant
  sibling: Tenant
  stranger: Tenant
  /** API keys with the scope admin, unless their name says otherwise. */
  keys: Record<'global' | 'parent' | 'sibling' | 'stranger' | 'suspended' | 'archived' | 'unknown' | 'revoked' | 'expired', string> & {
    scoped: Record<Scope, string>
  }
}

export interface Sample {
  /** A valid call on the target. */
  input(target: Target, world: World): Record<string, unknown>
  /** What the target must be like for it to succeed. */
  state?: 'suspended' | 'childless'
  /** It names the target though no rule of its contract says how. */
  names?: true
}

const onTarget: Sample = { input: ({ id }) => ({ id }) }
const onKey: Sample = { input: ({ api_key_id }) => ({ id: api_key_id }) }
const onJob: Sample = { input: ({ job_id }) => ({ id: job_id }) }
/** Config and a policy under this key stand on every target. */
const onSample: Sample = { input: ({ id }) => ({ id, key: 'sample' }) }
const nothing: Sample = { input: () => ({}) }
/** An issuer as a tenant's admin may store it. */
const ISSUER_KEY = { kty: 'EC', ...generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({ format: 'jwk' }) }
const issuerOf = (name: string) => ({ issuer: `https://${name}.issuer.test`, audience: 'stratum', algorithms: ['ES256' as const], keys: [ISSUER_KEY] })
const onIssuer: Sample = { input: ({ issuer_id }) => ({ id: issuer_id }) }
const uniqueDomain = () => `${uniqueSlug('shop').replaceAll('_', '-')}.customer.example`

/** A valid input of every endpoint. One that is missing here fails the suite. */
export const SAMPLES: Record<keyof typeof endpoints, Sample> = {
  createTenant: { input: ({ id }) => ({ parent_id: id, slug: uniqueSlug('made'), name: 'Made' }) },
  batchCreateTenants: {
    input: ({ id }) => {
      const slug = uniqueSlug('made')
      const made = { name: 'Made' }
      return {
        tenants: [
          { ...made, slug, parent_id: id },
          { ...made, slug: uniqueSlug('below'), parent_slug: slug },
        ],
      }
    },
  },
  listTenants: nothing,
  getTenant: onTarget,
  getTenantBySlug: { input: ({ slug }) => ({ slug }), names: true },
  updateTenant: { input: ({ id }) => ({ id, name: 'Renamed' }) },
  deleteTenant: { ...onTarget, state: 'childless' },
  moveTenant: { input: ({ id }, { sibling }) => ({ id, new_parent_id: sibling.id }) },
  suspendTenant: { ...onTarget, state: 'childless' },
  resumeTenant: { ...onTarget, state: 'suspended' },
  archiveTenant: { ...onTarget, state: 'childless' },
  purgeTenant: { input: ({ id }) => ({ id, subtree: true }) },
  reorderTenant: { input: ({ id }) => ({ id, position: 0 }) },
  migrateIsolation: { input: ({ id }) => ({ id, isolation_strategy: 'SCHEMA_PER_TENANT' }) },
  listIsolationChanges: onTarget,
  getTenantCounts: onTarget,
  getAncestors: onTarget,
  getRoot: onTarget,
  getChildren: onTarget,
  getDescendants: onTarget,
  setConfig: { input: ({ id }) => ({ id, key: 'max_users', value: 5, sensitive: true }) },
  deleteConfig: { input: ({ id }) => ({ id, key: 'sample' }) },
  resolveConfig: onTarget,
  getConfigInheritance: onTarget,
  batchSetConfig: { input: ({ id }) => ({ id, entries: [{ key: 'max_users', value: 5, sensitive: true }] }) },
  explainConfig: onSample,
  diffConfig: { input: ({ id, child }) => ({ tenant_a: id, tenant_b: child.id }) },
  computeDrift: { input: ({ id, child }) => ({ id, child: child.id }) },
  getConfigHistory: onSample,
  listConfigDefinitions: nothing,
  putConfigDefinitions: { input: () => ({ definitions: [{ key: 'defined', schema: { type: 'integer' } }] }) },
  createPermission: { input: ({ id }) => ({ id, key: 'sample.other' }) },
  updatePermission: { input: ({ id, policy_id }) => ({ id, policy_id, value: false }) },
  deletePermission: { input: ({ id, policy_id }) => ({ id, policy_id }) },
  resolvePermissions: onTarget,
  explainPermission: onSample,
  listDomains: onTarget,
  createDomain: { input: ({ id }) => ({ id, domain: uniqueDomain() }) },
  verifyDomain: { input: ({ id, domain }) => ({ id, domain }) },
  deleteDomain: { input: ({ id, domain }) => ({ id, domain }) },
  createIssuer: { input: ({ id }) => ({ ...issuerOf(uniqueSlug('made')), tenant_id: id }) },
  listIssuers: nothing,
  deleteIssuer: onIssuer,
  listExternalIds: onTarget,
  setExternalId: { input: ({ id, issuer }) => ({ id, issuer, external_id: uniqueSlug('external') }) },
  deleteExternalId: { input: ({ id, issuer, external_id }) => ({ id, issuer, external_id }) },
  createApiKey: { input: ({ id }) => ({ tenant_id: id, name: 'made' }) },
  listApiKeys: { input: ({ id }) => ({ tenant_id: id }) },
  getApiKey: onKey,
  revokeApiKey: onKey,
  listJobs: { input: ({ id }) => ({ tenant_id: id }) },
  getJob: onJob,
  retryJob: onJob,
  cancelJob: onJob,
  getContext: nothing,
  resolve: { input: ({ slug }) => ({ host: `${slug.replaceAll('_', '-')}.stratum.test` }), names: true },
  getTenantContext: onTarget,
  getHealth: nothing,
}

export async function createWorld({ stratum, apiKey, owner }: Installation): Promise<World> {
  const plant = (name: string, parent_id: string | null) => stratum.createTenant({ slug: uniqueSlug(name), name, parent_id })
  const root = await plant('root', null)
  const parent = await plant('parent', root.id)
  const sibling = await plant('sibling', parent.id)
  const stranger = await plant('stranger', null)
  const [suspended, archived] = [await plant('suspended', parent.id), await plant('archived', parent.id)]
  const [ofSuspended, ofArchived] = [await apiKey(suspended.id), await apiKey(archived.id)]
  await stratum.suspendTenant(suspended.id)
  await stratum.archiveTenant(archived.id)
  const revoked = await stratum.createApiKey(parent.id, { scopes: ['admin'] })
  await stratum.revokeApiKey(revoked.id)
  const expired = await stratum.createApiKey(parent.id, { scopes: ['admin'], expires_at: '2099-01-01T00:00:00Z' })
  // no clock of the database's can be turned back from outside, so its time of expiry is
  await owner.query(`update stratum.api_keys set expires_at = now() - interval '1 second' where id = $1`, [expired.id])
  const scoped = Object.fromEntries(await Promise.all(SCOPES.map(async (scope) => [scope, await apiKey(parent.id, [scope])] as const)))
  return {
    parent,
    sibling,
    stranger,
    keys: {
      global: await apiKey(null),
      parent: await apiKey(parent.id),
      sibling: await apiKey(sibling.id),
      stranger: await apiKey(stranger.id),
      suspended: ofSuspended,
      archived: ofArchived,
      unknown: `sk_test_${'A'.repeat(43)}`,
      revoked: revoked.key,
      expired: expired.key,
      scoped: scoped as Record<Scope, string>,
    },
  }
}

/** A fresh target under the world's parent, as the sample needs it to succeed. */
export async function createTarget({ stratum, zone, owner }: Installation, { parent }: World, { state }: Pick<Sample, 'state'> = {}): Promise<Target> {
  const tenant = await stratum.createTenant({ slug: uniqueSlug('target'), name: 'Target', parent_id: parent.id })
  const child = await stratum.createTenant({ slug: uniqueSlug('child'), name: 'Child', parent_id: tenant.id })
  const [key, policy] = [await stratum.createApiKey(tenant.id), await stratum.createPermission(tenant.id, { key: 'sample' })]
  await stratum.setConfig(tenant.id, 'sample', { value: 1 })
  const claim = await stratum.createDomain(tenant.id, uniqueDomain())
  zone.publish(claim)
  const issuer = await stratum.createIssuer({ ...issuerOf(tenant.slug), tenant_id: tenant.id })
  const { external_id } = await stratum.setExternalId(tenant.id, { issuer: issuer.issuer, external_id: 'org_1' })
  const { rows } = await owner.query<{ id: string }>(`select stratum.enqueue('provision_tenant', $1, '{}') as id`, [tenant.id])
  const job_id = rows[0]?.id ?? ''
  await owner.query('update stratum.jobs set attempts = 1 where id = $1', [job_id])
  if (state !== undefined) await stratum.suspendTenant(child.id)
  if (state === 'suspended') await stratum.suspendTenant(tenant.id)
  const made = { api_key_id: key.id, policy_id: policy.id, domain: claim.domain, issuer_id: issuer.id, issuer: issuer.issuer, external_id, job_id }
  return { id: tenant.id, slug: tenant.slug, child, ...made }
}

/** A target that does not exist: whatever an input takes of it, nothing has. */
export const ghostOf = (target: Target): Target => ({
  ...target,
  id: randomUUID(),
  slug: uniqueSlug('ghost'),
  api_key_id: randomUUID(),
  policy_id: randomUUID(),
  domain: uniqueDomain(),
  issuer_id: randomUUID(),
  external_id: 'org_0',
  job_id: randomUUID(),
})

export interface Outcome extends Answer {
  /** HTTP requests to the database that it took. */
  requests: number
}

/** Call an endpoint through the SDK and keep the answer itself. */
export async function callEndpoint(
  installation: Installation,
  endpoint: Endpoint,
  input: Record<string, unknown>,
  options: { apiKey?: string; token?: string; baseUrl?: string; headers?: Record<string, string> } = {},
): Promise<Outcome> {
  const before = installation.databaseRequests()
  let answer: Promise<Answer> | undefined
  const client = installation.client({
    ...options,
    fetch: async (request) => {
      const response = await installation.fetch(request)
      answer = readAnswer(response.clone())
      return response
    },
  })
  const method = client[endpoint.id as keyof typeof client] as (input: Record<string, unknown>) => Promise<unknown>
  await method(input).catch(() => undefined)
  if (answer === undefined) throw new Error(`The client sent no request for ${endpoint.id}.`)
  return { ...(await answer), requests: installation.databaseRequests() - before }
}
