import * as z from 'zod'
import { parseIssuers } from '../src/auth/issuers.ts'
import { stratumError } from '../src/core/error-classes.ts'
import { parseKeyRing } from '../src/crypto/key-ring.ts'
import { parseContextKeys } from '../src/gateway/context-keys.ts'
import { DEFAULT_DNS_URL, isDnsUrl } from '../src/resolver/dns.ts'
import { canonicalHost, DEFAULT_SOURCES, SOURCES, type Source } from '../src/resolver/identify.ts'

const required = (example: string) => z.string({ error: `is missing; set it with: wrangler secret put, e.g. ${example}` }).min(1, 'is empty')
const list = z.string().transform((text) =>
  text
    .split(',')
    .map((item) => item.trim().toLowerCase())
    .filter((item) => item !== ''),
)
/** Hosts as they are compared: what could never match is refused rather than ignored. */
const hosts = (what: string) =>
  list
    .refine((items) => items.every((item) => /^(\[[0-9a-f:.]+\]|[a-z0-9]([a-z0-9.-]*[a-z0-9])?)$/.test(item) && canonicalHost(item) !== null), {
      message: `must be a comma-separated list of ${what}: names alone, without scheme, port, wildcard or trailing dot`,
    })
    .transform((items) => items.map((item) => canonicalHost(item) ?? item))

/** `600/60` is 600 requests in 60 seconds; `off` is no limit. */
const limit = z
  .string()
  .regex(/^(off|[1-9]\d{0,8}\/[1-9]\d{0,4})$/, 'must be requests/seconds such as 600/60, or off')
  .transform((text) => {
    const [requests = 0, seconds = 0] = text.split('/').map(Number)
    return text === 'off' ? undefined : { requests, seconds }
  })

/** What the Worker reads, by name. */
export const Variables = z.object({
  /** Connection string of the role stratum_control. */
  DATABASE_URL: required('postgresql://stratum_control:…@….neon.tech/neondb').refine(
    (url) => /^postgres(ql)?:\/\/[^/]+@[^/]+\/.+/.test(url),
    'is not a PostgreSQL connection string with user, host and database',
  ),
  /** Where Neon's HTTP protocol is spoken when that is not at Neon. */
  NEON_ENDPOINT: z.url().optional(),
  STRATUM_MASTER_KEYS: required('2026:<base64 of 32 random bytes>'),
  STRATUM_API_KEY_SECRETS: required('2026:<base64 of 32 random bytes>'),
  STRATUM_API_KEY_PREFIX: z.enum(['sk_live_', 'sk_test_']).default('sk_live_'),
  STRATUM_ISSUERS: z.string().default('[]'),
  STRATUM_BASE_DOMAINS: hosts('domains').default(['localhost']),
  STRATUM_API_HOSTS: hosts('hosts').default([]),
  /** Hosts of the application behind the gateway, where the token says for which tenant. */
  STRATUM_APP_HOSTS: hosts('hosts').default([]),
  STRATUM_PATH_PREFIX: z
    .string()
    .regex(/^\/[a-z0-9-]+$/, 'must be one path segment such as /t')
    .default('/t'),
  /** Which sources may name a tenant, in the order in which they are judged. */
  STRATUM_SOURCES: list
    .refine((items) => items.every((item) => SOURCES.some((source) => source === item)) && new Set(items).size === items.length, {
      message: `must be a comma-separated list of ${SOURCES.join(', ')}, each once at most`,
    })
    .refine((items) => items.includes('token'), { message: 'must contain token: a bearer token always counts' })
    .transform((items) => items as Source[])
    .optional(),
  /** The cookie that names a tenant by slug or id; none by default. */
  STRATUM_COOKIE: z
    .string()
    .regex(/^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$/, 'must be the name of a cookie, such as tenant')
    .optional(),
  STRATUM_CORS_ORIGINS: list
    .refine((items) => items.every((item) => URL.canParse(item) && new URL(item).origin === item), {
      message: 'must be a comma-separated list of origins such as https://console.example.com; a wildcard is not accepted',
    })
    .default([]),
  /** Where TXT records of custom domains are looked up: DNS over HTTPS that answers application/dns-json. */
  STRATUM_DNS_URL: z.string().refine(isDnsUrl, 'must be an https:// URL of a resolver that answers application/dns-json').default(DEFAULT_DNS_URL),
  /** How old a context that is served may be, in milliseconds; 0 asks the database each time whether anything changed. */
  STRATUM_MAXIMUM_STALENESS_MS: z.coerce.number().int('must be a whole number of milliseconds').min(0).max(600_000).default(2_000),
  /** How old it may get while the database is away. */
  STRATUM_STALE_GRACE_MS: z.coerce.number().int('must be a whole number of milliseconds').min(0).max(86_400_000).default(60_000),
  STRATUM_PRINCIPAL_LIMIT: limit.prefault('6000/60'),
  STRATUM_TENANT_LIMIT: limit.prefault('60000/60'),
  STRATUM_REFUSED_LIMIT: limit.prefault('60/60'),
  /** The application that the gateway stands in front of: a URL, or service:NAME. */
  STRATUM_ORIGIN: z.string().min(1).max(2_048).optional(),
  /** How long its answer may take to begin. */
  STRATUM_ORIGIN_TIMEOUT_MS: z.coerce.number().int('must be a whole number of milliseconds').min(1).max(600_000).default(30_000),
  /** The `iss` and, for STRATUM_ORIGIN, the `aud` of signed contexts; and which config keys stand in them. */
  STRATUM_CONTEXT_ISSUER: z.string().min(1).max(1_024).optional(),
  STRATUM_CONTEXT_AUDIENCE: z.string().min(1).max(1_024).optional(),
  STRATUM_CONTEXT_CONFIG: z
    .string()
    .default('')
    .transform((text) => text.split(',').flatMap((key) => key.trim() || [])),
  STRATUM_CONTEXT_KEYS: z.string().min(1).optional(),
  STRATUM_DEVELOPMENT: z
    .enum(['true', 'false'])
    .default('false')
    .transform((text) => text === 'true'),
  STRATUM_LOG: z.enum(['requests', 'errors', 'off']).default('requests'),
})

/** The sources that count: those listed, else the usual ones and, where one is named, the cookie as the last. */
function sourcesOf({ STRATUM_SOURCES: listed, STRATUM_COOKIE: cookie }: z.output<typeof Variables>): readonly Source[] {
  if (listed === undefined) return cookie === undefined ? DEFAULT_SOURCES : [...DEFAULT_SOURCES, 'cookie']
  if (listed.includes('cookie') === (cookie !== undefined)) return listed
  const reason = cookie === undefined ? 'lists cookie; say which in STRATUM_COOKIE' : 'does not list cookie; add it, or remove STRATUM_COOKIE'
  throw stratumError('CONFIGURATION_INVALID', { reason: `The variable STRATUM_SOURCES ${reason}.` })
}

/**
 * The Worker's environment, checked.
 * @throws CONFIGURATION_INVALID with one sentence that names the variable and what to do
 */
export function parseEnvironment(env: Record<string, unknown>) {
  const parsed = Variables.safeParse(env)
  if (!parsed.success) {
    const [issue] = parsed.error.issues
    throw stratumError('CONFIGURATION_INVALID', { reason: `The variable ${issue?.path.join('.')} ${issue?.message}.` })
  }
  const variables = parsed.data
  return {
    ...variables,
    masterKeys: parseKeyRing(variables.STRATUM_MASTER_KEYS, { variable: 'STRATUM_MASTER_KEYS', bytes: 32, exact: true }),
    apiKeySecrets: parseKeyRing(variables.STRATUM_API_KEY_SECRETS, { variable: 'STRATUM_API_KEY_SECRETS', bytes: 32, exact: false }),
    contextKeys: variables.STRATUM_CONTEXT_KEYS === undefined ? null : parseContextKeys(variables.STRATUM_CONTEXT_KEYS),
    sources: sourcesOf(variables),
    issuers: parseIssuers(variables.STRATUM_ISSUERS, { development: variables.STRATUM_DEVELOPMENT }),
  }
}
