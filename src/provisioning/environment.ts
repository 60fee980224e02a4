/** The provisioner's environment, checked. */
import * as z from 'zod'
import { stratumError } from '../core/error-classes.ts'
import { type KeyRing, parseKeyRing } from '../crypto/key-ring.ts'
import { DEFAULT_DNS_URL, isDnsUrl } from '../resolver/dns.ts'
import { rollbackWindow } from './rollback-window.ts'

const required = (example: string) => z.string({ error: `is missing; set it to ${example}` }).min(1, 'is empty')
const whole = (minimum: number, maximum: number) =>
  z.coerce.number({ error: 'is not a number' }).int('is not a whole number').min(minimum, `is less than ${minimum}`).max(maximum, `is more than ${maximum}`)

/** As they are known to name it: a session does not stay on one connection behind these. */
export const isPooled = (url: URL): boolean =>
  url.hostname.split('.')[0]?.endsWith('-pooler') === true || url.searchParams.has('pgbouncer') || url.port === '6432' || url.port === '6543'

const DatabaseUrl = required("the owner's connection string, e.g. postgresql://stratum_owner:…@….neon.tech/neondb")
  .refine((url) => /^postgres(ql)?:\/\/[^/]+@[^/]+\/.+/.test(url) && URL.canParse(url), 'is not a PostgreSQL connection string with user, host and database')
  .refine(
    (url) => !URL.canParse(url) || !isPooled(new URL(url)),
    'goes through a connection pooler; the provisioner holds locks and listens, which needs the direct connection',
  )

const Optional = z.object({
  /** How many databases the server may hold. Without it, what the installation has kept: 450 at first. */
  STRATUM_DATABASE_LIMIT: whole(1, 100_000).optional(),
  /** `on`: a tenant with a schema of its own has a role of its own as well. */
  STRATUM_TENANT_ROLES: z.enum(['on', 'off'], 'must be on or off').default('off'),
  /** Port of `GET /health`; 0 is any that is free. */
  STRATUM_PROVISIONER_PORT: whole(0, 65_535).default(8788),
  STRATUM_PROVISIONER_HOST: z.string().min(1, 'is empty').default('127.0.0.1'),
  /** Jobs at once. Those that may take hours have half as many workers of their own besides. */
  STRATUM_PROVISIONER_CONCURRENCY: whole(1, 64).default(4),
  /** How long a tenant's rows stay at the place they were moved from: `90s`, `30m`, `24h`, `7d`. */
  STRATUM_ROLLBACK_WINDOW: z.string().optional(),
  STRATUM_DNS_URL: z.string().refine(isDnsUrl, 'must be an https:// URL of a resolver that answers application/dns-json').default(DEFAULT_DNS_URL),
})

const Required = z.object({
  DATABASE_URL: DatabaseUrl,
  STRATUM_MASTER_KEYS: required('what the Worker has, e.g. 2026:<base64 of 32 random bytes>'),
  STRATUM_API_KEY_SECRETS: required('what the Worker has, e.g. 2026:<base64 of 32 random bytes>'),
})

/** The names of what may be set. */
export const PROVISIONER_OPTIONS: readonly string[] = Object.keys(Optional.shape)

/** What may be set, and has a default. */
export interface ProvisionerChoices {
  databaseLimit?: number | undefined
  /** Make a role for each tenant with a schema of its own. Default false. */
  tenantRoles?: boolean
  /** How long rows stay at the place that their tenant has left, as an interval of Postgres. Default 24 hours. */
  rollbackWindow?: string
  port: number
  host: string
  concurrency: number
  dnsUrl: string
}

export interface ProvisionerSettings extends ProvisionerChoices {
  databaseUrl: string
  masterKeys: KeyRing
  apiKeySecrets: KeyRing
}

function parse<T>(variables: z.ZodType<T>, env: Record<string, unknown>): T {
  const parsed = variables.safeParse(env)
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  throw stratumError('CONFIGURATION_INVALID', { reason: `The variable ${issue?.path.join('.')} ${issue?.message}.` })
}

/**
 * Read what may be set.
 * @throws CONFIGURATION_INVALID with one sentence that names the variable and what to do
 */
export function parseProvisionerChoices(env: Record<string, unknown>): ProvisionerChoices {
  const variables = parse(Optional, env)
  return {
    databaseLimit: variables.STRATUM_DATABASE_LIMIT,
    tenantRoles: variables.STRATUM_TENANT_ROLES === 'on',
    rollbackWindow: rollbackWindow(variables.STRATUM_ROLLBACK_WINDOW),
    port: variables.STRATUM_PROVISIONER_PORT,
    host: variables.STRATUM_PROVISIONER_HOST,
    concurrency: variables.STRATUM_PROVISIONER_CONCURRENCY,
    dnsUrl: variables.STRATUM_DNS_URL,
  }
}

/**
 * Read the provisioner's environment.
 * @throws CONFIGURATION_INVALID with one sentence that names the variable and what to do
 */
export function parseProvisionerEnvironment(env: Record<string, unknown>): ProvisionerSettings {
  const variables = parse(Required, env)
  return {
    ...parseProvisionerChoices(env),
    databaseUrl: variables.DATABASE_URL,
    masterKeys: parseKeyRing(variables.STRATUM_MASTER_KEYS, { variable: 'STRATUM_MASTER_KEYS', bytes: 32, exact: true }),
    apiKeySecrets: parseKeyRing(variables.STRATUM_API_KEY_SECRETS, { variable: 'STRATUM_API_KEY_SECRETS', bytes: 32, exact: false }),
  }
}
