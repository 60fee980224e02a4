/** What an app is told of a request: the tenant, who asks, what holds there. One shape, whoever told it. */
import { decodeJwt, type JWTPayload } from 'jose'
import * as z from 'zod'
import { stratumError } from '../core/error-classes.ts'
import type { TenantContext } from '../features/context/contract.ts'

/** As the gateway signs it. What a later gateway says besides is left alone. */
export const RequestTenantClaims = z.object({
  tenant_id: z.uuid(),
  slug: z.string(),
  ancestor_ids: z.array(z.uuid()),
  isolation: z.object({ strategy: z.string(), name: z.string().nullable(), status: z.string() }),
  region: z.unknown(),
  principal: z.object({ type: z.string(), id: z.string().nullable(), issuer: z.string().optional(), scopes: z.array(z.string()) }).nullable(),
  acting_as: z.uuid().optional(),
  version: z.string(),
  config: z.record(z.string(), z.unknown()).optional(),
  permissions: z.record(z.string(), z.unknown()).optional(),
  truncated: z.boolean().optional(),
})

/** Who asks, as the user's own token says. A subject is unique within its issuer only. */
export interface RequestPrincipal {
  readonly type: string
  readonly id: string | null
  readonly issuer?: string | undefined
  readonly scopes: readonly string[]
}

/** The tenant a request is for. Frozen all through, as requests may share it. */
export interface RequestTenant {
  readonly tenant_id: string
  readonly slug: string
  /** Root first. Those that the resolving credential may see. */
  readonly ancestor_ids: readonly string[]
  readonly isolation: { readonly strategy: string; readonly name: string | null; readonly status: string }
  readonly region: unknown
  /** Null where nobody known asks: then the host alone named the tenant, which proves nothing about the user. */
  readonly principal: RequestPrincipal | null
  /** Set where the principal is bound to a tenant above this one, or to none. */
  readonly acting_as?: string | undefined
  /** The database snapshot that all of it was read from. */
  readonly version: string
  /** Values by key, without secrets. Behind a gateway those keys that it is told to sign. Throws GATEWAY_CONTEXT_TRUNCATED if `truncated`. */
  readonly config: Readonly<Record<string, unknown>>
  /** Values by key. Throws GATEWAY_CONTEXT_TRUNCATED if `truncated`. */
  readonly permissions: Readonly<Record<string, unknown>>
  /** The context was too large for a header: config and permissions are not in it. */
  readonly truncated: boolean
}

function freeze<T>(value: T): T {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return value
  for (const part of Object.values(value)) freeze(part)
  return Object.freeze(value)
}

/** Left out, a limit reads as none: so what is not there is said to be so. Not enumerable, so that the rest can be printed. */
const unknown: PropertyDescriptor = {
  enumerable: false,
  get() {
    throw stratumError('GATEWAY_CONTEXT_TRUNCATED')
  },
}

/** Of the claims of a context that verified. @throws {z.ZodError} */
export function tenantOfClaims(claims: unknown): RequestTenant {
  const { config = {}, permissions = {}, truncated = false, ...known } = RequestTenantClaims.parse(claims)
  if (!truncated) return freeze({ ...known, config, permissions, truncated })
  return freeze(Object.defineProperties({ ...known, truncated, config: {}, permissions: {} }, { config: unknown, permissions: unknown }))
}

type Entries = Readonly<Record<string, { value: unknown; sensitive?: boolean }>>

const valuesOf = (entries: Entries) =>
  Object.fromEntries(
    Object.entries(entries)
      .filter(([, { sensitive }]) => sensitive !== true)
      .map(([key, { value }]) => [key, value]),
  )

/** The payload of a token that somebody else has verified. */
function payloadOf(token: string): JWTPayload {
  try {
    return decodeJwt(token)
  } catch {
    return {}
  }
}

/** Milliseconds since 1970 from which a verified token is no more. */
export const expiryOf = (token: string): number => (payloadOf(token).exp ?? Number.POSITIVE_INFINITY) * 1000

/**
 * Of what the service answered.
 * @param token the user's own; without it the service says of the app's own credential that it asks, which is not for the user
 */
export function tenantOfContext(context: TenantContext, token: string | undefined): RequestTenant {
  const { tenant_id, tenant, ancestors, isolation, region, version, acting_as } = context
  const common = {
    ...{ tenant_id, slug: tenant.slug, ancestor_ids: ancestors.map(({ id }) => id), isolation, region, version },
    ...{ config: valuesOf(context.config), permissions: valuesOf(context.permissions), truncated: false },
  }
  if (token === undefined) return freeze({ ...common, principal: null })
  const { type, id, scopes } = context.principal
  const { iss } = payloadOf(token)
  const principal = { type, id, ...(iss === undefined ? {} : { issuer: iss }), scopes }
  return freeze({ ...common, principal, ...(acting_as === undefined ? {} : { acting_as }) })
}
