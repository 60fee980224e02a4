import { ApiKeySecrets } from './auth/api-keys.ts'
import { TokenVerifier } from './auth/tokens.ts'
import type { Actor, Credential } from './core/actor.ts'
import type { CallOf, Endpoint, InputOf, OutputOf } from './core/endpoint.ts'
import { stratumError } from './core/error-classes.ts'
import { StratumError } from './core/errors.ts'
import type { Json } from './core/json.ts'
import type { Scope } from './core/scopes.ts'
import { Secrets } from './crypto/envelope.ts'
import { parseKeyRing } from './crypto/key-ring.ts'
import type { Database } from './db/database.ts'
import { neonDatabase } from './db/neon.ts'
import { postgresDatabase, type QueryablePool } from './db/postgres.ts'
import type { ConfigEntry } from './features/config/contract.ts'
import { type Principal, Principal as PrincipalSchema, type TenantContext } from './features/context/contract.ts'
import { endpoints } from './features/endpoints.ts'
import type { ApiKey } from './features/keys/contract.ts'
import type { Services } from './features/operation.ts'
import { operationFor } from './features/operations.ts'
import type { PermissionPolicy, ResolvedPermission } from './features/permissions/contract.ts'
import type { Tenant, VisibleTenant } from './features/tenants/contract.ts'
import { currentTenantContext, getTenantContext, runWithTenant, type TenantScope } from './tenant-scope.ts'

/** A `pg` Pool, as far as this class uses it. */
export interface PoolLike extends QueryablePool {
  connect(): Promise<{ query(text: string): Promise<{ rows: Array<Record<string, unknown>> }>; release(): void }>
}

/** How to make a {@link Stratum}: over which connection, with which keys. */
export interface StratumOptions {
  /** A `pg` Pool; it stays yours to close. Give this or `databaseUrl`. */
  pool?: PoolLike
  /** Connection string for Neon's HTTP protocol. */
  databaseUrl?: string
  /** Where Neon's HTTP protocol is spoken, if not at Neon: the local stack's `neon_url`. */
  neonEndpoint?: string
  /** Bring the database to this version before the first operation. Default false. */
  autoMigrate?: boolean
  /** Ring of master keys, `id:base64,…`, newest first. Default: the variable STRATUM_MASTER_KEYS. */
  masterKeys?: string
  /** Ring of API key secrets, `id:base64,…`, newest first. Default: the variable STRATUM_API_KEY_SECRETS. */
  apiKeySecrets?: string
  /** What new API keys begin with. Default `sk_live_`. */
  apiKeyPrefix?: 'sk_live_' | 'sk_test_'
}

/** Who did it, for the audit trail; the embedding process vouches for it. */
export interface AuditActor {
  actor_id: string
  actor_type: string
  source_ip?: string
  request_id?: string
}

/** Which page of a list; `cursor` is the previous page's `next_cursor`. */
export interface ListOptions {
  limit?: number
  cursor?: string
  status?: 'active' | 'suspended' | 'archived'
  include_archived?: boolean
}
/** One page of a list. `next_cursor` is null on the last one. */
export interface Page<T> {
  data: T[]
  next_cursor: string | null
  has_more: boolean
}

const NOBODY: AuditActor = { actor_id: 'embedded', actor_type: 'system' }

const environment = (name: string): string | undefined => (typeof process === 'undefined' ? undefined : process.env[name])
const ring = (given: string | undefined, variable: string, exact: boolean) => {
  const text = given ?? environment(variable)
  return text ? parseKeyRing(text, { variable, bytes: 32, exact }) : null
}

/** Params, query and body of a call that comes as one object, parsed. @throws VALIDATION_FAILED */
function parseCall(endpoint: Endpoint, call: Record<string, unknown>): Record<string, unknown> {
  const parts = [endpoint.params, endpoint.query, endpoint.body]
  const given = Object.entries(call).filter(([, value]) => value !== undefined)
  const unknown = given.map(([key]) => key).filter((key) => !parts.some((part) => key in part.shape))
  const issues = unknown.map((key) => ({ path: key, message: 'is not known to this operation' }))
  const input: Record<string, unknown> = {}
  for (const part of parts) {
    const parsed = part.safeParse(Object.fromEntries(given.filter(([key]) => key in part.shape)))
    if (parsed.success) Object.assign(input, parsed.data)
    else issues.push(...parsed.error.issues.map((issue) => ({ path: issue.path.join('.'), message: issue.message.replace(/\.$/, '') })))
  }
  if (issues.length > 0) throw stratumError('VALIDATION_FAILED', { reason: `${issues[0]?.path}: ${issues[0]?.message}`, issues })
  return input
}

function openDatabase({ pool, databaseUrl, neonEndpoint }: StratumOptions): Database {
  if (pool && databaseUrl === undefined) return postgresDatabase(pool)
  if (databaseUrl !== undefined && !pool) return neonDatabase(databaseUrl, { endpoint: neonEndpoint })
  throw stratumError('CONFIGURATION_INVALID', { reason: 'Give new Stratum() either a pool or a databaseUrl.' })
}

/**
 * Stratum embedded in a process: every operation without HTTP in between. The process is trusted with
 * everything; who may ask what is its own to decide. Each method rejects with a {@link StratumError}.
 *
 * @example
 * const stratum = new Stratum({ pool: new Pool(), autoMigrate: true })
 * await stratum.initialize()
 * const org = await stratum.createOrganization({ name: 'Acme Corp', slug: 'acme' })
 * await stratum.setConfig(org.id, 'max_users', { value: 100 })
 */
export class Stratum {
  /** Run `fn`, and all it awaits, for this tenant. */
  static readonly runWithTenant: <T>(context: TenantScope, fn: () => T) => T = runWithTenant
  /** The id of the tenant of the enclosing {@link Stratum.runWithTenant}. @throws TENANT_REQUIRED outside of one */
  static readonly currentTenantId = (): string => getTenantContext().tenant_id
  /** The context of the enclosing {@link Stratum.runWithTenant}, or undefined outside of one. */
  static readonly currentTenantContext: () => TenantScope | undefined = currentTenantContext

  readonly #options: StratumOptions
  readonly #services: Services
  #initialized: Promise<void> | undefined

  constructor(options: StratumOptions) {
    this.#options = options
    this.#services = {
      db: openDatabase(options),
      secrets: new Secrets(ring(options.masterKeys, 'STRATUM_MASTER_KEYS', true)),
      apiKeys: new ApiKeySecrets(ring(options.apiKeySecrets, 'STRATUM_API_KEY_SECRETS', false), options.apiKeyPrefix),
      tokens: new TokenVerifier([]),
      hosts: { baseDomains: [], apiHosts: [], pathPrefix: '/t' },
    }
  }

  /**
   * Migrate if asked to, and see that the database answers and is of this version. Called by the first
   * operation where `autoMigrate` is set; call it yourself to fail at start.
   * @throws DATABASE_UNAVAILABLE, DATABASE_OUTDATED, CONFIGURATION_INVALID
   */
  initialize(): Promise<void> {
    this.#initialized ??= this.#initialize().catch((error: unknown) => {
      this.#initialized = undefined
      throw error
    })
    return this.#initialized
  }

  async #initialize(): Promise<void> {
    if (this.#options.autoMigrate) {
      // Read from disk only here: a Worker that embeds the class never migrates and has no files.
      const { autoMigrate } = await import('./db/auto-migrate.ts')
      await autoMigrate(this.#options)
    }
    const health = (await this.#services.db.call('get_health', this.#actor(NOBODY), {})) as { role: string; role_bypasses_row_security: boolean }
    if (health.role_bypasses_row_security) {
      console.warn(`stratum: the role ${health.role} bypasses row security. That is fine for the control plane; tenant data needs another role.`)
    }
  }

  #actor(audit: AuditActor, credential?: Credential): Actor {
    const { actor_id, actor_type, request_id = null, source_ip = null } = audit
    return { credential: credential ?? { type: 'embedded', actor_id, actor_type }, named: [], exposed: false, request_id, source_ip }
  }

  async #run<E extends Endpoint>(endpoint: E, call: CallOf<E>, audit: AuditActor = NOBODY): Promise<OutputOf<E>> {
    if (this.#options.autoMigrate) await this.initialize()
    const input = parseCall(endpoint, call as Record<string, unknown>)
    return operationFor(endpoint).run(this.#services, this.#actor(audit), input as InputOf<E>)
  }

  // tenants

  /** Create a tenant under `parent_id`, or a root. */
  createTenant(tenant: CallOf<typeof endpoints.createTenant>, audit?: AuditActor): Promise<Tenant> {
    return this.#run(endpoints.createTenant, tenant, audit)
  }
  /** Get a tenant by id. @throws TENANT_NOT_FOUND; TENANT_ARCHIVED when it is and `includeArchived` is false */
  getTenant(id: string, includeArchived = true): Promise<Tenant> {
    return this.#run(endpoints.getTenant, { id, include_archived: includeArchived })
  }
  /** Get a tenant by slug. */
  getTenantBySlug(slug: string): Promise<Tenant> {
    return this.#run(endpoints.getTenantBySlug, { slug })
  }
  /** All tenants in tree order, each parent before its children, a page at a time. */
  listTenants(options: ListOptions & { root?: boolean } = {}): Promise<Page<Tenant>> {
    return this.#run(endpoints.listTenants, options)
  }
  /** Change name, slug or metadata; metadata is replaced whole. */
  updateTenant(id: string, patch: { name?: string; slug?: string; metadata?: Record<string, Json> }, audit?: AuditActor): Promise<Tenant> {
    return this.#run(endpoints.updateTenant, { ...patch, id }, audit)
  }
  /** Archive a tenant. */
  deleteTenant(id: string, audit?: AuditActor): Promise<Tenant> {
    return this.#run(endpoints.deleteTenant, { id }, audit)
  }
  /** Move a tenant with all below it under another parent, or to the top (null). */
  moveTenant(id: string, newParentId: string | null, audit?: AuditActor): Promise<Tenant> {
    return this.#run(endpoints.moveTenant, { id, new_parent_id: newParentId }, audit)
  }
  /** Suspend an active tenant: it no longer resolves, and neither do its credentials. */
  suspendTenant(id: string, audit?: AuditActor): Promise<Tenant> {
    return this.#run(endpoints.suspendTenant, { id }, audit)
  }
  /** Make a suspended or archived tenant active again. */
  resumeTenant(id: string, audit?: AuditActor): Promise<Tenant> {
    return this.#run(endpoints.resumeTenant, { id }, audit)
  }
  /** Archive an active or suspended tenant. */
  archiveTenant(id: string, audit?: AuditActor): Promise<Tenant> {
    return this.#run(endpoints.archiveTenant, { id }, audit)
  }
  /** The tenants above, root first. */
  async getAncestors(id: string): Promise<VisibleTenant[]> {
    return (await this.#run(endpoints.getAncestors, { id })).data
  }
  /** The root above a tenant; a root is its own. */
  getRoot(id: string): Promise<VisibleTenant> {
    return this.#run(endpoints.getRoot, { id })
  }
  /** The tenants directly below, by sort_order, then age, a page at a time. */
  getChildren(id: string, options: ListOptions = {}): Promise<Page<Tenant>> {
    return this.#run(endpoints.getChildren, { ...options, id })
  }
  /** All tenants below in tree order, a page at a time. */
  getDescendants(id: string, includeArchived = false, options: ListOptions = {}): Promise<Page<Tenant>> {
    return this.#run(endpoints.getDescendants, { ...options, id, include_archived: includeArchived })
  }
  /** All that holds for a tenant: ancestors, config, permissions, isolation. */
  getTenantContext(id: string): Promise<TenantContext> {
    return this.#run(endpoints.getTenantContext, { id })
  }
  /** Create a root tenant. */
  createOrganization(organization: Omit<CallOf<typeof endpoints.createTenant>, 'parent_id'>, audit?: AuditActor): Promise<Tenant> {
    return this.createTenant({ ...organization, parent_id: null }, audit)
  }
  /** The roots, a page at a time. */
  listOrganizations(options: ListOptions = {}): Promise<Page<Tenant>> {
    return this.listTenants({ ...options, root: true })
  }
  /** Get a root tenant. @throws TENANT_NOT_FOUND when it has a parent */
  async getOrganization(id: string): Promise<Tenant> {
    const tenant = await this.getTenant(id)
    if (tenant.parent_id !== null) throw stratumError('TENANT_NOT_FOUND')
    return tenant
  }

  // config

  /** Set a key. `locked` shadows everything below, `sensitive` encrypts the value. */
  setConfig(tenantId: string, key: string, entry: { value: Json; locked?: boolean; sensitive?: boolean }, audit?: AuditActor): Promise<ConfigEntry> {
    return this.#run(endpoints.setConfig, { ...entry, id: tenantId, key }, audit) as Promise<ConfigEntry>
  }
  /** Delete a tenant's own entry; what is above shows through. */
  async deleteConfig(tenantId: string, key: string, audit?: AuditActor): Promise<void> {
    await this.#run(endpoints.deleteConfig, { id: tenantId, key }, audit)
  }
  /** What holds for a tenant, by key. Secrets are decrypted, which the audit trail shows, unless `reveal` is false. */
  async resolveConfig(tenantId: string, options: { reveal?: boolean } = {}, audit?: AuditActor): Promise<Record<string, ConfigEntry>> {
    const { config } = await this.#run(endpoints.resolveConfig, { id: tenantId, reveal: options.reveal ?? true }, audit)
    return config as Record<string, ConfigEntry>
  }
  /** What holds for a tenant, by key, with every level that sets the key, root first. */
  async getConfigWithInheritance(tenantId: string): Promise<OutputOf<typeof endpoints.getConfigInheritance>['config']> {
    return (await this.#run(endpoints.getConfigInheritance, { id: tenantId })).config
  }

  // permissions

  /** Give a tenant a policy of its own for a key. */
  createPermission(tenantId: string, policy: Omit<CallOf<typeof endpoints.createPermission>, 'id'>, audit?: AuditActor): Promise<PermissionPolicy> {
    return this.#run(endpoints.createPermission, { ...policy, id: tenantId }, audit)
  }
  /** Change a tenant's own policy; what is left out stays. */
  updatePermission(
    tenantId: string,
    policyId: string,
    patch: Omit<CallOf<typeof endpoints.updatePermission>, 'id' | 'policy_id'>,
    audit?: AuditActor,
  ): Promise<PermissionPolicy> {
    return this.#run(endpoints.updatePermission, { ...patch, id: tenantId, policy_id: policyId }, audit)
  }
  /** Delete a tenant's own policy as its revocation_mode says. */
  async deletePermission(tenantId: string, policyId: string, audit?: AuditActor): Promise<void> {
    await this.#run(endpoints.deletePermission, { id: tenantId, policy_id: policyId }, audit)
  }
  /** The permissions that hold for a tenant, by key. */
  async resolvePermissions(tenantId: string): Promise<Record<string, ResolvedPermission>> {
    return (await this.#run(endpoints.resolvePermissions, { id: tenantId })).permissions
  }

  // API keys

  /** Create an API key; null makes a global one. The answer is the only time `key` is shown. */
  createApiKey(
    tenantId: string | null,
    nameOrOptions: string | { name?: string; scopes?: Scope[]; expires_at?: string } = {},
    audit?: AuditActor,
  ): Promise<ApiKey & { key: string }> {
    const options = typeof nameOrOptions === 'string' ? { name: nameOrOptions } : nameOrOptions
    return this.#run(endpoints.createApiKey, { ...options, ...(tenantId === null ? {} : { tenant_id: tenantId }) }, audit)
  }
  /** Who a presented key is, or null when it is unknown, revoked or expired. @throws TENANT_SUSPENDED, TENANT_ARCHIVED */
  async validateApiKey(key: string): Promise<Principal | null> {
    if (this.#options.autoMigrate) await this.initialize()
    try {
      const credential = { type: 'api_key' as const, hashes: await this.#services.apiKeys.hashes(key) }
      return PrincipalSchema.parse(await this.#services.db.call('authenticate', this.#actor(NOBODY, credential), {}))
    } catch (error) {
      if (error instanceof StratumError && error.code === 'API_KEY_INVALID') return null
      throw error
    }
  }
  /** Revoke an API key at once; revoking it again changes nothing. */
  revokeApiKey(id: string, audit?: AuditActor): Promise<ApiKey> {
    return this.#run(endpoints.revokeApiKey, { id }, audit)
  }
  /** API keys, newest first, a page at a time. */
  listApiKeys(options: { tenant_id?: string; limit?: number; cursor?: string } = {}): Promise<Page<ApiKey>> {
    return this.#run(endpoints.listApiKeys, options)
  }
  /** Get an API key by id. */
  getApiKey(id: string): Promise<ApiKey> {
    return this.#run(endpoints.getApiKey, { id })
  }
}
