/** Reading from a request which tenant it names. Pure: whether such a tenant exists is asked in SQL. */
import type { NamedTenant } from '../core/actor.ts'

export interface HostRules {
  /** Domains whose single-label subdomains are tenants, e.g. `app.example.com`. The domain itself is the API's own host. */
  readonly baseDomains: readonly string[]
  /** Further hosts that name no tenant. */
  readonly apiHosts: readonly string[]
  /** The path under which a tenant may be named, e.g. `/t` for `/t/<slug>/…`. */
  readonly pathPrefix: string
}

/**
 * The name of no tenant. SQL answers it TENANT_NOT_FOUND, as any name it does not know, once it has judged
 * who asks and with which scope.
 */
const NO_TENANT = ''

/** A host as it is compared: without port, trailing dot and capitals. An IPv6 address keeps its brackets. */
export const canonicalHost = (host: string): string => host.trim().toLowerCase().replace(/:\d*$/, '').replace(/\.$/, '')

const LABEL = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/

/**
 * The tenant a host names by its subdomain, or null for the API's own hosts. Nothing falls back silently:
 * any other host names {@link NO_TENANT}.
 */
export function identifyHost(host: string, rules: HostRules): NamedTenant | null {
  const canonical = canonicalHost(host)
  if (rules.apiHosts.includes(canonical) || rules.baseDomains.includes(canonical)) return null
  const labels = rules.baseDomains.filter((base) => canonical.endsWith(`.${base}`)).map((base) => canonical.slice(0, -base.length - 1))
  return { source: 'subdomain', tenant: labels.find((label) => LABEL.test(label)) ?? NO_TENANT }
}

const TENANT_NAME = /^([a-z][a-z0-9_]{0,62}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})$/

/** A tenant as a path or header names it: by slug or id; what can be neither names {@link NO_TENANT}. */
export const identifyName = (source: 'path' | 'header', name: string): NamedTenant => ({ source, tenant: TENANT_NAME.test(name) ? name : NO_TENANT })

/** The tenant that a path names under the configured prefix, or null. */
export function identifyPath(path: string, rules: HostRules): NamedTenant | null {
  const [pathname = ''] = path.split(/[?#]/)
  if (!pathname.startsWith(`${rules.pathPrefix}/`)) return null
  return identifyName('path', pathname.slice(rules.pathPrefix.length + 1).split('/')[0] ?? '')
}
