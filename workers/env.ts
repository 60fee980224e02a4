import * as z from 'zod'
import { parseIssuers } from '../src/auth/issuers.ts'
import { stratumError } from '../src/core/error-classes.ts'
import { parseKeyRing } from '../src/crypto/key-ring.ts'

const required = (example: string) => z.string({ error: `is missing; set it with: wrangler secret put, e.g. ${example}` }).min(1, 'is empty')
const list = z.string().transform((text) =>
  text
    .split(',')
    .map((item) => item.trim().toLowerCase())
    .filter((item) => item !== ''),
)
/** Hosts as they are compared: what could never match is refused rather than ignored. */
const hosts = (what: string) =>
  list.refine((items) => items.every((item) => /^(\[[0-9a-f:.]+\]|[a-z0-9]([a-z0-9.-]*[a-z0-9])?)$/.test(item)), {
    message: `must be a comma-separated list of ${what}: names alone, without scheme, port, wildcard or trailing dot`,
  })

const Variables = z.object({
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
  STRATUM_PATH_PREFIX: z
    .string()
    .regex(/^\/[a-z0-9-]+$/, 'must be one path segment such as /t')
    .default('/t'),
  STRATUM_CORS_ORIGINS: list
    .refine((items) => items.every((item) => URL.canParse(item) && new URL(item).origin === item), {
      message: 'must be a comma-separated list of origins such as https://console.example.com; a wildcard is not accepted',
    })
    .default([]),
  STRATUM_DEVELOPMENT: z
    .enum(['true', 'false'])
    .default('false')
    .transform((text) => text === 'true'),
  STRATUM_LOG: z.enum(['requests', 'errors', 'off']).default('requests'),
})

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
    issuers: parseIssuers(variables.STRATUM_ISSUERS, { development: variables.STRATUM_DEVELOPMENT }),
  }
}
