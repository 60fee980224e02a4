import * as z from 'zod'
import { changesSomething, endpoint, flag, NOTHING_TO_CHANGE, page, paging, Uuid } from '../../core/endpoint.ts'
import type { ErrorCode } from '../../core/errors.ts'
import { AnyJsonObject, JsonObject, text } from '../../core/json.ts'

export const TenantSlug = z
  .string()
  .regex(/^[a-z][a-z0-9_]{0,62}$/, 'A slug begins with a small letter and holds only small letters, digits and underscores, at most 63 characters.')
export const TenantStatus = z.enum(['active', 'suspended', 'archived'])
export const IsolationStrategy = z.enum(['SHARED_RLS', 'SCHEMA_PER_TENANT', 'DB_PER_TENANT'])
export const ProvisioningStatus = z.enum(['pending', 'provisioning', 'ready', 'failed'])

/** A tenant. Times are ISO 8601 in UTC; `depth` of a root is 0; `ancestor_ids` run from the root down. */
export const Tenant = z.object({
  id: z.uuid(),
  parent_id: z.uuid().nullable(),
  slug: z.string(),
  /** The DNS label it answers on, or null where the slug makes none or the label is reserved. */
  subdomain: z.string().nullable(),
  name: z.string(),
  status: TenantStatus,
  isolation_strategy: IsolationStrategy,
  isolation_name: z.string().nullable(),
  provisioning_status: ProvisioningStatus,
  region_id: z.uuid().nullable(),
  depth: z.number().int(),
  ancestry_path: z.string(),
  ancestor_ids: z.array(z.uuid()),
  sort_order: z.number().int(),
  metadata: AnyJsonObject,
  created_at: z.string(),
  updated_at: z.string(),
  deleted_at: z.string().nullable(),
})
export type Tenant = z.infer<typeof Tenant>

/** A tenant above the caller's reach: that it is there, and how deep. */
export const TenantOutline = z.strictObject({ id: z.uuid(), depth: z.number().int() })
/** A tenant within the caller's reach, or the outline of one above it. */
export const VisibleTenant = z.union([Tenant, TenantOutline])
export type VisibleTenant = z.infer<typeof VisibleTenant>

const id = z.strictObject({ id: Uuid })
const tag = 'tenants'
const self = [{ kind: 'tenant', field: 'id' }] as const
const parentOfSelf = [{ kind: 'parent', field: 'id' }] as const
const listing = { ...paging, status: TenantStatus.optional(), include_archived: flag.default(false) }
const search = { q: text(1, 255).optional().describe('Only tenants whose name or slug contains this, whatever its case.') }
const cascade = z.strictObject({ cascade: flag.default(false).describe('Also every active tenant below; resuming this one resumes exactly those.') })
const TreePosition = z.tuple([z.uuid()])

const newTenant = {
  slug: TenantSlug,
  name: text(1, 255),
  isolation_strategy: IsolationStrategy.default('SHARED_RLS'),
  metadata: JsonObject.default({}),
}

export const createTenant = endpoint({
  id: 'createTenant',
  method: 'POST',
  path: '/tenants',
  tag,
  summary: 'Create a tenant under a parent, or a root',
  scope: 'write',
  reach: [{ kind: 'under', field: 'parent_id' }],
  body: z.strictObject({ parent_id: Uuid.nullable().default(null), ...newTenant }),
  status: 201,
  output: Tenant,
  errors: [
    'TENANT_NOT_FOUND',
    'GLOBAL_ADMIN_REQUIRED',
    'TENANT_SLUG_TAKEN',
    'TENANT_DEPTH_EXCEEDED',
    'TENANT_INVALID_STATE',
    'PROVISIONING_UNAVAILABLE',
    'DATABASE_LIMIT_REACHED',
  ],
})

export const batchCreateTenants = endpoint({
  id: 'batchCreateTenants',
  method: 'POST',
  path: '/tenants/batch',
  tag,
  summary: 'Create up to 100 tenants, all or none; a parent may be one of the same batch',
  scope: 'write',
  reach: [{ kind: 'under_each', field: 'tenants' }],
  body: z.strictObject({
    tenants: z
      .array(
        z
          .strictObject({ parent_id: Uuid.nullable().optional(), parent_slug: TenantSlug.optional(), ...newTenant })
          .refine((spec) => spec.parent_id == null || spec.parent_slug === undefined, { message: 'Give parent_id or parent_slug, not both.' }),
      )
      .min(1)
      .max(100)
      .refine((specs) => new Set(specs.map((spec) => spec.slug)).size === specs.length, { message: 'Two entries have the same slug.' }),
  }),
  status: 201,
  output: z.object({ tenants: z.array(Tenant) }),
  errors: [...createTenant.errors, 'TENANT_PARENT_NOT_IN_BATCH'],
})

export const listTenants = endpoint({
  id: 'listTenants',
  method: 'GET',
  path: '/tenants',
  tag,
  summary: 'List the tenants within reach in tree order, each parent before its children',
  scope: 'read',
  query: z.strictObject({ ...listing, ...search, root: flag.default(false).describe('Only roots.') }),
  output: page(Tenant),
  position: TreePosition,
})

export const getTenant = endpoint({
  id: 'getTenant',
  method: 'GET',
  path: '/tenants/:id',
  tag,
  summary: 'Get a tenant by id',
  scope: 'read',
  reach: self,
  params: id,
  query: z.strictObject({ include_archived: flag.default(true) }),
  output: Tenant,
  errors: ['TENANT_NOT_FOUND', 'TENANT_ARCHIVED'],
})

export const getTenantBySlug = endpoint({
  id: 'getTenantBySlug',
  method: 'GET',
  path: '/tenants/by-slug/:slug',
  tag,
  summary: 'Get a tenant by slug',
  scope: 'read',
  params: z.strictObject({ slug: TenantSlug }),
  output: Tenant,
  errors: ['TENANT_NOT_FOUND'],
})

export const updateTenant = endpoint({
  id: 'updateTenant',
  method: 'PATCH',
  path: '/tenants/:id',
  tag,
  summary: 'Change name, slug or metadata; metadata is replaced whole',
  scope: 'write',
  reach: self,
  params: id,
  body: z
    .strictObject({ slug: TenantSlug.optional(), name: text(1, 255).optional(), metadata: JsonObject.optional() })
    .refine(changesSomething, NOTHING_TO_CHANGE),
  output: Tenant,
  errors: ['TENANT_NOT_FOUND', 'TENANT_SLUG_TAKEN', 'TENANT_INVALID_STATE'],
})

export const deleteTenant = endpoint({
  id: 'deleteTenant',
  method: 'DELETE',
  path: '/tenants/:id',
  tag,
  summary: 'Archive a tenant',
  preview: true,
  scope: 'write',
  reach: parentOfSelf,
  params: id,
  query: cascade,
  output: Tenant,
  errors: ['TENANT_NOT_FOUND', 'GLOBAL_ADMIN_REQUIRED', 'TENANT_INVALID_STATE', 'TENANT_HAS_CHILDREN'],
})

export const moveTenant = endpoint({
  id: 'moveTenant',
  method: 'POST',
  path: '/tenants/:id/move',
  tag,
  summary: 'Move a tenant with all below it under another parent, or to the top (null)',
  preview: true,
  scope: 'write',
  reach: [...parentOfSelf, { kind: 'under', field: 'new_parent_id' }],
  params: id,
  body: z.strictObject({ new_parent_id: Uuid.nullable() }),
  output: Tenant,
  errors: ['TENANT_NOT_FOUND', 'GLOBAL_ADMIN_REQUIRED', 'TENANT_CYCLE_DETECTED', 'TENANT_DEPTH_EXCEEDED', 'TENANT_INVALID_STATE'],
})

const transition = <B extends z.ZodObject>(name: string, summary: string, body: B, more: readonly ErrorCode[]) =>
  endpoint({
    id: `${name}Tenant`,
    method: 'POST',
    path: `/tenants/:id/${name}`,
    tag,
    summary,
    preview: true,
    scope: 'write',
    reach: parentOfSelf,
    params: id,
    body,
    output: Tenant,
    errors: ['TENANT_NOT_FOUND', 'GLOBAL_ADMIN_REQUIRED', 'TENANT_INVALID_STATE', ...more],
  })

export const suspendTenant = transition('suspend', 'Suspend a tenant: it no longer resolves, and neither do its credentials', cascade, ['TENANT_HAS_CHILDREN'])
export const resumeTenant = transition(
  'resume',
  'Make a suspended or archived tenant active again, and with it what its cascade changed',
  z.strictObject({}),
  [],
)
export const archiveTenant = transition('archive', 'Archive a tenant', cascade, ['TENANT_HAS_CHILDREN'])

export const purgeTenant = endpoint({
  id: 'purgeTenant',
  method: 'POST',
  path: '/tenants/:id/purge',
  tag,
  summary: 'Erase a tenant for ever: all that is kept of it here at once, its rows, schema or database by a job',
  scope: 'admin',
  reach: parentOfSelf,
  params: id,
  body: z.strictObject({ subtree: flag.default(false).describe('Also every tenant below. Without it, one that has any is refused.') }),
  output: z.object({
    id: z.uuid(),
    /** The tenants that are no more, parents before children. */
    purged: z.array(z.uuid()),
    /** How many rows were erased, by what they were. */
    erased: z.record(z.string(), z.number().int()),
    /** The jobs that drop what the data plane holds of them; none where it holds nothing. */
    job_ids: z.array(z.uuid()),
  }),
  errors: ['TENANT_NOT_FOUND', 'GLOBAL_ADMIN_REQUIRED', 'TENANT_HAS_CHILDREN', 'ISOLATION_CHANGE_RUNNING', 'PROVISIONING_UNAVAILABLE'],
})

export const reorderTenant = endpoint({
  id: 'reorderTenant',
  method: 'POST',
  path: '/tenants/:id/reorder',
  tag,
  summary: 'Put a tenant at a place among its siblings, counted from 0',
  scope: 'write',
  reach: parentOfSelf,
  params: id,
  body: z.strictObject({ position: z.int32().min(0) }),
  output: Tenant,
  errors: ['TENANT_NOT_FOUND', 'GLOBAL_ADMIN_REQUIRED'],
})

export const getTenantCounts = endpoint({
  id: 'getTenantCounts',
  method: 'GET',
  path: '/tenants/:id/counts',
  tag,
  summary: 'How many tenants lie below, of which status',
  scope: 'read',
  reach: self,
  params: id,
  output: z.object({
    children: z.number().int(),
    descendants: z.number().int(),
    by_status: z.object({ active: z.number().int(), suspended: z.number().int(), archived: z.number().int() }),
  }),
  errors: ['TENANT_NOT_FOUND'],
})

export const getAncestors = endpoint({
  id: 'getAncestors',
  method: 'GET',
  path: '/tenants/:id/ancestors',
  tag,
  summary: 'The tenants above, root first; those above the caller show id and depth',
  scope: 'read',
  reach: self,
  params: id,
  output: page(VisibleTenant),
  errors: ['TENANT_NOT_FOUND'],
})

export const getRoot = endpoint({
  id: 'getRoot',
  method: 'GET',
  path: '/tenants/:id/root',
  tag,
  summary: 'The root above a tenant; above the caller it shows id and depth',
  scope: 'read',
  reach: self,
  params: id,
  output: VisibleTenant,
  errors: ['TENANT_NOT_FOUND'],
})

export const getChildren = endpoint({
  id: 'getChildren',
  method: 'GET',
  path: '/tenants/:id/children',
  tag,
  summary: 'The tenants directly below, by sort_order, then age',
  scope: 'read',
  reach: self,
  params: id,
  query: z.strictObject(listing),
  output: page(Tenant),
  position: z.tuple([z.int32(), z.uuid()]),
  errors: ['TENANT_NOT_FOUND'],
})

export const getDescendants = endpoint({
  id: 'getDescendants',
  method: 'GET',
  path: '/tenants/:id/descendants',
  tag,
  summary: 'All tenants below in tree order',
  scope: 'read',
  reach: self,
  params: id,
  query: z.strictObject({
    ...listing,
    ...search,
    max_depth: z.coerce.number<number | string>().int().min(1).max(20).optional().describe('How many levels below; 1 is children only.'),
  }),
  output: page(Tenant),
  position: TreePosition,
  errors: ['TENANT_NOT_FOUND'],
})
