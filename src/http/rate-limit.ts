/**
 * How often somebody may ask. Counted by the platform where its limiter is bound, else in this isolate, which is no
 * exact count over all of them: enough to keep one caller from taking the database from the others.
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
  /** For keys and hosts from one address that nobody has. */
  refused?: Limit | undefined
  platform?: { principal?: PlatformLimiter | undefined; tenant?: PlatformLimiter | undefined }
  now?: () => number
}

/** Callers that are counted at once; who asked longest ago is forgotten first. */
const MAXIMUM_COUNTED = 20_000

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

  constructor(limits: RateLimits = {}) {
    this.#limits = limits
    const now = limits.now ?? (() => Date.now())
    for (const kind of ['principal', 'tenant', 'refused'] as const) {
      const limit = limits[kind]
      if (limit) this.#windows[kind] = new Windows(limit, now)
    }
  }

  /** Before the database is asked about what may be a guess. @throws RATE_LIMITED where too many from this address were refused */
  requireWelcome(address: string | null): void {
    if (address === null) return
    const state = this.#windows.refused?.count(address, 0)
    if (state && !state.allowed) throw tooMany('refused credentials from this address', state.reset)
  }

  /**
   * A request from this address was refused. Counted are the refusals that guessing ends in and the database pays for: not
   * tokens of issuers that are known, which are judged without it.
   */
  noteRefusal(address: string | null, error: unknown, guessed: readonly ErrorCode[]): void {
    if (address !== null && error instanceof StratumError && guessed.includes(error.code)) this.#windows.refused?.count(address)
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
    if (platform) {
      if (!(await platform.limit({ key })).success) throw tooMany(`of this ${kind}`, limit.seconds)
      return
    }
    const state = this.#windows[kind]?.count(key)
    if (!state) return
    context.header('ratelimit-policy', `"${kind}";q=${limit.requests};w=${limit.seconds}`, { append: true })
    context.header('ratelimit', `"${kind}";r=${state.remaining};t=${state.reset}`, { append: true })
    if (!state.allowed) throw tooMany(`of this ${kind}`, state.reset)
  }
}
