/**
 * The state of the control plane, in schema `stratum`. drizzle-kit makes `migrations/NNNN_*.sql` from
 * this file; logic lives in `migrations/routines/`. Nothing at run time imports it.
 */
import { sql } from 'drizzle-orm'
import {
  bigint,
  boolean,
  check,
  customType,
  foreignKey,
  index,
  integer,
  jsonb,
  pgSchema,
  primaryKey,
  text,
  timestamp,
  unique,
  uniqueIndex,
  uuid,
} from 'drizzle-orm/pg-core'

// ltree lives in schema stratum; the migration runner puts that first in the search path.
const ltree = customType<{ data: string }>({ dataType: () => 'ltree' })
const xid8 = customType<{ data: string }>({ dataType: () => 'xid8' })
const createdAt = () => timestamp('created_at', { withTimezone: true }).notNull().defaultNow()
const updatedAt = () => timestamp('updated_at', { withTimezone: true }).notNull().defaultNow()

export const stratum = pgSchema('stratum')

/** One row: what is true of the whole installation. */
export const installation = stratum.table(
  'installation',
  {
    singleton: boolean('singleton').primaryKey().default(true),
    /** Subdomain labels that never name a tenant. */
    reservedSubdomains: text('reserved_subdomains')
      .array()
      .notNull()
      .default(sql`'{www,api,admin,app,auth,login,mail,static,assets,cdn,docs,status,support,localhost}'`),
    /** Counts the changes to the config definitions; a write carries the one it was checked against. */
    definitionsVersion: bigint('definitions_version', { mode: 'number' }).notNull().default(0),
    /** Refuse config keys that are not defined. */
    strictConfig: boolean('strict_config').notNull().default(false),
    /** How many databases the server may hold; a tenant that would need one more is refused. */
    databaseLimit: integer('database_limit').notNull().default(450),
    /** Renewed after a restore, so that every cache built before it is thrown away. */
    feedEpoch: uuid('feed_epoch').notNull().default(sql`gen_random_uuid()`),
    /** Rows of the change feed up to this transaction may be gone: who has read less far starts anew. */
    changesTrimmedTo: xid8('changes_trimmed_to').notNull().default(sql`'0'`),
  },
  (t) => [check('installation_singleton', sql`${t.singleton}`)],
)

/** The inventory of operations and what each asks of its caller; generated from the contracts. */
export const operations = stratum.table('operations', {
  name: text('name').primaryKey(),
  scope: text('scope').notNull(),
  reach: jsonb('reach').notNull(),
  /** `{ field, scope }`: the scope is needed too when the input's field is true. */
  alsoScope: jsonb('also_scope'),
})

export const tenants = stratum.table(
  'tenants',
  {
    id: uuid('id').primaryKey(),
    /** Its hexadecimal form is this tenant's label in `path`: stable, short, and no secret. */
    number: bigint('number', { mode: 'number' }).notNull().unique('tenants_number_key').generatedByDefaultAsIdentity({ name: 'tenants_number_seq' }),
    parentId: uuid('parent_id'),
    path: ltree('path').notNull().unique('tenants_path_key'),
    slug: text('slug').notNull().unique('tenants_slug_key'),
    name: text('name').notNull(),
    status: text('status').notNull().default('active'),
    isolationStrategy: text('isolation_strategy').notNull().default('SHARED_RLS'),
    isolationName: text('isolation_name').unique('tenants_isolation_name_key'),
    provisioningStatus: text('provisioning_status').notNull().default('ready'),
    regionId: uuid('region_id'),
    sortOrder: integer('sort_order').notNull().default(0),
    metadata: jsonb('metadata').notNull().default(sql`'{}'`),
    createdAt: createdAt(),
    updatedAt: updatedAt(),
    deletedAt: timestamp('deleted_at', { withTimezone: true }),
    /** The tenant whose cascade suspended this one; resuming it resumes this one too. */
    suspendedWith: uuid('suspended_with'),
    /** The tenant whose cascade archived this one. */
    archivedWith: uuid('archived_with'),
  },
  (t) => [
    foreignKey({ name: 'tenants_parent_id_fkey', columns: [t.parentId], foreignColumns: [t.id] }),
    index('tenants_children_idx').on(t.parentId, t.sortOrder, t.id),
    index('tenants_roots_idx').on(t.path).where(sql`${t.parentId} is null`),
    index('tenants_suspended_with_idx').on(t.suspendedWith).where(sql`${t.suspendedWith} is not null`),
    index('tenants_archived_with_idx').on(t.archivedWith).where(sql`${t.archivedWith} is not null`),
    check('tenants_slug_check', sql`${t.slug} ~ '^[a-z][a-z0-9_]{0,62}$'`),
    check('tenants_name_check', sql`char_length(${t.name}) between 1 and 255`),
    check('tenants_status_check', sql`${t.status} in ('active', 'suspended', 'archived')`),
    check('tenants_isolation_strategy_check', sql`${t.isolationStrategy} in ('SHARED_RLS', 'SCHEMA_PER_TENANT', 'DB_PER_TENANT')`),
    check('tenants_provisioning_status_check', sql`${t.provisioningStatus} in ('pending', 'provisioning', 'ready', 'failed')`),
    check('tenants_depth_check', sql`nlevel(${t.path}) <= 20`),
    check('tenants_label_check', sql`ltree2text(subpath(${t.path}, -1)) = to_hex(${t.number})`),
    check('tenants_metadata_check', sql`jsonb_typeof(${t.metadata}) = 'object' and octet_length(${t.metadata}::text) <= 16384`),
    check('tenants_deleted_at_check', sql`(${t.status} = 'archived') = (${t.deletedAt} is not null)`),
  ],
)

/** Every slug a tenant has had. It is never another's again: hosts, tokens and links name tenants by slug. */
export const tenantSlugs = stratum.table(
  'tenant_slugs',
  {
    slug: text('slug').primaryKey(),
    tenantId: uuid('tenant_id').notNull(),
    createdAt: createdAt(),
  },
  (t) => [index('tenant_slugs_tenant_id_idx').on(t.tenantId)],
)

/** Empty: its table lock is what changes of the tree's shape share or have alone. */
export const structureLock = stratum.table('structure_lock', { never: boolean('never') })

/** Empty: its table lock is what config writes share and a change of the definitions has alone. */
export const definitionsLock = stratum.table('definitions_lock', { never: boolean('never') })

/** A tenant's data keys, wrapped by a master key of the ring. Destroying them destroys its secrets. */
export const dataKeys = stratum.table(
  'data_keys',
  {
    tenantId: uuid('tenant_id').notNull(),
    id: uuid('id').notNull(),
    masterKeyId: text('master_key_id').notNull(),
    wrapped: text('wrapped').notNull(),
    createdAt: createdAt(),
  },
  (t) => [
    primaryKey({ name: 'data_keys_pkey', columns: [t.tenantId, t.id] }),
    foreignKey({ name: 'data_keys_tenant_id_fkey', columns: [t.tenantId], foreignColumns: [tenants.id] }),
  ],
)

/** A tenant's own config. An entry is sensitive when it has a ciphertext in place of a value. */
export const configEntries = stratum.table(
  'config_entries',
  {
    tenantId: uuid('tenant_id').notNull(),
    key: text('key').notNull(),
    value: jsonb('value'),
    ciphertext: text('ciphertext'),
    dataKeyId: uuid('data_key_id'),
    locked: boolean('locked').notNull().default(false),
    createdAt: createdAt(),
    updatedAt: updatedAt(),
  },
  (t) => [
    primaryKey({ name: 'config_entries_pkey', columns: [t.tenantId, t.key] }),
    foreignKey({ name: 'config_entries_tenant_id_fkey', columns: [t.tenantId], foreignColumns: [tenants.id] }),
    foreignKey({ name: 'config_entries_data_key_fkey', columns: [t.tenantId, t.dataKeyId], foreignColumns: [dataKeys.tenantId, dataKeys.id] }),
    check('config_entries_key_check', sql`${t.key} ~ '^[A-Za-z][A-Za-z0-9_.:-]{0,254}$'`),
    check('config_entries_size_check', sql`octet_length(${t.value}::text) <= 65536 and octet_length(${t.ciphertext}) <= 98304`),
    check('config_entries_value_check', sql`(${t.value} is null) <> (${t.ciphertext} is null) and (${t.ciphertext} is null) = (${t.dataKeyId} is null)`),
  ],
)

/** What a config key may hold, for the whole installation. */
export const configDefinitions = stratum.table('config_definitions', {
  key: text('key').primaryKey(),
  /** JSON Schema. */
  schema: jsonb('schema').notNull(),
  defaultValue: jsonb('default_value'),
  description: text('description').notNull().default(''),
  sensitive: boolean('sensitive').notNull().default(false),
  updatedAt: updatedAt(),
})

/**
 * Every value a key has had, at a tenant or, with no tenant, as the default of its definition: resolution at a past moment reads
 * these. A deletion has neither value nor ciphertext.
 */
export const configHistory = stratum.table(
  'config_history',
  {
    id: bigint('id', { mode: 'number' }).primaryKey().generatedAlwaysAsIdentity({ name: 'config_history_id_seq' }),
    tenantId: uuid('tenant_id'),
    key: text('key').notNull(),
    value: jsonb('value'),
    ciphertext: text('ciphertext'),
    dataKeyId: uuid('data_key_id'),
    locked: boolean('locked').notNull(),
    changedAt: timestamp('changed_at', { withTimezone: true }).notNull().default(sql`clock_timestamp()`),
    /** Who changed it, as the audit trail has it. */
    actor: jsonb('actor').notNull(),
  },
  (t) => [
    foreignKey({ name: 'config_history_tenant_id_fkey', columns: [t.tenantId], foreignColumns: [tenants.id] }),
    index('config_history_tenant_id_key_idx').on(t.tenantId, t.key, t.id),
  ],
)

/** Where in the tree a tenant has been, and since when. */
export const tenantPlaces = stratum.table(
  'tenant_places',
  {
    id: bigint('id', { mode: 'number' }).primaryKey().generatedAlwaysAsIdentity({ name: 'tenant_places_id_seq' }),
    tenantId: uuid('tenant_id').notNull(),
    parentId: uuid('parent_id'),
    since: timestamp('since', { withTimezone: true }).notNull().default(sql`clock_timestamp()`),
  },
  (t) => [
    foreignKey({ name: 'tenant_places_tenant_id_fkey', columns: [t.tenantId], foreignColumns: [tenants.id] }),
    index('tenant_places_tenant_id_idx').on(t.tenantId, t.since),
  ],
)

/** Answers of requests that may be sent again, kept for 24 hours. */
export const idempotencyKeys = stratum.table(
  'idempotency_keys',
  {
    principal: text('principal').notNull(),
    operation: text('operation').notNull(),
    key: text('key').notNull(),
    /** SHA-256 of the input. */
    inputHash: text('input_hash').notNull(),
    answer: jsonb('answer'),
    /** The tenants that request and answer name: a purge of one erases this. */
    tenantIds: uuid('tenant_ids').array().notNull().default(sql`'{}'`),
    createdAt: createdAt(),
  },
  (t) => [
    primaryKey({ name: 'idempotency_keys_pkey', columns: [t.principal, t.operation, t.key] }),
    index('idempotency_keys_created_at_idx').on(t.createdAt),
    // Sorted in at once: a purge looks up many, and would read through what is yet to be sorted in for each.
    index('idempotency_keys_tenant_ids_idx').using('gin', t.tenantIds).with({ fastupdate: false }),
  ],
)

export const permissionPolicies = stratum.table(
  'permission_policies',
  {
    id: uuid('id').primaryKey(),
    tenantId: uuid('tenant_id').notNull(),
    key: text('key').notNull(),
    value: jsonb('value').notNull(),
    mode: text('mode').notNull(),
    revocationMode: text('revocation_mode').notNull(),
    createdAt: createdAt(),
    updatedAt: updatedAt(),
  },
  (t) => [
    unique('permission_policies_tenant_id_key_key').on(t.tenantId, t.key),
    foreignKey({ name: 'permission_policies_tenant_id_fkey', columns: [t.tenantId], foreignColumns: [tenants.id] }),
    index('permission_policies_key_idx').on(t.key),
    check('permission_policies_key_check', sql`${t.key} ~ '^[A-Za-z][A-Za-z0-9_.:-]{0,254}$'`),
    check('permission_policies_size_check', sql`octet_length(${t.value}::text) <= 65536`),
    check('permission_policies_mode_check', sql`${t.mode} in ('LOCKED', 'INHERITED', 'DELEGATED')`),
    check('permission_policies_revocation_mode_check', sql`${t.revocationMode} in ('CASCADE', 'SOFT', 'PERMANENT')`),
  ],
)

/** API keys, known only by their HMAC. Without a tenant a key is global. */
export const apiKeys = stratum.table(
  'api_keys',
  {
    id: uuid('id').primaryKey(),
    tenantId: uuid('tenant_id'),
    name: text('name').notNull(),
    keyHash: text('key_hash').notNull().unique('api_keys_key_hash_key'),
    /** The first characters, so that a person can tell keys apart. */
    hint: text('hint').notNull(),
    scopes: text('scopes').array().notNull(),
    expiresAt: timestamp('expires_at', { withTimezone: true }),
    revokedAt: timestamp('revoked_at', { withTimezone: true }),
    createdAt: createdAt(),
  },
  (t) => [
    foreignKey({ name: 'api_keys_tenant_id_fkey', columns: [t.tenantId], foreignColumns: [tenants.id] }),
    index('api_keys_tenant_id_idx').on(t.tenantId, t.id),
    check('api_keys_scopes_check', sql`${t.scopes} <@ '{read,write,admin,"secrets:read"}' and cardinality(${t.scopes}) > 0`),
  ],
)

/** The end of each audit chain; locked before the row that an entry is about. */
export const auditHeads = stratum.table('audit_heads', {
  tenantId: uuid('tenant_id').primaryKey(),
  seq: bigint('seq', { mode: 'number' }).notNull().default(0),
  hash: text('hash').notNull().default(sql`repeat('0', 64)`),
})

/** Hash-chained and append-only. The payload is the exact text that was hashed; it can be erased and the chain still verifies. */
export const auditEntries = stratum.table(
  'audit_entries',
  {
    tenantId: uuid('tenant_id').notNull(),
    seq: bigint('seq', { mode: 'number' }).notNull(),
    payload: text('payload'),
    salt: text('salt'),
    payloadHash: text('payload_hash').notNull(),
    previousHash: text('previous_hash').notNull(),
    hash: text('hash').notNull(),
    createdAt: createdAt(),
  },
  (t) => [primaryKey({ name: 'audit_entries_pkey', columns: [t.tenantId, t.seq] })],
)

/** Events to deliver, written with the change they tell of. */
export const outbox = stratum.table(
  'outbox',
  {
    id: uuid('id').primaryKey(),
    tenantId: uuid('tenant_id'),
    type: text('type').notNull(),
    payload: jsonb('payload').notNull(),
    createdAt: createdAt(),
  },
  (t) => [index('outbox_tenant_id_idx').on(t.tenantId, t.id)],
)

/** The change feed that caches are evicted by; see design §4 for why it is read by transaction id. */
export const changes = stratum.table(
  'changes',
  {
    id: bigint('id', { mode: 'number' }).primaryKey().generatedAlwaysAsIdentity({ name: 'changes_id_seq' }),
    xid: xid8('xid').notNull().default(sql`pg_current_xact_id()`),
    kind: text('kind').notNull(),
    ref: text('ref').notNull(),
    nonce: uuid('nonce').notNull().default(sql`gen_random_uuid()`),
    createdAt: createdAt(),
  },
  (t) => [
    index('changes_xid_idx').on(t.xid),
    check('changes_kind_check', sql`${t.kind} in ('subtree', 'host', 'principal', 'issuer', 'definitions', 'installation')`),
  ],
)

/** Hosts of the application's customers. Many tenants may claim one; only a verified claim is alone. */
export const customDomains = stratum.table(
  'custom_domains',
  {
    tenantId: uuid('tenant_id').notNull(),
    /** As hosts are compared: small letters, punycode, no trailing dot. */
    domain: text('domain').notNull(),
    verifiedAt: timestamp('verified_at', { withTimezone: true }),
    /** When the proof was last looked for. */
    checkedAt: timestamp('checked_at', { withTimezone: true }),
    /** Since when a verified domain has shown no proof; it is released 7 days later. */
    missingSince: timestamp('missing_since', { withTimezone: true }),
    createdAt: createdAt(),
  },
  (t) => [
    primaryKey({ name: 'custom_domains_pkey', columns: [t.tenantId, t.domain] }),
    foreignKey({ name: 'custom_domains_tenant_id_fkey', columns: [t.tenantId], foreignColumns: [tenants.id] }),
    uniqueIndex('custom_domains_verified_key').on(t.domain).where(sql`${t.verifiedAt} is not null`),
    check(
      'custom_domains_domain_check',
      sql`octet_length(${t.domain}) <= 253 and ${t.domain} ~ '^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?$'`,
    ),
    check('custom_domains_missing_check', sql`${t.missingSince} is null or ${t.verifiedAt} is not null`),
  ],
)

/** Rules of the Public Suffix List, as it writes them. A custom domain is never one of them. */
export const publicSuffixes = stratum.table('public_suffixes', { rule: text('rule').primaryKey() })

/** Issuers of tokens that were added while the service runs; those of the environment are not here. */
export const issuers = stratum.table(
  'issuers',
  {
    id: uuid('id').primaryKey(),
    /** Its tokens reach this tenant and those below at most; without one, what their tenant claim names. */
    tenantId: uuid('tenant_id'),
    issuer: text('issuer').notNull(),
    audience: text('audience').notNull(),
    /** `{ jwks_uri | keys, algorithms, tenant_claim, scopes_claim, max_scopes, global }`; public keys only. */
    settings: jsonb('settings').notNull(),
    createdAt: createdAt(),
  },
  (t) => [
    unique('issuers_issuer_audience_key').on(t.issuer, t.audience),
    foreignKey({ name: 'issuers_tenant_id_fkey', columns: [t.tenantId], foreignColumns: [tenants.id] }),
    index('issuers_tenant_id_idx').on(t.tenantId, t.id),
    check('issuers_size_check', sql`octet_length(${t.settings}::text) <= 65536`),
  ],
)

/** What an issuer's tokens call a tenant. */
export const tenantExternalIds = stratum.table(
  'tenant_external_ids',
  {
    issuer: text('issuer').notNull(),
    externalId: text('external_id').notNull(),
    tenantId: uuid('tenant_id').notNull(),
    /** Where the reach of who mapped it begins, null for everywhere: it counts for issuers bound within, and for no others. */
    reachTenantId: uuid('reach_tenant_id'),
    createdAt: createdAt(),
  },
  (t) => [
    primaryKey({ name: 'tenant_external_ids_pkey', columns: [t.issuer, t.externalId] }),
    foreignKey({ name: 'tenant_external_ids_tenant_id_fkey', columns: [t.tenantId], foreignColumns: [tenants.id] }),
    foreignKey({ name: 'tenant_external_ids_reach_tenant_id_fkey', columns: [t.reachTenantId], foreignColumns: [tenants.id] }),
    index('tenant_external_ids_tenant_id_idx').on(t.tenantId, t.issuer, t.externalId),
    index('tenant_external_ids_reach_tenant_id_idx').on(t.reachTenantId),
  ],
)
