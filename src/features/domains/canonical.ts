/** Which domains may be claimed, as far as their text tells. Public suffixes are known to the database. */
import { stratumError } from '../../core/error-classes.ts'
import { canonicalHost, type HostRules } from '../../resolver/identify.ts'

/** Where the record that proves a claim stands. */
export const txtName = (domain: string): string => `_stratum.${domain}`

/** The longest domain that leaves room for {@link txtName} in the 253 characters a name may have. */
const MAXIMUM_CHARACTERS = 253 - txtName('').length
/** At least two labels; the last begins with a letter, which no address does. The table has the same rule. */
const DOMAIN = /^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]([a-z0-9-]{0,61}[a-z0-9])?$/

/** A domain as hosts are compared, or null for what is none or cannot be claimed. */
export function canonicalDomain(given: string): string | null {
  // Anything of a URL besides its host, a port too, is not of a domain: refused and not cut off.
  if (/[\s:/\\?#@%[\]*_]/u.test(given)) return null
  const domain = canonicalHost(given)
  return domain !== null && domain.length <= MAXIMUM_CHARACTERS && DOMAIN.test(domain) ? domain : null
}

function problemOf(given: string, domain: string | null, { baseDomains, apiHosts, appHosts }: HostRules): string | null {
  if (given.includes('*')) return 'it is a wildcard; claim each name by itself'
  if (domain === null) return 'it is not the name of a domain, such as shop.example.com, without scheme, port or path'
  if (baseDomains.some((base) => domain === base || domain.endsWith(`.${base}`))) return 'it is of this service itself'
  return apiHosts.includes(domain) || appHosts?.includes(domain) ? 'it is of this service itself' : null
}

/** A domain in canonical form that may be claimed. @throws DOMAIN_NOT_ALLOWED with the reason */
export function claimableDomain(given: string, rules: HostRules): string {
  const domain = canonicalDomain(given)
  const reason = problemOf(given, domain, rules)
  if (domain === null || reason !== null) throw stratumError('DOMAIN_NOT_ALLOWED', { reason })
  return domain
}
