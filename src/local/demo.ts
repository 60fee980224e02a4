/** The demo tree: a vendor, two resellers and their clients, with config, locks, permissions and a secret. */
import { TenantNotFoundError } from '../core/error-classes.ts'
import type { Stratum } from '../stratum.ts'

/** The demo's tenants by slug. */
export type DemoTenants = Record<'acmesec' | 'northstar_msp' | 'client_alpha' | 'client_beta' | 'apex_partners' | 'client_gamma', string>

const TREE = [
  { slug: 'acmesec', name: 'AcmeSec', parent: null },
  { slug: 'northstar_msp', name: 'NorthStar MSP', parent: 'acmesec' },
  { slug: 'client_alpha', name: 'Client Alpha', parent: 'northstar_msp' },
  { slug: 'client_beta', name: 'Client Beta', parent: 'northstar_msp' },
  { slug: 'apex_partners', name: 'Apex Partners', parent: 'acmesec' },
  { slug: 'client_gamma', name: 'Client Gamma', parent: 'apex_partners' },
] as const

const BY_DEMO = { actor_id: 'demo', actor_type: 'system' }

async function furnish(stratum: Stratum, tenants: DemoTenants) {
  await stratum.setConfig(tenants.acmesec, 'max_users', { value: 1000 }, BY_DEMO)
  await stratum.setConfig(tenants.acmesec, 'data_region', { value: 'eu', locked: true }, BY_DEMO)
  await stratum.setConfig(tenants.acmesec, 'smtp_password', { value: 'demo-smtp-password', sensitive: true }, BY_DEMO)
  await stratum.setConfig(tenants.northstar_msp, 'branding', { value: { color: '#0b5fff', logo: 'northstar.svg' } }, BY_DEMO)
  await stratum.setConfig(tenants.client_beta, 'max_users', { value: 500 }, BY_DEMO)
  await stratum.createPermission(tenants.acmesec, { key: 'audit:view', mode: 'LOCKED' }, BY_DEMO)
  await stratum.createPermission(tenants.acmesec, { key: 'users:manage', mode: 'DELEGATED' }, BY_DEMO)
  await stratum.createPermission(tenants.northstar_msp, { key: 'alerts:close', mode: 'INHERITED', revocation_mode: 'SOFT' }, BY_DEMO)
}

/** The ids of those demo tenants that are there. */
async function findDemo(stratum: Stratum): Promise<Partial<DemoTenants>> {
  const ids: Partial<DemoTenants> = {}
  for (const { slug } of TREE) {
    try {
      ids[slug] = (await stratum.getTenantBySlug(slug)).id
    } catch (error) {
      if (!(error instanceof TenantNotFoundError)) throw error
    }
  }
  return ids
}

/** Seed an empty database with the demo; one that holds tenants already is left alone. Answers the ids by slug. */
export async function seedDemo(stratum: Stratum): Promise<Partial<DemoTenants>> {
  const { data: present } = await stratum.listTenants({ limit: 1, include_archived: true })
  if (present.length > 0) return findDemo(stratum)
  const ids: Partial<DemoTenants> = {}
  for (const { slug, name, parent } of TREE) {
    const tenant = await stratum.createTenant({ slug, name, parent_id: parent === null ? null : (ids[parent] ?? null) }, BY_DEMO)
    ids[slug] = tenant.id
  }
  await furnish(stratum, ids as DemoTenants)
  return ids
}
