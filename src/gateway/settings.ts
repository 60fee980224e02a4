/** What a tenant's config says to the gateway. What cannot be read is as if it were not there, but for an origin. */
import { canonicalHost } from '../resolver/identify.ts'
import type { GatewayConfigEntry, GatewayContext } from './context.ts'

export const ORIGIN_KEY = 'stratum.origin'
export const CANONICAL_HOST_KEY = 'stratum.canonical_host'
export const MAINTENANCE_KEY = 'stratum.maintenance'

const MAXIMUM_RETRY_AFTER = 86_400
const DEFAULT_RETRY_AFTER = 300

/** A tenant's requests are answered by this, and not forwarded. */
export interface Maintenance {
  message?: string
  /** Seconds. */
  retryAfter: number
  /** The page for browsers, in place of ours. */
  html?: string
}

function entryOf({ config }: GatewayContext, key: string): GatewayConfigEntry | null {
  const entry = Object.hasOwn(config, key) ? config[key] : undefined
  return entry === undefined || entry.value === null ? null : entry
}

/** What names the origin, or null where the deployment's is meant. */
export const originOf = (context: GatewayContext): unknown => entryOf(context, ORIGIN_KEY)?.value ?? null

/** The host that browsers are to see, or null. Only the tenant's own word counts: inherited, it would send a tenant's users to its parent. */
export function canonicalHostOf(context: GatewayContext): string | null {
  const entry = entryOf(context, CANONICAL_HOST_KEY)
  if (entry === null || entry.source_tenant_id !== context.tenant_id || typeof entry.value !== 'string') return null
  return canonicalHost(entry.value)
}

/** Whether, and how, a tenant is under maintenance: anything but null and false says that it is. */
export function maintenanceOf(context: GatewayContext): Maintenance | null {
  const value = entryOf(context, MAINTENANCE_KEY)?.value ?? false
  if (value === false) return null
  const { message, retry_after, html } = (typeof value === 'object' ? value : {}) as { message?: unknown; retry_after?: unknown; html?: unknown }
  const seconds = typeof retry_after === 'number' ? Math.ceil(retry_after) : DEFAULT_RETRY_AFTER
  return {
    ...(typeof message === 'string' ? { message } : {}),
    retryAfter: Math.min(Math.max(seconds, 1), MAXIMUM_RETRY_AFTER),
    ...(typeof html === 'string' ? { html } : {}),
  }
}
