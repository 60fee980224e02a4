/** Reading from a request which tenant it names. Pure: whether such a tenant exists is asked in SQL. */
import type { NamedTenant } from '../core/actor.ts'
import { onceFor } from '../core/once-for.ts'
import { BoundedMap } from '../crypto/bounded-map.ts'

/** What may say for which tenant a request is. The token's claim is judged in SQL, with who asks. */
export const SOURCES = ['token', 'subdomain', 'domain', 'path', 'header', 'cookie'] as const
export type Source = (typeof SOURCES)[number]
/** Those that count unless told otherwise, in their order. */
export const DEFAULT_SOURCES: readonly Source[] = ['token', 'subdomain', 'domain', 'path', 'header']

export interface HostRules {
  /** Domains whose single-label subdomains are tenants, e.g. `app.example.com`. The domain itself is the API's own host. */
  readonly baseDomains: readonly string[]
  /** Further hosts that name no tenant. */
  readonly apiHosts: readonly string[]
  /** Hosts of the application that stands behind the gateway, where who asks says for which tenant. They name none either. */
  readonly appHosts?: readonly string[] | undefined
  /** The path under which a tenant may be named, e.g. `/t` for `/t/<slug>/…`. */
  readonly pathPrefix: string
  /** Which sources count, in the order in which they are judged. Default: {@link DEFAULT_SOURCES}. */
  readonly sources?: readonly Source[] | undefined
  /** The cookie that names a tenant where the source `cookie` counts. */
  readonly cookie?: string | undefined
}

/**
 * The name of no tenant. SQL answers it TENANT_NOT_FOUND, as any name it does not know, once it has judged
 * who asks and with which scope.
 */
const NO_TENANT = ''

/** Does this source count? */
export const counts = ({ sources = DEFAULT_SOURCES }: HostRules, source: Source): boolean => sources.includes(source)

/** What names the tenant, in the order in which it is judged. */
export function inOrder(named: ReadonlyArray<NamedTenant | null>, { sources = DEFAULT_SOURCES }: HostRules): NamedTenant[] {
  const parts = named.filter((part) => part !== null)
  return parts.length < 2 ? parts : parts.sort((a, b) => sources.indexOf(a.source) - sources.indexOf(b.source))
}

const LABEL = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/
const ADDRESS = /^(\[.*\]|\d+\.\d+\.\d+\.\d+)$/
/** A name or an address, and perhaps a port; nothing else that a URL has, nor what reading a URL would drop. */
const HOST = /^(\[[0-9a-f:.]+\]|[^\p{Cc}\s:/?#@%\\[\]]+)(?::\d{0,5})?$/iu
const MAXIMUM_CHARACTERS = 300

/**
 * A host as it is compared: without port, trailing dot and capitals, other scripts as punycode, an address in its
 * one canonical form (IPv6 in brackets). Null for what is no host.
 */
export function canonicalHost(host: string): string | null {
  const [, name] = host.length > MAXIMUM_CHARACTERS ? [] : (HOST.exec(host.trim()) ?? [])
  if (name === undefined || !URL.canParse(`https://${name}/`)) return null
  const canonical = new URL(`https://${name}/`).hostname.replace(/\.$/, '')
  if (ADDRESS.test(canonical)) return canonical
  return canonical.length <= 253 && canonical.split('.').every((label) => LABEL.test(label)) ? canonical : null
}

const namedByHost = (source: 'subdomain' | 'domain', tenant: string, rules: HostRules): NamedTenant => ({
  source,
  tenant: counts(rules, source) ? tenant : NO_TENANT,
})

/**
 * The tenant a host names by its subdomain, or by being one's own domain; null for the API's own hosts, and for
 * all where no host counts. Nothing falls back silently: any other host names {@link NO_TENANT}.
 */
export function identifyHost(host: string, rules: HostRules): NamedTenant | null {
  if (!counts(rules, 'subdomain') && !counts(rules, 'domain')) return null
  const canonical = canonicalHost(host)
  if (canonical === null) return namedByHost('domain', NO_TENANT, rules)
  if (rules.apiHosts.includes(canonical) || rules.baseDomains.includes(canonical) || rules.appHosts?.includes(canonical)) return null
  const labels = rules.baseDomains.filter((base) => canonical.endsWith(`.${base}`)).map((base) => canonical.slice(0, -base.length - 1))
  if (labels.length > 0) return namedByHost('subdomain', labels.find((label) => LABEL.test(label)) ?? NO_TENANT, rules)
  // An address is nobody's domain, nor is a name of one label.
  return namedByHost('domain', ADDRESS.test(canonical) || !canonical.includes('.') ? NO_TENANT : canonical, rules)
}

/** What a Host header says, as far as it can be read without the database. */
export interface ReadHost {
  /** As it is compared; null for what is no host. */
  readonly host: string | null
  readonly named: NamedTenant | null
  /** One of {@link HostRules.appHosts}. */
  readonly isApp: boolean
}

const MAXIMUM_HOSTS = 1_000
const hostsReadBy = onceFor((_: HostRules) => new BoundedMap<string, ReadHost>(MAXIMUM_HOSTS))

/** {@link canonicalHost} and {@link identifyHost} of a Host header, kept: reading a host costs more than all else that is done for a kept context. */
export function readHost(asked: string, rules: HostRules): ReadHost {
  const known = hostsReadBy(rules)
  const kept = known.get(asked)
  if (kept) return kept
  const host = canonicalHost(asked)
  const read = { host, named: identifyHost(asked, rules), isApp: host !== null && (rules.appHosts?.includes(host) ?? false) }
  // What is no host may be of any length.
  if (read.host !== null) known.set(asked, read)
  return read
}

export const TENANT_NAME = /^([a-z][a-z0-9_]{0,62}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})$/

/** A tenant as a path, header or cookie names it: by slug or id; what can be neither names {@link NO_TENANT}. */
export const identifyName = (source: 'path' | 'header' | 'cookie', name: string, rules?: HostRules): NamedTenant => ({
  source,
  tenant: TENANT_NAME.test(name) && (rules === undefined || counts(rules, source)) ? name : NO_TENANT,
})

/** The tenant that a path names under the configured prefix, or null. Where paths do not count it names {@link NO_TENANT}. */
export function identifyPath(path: string, rules: HostRules): NamedTenant | null {
  const [pathname = ''] = path.split(/[?#]/)
  if (!pathname.startsWith(`${rules.pathPrefix}/`)) return null
  return identifyName('path', pathname.slice(rules.pathPrefix.length + 1).split('/')[0] ?? '', rules)
}

/**
 * The tenant that the configured cookie names, or null without one. Several cookies of the name that differ,
 * which another host of the domain can bring about, name {@link NO_TENANT}.
 */
export function identifyCookie(header: string | undefined, rules: HostRules): NamedTenant | null {
  if (header === undefined || rules.cookie === undefined || !counts(rules, 'cookie')) return null
  const beginning = `${rules.cookie}=`
  const cookies = header.split(';').map((cookie) => cookie.trim())
  const [value, ...others] = new Set(cookies.filter((cookie) => cookie.startsWith(beginning)).map((cookie) => cookie.slice(beginning.length)))
  if (value === undefined) return null
  return identifyName('cookie', others.length === 0 ? value : NO_TENANT)
}
