import type { CallOf, Endpoint, InputOf, OutputOf, Preview } from './core/endpoint.ts'
import { stratumError } from './core/error-classes.ts'
import { StratumError } from './core/errors.ts'
import type { Json } from './core/json.ts'
import type { Scope } from './core/scopes.ts'
import {
  type AuditActor,
  actorOf,
  type CascadeOptions,
  type Endpoints,
  type ListOptions,
  NOBODY,
  openServices,
  type Page,
  parseCall,
  type StratumOptions,
  showable,
} from './embedding.ts'
import type { ConfigDefinition, ConfigDrift, ConfigEntry } from './features/config/contract.ts'
import { type Principal, Principal as PrincipalSchema, type TenantContext } from './features/context/contract.ts'
import type { CustomDomain } from './features/domains/contract.ts'
import { endpoints } from './features/endpoints.ts'
import type { ExternalId } from './features/external-ids/contract.ts'
import type { IsolationChange } from './features/isolation/contract.ts'
import type { Issuer } from './features/issuers/contract.ts'
import type { Job } from './features/jobs/contract.ts'
import type { ApiKey } from './features/keys/contract.ts'
import type { Services } from './features/operation.ts'
import { operationFor } from './features/operations.ts'
import type { PermissionPolicy, ResolvedPermission } from './features/permissions/contract.ts'
import type { Tenant, VisibleTenant } from './features/tenants/contract.ts'
import { currentTenantContext, getTenantContext, runWithTenant, type TenantScope } from './tenant-scope.ts'

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
    this.#services = openServices(options)
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
    const health = (await this.#services.db.call('get_health', actorOf(NOBODY), {})) as { role: string; role_bypasses_row_security: boolean }
    if (health.role_bypasses_row_security) {
      console.warn(`stratum: the role ${health.role} bypasses row security. That is fine for the control plane; tenant data needs another role.`)
    }
  }

  async #prepare<E extends Endpoint>(endpoint: E, call: CallOf<E>): Promise<{ endpoint: E; parsed: InputOf<E> }> {
    if (this.#options.autoMigrate) await this.initialize()
    return { endpoint, parsed: parseCall(endpoint, call as Record<string, unknown>) as InputOf<E> }
  }

  async #run<E extends Endpoint>(given: E, call: CallOf<E>, audit: AuditActor = NOBODY): Promise<OutputOf<E>> {
    const { endpoint, parsed } = await this.#prepare(given, call)
    return operationFor(endpoint).run(this.#services, actorOf(audit), parsed)
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
  /** Archive a tenant; with `cascade` every active one below too. */
  deleteTenant(id: string, options: CascadeOptions = {}, audit?: AuditActor): Promise<Tenant> {
    return this.#run(endpoints.deleteTenant, { ...options, id }, audit)
  }
  /** Move a tenant with all below it under another parent, or to the top (null). */
  moveTenant(id: string, newParentId: string | null, audit?: AuditActor): Promise<Tenant> {
    return this.#run(endpoints.moveTenant, { id, new_parent_id: newParentId }, audit)
  }
  /** Suspend an active tenant: it no longer resolves, and neither do its credentials; with `cascade` every active one below too. */
  suspendTenant(id: string, options: CascadeOptions = {}, audit?: AuditActor): Promise<Tenant> {
    return this.#run(endpoints.suspendTenant, { ...options, id }, audit)
  }
  /** Make a suspended or archived tenant active again, and with it what its cascade changed. */
  resumeTenant(id: string, audit?: AuditActor): Promise<Tenant> {
    return this.#run(endpoints.resumeTenant, { id }, audit)
  }
  /** Archive an active or suspended tenant; with `cascade` every active one below too. */
  archiveTenant(id: string, options: CascadeOptions = {}, audit?: AuditActor): Promise<Tenant> {
    return this.#run(endpoints.archiveTenant, { ...options, id }, audit)
  }
  /**
   * Erase a tenant for ever, in whatever state; with `subtree` all below it too. Its rows in the data plane go by the
   * jobs that are answered.
   */
  purgeTenant(id: string, options: { subtree?: boolean } = {}, audit?: AuditActor): Promise<OutputOf<typeof endpoints.purgeTenant>> {
    return this.#run(endpoints.purgeTenant, { ...options, id }, audit)
  }
  /**
   * Change how a tenant is isolated, while it works. The job `job_id` does it.
   * @throws ISOLATION_UNCHANGED, ISOLATION_CHANGE_RUNNING, TENANT_INVALID_STATE, PROVISIONING_UNAVAILABLE, DATABASE_LIMIT_REACHED
   */
  migrateIsolation(id: string, strategy: IsolationChange['to_strategy'], audit?: AuditActor): Promise<IsolationChange> {
    return this.#run(endpoints.migrateIsolation, { id, isolation_strategy: strategy }, audit)
  }
  /** The changes of how a tenant is isolated, newest first, a page at a time. */
  listIsolationChanges(id: string, options: { limit?: number; cursor?: string } = {}): Promise<Page<IsolationChange>> {
    return this.#run(endpoints.listIsolationChanges, { ...options, id })
  }
  /** Put a tenant at a place among its siblings, counted from 0. */
  reorderTenant(id: string, position: number, audit?: AuditActor): Promise<Tenant> {
    return this.#run(endpoints.reorderTenant, { id, position }, audit)
  }
  /** Create up to 100 tenants, all or none; `parent_slug` names a parent of the same batch. Answered in their order. */
  async batchCreateTenants(tenants: CallOf<typeof endpoints.batchCreateTenants>['tenants'], audit?: AuditActor): Promise<Tenant[]> {
    return (await this.#run(endpoints.batchCreateTenants, { tenants }, audit)).tenants
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
  /** Set up to 200 keys; each that is refused says why and leaves the others, or with `atomic` all or none. */
  batchSetConfig(
    tenantId: string,
    entries: CallOf<typeof endpoints.batchSetConfig>['entries'],
    options: { atomic?: boolean } = {},
    audit?: AuditActor,
  ): Promise<OutputOf<typeof endpoints.batchSetConfig>> {
    return this.#run(endpoints.batchSetConfig, { ...options, id: tenantId, entries }, audit)
  }
  /**
   * What holds for a tenant, by key, or what held `at` a moment, with the tree as it was then. Secrets are
   * decrypted, which the audit trail shows, unless `reveal` is false.
   */
  async resolveConfig(tenantId: string, options: { reveal?: boolean; at?: string } = {}, audit?: AuditActor): Promise<Record<string, ConfigEntry>> {
    const { config } = await this.#run(endpoints.resolveConfig, { ...options, id: tenantId, reveal: options.reveal ?? true }, audit)
    return config as Record<string, ConfigEntry>
  }
  /** What holds for a tenant, by key, with every level that sets the key, root first. */
  async getConfigWithInheritance(tenantId: string): Promise<OutputOf<typeof endpoints.getConfigInheritance>['config']> {
    return (await this.#run(endpoints.getConfigInheritance, { id: tenantId })).config
  }
  /** One key: what holds, and each level that sets it, root first, with which one won and why. */
  explainConfig(tenantId: string, key: string): Promise<OutputOf<typeof endpoints.explainConfig>> {
    return this.#run(endpoints.explainConfig, { id: tenantId, key })
  }
  /** The keys in which two tenants differ. */
  async diffConfig(a: string, b: string): Promise<OutputOf<typeof endpoints.diffConfig>['data']> {
    return (await this.#run(endpoints.diffConfig, { tenant_a: a, tenant_b: b })).data
  }
  /** How a child's config stands to its parent's, for each key: ok, override, missing, or conflict (an override shadowed by a lock). */
  async computeDrift(parentId: string, childId: string): Promise<ConfigDrift> {
    return (await this.#run(endpoints.computeDrift, { id: parentId, child: childId })).data
  }
  /** The same for several children, by their ids. */
  async batchComputeDrift(parentId: string, childIds: readonly string[]): Promise<Record<string, ConfigDrift>> {
    const drifts = await Promise.all(childIds.map(async (childId) => [childId, await this.computeDrift(parentId, childId)] as const))
    return Object.fromEntries(drifts)
  }
  /** What a tenant's own entry of a key was, newest change first, a page at a time. */
  getConfigHistory(tenantId: string, key: string, options: { limit?: number; cursor?: string } = {}): Promise<OutputOf<typeof endpoints.getConfigHistory>> {
    return this.#run(endpoints.getConfigHistory, { ...options, id: tenantId, key })
  }
  /** Make, replace or remove definitions of keys, as `defineConfig` makes them; `strict` refuses keys that have none. Answers them all. */
  async putConfigDefinitions(
    definitions: CallOf<typeof endpoints.putConfigDefinitions>['definitions'],
    options: { remove?: string[]; strict?: boolean } = {},
    audit?: AuditActor,
  ): Promise<ConfigDefinition[]> {
    return (await this.#run(endpoints.putConfigDefinitions, { ...options, definitions }, audit)).data
  }
  /** What config keys may hold, in the whole installation. */
  async listConfigDefinitions(): Promise<ConfigDefinition[]> {
    return (await this.#run(endpoints.listConfigDefinitions, {})).data
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
  /** One key: what holds, and each level that has a policy for it, root first, with which one won and why. */
  explainPermission(tenantId: string, key: string): Promise<OutputOf<typeof endpoints.explainPermission>> {
    return this.#run(endpoints.explainPermission, { id: tenantId, key })
  }

  // showing before doing

  /**
   * What an operation would change, without doing it; `version` is for {@link Stratum.applyShown}.
   *
   * @example
   * const shown = await stratum.dryRun('moveTenant', { id, new_parent_id })
   * await stratum.applyShown('moveTenant', { id, new_parent_id }, shown.version)
   * @throws INVALID_REQUEST for an operation that cannot be shown without being done
   */
  async dryRun<K extends keyof Endpoints>(operation: K, input: CallOf<Endpoints[K]>, audit: AuditActor = NOBODY): Promise<Preview> {
    const { endpoint, parsed } = await this.#prepare(showable(operation), input)
    return operationFor(endpoint).preview(this.#services, actorOf(audit), parsed)
  }
  /** Do exactly what the dry run of this version showed, or nothing. @throws VERSION_MISMATCH */
  async applyShown<K extends keyof Endpoints>(
    operation: K,
    input: CallOf<Endpoints[K]>,
    version: string,
    audit: AuditActor = NOBODY,
  ): Promise<OutputOf<Endpoints[K]>> {
    const { endpoint, parsed } = await this.#prepare(showable(operation), input)
    return operationFor(endpoint).run(this.#services, actorOf(audit), parsed, { ifMatch: version })
  }

  // custom domains

  /** Claim a domain for a tenant; `txt_name` and `txt_value` are the record that proves it. */
  createDomain(tenantId: string, domain: string, audit?: AuditActor): Promise<CustomDomain> {
    return this.#run(endpoints.createDomain, { id: tenantId, domain }, audit)
  }
  /** The domains that a tenant claims, verified or not, a page at a time. */
  listDomains(tenantId: string, options: { limit?: number; cursor?: string } = {}): Promise<Page<CustomDomain>> {
    return this.#run(endpoints.listDomains, { ...options, id: tenantId })
  }
  /** Look for the record of a claim: with it the domain names the tenant. @throws DOMAIN_NOT_VERIFIED, DOMAIN_TAKEN, DNS_UNAVAILABLE */
  verifyDomain(tenantId: string, domain: string, audit?: AuditActor): Promise<CustomDomain> {
    return this.#run(endpoints.verifyDomain, { id: tenantId, domain }, audit)
  }
  /** Give up a claim. */
  async deleteDomain(tenantId: string, domain: string, audit?: AuditActor): Promise<void> {
    await this.#run(endpoints.deleteDomain, { id: tenantId, domain }, audit)
  }

  // issuers

  /** Trust the tokens of an issuer; without `tenant_id` it is bound to no tenant. @throws ISSUER_EXISTS */
  createIssuer(issuer: CallOf<typeof endpoints.createIssuer>, audit?: AuditActor): Promise<Issuer> {
    return this.#run(endpoints.createIssuer, issuer, audit)
  }
  /** The stored issuers, newest first, a page at a time. */
  listIssuers(options: { limit?: number; cursor?: string } = {}): Promise<Page<Issuer>> {
    return this.#run(endpoints.listIssuers, options)
  }
  /** Trust the tokens of an issuer no longer, at once. */
  async deleteIssuer(id: string, audit?: AuditActor): Promise<void> {
    await this.#run(endpoints.deleteIssuer, { id }, audit)
  }
  /** Say what the tokens of an issuer call a tenant. @throws EXTERNAL_ID_TAKEN */
  setExternalId(tenantId: string, mapping: { issuer: string; external_id: string }, audit?: AuditActor): Promise<ExternalId> {
    return this.#run(endpoints.setExternalId, { ...mapping, id: tenantId }, audit)
  }
  /** What issuers call a tenant. */
  async listExternalIds(tenantId: string): Promise<ExternalId[]> {
    return (await this.#run(endpoints.listExternalIds, { id: tenantId })).data
  }
  /** Let an issuer call a tenant by this no longer. */
  async deleteExternalId(tenantId: string, mapping: { issuer: string; external_id: string }, audit?: AuditActor): Promise<void> {
    await this.#run(endpoints.deleteExternalId, { ...mapping, id: tenantId }, audit)
  }

  // API keys

  /** Create an API key; null makes a global one. The answer is the only time `key` is shown. */
  createApiKey(
    tenantId: string | null,
    nameOrOptions: string | { name?: string; scopes?: Scope[]; expires_at?: string } = {},
    audit?: AuditActor,
  ): Promise<ApiKey & { key: string }> {
    const options = typeof nameOrOptions === 'string' ? { name: nameOrOptions } : nameOrOptions
    // Optional only in a replay, which there is none of here.
    return this.#run(endpoints.createApiKey, { ...options, ...(tenantId === null ? {} : { tenant_id: tenantId }) }, audit) as Promise<ApiKey & { key: string }>
  }
  /** Who a presented key is, or null when it is unknown, revoked or expired. @throws TENANT_SUSPENDED, TENANT_ARCHIVED */
  async validateApiKey(key: string): Promise<Principal | null> {
    if (this.#options.autoMigrate) await this.initialize()
    try {
      const credential = { type: 'api_key' as const, hashes: await this.#services.apiKeys.hashes(key) }
      return PrincipalSchema.parse(await this.#services.db.call('authenticate', actorOf(NOBODY, credential), {}))
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

  // jobs

  /** What the provisioner has to do and has done, newest first, a page at a time. */
  listJobs(options: { tenant_id?: string; status?: Job['status']; limit?: number; cursor?: string } = {}): Promise<Page<Job>> {
    return this.#run(endpoints.listJobs, options)
  }
  /** How a job stands, how far it is, and why it failed. */
  getJob(id: string): Promise<Job> {
    return this.#run(endpoints.getJob, { id })
  }
  /** Try a failed job again, or one that waits for its next try at once. @throws JOB_INVALID_STATE for any other */
  retryJob(id: string, audit?: AuditActor): Promise<Job> {
    return this.#run(endpoints.retryJob, { id }, audit)
  }
  /** Call off the making of a place before it begins, or a change of isolation before its cutover. @throws JOB_INVALID_STATE for any other */
  cancelJob(id: string, audit?: AuditActor): Promise<Job> {
    return this.#run(endpoints.cancelJob, { id }, audit)
  }
}
