/** The steps of a walk over kept contexts that are operations of the API: every one that changes something. */
import { AUDIENCES, DOMAINS, type KnownTenant, type World } from './world.ts'

export type Input = { readonly [name: string]: unknown }

export interface Step {
  /** How often it comes, against the others. */
  weight: number
  /** What it is done with; undefined where there is nothing to do it to. */
  input(world: World): Input | undefined
  /** What does it, where that is no operation of the API. */
  run?(world: World, input: Input): Promise<unknown>
  /** The tenants that whoever calls it has to reach, null being everything. By default the one that the input names as `id`. */
  reach?(world: World, input: Input): Array<string | null>
  /** How often one calls it who is bound to a tenant, where there is such. */
  bound?: number
  /** What the world has to know of the answer. */
  learn?(world: World, answer: unknown): void
}

const MOST_TENANTS = 20
const KEYS = ['limit', 'theme', 'plan', 'secret']
const MODES = ['LOCKED', 'INHERITED', 'DELEGATED', 'DELEGATED']
const REVOCATIONS = ['CASCADE', 'CASCADE', 'SOFT', 'SOFT', 'PERMANENT']
const isActive = ({ status }: KnownTenant) => status === 'active'
const on = (tenant: KnownTenant | undefined, more: Input = {}): Input | undefined => tenant && { id: tenant.id, ...more }

/** Of a thing of an active tenant, which alone can be changed. */
const activeOnly = <T extends { tenant_id: string }>(world: World, things: readonly T[]): T | undefined =>
  world.random.any(things.filter(({ tenant_id }) => world.tenant(tenant_id)?.status === 'active'))

const newTenant = ({ random, takeSlug }: World) => {
  const strategy = random.any(['SCHEMA_PER_TENANT', 'DB_PER_TENANT', 'SHARED_RLS', 'SHARED_RLS'])
  return { slug: takeSlug(), name: `Name ${random.below(100)}`, isolation_strategy: strategy, metadata: { rank: random.below(9) } }
}
const entry = ({ random }: World, key = random.any(KEYS)) => ({ key, value: random.below(9), locked: random.chance(0.2), sensitive: key === 'secret' })

const end = (weight: number): Step => ({
  weight,
  input: (world) => on(world.anySmall(isActive) ?? world.anyActive(), { cascade: world.random.chance(0.8) }),
})

function updated(world: World): Input | undefined {
  const { random, formerSlugs } = world
  const slug = random.chance(0.7) ? world.takeSlug() : random.any(formerSlugs)
  return on(
    world.anyActive(),
    random.chance(0.5) ? { slug } : random.chance(0.5) ? { name: `Name ${random.below(100)}` } : { metadata: { rank: random.below(9) } },
  )
}

/** The tenants that issuers of a name are bound to. */
const boundsOf = (world: World, issuer: string): string[] =>
  issuer === world.ofEnvironment.bound.name
    ? [world.boundTo]
    : world.known.issuers.flatMap((each) => (each.issuer === issuer && each.tenant_id !== null ? [each.tenant_id] : []))

/** Often into what an issuer is bound to, or out of it, where what its tokens call a tenant comes to mean another. */
function moved(world: World): Input | undefined {
  const { random, known } = world
  const isClaimed = (external: { issuer: string; external_id: string }) =>
    world.claims.some(({ issuer, claim }) => issuer === external.issuer && claim === external.external_id)
  const claimed = known.externals.filter(isClaimed)
  const external = random.chance(0.5) ? random.any(claimed.length > 0 ? claimed : known.externals) : undefined
  const bound = external && random.chance(0.6) ? random.any(boundsOf(world, external.issuer)) : undefined
  const to = bound ?? world.anyActive()?.id ?? null
  return on(world.tenant(external?.tenant_id ?? null) ?? world.anyTenant(), { new_parent_id: random.chance(0.15) ? null : to })
}

/** Often what a token that was asked with claims, and for a tenant within what its issuer is bound to. */
function mapped(world: World): Input | undefined {
  const { random, known, claims } = world
  const claimed = random.chance(0.8) ? random.any(claims.filter(({ issuer }) => boundsOf(world, issuer).length > 0)) : undefined
  const issuer = claimed?.issuer ?? random.any(known.issuers)?.issuer ?? world.ofEnvironment.bound.name
  const within = boundsOf(world, issuer).flatMap((bound) => world.within(bound).filter(isActive))
  const tenant = random.chance(0.5) ? random.any(within) : world.anyActive()
  return on(tenant, { issuer, external_id: claimed?.claim ?? random.any([`org_${random.below(4)}`, world.anyTenant()?.slug]) })
}

function definitions({ random }: World): Input {
  const defined = { key: random.any(['limit', 'quota']), schema: { type: 'integer' }, default: random.below(9) }
  return random.chance(0.8) ? { definitions: [defined], strict: random.chance(0.1) } : { definitions: [], remove: ['limit', 'quota'], strict: false }
}

function withId<T extends { tenant_id: string }>(thing: T | undefined, ...fields: Array<keyof T>): Input | undefined {
  return thing && { id: thing.tenant_id, ...Object.fromEntries(fields.map((field) => [field, thing[field]])) }
}
function policy(world: World, patch: Input = {}): Input | undefined {
  const policies = world.known.policies.filter(({ revocation_mode }) => revocation_mode !== 'PERMANENT')
  const found = activeOnly(world, policies)
  return found && { id: found.tenant_id, policy_id: found.id, ...patch }
}
const domain = (world: World, verified: boolean) =>
  withId(
    activeOnly(
      world,
      world.known.domains.filter((each) => each.verified === verified),
    ),
    'domain',
  )
const publish = ({ installation }: World, answer: unknown) => installation.zone.publish(answer as { txt_name: string; txt_value: string })
/** One that makes a place that is not there yet. */
export const job = (world: World, statuses: string[]): Input | undefined => {
  const isUnfinished = (id: string) => world.tenant(id)?.provisioning_status !== 'ready'
  const jobs = world.known.jobs.filter(({ task, status, tenant_id }) => task === 'provision_tenant' && statuses.includes(status) && isUnfinished(tenant_id))
  const found = world.random.any(jobs)
  return found && { id: found.id }
}

/** Every operation that changes something, by id. */
export const OPERATIONS: Record<string, Step> = {
  createTenant: {
    weight: 5,
    input: (world) => {
      if (world.known.tenants.length >= MOST_TENANTS) return undefined
      const parent = world.random.chance(0.2) ? undefined : world.anyTenant(({ status, path }) => status === 'active' && path.split('.').length < 4)
      return { ...newTenant(world), parent_id: parent?.id ?? null }
    },
    reach: (_, { parent_id }) => [parent_id as string | null],
  },
  batchCreateTenants: {
    weight: 3,
    input: (world) => {
      if (world.known.tenants.length >= MOST_TENANTS - 1) return undefined
      const first = newTenant(world)
      return {
        tenants: [
          { ...first, parent_id: world.anyActive()?.id ?? null },
          { ...newTenant(world), parent_slug: first.slug },
        ],
      }
    },
    reach: () => [null],
  },
  updateTenant: { weight: 9, input: updated },
  deleteTenant: end(2),
  suspendTenant: end(4),
  archiveTenant: end(2),
  resumeTenant: {
    weight: 14,
    input: (world) =>
      on(world.anyTenant(({ status, parent_id }) => status !== 'active' && (parent_id === null || world.tenant(parent_id)?.status === 'active'))),
  },
  moveTenant: { weight: 14, input: moved, reach: (_, { id, new_parent_id }) => [id as string, new_parent_id as string | null] },
  purgeTenant: {
    weight: 5,
    input: (world) => {
      const tenant = world.known.tenants.length > 11 ? world.anySmall(() => true) : undefined
      return on(tenant, { subtree: true })
    },
  },
  reorderTenant: {
    weight: 4,
    input: (world) => {
      const ofRoots = world.random.chance(0.3)
      const tenant = world.anyTenant(({ parent_id }) => (parent_id === null) === ofRoots)
      return on(tenant, { position: world.random.below(3) })
    },
  },
  migrateIsolation: {
    weight: 3,
    input: (world) => {
      const tenant = world.anyTenant(({ status, provisioning_status }) => status === 'active' && provisioning_status === 'ready')
      return on(tenant, { isolation_strategy: tenant?.isolation_strategy === 'SHARED_RLS' ? 'SCHEMA_PER_TENANT' : 'SHARED_RLS' })
    },
  },
  setConfig: { weight: 8, input: (world) => on(world.anyActive(), entry(world)) },
  batchSetConfig: {
    weight: 4,
    input: (world) =>
      on(world.anyActive(), {
        entries: world.random
          .shuffled(KEYS)
          .slice(2)
          .map((key) => entry(world, key)),
      }),
  },
  deleteConfig: { weight: 5, input: (world) => withId(activeOnly(world, world.known.entries), 'key') },
  putConfigDefinitions: { weight: 3, input: definitions, reach: () => [null] },
  createPermission: {
    weight: 8,
    input: (world) => {
      const { random } = world
      const policy = { key: random.any(['edit', 'export']), value: random.below(9), mode: random.any(MODES), revocation_mode: random.any(REVOCATIONS) }
      return on(world.anyActive(), policy)
    },
  },
  updatePermission: {
    weight: 5,
    input: (world) => policy(world, { value: world.random.below(9), ...(world.random.chance(0.5) ? { mode: world.random.any(MODES) } : {}) }),
  },
  deletePermission: { weight: 5, input: (world) => policy(world) },
  createDomain: { weight: 4, input: (world) => on(world.anyActive(), { domain: world.random.any(DOMAINS) }), learn: publish },
  verifyDomain: { weight: 6, input: (world) => domain(world, false) },
  deleteDomain: { weight: 4, input: (world) => domain(world, world.random.chance(0.8)) },
  createIssuer: {
    weight: 6,
    input: (world) => {
      const { random, stored, known } = world
      const other = random.chance(0.4) ? random.any(known.issuers) : undefined
      const tenant_id = random.chance(other ? 0.4 : 0.75) ? (world.anyActive()?.id ?? null) : null
      const limits = { max_scopes: [random.any(['admin', 'read'])], global: tenant_id === null && random.chance(0.5) }
      // One of the same name for another audience, which perhaps is bound higher and then counts for tokens of both.
      const named = stored.find(({ name }) => name === other?.issuer) ?? random.any(stored)
      return { ...named?.fields(), audience: random.any(AUDIENCES.filter((audience) => audience !== other?.audience)), tenant_id, ...limits }
    },
  },
  deleteIssuer: {
    weight: 4,
    input: ({ random, known }) => {
      const issuer = random.any(known.issuers)
      return issuer && { id: issuer.id }
    },
    reach: ({ known }, { id }) => [known.issuers.find((issuer) => issuer.id === id)?.tenant_id ?? null],
  },
  setExternalId: {
    weight: 11,
    input: mapped,
    bound: 0.5,
    reach: ({ known }, { id, issuer }) => [id as string, ...known.issuers.flatMap((each) => (each.issuer === issuer ? [each.tenant_id] : []))],
  },
  deleteExternalId: {
    weight: 4,
    input: ({ random, known }) => {
      const { tenant_id, ...mapping } = random.any(known.externals) ?? {}
      return tenant_id === undefined ? undefined : { id: tenant_id, ...mapping }
    },
  },
  createApiKey: {
    weight: 4,
    input: ({ random, known, time, anyActive }) => {
      if (known.keys.filter(({ living }) => living).length > 16) return undefined
      const tenant_id = random.chance(0.85) ? anyActive()?.id : undefined
      const expiry = random.chance(0.5) ? { expires_at: new Date(time + 3_600_000).toISOString() } : {}
      return { ...(tenant_id === undefined ? {} : { tenant_id }), scopes: [random.any(['read', 'read', 'write', 'admin'])], ...expiry }
    },
    reach: (_, { tenant_id }) => [(tenant_id ?? null) as string | null],
    learn: (world, answer) => {
      const { id, key, tenant_id } = answer as { id: string; key: string; tenant_id: string | null }
      world.noteKey(id, key, tenant_id)
    },
  },
  revokeApiKey: {
    weight: 3,
    input: ({ random, known, keys }) => {
      const living = known.keys.filter(({ id, living }) => living && keys.has(id))
      const key = living.length > 8 ? random.any(living) : undefined
      return key && { id: key.id }
    },
    reach: () => [null],
  },
  retryJob: { weight: 4, input: (world) => job(world, ['failed', 'cancelled']), reach: () => [null] },
  cancelJob: { weight: 3, input: (world) => job(world, ['queued']), reach: () => [null] },
}
