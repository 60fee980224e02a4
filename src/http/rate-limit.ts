/**
 * How often somebody may ask. Requests to the API are counted for their principal and tenant: by the platform where its
 * limiter is bound, for all isolates of one of its locations, else in this isolate. Refusals are counted in this isolate
 * for their address, of the API and of the gateway. None is an exact count over all isolates: enough to keep one caller from
 * taking the database from the others.
 * Headers: draft-ietf-httpapi-ratelimit-headers.
 */
import type { Context } from 'hono'
import type { Credential, TokenCredential } from '../core/actor.ts'
import { stratumError } from '../core/error-classes.ts'
import { type ErrorCode, StratumError } from '../core/errors.ts'
import { onceFor } from '../core/once-for.ts'
import { BoundedMap } from '../crypto/bounded-map.ts'

/** So many requests in so many seconds. */
export interface Limit {
  requests: number
  seconds: number
}

/** Cloudflare's rate limiting binding. */
export interface PlatformLimiter {
  limit(asked: { key: string }): Promise<{ success: boolean }>
}

export interface RateLimits {
  /** For each API key, and each user of an issuer. */
  principal?: Limit | undefined
  /** For all tokens of one tenant. */
  tenant?: Limit | undefined
  /** For what is refused to one address as nobody's: API keys, and what the database had to be asked for. */
  refused?: Limit | undefined
  /** Counts instead of this isolate, by limits of its own; only what has a limit here is counted at all. */
  platform?: { principal?: PlatformLimiter | undefined; tenant?: PlatformLimiter | undefined }
  now?: () => number
}

/** Callers that are counted at once; who asked longest ago is forgotten first. */
const MAXIMUM_COUNTED = 20_000

/** Milliseconds for which a key that was accepted is no guess. */
const ACCEPTED_MS = 300_000

/**
 * What is counted as one address: of IPv6 the first four groups, as whoever has one address of a /64 has them all. In one
 * way of writing, and an IPv4 address as such however it is written.
 */
function countedAddress(address: string): string {
  const canonical = address.includes(':') ? URL.parse(`http://[${address}]`)?.hostname.slice(1, -1) : undefined
  if (canonical === undefined) return address
  const [, ...mapped] = /^::ffff:(\w+):(\w+)$/.exec(canonical) ?? []
  if (mapped.length > 0) return mapped.flatMap((group) => [Number.parseInt(group, 16) >> 8, Number.parseInt(group, 16) & 255]).join('.')
  const groupsOf = (text: string) => text.split(':').filter(Boolean)
  const zeros = '0:'.repeat(8 - groupsOf(canonical).length)
  return groupsOf(canonical.replace('::', `:${zeros}`))
    .slice(0, 4)
    .join(':')
}

/** Fixed windows: simple, and at worst twice the limit over one boundary. */
class Windows {
  readonly #limit: Limit
  readonly #now: () => number
  readonly #counted = new BoundedMap<string, { from: number; requests: number }>(MAXIMUM_COUNTED)

  constructor(limit: Limit, now: () => number) {
    this.#limit = limit
    this.#now = now
  }

  #window(key: string) {
    const from = Math.floor(this.#now() / 1000 / this.#limit.seconds) * this.#limit.seconds
    const known = this.#counted.get(key)
    return known?.from === from ? known : { from, requests: 0 }
  }

  /** Count one more, or with 0 only look. */
  count(key: string, more: 0 | 1 = 1): { allowed: boolean; remaining: number; reset: number } {
    const { from, requests } = this.#window(key)
    if (more === 1) this.#counted.set(key, { from, requests: requests + 1 })
    const reset = Math.max(1, Math.ceil(from + this.#limit.seconds - this.#now() / 1000))
    return { allowed: requests < this.#limit.requests, remaining: Math.max(0, this.#limit.requests - requests - more), reset }
  }
}

const tooMany = (what: string, seconds: number) => stratumError('RATE_LIMITED', { what, retry_after: seconds })

const userOf = onceFor(
  ({ issuer, issuer_id, tenant, subject }: TokenCredential): string => `user ${JSON.stringify([issuer, issuer_id ?? null, tenant, subject])}`,
)

/** Who asks, as far as it is known before the database was asked. */
const principalOf = (credential: Credential): string => {
  if (credential.type === 'api_key') return `key ${credential.hashes[0]}`
  return credential.type === 'token' ? userOf(credential) : credential.type
}

/**
 * Whose tokens these are: an issuer that is bound to a tenant is that tenant's with all it claims, else the claim tells.
 * Never what the request itself names, or strangers could use up what another has left, and read how much that is.
 */
const tenantOf = onceFor(({ issuer, issuer_id, issuer_tenant_id, tenant }: TokenCredential): string =>
  JSON.stringify([issuer, issuer_id ?? null, issuer_tenant_id ?? tenant]),
)

/** Judges requests by the limits that are set; without any it lets all pass. */
export class RateLimiter {
  readonly #limits: RateLimits
  readonly #windows: { principal?: Windows; tenant?: Windows; refused?: Windows } = {}
  /** When keys, by hash, were last accepted. */
  readonly #accepted = new BoundedMap<string, number>(MAXIMUM_COUNTED)
  readonly #now: () => number

  constructor(limits: RateLimits = {}) {
    this.#limits = limits
    this.#now = limits.now ?? (() => Date.now())
    for (const kind of ['principal', 'tenant', 'refused'] as const) {
      const limit = limits[kind]
      if (limit) this.#windows[kind] = new Windows(limit, this.#now)
    }
  }

  /**
   * Before the database is asked about what may be a guess. A key that was accepted in the last minutes is none: others
   * behind the same address may be who guesses.
   * @throws RATE_LIMITED where too many from this address were refused
   */
  requireWelcome(address: string | null, credential?: Credential): void {
    if (address === null) return
    const state = this.#windows.refused?.count(countedAddress(address), 0)
    if (!state || state.allowed || this.#isAccepted(credential)) return
    throw tooMany('refused credentials from this address', state.reset)
  }

  /** A request with this credential was answered. */
  noteAccepted(credential: Credential): void {
    if (this.#windows.refused && credential.type === 'api_key') this.#accepted.set(credential.hashes[0] ?? '', this.#now())
  }

  #isAccepted(credential: Credential | undefined): boolean {
    const at = credential?.type === 'api_key' ? this.#accepted.get(credential.hashes[0] ?? '') : undefined
    return at !== undefined && this.#now() - at < ACCEPTED_MS
  }

  /**
   * A request from this address was refused. Counted are the refusals that guessing ends in, which the caller knows: keys
   * anyway; tokens, and at the gateway hosts, where the database was asked. Tokens of known issuers are judged without it.
   * @param credential an API key, which from then on is not held for accepted
   */
  noteRefusal(address: string | null, error: unknown, guessed: readonly ErrorCode[], credential?: Credential): void {
    if (!(error instanceof StratumError) || !guessed.includes(error.code)) return
    if (credential?.type === 'api_key' && error.code === 'API_KEY_INVALID') this.#accepted.delete(credential.hashes[0] ?? '')
    if (address !== null) this.#windows.refused?.count(countedAddress(address))
  }

  /** Count a request, and say in its answer how many more there may be. @throws RATE_LIMITED */
  async count(context: Context, credential: Credential): Promise<void> {
    await this.#countOne(context, 'principal', principalOf(credential))
    if (credential.type === 'token') await this.#countOne(context, 'tenant', tenantOf(credential))
  }

  async #countOne(context: Context, kind: 'principal' | 'tenant', key: string): Promise<void> {
    const limit = this.#limits[kind]
    const platform = this.#limits.platform?.[kind]
    if (!limit) return
    context.header('ratelimit-policy', `"${kind}";q=${limit.requests};w=${limit.seconds}`, { append: true })
    // The platform says yes or no, and not how many are left.
    if (platform) {
      if (!(await platform.limit({ key })).success) throw tooMany(`of this ${kind}`, limit.seconds)
      return
    }
    const state = this.#windows[kind]?.count(key)
    if (!state) return
    context.header('ratelimit', `"${kind}";r=${state.remaining};t=${state.reset}`, { append: true })
    if (!state.allowed) throw tooMany(`of this ${kind}`, state.reset)
  }
}
