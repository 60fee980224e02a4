import * as z from 'zod'
import { endpoint, Uuid } from '../../core/endpoint.ts'
import { text } from '../../core/json.ts'
import { Scope } from '../../core/scopes.ts'
import { ConfigEntry } from '../config/contract.ts'
import { ResolvedPermission } from '../permissions/contract.ts'
import { IsolationStrategy, ProvisioningStatus, Tenant, VisibleTenant } from '../tenants/contract.ts'

/** Who asks. `tenant_id` is what the credential is bound to, null for a global one. */
export const Principal = z.object({ type: z.string(), id: z.string().nullable(), tenant_id: z.uuid().nullable(), scopes: z.array(Scope) })
export type Principal = z.infer<typeof Principal>

/** All an application needs to know of the tenant a request is for. Secrets show as `{ value: null, sensitive: true }`. */
export const TenantContext = z.object({
  tenant_id: z.uuid(),
  tenant: Tenant,
  ancestors: z.array(VisibleTenant),
  config: z.record(z.string(), ConfigEntry),
  permissions: z.record(z.string(), ResolvedPermission),
  isolation: z.object({ strategy: IsolationStrategy, name: z.string().nullable(), status: ProvisioningStatus }),
  region: z.null(),
  principal: Principal,
  /** Set when the principal is not bound to this very tenant: it acts as it, and reaches no further. */
  acting_as: z.uuid().optional(),
  /** The database snapshot this was read from. No `Stratum-Version`, which is the id of one transaction. */
  version: z.string(),
})
export type TenantContext = z.infer<typeof TenantContext>

const tag = 'resolve'
const errors = ['TENANT_NOT_FOUND', 'TENANT_MISMATCH', 'TENANT_REQUIRED', 'TENANT_SUSPENDED', 'TENANT_ARCHIVED'] as const

export const getContext = endpoint({
  id: 'getContext',
  method: 'GET',
  path: '/context',
  tag,
  summary: "The caller's own context: of the tenant that host, path or header names, else of the one its credential is bound to",
  scope: 'read',
  output: TenantContext,
  errors,
})

export const resolve = endpoint({
  id: 'resolve',
  method: 'POST',
  path: '/resolve',
  tag,
  summary: "Resolve on behalf of one's own caller: which tenant do this host, path and token mean, and who is it",
  scope: 'read',
  body: z
    .strictObject({ host: text(1, 255).optional(), path: text(1, 2_048).optional(), token: text(1, 16_384).optional() })
    .refine((body) => body.host ?? body.path ?? body.token, { message: 'Give a host, a path or a token.' }),
  output: TenantContext,
  errors: [...errors, 'TOKEN_INVALID'],
})

export const getTenantContext = endpoint({
  id: 'getTenantContext',
  method: 'GET',
  path: '/tenants/:id/context',
  tag,
  summary: 'The context of a tenant, whatever its status',
  scope: 'admin',
  reach: [{ kind: 'tenant', field: 'id' }],
  params: z.strictObject({ id: Uuid }),
  output: TenantContext,
  errors: ['TENANT_NOT_FOUND'],
})

export const getHealth = endpoint({
  id: 'getHealth',
  method: 'GET',
  path: '/health',
  tag: 'health',
  summary: 'Is the service up; with an admin credential, what database it sees',
  scope: 'admin',
  reach: [{ kind: 'global', field: null }],
  open: true,
  output: z.object({
    status: z.literal('ok'),
    database: z.object({ server_version: z.string(), role: z.string(), role_bypasses_row_security: z.boolean(), migration: z.string().nullable() }).optional(),
    /** The contexts that the isolate which answers keeps, and what it counted since it began. */
    contexts: z
      .object({
        ...{ entries: z.number(), bytes: z.number(), hits: z.number(), misses: z.number(), stale: z.number() },
        ...{ polls: z.number(), waited: z.number(), evictions: z.number(), dropped_for_room: z.number(), too_large: z.number() },
      })
      .optional(),
  }),
})
