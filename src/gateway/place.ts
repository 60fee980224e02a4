/** Where a request came to: what its URL and its Host header say, each read once. */
import type { NamedTenant } from '../core/actor.ts'
import { BoundedMap } from '../crypto/bounded-map.ts'
import { canonicalHost, type HostRules, readHost } from '../resolver/identify.ts'

export interface Place {
  /** The Host header as it came. */
  readonly asked: string
  readonly named: NamedTenant | null
  /** A host of the app, where who asks says for which tenant. */
  readonly isApp: boolean
  /** Null where Host and URL do not name one and the same valid host: it is anybody's guess which of them the app would take. */
  readonly site: Site | null
}

/** A host and how it was reached. */
export interface Site {
  /** Scheme, host and port of the URL. */
  readonly origin: string
  readonly scheme: string
  /** As it is compared. */
  readonly host: string
  /** With the port that was asked for. */
  readonly hostAndPort: string
}

/** Where path and query of an absolute URL begin; its end where it has none. */
const pathStart = (url: string): number => {
  const slash = url.indexOf('/', 'https://'.length)
  return slash === -1 ? url.length : slash
}

/** Path and query of an absolute URL, as they came. */
export const pathOf = (url: string): string => url.slice(pathStart(url)) || '/'

function siteOf(beginning: string, asked: string, host: string | null): Site | null {
  if (host === null || !URL.canParse(beginning)) return null
  const { origin, href, protocol, port, host: named } = new URL(beginning)
  // Whatever else stands before the first slash, such as a user name, is of no host.
  if (href !== `${origin}/` || (asked !== named && host !== canonicalHost(named))) return null
  return { origin, scheme: protocol.slice(0, -1), host, hostAndPort: port === '' ? host : `${host}:${port}` }
}

const MAXIMUM_PLACES = 1_000

/** Reads places by these rules. The Host header is null where a request has none. */
export function placeReader(rules: HostRules): (url: string, asked: string | null) => Place {
  const known = new BoundedMap<string, Place>(MAXIMUM_PLACES)
  return (url, header) => {
    const beginning = url.slice(0, pathStart(url))
    const kept = known.get(beginning)
    if (kept && (header === null || header === kept.asked)) return kept
    const asked = header ?? (URL.canParse(beginning) ? new URL(beginning).host : '')
    const { host, named, isApp } = readHost(asked, rules)
    const place = { asked, named, isApp, site: siteOf(beginning, asked, host) }
    if (place.site !== null) known.set(beginning, place)
    return place
  }
}
