/** What the dev Worker is given: dev's own variables, and those of the environment that `npm run dev` was started with. */
import { PROVISIONER_OPTIONS } from '../provisioning/environment.ts'
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
export const OWN: ReadonlySet<string> = new Set([
  'STRATUM_MASTER_KEYS',
  'STRATUM_API_KEY_SECRETS',
  'STRATUM_API_KEY_PREFIX',
  'STRATUM_ISSUERS',
  'STRATUM_DEVELOPMENT',
])

/** What the Worker reads besides; `workers/env.ts` says what each is, and a test that none is missing here. */
export const WORKER_OPTIONS: readonly string[] = [
  'STRATUM_BASE_DOMAINS',
  'STRATUM_API_HOSTS',
  'STRATUM_APP_HOSTS',
  'STRATUM_PATH_PREFIX',
  'STRATUM_SOURCES',
  'STRATUM_COOKIE',
  'STRATUM_CORS_ORIGINS',
  'STRATUM_DNS_URL',
  'STRATUM_MAXIMUM_STALENESS_MS',
  'STRATUM_STALE_GRACE_MS',
  'STRATUM_PRINCIPAL_LIMIT',
  'STRATUM_TENANT_LIMIT',
  'STRATUM_REFUSED_LIMIT',
  'STRATUM_ORIGIN',
  'STRATUM_ORIGIN_TIMEOUT_MS',
  'STRATUM_CONTEXT_ISSUER',
  'STRATUM_CONTEXT_AUDIENCE',
  'STRATUM_CONTEXT_CONFIG',
  'STRATUM_CONTEXT_KEYS',
  'STRATUM_LOG',
]
const OPTIONS = new Set([...WORKER_OPTIONS, ...PROVISIONER_OPTIONS])

/** The STRATUM_* variables that dev was started with, for the Worker and the provisioner. Each is named in the log, the ignored ones too: no setting is lost in silence. */
export function givenVariables(environment: NodeJS.ProcessEnv, log: (line: string) => void): Record<string, string> {
  const set = Object.entries(environment).filter((entry): entry is [string, string] => entry[0].startsWith('STRATUM_') && !!entry[1])
  const given = set.filter(([name]) => OPTIONS.has(name))
  const tell = (what: string, told: typeof set, why = '') => {
    if (told.length > 0) log(`${what} ${told.map(([name]) => name).join(', ')}${why}`)
  }
  tell('environment', given)
  const own = set.filter(([name]) => OWN.has(name))
  tell('ignored  ', own, ': the local stack has its own')
  const unknown = set.filter(([name]) => !OPTIONS.has(name) && !OWN.has(name))
  tell('ignored  ', unknown, ': the local stack reads no such variable')
  return Object.fromEntries(given)
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
