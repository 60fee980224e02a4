import * as z from 'zod'
import { changesSomething, endpoint, NOTHING_TO_CHANGE, Uuid } from '../../core/endpoint.ts'
import { AnyJson, JsonValue } from '../../core/json.ts'

export const PermissionKey = z
  .string()
  .regex(/^[A-Za-z][A-Za-z0-9_.:-]{0,254}$/, 'A key begins with a letter and holds letters, digits and . _ : -, at most 255 characters.')

/** How a policy is passed on: not at all, by value only, or by value and mode. */
export const PermissionMode = z.enum(['LOCKED', 'INHERITED', 'DELEGATED'])
/** What deleting a policy takes with it: all below, nothing below, or it cannot be deleted. */
export const RevocationMode = z.enum(['CASCADE', 'SOFT', 'PERMANENT'])

/** A tenant's own policy for a key. Times are ISO 8601 in UTC. */
export const PermissionPolicy = z.object({
  id: z.uuid(),
  tenant_id: z.uuid(),
  key: z.string(),
  value: AnyJson,
  mode: PermissionMode,
  revocation_mode: RevocationMode,
  created_at: z.string(),
  updated_at: z.string(),
})
export type PermissionPolicy = z.infer<typeof PermissionPolicy>

/** The permission that holds for a tenant; `mode` is the effective one. */
export const ResolvedPermission = z.object({
  policy_id: z.uuid(),
  key: z.string(),
  value: AnyJson,
  mode: PermissionMode,
  source_tenant_id: z.uuid(),
  locked: z.boolean(),
  delegated: z.boolean(),
})
export type ResolvedPermission = z.infer<typeof ResolvedPermission>

const tag = 'permissions'
const reach = [{ kind: 'tenant', field: 'id' }] as const
const id = z.strictObject({ id: Uuid })
const policy = z.strictObject({ id: Uuid, policy_id: Uuid })

export const createPermission = endpoint({
  id: 'createPermission',
  method: 'POST',
  path: '/tenants/:id/permissions',
  tag,
  summary: 'Give a tenant a policy of its own for a key',
  preview: true,
  scope: 'write',
  reach,
  params: id,
  body: z.strictObject({
    key: PermissionKey,
    value: JsonValue.default(true),
    mode: PermissionMode.default('INHERITED'),
    revocation_mode: RevocationMode.default('CASCADE'),
  }),
  status: 201,
  output: PermissionPolicy,
  errors: ['TENANT_NOT_FOUND', 'TENANT_INVALID_STATE', 'PERMISSION_LOCKED', 'PERMISSION_NOT_DELEGATED', 'PERMISSION_EXISTS', 'PERMISSIONS_FULL'],
})

export const updatePermission = endpoint({
  id: 'updatePermission',
  method: 'PATCH',
  path: '/tenants/:id/permissions/:policy_id',
  tag,
  summary: "Change a tenant's own policy; what is left out stays",
  preview: true,
  scope: 'write',
  reach,
  params: policy,
  body: z
    .strictObject({ value: JsonValue.optional(), mode: PermissionMode.optional(), revocation_mode: RevocationMode.optional() })
    .refine(changesSomething, NOTHING_TO_CHANGE),
  output: PermissionPolicy,
  errors: ['TENANT_NOT_FOUND', 'TENANT_INVALID_STATE', 'PERMISSION_NOT_FOUND', 'PERMISSION_LOCKED', 'PERMISSION_NOT_DELEGATED', 'PERMISSION_REVOCATION_DENIED'],
})

export const deletePermission = endpoint({
  id: 'deletePermission',
  method: 'DELETE',
  path: '/tenants/:id/permissions/:policy_id',
  tag,
  summary: "Delete a tenant's own policy as its revocation_mode says",
  preview: true,
  scope: 'write',
  reach,
  params: policy,
  output: PermissionPolicy,
  errors: ['TENANT_NOT_FOUND', 'TENANT_INVALID_STATE', 'PERMISSION_NOT_FOUND', 'PERMISSION_REVOCATION_DENIED'],
})

export const resolvePermissions = endpoint({
  id: 'resolvePermissions',
  method: 'GET',
  path: '/tenants/:id/permissions',
  tag,
  summary: 'The permissions that hold for a tenant, by key',
  scope: 'read',
  reach,
  params: id,
  output: z.object({ permissions: z.record(z.string(), ResolvedPermission) }),
  errors: ['TENANT_NOT_FOUND'],
})

export const explainPermission = endpoint({
  id: 'explainPermission',
  method: 'GET',
  path: '/tenants/:id/permissions/:key/explain',
  tag,
  summary: 'Each level that has a policy for a key, root first, which one won and why',
  scope: 'read',
  reach,
  params: z.strictObject({ id: Uuid, key: PermissionKey }),
  output: z.object({
    key: z.string(),
    effective: ResolvedPermission.nullable(),
    levels: z.array(
      z.object({
        tenant_id: z.uuid(),
        depth: z.number().int(),
        effective: z.boolean(),
        reason: z.enum(['locked', 'nearest', 'shadowed', 'overridden']),
        policy_id: z.uuid().optional(),
        value: AnyJson.optional(),
        mode: PermissionMode.optional(),
        revocation_mode: RevocationMode.optional(),
      }),
    ),
  }),
  errors: ['TENANT_NOT_FOUND'],
})
