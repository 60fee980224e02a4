/** What the dev Worker is given: dev's own variables, and those of the environment that `npm run dev` was started with. */

import { stratumError } from '../core/error-classes.ts'
import { DEFAULT_DNS_URL, isDnsUrl } from '../resolver/dns.ts'
import type { DevSecrets } from './secrets.ts'

/** `iss` and `aud` of the tokens that the dev Worker trusts. */
export const DEV_ISSUER = 'https://dev.stratum.localhost'
export const DEV_AUDIENCE = 'stratum'

/** The app that the gateway forwards to, and how it signs contexts for it. */
export interface DevGateway {
  origin: string
  issuer: string
  audience: string
}

/** What the local stack decides by itself, as its database and its keys hang on it. */
const OWN = new Set(['STRATUM_MASTER_KEYS', 'STRATUM_API_KEY_SECRETS', 'STRATUM_API_KEY_PREFIX', 'STRATUM_ISSUERS', 'STRATUM_DEVELOPMENT'])

/** The STRATUM_* variables that dev was started with. Each is named in the log, the ignored ones too: no setting is lost in silence. */
export function givenVariables(environment: NodeJS.ProcessEnv, log: (line: string) => void): Record<string, string> {
  const set = Object.entries(environment).filter((entry): entry is [string, string] => entry[0].startsWith('STRATUM_') && !!entry[1])
  const given = set.filter(([name]) => !OWN.has(name))
  const ignored = set.filter(([name]) => OWN.has(name))
  if (given.length > 0) log(`environment ${given.map(([name]) => name).join(', ')}`)
  if (ignored.length > 0) log(`ignored   ${ignored.map(([name]) => name).join(', ')}: the local stack has its own`)
  return Object.fromEntries(given)
}

/** Where the provisioner looks TXT records up: where the Worker does. @throws CONFIGURATION_INVALID */
export function dnsUrlOf(given: Record<string, string>): string {
  const url = given['STRATUM_DNS_URL'] ?? DEFAULT_DNS_URL
  if (isDnsUrl(url)) return url
  throw stratumError('CONFIGURATION_INVALID', { reason: 'The variable STRATUM_DNS_URL must be an https:// URL, or http:// on this machine.' })
}

/** The first base domain: tenants' hosts are its subdomains. */
export const baseDomainOf = (given: NodeJS.ProcessEnv): string => given['STRATUM_BASE_DOMAINS']?.split(',')[0]?.trim() || 'localhost'

const audienceOf = (origin: string) => (/^https?:/.test(origin) && URL.canParse(origin) ? new URL(origin).origin : origin)

/** The gateway, or null where no STRATUM_ORIGIN is given: then tenants' hosts serve the API. */
export function gatewayOf(given: Record<string, string>): DevGateway | null {
  const origin = given['STRATUM_ORIGIN']
  if (origin === undefined) return null
  const issuer = given['STRATUM_CONTEXT_ISSUER'] ?? `https://${baseDomainOf(given)}`
  return { origin, issuer, audience: given['STRATUM_CONTEXT_AUDIENCE'] ?? audienceOf(origin) }
}

function gatewayVariables(secrets: DevSecrets, given: Record<string, string>): Record<string, string> {
  const gateway = gatewayOf(given)
  if (gateway === null) return {}
  return {
    STRATUM_CONTEXT_ISSUER: gateway.issuer,
    STRATUM_CONTEXT_AUDIENCE: gateway.audience,
    ...(secrets.context_keys === null ? {} : { STRATUM_CONTEXT_KEYS: secrets.context_keys }),
  }
}

/** All variables of the Worker by name. */
export function workerVariables(secrets: DevSecrets, given: Record<string, string>, at: { databaseUrl: string; neonUrl: string }): Record<string, string> {
  // With other base domains localhost is none, and would answer for nobody.
  const apiHosts = ['127.0.0.1', '[::1]', given['STRATUM_BASE_DOMAINS'] && 'localhost', given['STRATUM_API_HOSTS']]
  return {
    ...gatewayVariables(secrets, given),
    ...given,
    DATABASE_URL: at.databaseUrl,
    NEON_ENDPOINT: at.neonUrl,
    STRATUM_MASTER_KEYS: secrets.master_keys,
    STRATUM_API_KEY_SECRETS: secrets.api_key_secrets,
    STRATUM_API_KEY_PREFIX: 'sk_test_',
    STRATUM_API_HOSTS: apiHosts.filter(Boolean).join(','),
    STRATUM_DEVELOPMENT: 'true',
    STRATUM_ISSUERS: JSON.stringify([
      {
        issuer: DEV_ISSUER,
        audience: DEV_AUDIENCE,
        algorithms: ['HS256'],
        keys: [{ kty: 'oct', k: Buffer.from(secrets.jwt_secret).toString('base64url') }],
        max_scopes: ['admin'],
      },
    ]),
  }
}
