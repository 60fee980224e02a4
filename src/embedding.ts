/** What the embedded class stands on: how it is made, who it says did something, how a call becomes input. */
import { ApiKeySecrets } from './auth/api-keys.ts'
import { DomainProofs } from './auth/domain-proofs.ts'
import { TokenVerifier } from './auth/tokens.ts'
import type { Actor, Credential } from './core/actor.ts'
import type { Endpoint } from './core/endpoint.ts'
import { stratumError } from './core/error-classes.ts'
import { Secrets } from './crypto/envelope.ts'
import { parseKeyRing } from './crypto/key-ring.ts'
import type { Database } from './db/database.ts'
import { neonDatabase } from './db/neon.ts'
import { type PoolLike, postgresDatabase } from './db/postgres.ts'
import { ConfigDefinitions } from './features/config/definitions.ts'
import { endpoints } from './features/endpoints.ts'
import type { Services } from './features/operation.ts'
import { dnsOverHttps, type TxtResolver } from './resolver/dns.ts'
import { canonicalHost } from './resolver/identify.ts'

/** How to make a {@link Stratum}: over which connection, with which keys. */
export interface StratumOptions {
  /** A `pg` Pool; it stays yours to close. Give this or `databaseUrl`. */
  pool?: PoolLike
  /** Connection string for Neon's HTTP protocol. */
  databaseUrl?: string
  /** Where Neon's HTTP protocol is spoken, if not at Neon: the local stack's `neon_url`. */
  neonEndpoint?: string
  /** Bring the database to this version before the first operation. Default false. */
  autoMigrate?: boolean
  /** Ring of master keys, `id:base64,…`, newest first. Default: the variable STRATUM_MASTER_KEYS. */
  masterKeys?: string
  /** Ring of API key secrets, `id:base64,…`, newest first. Default: the variable STRATUM_API_KEY_SECRETS. */
  apiKeySecrets?: string
  /** What new API keys begin with. Default `sk_live_`. */
  apiKeyPrefix?: 'sk_live_' | 'sk_test_'
  /** The service's own domains, of which and below which no tenant may claim one. Default: the variable STRATUM_BASE_DOMAINS. */
  baseDomains?: readonly string[]
  /** Further hosts of the service that no tenant may claim. Default: the variable STRATUM_API_HOSTS. */
  apiHosts?: readonly string[]
  /** Where the records of custom domains are looked up. Default: DNS over HTTPS at the variable STRATUM_DNS_URL, else Cloudflare's resolver. */
  dns?: TxtResolver
}

/** Who did it, for the audit trail; the embedding process vouches for it. */
export interface AuditActor {
  actor_id: string
  actor_type: string
  source_ip?: string
  request_id?: string
}

/** Which page of a list; `cursor` is the previous page's `next_cursor`. */
export interface ListOptions {
  limit?: number
  cursor?: string
  status?: 'active' | 'suspended' | 'archived'
  include_archived?: boolean
}
/** How far a change of status goes. */
export interface CascadeOptions {
  /** Every active tenant below, too; resuming this one resumes exactly those. Default false. */
  cascade?: boolean
}
/** One page of a list. `next_cursor` is null on the last one. */
export interface Page<T> {
  data: T[]
  next_cursor: string | null
  has_more: boolean
}

/** Who did it where nobody is named. */
export const NOBODY: AuditActor = { actor_id: 'embedded', actor_type: 'system' }

const environment = (name: string): string | undefined => (typeof process === 'undefined' ? undefined : process.env[name])
/** A ring of keys as given, else of the environment, or null without one. */
const readRing = (given: string | undefined, variable: string, exact: boolean) => {
  const text = given ?? environment(variable)
  return text ? parseKeyRing(text, { variable, bytes: 32, exact }) : null
}

/** Params, query and body of a call that comes as one object, parsed. @throws VALIDATION_FAILED */
export function parseCall(endpoint: Endpoint, call: Record<string, unknown>): Record<string, unknown> {
  const parts = [endpoint.params, endpoint.query, endpoint.body]
  const given = Object.entries(call).filter(([, value]) => value !== undefined)
  const unknown = given.map(([key]) => key).filter((key) => !parts.some((part) => Object.hasOwn(part.shape, key)))
  const issues = unknown.map((key) => ({ path: key, message: 'is not known to this operation' }))
  const input: Record<string, unknown> = {}
  for (const part of parts) {
    const parsed = part.safeParse(Object.fromEntries(given.filter(([key]) => Object.hasOwn(part.shape, key))))
    if (parsed.success) Object.assign(input, parsed.data)
    else issues.push(...parsed.error.issues.map((issue) => ({ path: issue.path.join('.'), message: issue.message.replace(/\.$/, '') })))
  }
  if (issues.length > 0) throw stratumError('VALIDATION_FAILED', { reason: `${issues[0]?.path}: ${issues[0]?.message}`, issues })
  return input
}

/** The port over the pool or the URL that was given. @throws CONFIGURATION_INVALID unless it is one of them */
function openDatabase({ pool, databaseUrl, neonEndpoint }: StratumOptions): Database {
  if (pool && databaseUrl === undefined) return postgresDatabase(pool)
  if (databaseUrl !== undefined && !pool) return neonDatabase(databaseUrl, { endpoint: neonEndpoint })
  throw stratumError('CONFIGURATION_INVALID', { reason: 'Give new Stratum() either a pool or a databaseUrl.' })
}

/** Hosts as given, else of the environment, as they are compared. */
const readHosts = (given: readonly string[] | undefined, variable: string) =>
  (given ?? environment(variable)?.split(',') ?? []).flatMap((host) => canonicalHost(host) ?? [])

/** What the operations of an embedded class work with. */
export const openServices = (options: StratumOptions): Services => {
  const apiKeySecrets = readRing(options.apiKeySecrets, 'STRATUM_API_KEY_SECRETS', false)
  return {
    db: openDatabase(options),
    secrets: new Secrets(readRing(options.masterKeys, 'STRATUM_MASTER_KEYS', true)),
    apiKeys: new ApiKeySecrets(apiKeySecrets, options.apiKeyPrefix),
    tokens: new TokenVerifier([]),
    hosts: {
      baseDomains: readHosts(options.baseDomains, 'STRATUM_BASE_DOMAINS'),
      apiHosts: readHosts(options.apiHosts, 'STRATUM_API_HOSTS'),
      pathPrefix: '/t',
    },
    domainProofs: new DomainProofs(apiKeySecrets),
    dns: options.dns ?? dnsOverHttps({ url: environment('STRATUM_DNS_URL') }),
    definitions: new ConfigDefinitions(),
  }
}

/** Who asks: the embedding process, in the name of whom it says, or who presented a credential. */
export function actorOf(audit: AuditActor, credential?: Credential): Actor {
  const { actor_id, actor_type, request_id = null, source_ip = null } = audit
  return { credential: credential ?? { type: 'embedded', actor_id, actor_type }, named: [], exposed: false, request_id, source_ip }
}

/** Every operation by id. */
export type Endpoints = typeof endpoints

/** The endpoint of an operation whose effect can be shown first. @throws INVALID_REQUEST for any other */
export function showable<K extends keyof Endpoints>(operation: K): Endpoints[K] {
  const endpoint: Endpoint | undefined = Object.hasOwn(endpoints, operation) ? endpoints[operation] : undefined
  if (endpoint?.preview) return endpoints[operation]
  const message = 'cannot be shown without being done'
  throw stratumError('INVALID_REQUEST', { reason: `${operation} ${message}`, issues: [{ path: operation, message }] })
}
