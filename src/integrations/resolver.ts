/** Asks the service which tenant a request is for, and keeps the answer for a moment. */
import { stratumError } from '../core/error-classes.ts'
import { type ErrorCode, StratumError } from '../core/errors.ts'
import { toBase64Url } from '../crypto/base64.ts'
import { BoundedMap } from '../crypto/bounded-map.ts'
import { canonicalHost } from '../resolver/identify.ts'
import { createClient, type StratumClient } from '../sdk/client.ts'
import { expiryOf, type RequestTenant, tenantOfContext } from './request-tenant.ts'

const DEFAULT_TTL = 2_000
const MAXIMUM_TTL = 60_000
const DEFAULT_MAXIMUM = 1_000
const DEFAULT_TIMEOUT = 5_000
const MAXIMUM_PATH = 2_048
const MAXIMUM_TOKEN = 16_384

/** What says for which tenant a request is, and who asks. */
export interface TenantQuestion {
  host?: string | undefined
  /** As it begins: `/t/<slug>`, where the service reads tenants from paths. */
  path?: string | undefined
  /** The user's bearer token, of an issuer that the service trusts. */
  token?: string | undefined
}

/** Whom to ask, and for how long the answer holds. */
export interface ResolverOptions {
  /** A client of the service, with the app's own credential. Give this, or `baseUrl` and `apiKey`. */
  client?: Pick<StratumClient, 'resolve'>
  /** Where the service is. */
  baseUrl?: string
  /** The app's own key: global, or of the tenant whose subtree the app serves. It needs the scope `read` only. */
  apiKey?: string
  /** Milliseconds that an answer is kept, 0 to 60,000; on top of how old the service lets one be. Default 2,000. */
  ttl?: number
  /** Answers kept at most, and refusals as many beside them. The one used longest ago makes room. Default 1,000. */
  maximum?: number
  /** Milliseconds to wait for the service, where `client` is not given. Default 5,000. */
  timeout?: number
  /** How the service is asked, where `client` is not given. Default: the platform's fetch. */
  fetch?: typeof fetch
  /** Milliseconds since 1970. */
  now?: () => number
}

/** See {@link createResolver}. */
export interface Resolver {
  /**
   * @throws TENANT_REQUIRED when nothing of it names a tenant
   * @throws TENANT_NOT_FOUND, TENANT_MISMATCH, TENANT_SUSPENDED, TENANT_ARCHIVED, TOKEN_INVALID
   * @throws SERVER_UNREACHABLE, or what else the service answers with 503
   * @throws INTERNAL_ERROR when the service refuses the app's own credential; the cause says why
   */
  resolve(question: TenantQuestion): Promise<RequestTenant>
}

/** What says something about the request, and not about the app or the service. */
const REFUSALS: readonly ErrorCode[] = ['TENANT_NOT_FOUND', 'TENANT_MISMATCH', 'TENANT_REQUIRED', 'TENANT_SUSPENDED', 'TENANT_ARCHIVED']

const refuse = (wrong: string) => stratumError('CONFIGURATION_INVALID', { reason: `The option ${wrong}.` })

function within(name: string, value: number, minimum: number, maximum: number): number {
  if (Number.isFinite(value) && value >= minimum && value <= maximum) return value
  throw refuse(`${name} must be ${minimum} to ${maximum}`)
}

function clientOf({ client, baseUrl, apiKey, timeout = DEFAULT_TIMEOUT, fetch: fetcher }: ResolverOptions): Pick<StratumClient, 'resolve'> {
  if (client !== undefined && baseUrl === undefined && apiKey === undefined) return client
  if (client !== undefined) throw refuse('client stands beside baseUrl or apiKey; give one or the other')
  if (!baseUrl || !URL.canParse(baseUrl)) throw refuse('baseUrl is no URL: it is where the service is')
  if (!apiKey) throw refuse('apiKey is missing: make a key with the scope read')
  const milliseconds = within('timeout', timeout, 1, 600_000)
  // A redirect would take the key along to wherever it leads.
  const asked = (request: Request) => (fetcher ?? fetch)(request, { signal: AbortSignal.timeout(milliseconds), redirect: 'manual' })
  return createClient({ baseUrl, apiKey, fetch: asked })
}

/** The question as it is asked and kept. What no service could read is answered as it would answer. */
function readable({ host, path, token }: TenantQuestion): { host?: string; path?: string; token?: string } {
  if (token !== undefined && (token === '' || token.length > MAXIMUM_TOKEN)) throw stratumError('TOKEN_INVALID', { reason: 'it is empty or too long' })
  const canonical = host === undefined ? undefined : canonicalHost(host)
  if (canonical === null || path === '' || (path?.length ?? 0) > MAXIMUM_PATH) throw stratumError('TENANT_NOT_FOUND')
  if (canonical === undefined && path === undefined && token === undefined) throw stratumError('TENANT_REQUIRED')
  return {
    ...(canonical === undefined ? {} : { host: canonical }),
    ...(path === undefined ? {} : { path }),
    ...(token === undefined ? {} : { token }),
  }
}

/** No two questions share a key, and no token is kept. */
async function keyOf({ host, path, token }: TenantQuestion): Promise<string> {
  const hash = token === undefined ? null : toBase64Url(new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(token))))
  return JSON.stringify([host ?? null, path ?? null, hash])
}

/** What the user is told. What is wrong between app and service is not theirs to see. */
function refusalOf(error: unknown, token: string | undefined): StratumError {
  if (!(error instanceof StratumError)) return stratumError('INTERNAL_ERROR', {}, { cause: error })
  if (REFUSALS.includes(error.code) || (error.code === 'TOKEN_INVALID' && token !== undefined)) return error
  if (error.status === 503) return error
  if (error.code === 'RATE_LIMITED') {
    const again = error.retryAfter === undefined ? {} : { retry_after: error.retryAfter }
    return stratumError('SERVER_UNREACHABLE', { reason: 'it is asked too often', ...again }, { cause: error })
  }
  // A character that the service does not take names nobody.
  if (error.code === 'VALIDATION_FAILED') return stratumError('TENANT_NOT_FOUND', {}, { cause: error })
  return stratumError('INTERNAL_ERROR', {}, { cause: error })
}

/** A request of a Worker must not wait for what another one has begun: that may end with it. */
const mayShare = () => globalThis.navigator?.userAgent !== 'Cloudflare-Workers'

type Answer = { tenant: RequestTenant } | { refusal: StratumError }

/** An answer, when it was asked for, and how long it holds. */
interface Kept {
  answer: Answer
  asked: number
  until: number
}

/** Not once the clock was put back either: then nobody knows how old the answer is. */
const holds = ({ asked, until }: Pick<Kept, 'asked' | 'until'>, now: number) => asked <= now && now < until

class CachedResolver implements Resolver {
  readonly #client: Pick<StratumClient, 'resolve'>
  readonly #ttl: number
  readonly #now: () => number
  // Apart, so that made-up hosts and tokens do not drive out what is asked for in earnest.
  readonly #tenants: BoundedMap<string, Kept>
  readonly #refusals: BoundedMap<string, Kept>
  readonly #asking = new Map<string, { answer: Promise<Answer>; asked: number; until: number }>()

  constructor(options: ResolverOptions) {
    this.#client = clientOf(options)
    this.#ttl = within('ttl', options.ttl ?? DEFAULT_TTL, 0, MAXIMUM_TTL)
    this.#now = options.now ?? (() => Date.now())
    const maximum = within('maximum', options.maximum ?? DEFAULT_MAXIMUM, 1, 1_000_000)
    this.#tenants = new BoundedMap(maximum)
    this.#refusals = new BoundedMap(maximum)
  }

  async resolve(asked: TenantQuestion): Promise<RequestTenant> {
    const question = readable(asked)
    const key = await keyOf(question)
    const answer = this.#kept(key) ?? (await this.#ask(key, question))
    if ('refusal' in answer) throw answer.refusal
    return answer.tenant
  }

  #kept(key: string): Answer | null {
    for (const answers of [this.#tenants, this.#refusals]) {
      const kept = answers.get(key)
      if (kept && holds(kept, this.#now())) return kept.answer
      if (kept) answers.delete(key)
    }
    return null
  }

  #ask(key: string, question: TenantQuestion): Promise<Answer> {
    const asked = this.#now()
    const begun = this.#asking.get(key)
    // An answer is as old as the question: one asked too long ago is for those who waited from then on.
    if (begun && holds(begun, asked) && mayShare()) return begun.answer
    const asking = { answer: this.#load(key, question, asked), asked, until: asked + this.#ttl }
    this.#asking.set(key, asking)
    return asking.answer.finally(() => {
      if (this.#asking.get(key) === asking) this.#asking.delete(key)
    })
  }

  async #load(key: string, question: TenantQuestion, asked: number): Promise<Answer> {
    const { token } = question
    const until = asked + this.#ttl
    try {
      const answer = { tenant: tenantOfContext(await this.#client.resolve(question), token) }
      this.#keep(this.#tenants, key, { answer, asked, until: token === undefined ? until : Math.min(until, expiryOf(token)) })
      return answer
    } catch (error) {
      const answer = { refusal: refusalOf(error, token) }
      if (answer.refusal.status < 500) this.#keep(this.#refusals, key, { answer, asked, until })
      return answer
    }
  }

  #keep(answers: BoundedMap<string, Kept>, key: string, kept: Kept): void {
    if (holds(kept, this.#now())) answers.set(key, kept)
  }
}

/**
 * Resolves hosts, paths and tokens through `POST /resolve`. Concurrent questions that are alike are asked once.
 * @throws CONFIGURATION_INVALID
 */
export const createResolver = (options: ResolverOptions): Resolver => new CachedResolver(options)
