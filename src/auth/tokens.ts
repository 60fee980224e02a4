import { decodeJwt, decodeProtectedHeader, errors, type JWTPayload, type JWTVerifyGetKey, jwtVerify } from 'jose'
import type { TokenCredential } from '../core/actor.ts'
import { StratumError } from '../core/errors.ts'
import { IssuerName } from '../core/issuer.ts'
import { BoundedMap } from '../crypto/bounded-map.ts'
import { credentialOf, refused } from './claims.ts'
import type { Issuer } from './issuers.ts'
import { ALGORITHMS, isSymmetric } from './jwk.ts'
import { keysOf } from './key-sets.ts'
import { type AskForIssuer, StoredIssuers, type Trusted, type VerifyOptions } from './stored-issuers.ts'

const MAXIMUM_CHARACTERS = 16_384
const KEPT_MS = 300_000
const CLOCK_TOLERANCE_S = 5
const MAXIMUM_AUDIENCES = 100
const COMPACT = /^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*$/

/** Why a token is refused, by the code of the error its verification ended in. */
const REASONS: Record<string, string> = {
  [errors.JWTExpired.code]: 'it has expired',
  [errors.JOSEAlgNotAllowed.code]: 'its algorithm is not one of its issuer',
  [errors.JOSENotSupported.code]: 'it needs something that is not supported',
  [errors.JWSSignatureVerificationFailed.code]: 'its signature does not verify',
  [errors.JWKSNoMatchingKey.code]: 'no key of its issuer fits it',
  [errors.JWKSMultipleMatchingKeys.code]: 'it does not say which key of its issuer signed it',
  [errors.JWSInvalid.code]: 'it is malformed',
  [errors.JWTInvalid.code]: 'it is malformed',
}

function refusal(error: unknown): StratumError {
  if (error instanceof StratumError) return error
  // Without a cause: these errors carry the payload, which is nothing for a log.
  if (error instanceof errors.JWTClaimValidationFailed) {
    if (error.reason === 'missing') return refused(`it has no ${error.claim}`)
    return refused(error.claim === 'nbf' ? 'it is not valid yet' : `its ${error.claim} is not valid`)
  }
  const reason = error instanceof errors.JOSEError ? REASONS[error.code] : undefined
  return refused(reason ?? 'it cannot be verified', error)
}

const foreign = new WeakSet<Error>()

/** A refusal of what none of the trusted issuers made, as far as it says. */
function refusedAsForeign(reason: string): StratumError {
  const error = refused(reason)
  foreign.add(error)
  return error
}

/** Was a token refused as none that a trusted issuer made? Then it may well be good for somebody else. */
export const isForeign = (error: unknown): boolean => error instanceof Error && foreign.has(error)

function unverified(token: string): JWTPayload {
  // White space and the like inside would decode, and make many texts of one token.
  if (!COMPACT.test(token)) throw refusedAsForeign('it is not a signed token in compact form')
  try {
    return decodeJwt(token)
  } catch {
    throw refusedAsForeign('it is malformed')
  }
}

/** Could a stored issuer have made this? What could not is refused without asking for one. */
function mayBeStored(token: string, { iss, aud, exp }: JWTPayload): boolean {
  const audiences: unknown[] = Array.isArray(aud) ? aud : [aud]
  if (audiences.length < 1 || audiences.length > MAXIMUM_AUDIENCES) return false
  if (![iss, ...audiences].every((name) => IssuerName.safeParse(name).success)) return false
  // One that has expired may well be: it is to be refused as such, and not to pass as somebody else's.
  if (typeof exp !== 'number') return false
  try {
    const { alg } = decodeProtectedHeader(token)
    return ALGORITHMS.some((algorithm) => algorithm === alg && !isSymmetric(algorithm))
  } catch {
    return false
  }
}

/** The audiences of a token. */
const audiencesOf = ({ aud }: JWTPayload): string[] => (Array.isArray(aud) ? aud : [aud]).filter((one) => typeof one === 'string')

export interface TokenVerifierOptions {
  now?: () => number
  fetch?: typeof fetch
  maximumCached?: number
  /** Where issuers are asked for that are not of the environment. Default: there are none. */
  stored?: AskForIssuer
  /** Stored issuers' key sets may lie where those of the environment may: see {@link parseIssuers}. */
  development?: boolean
}

/**
 * Verifies bearer tokens of trusted issuers: those of the environment, and where none of them fits, stored ones.
 * Verified ones are kept until they expire, for 5 minutes at most; what failed is never kept.
 */
export class TokenVerifier {
  /** Whether key sets may be fetched from this machine and private networks. */
  readonly development: boolean
  readonly #issuers = new Map<string, Trusted[]>()
  readonly #stored: StoredIssuers | null
  readonly #verified: BoundedMap<string, { credential: TokenCredential; until: number }>
  readonly #now: () => number
  /** How often something was dropped: a token that was being verified meanwhile may be one of those. */
  #dropped = 0

  /** Of several issuers that a token with several audiences fits, the first listed is meant. */
  constructor(issuers: readonly Issuer[], options: TokenVerifierOptions = {}) {
    this.development = options.development ?? false
    this.#now = options.now ?? (() => Date.now())
    this.#verified = new BoundedMap(options.maximumCached ?? 1000)
    // Workers refuse a fetch that is called as a method of something else.
    const fetcher: typeof fetch = options.fetch ?? ((input, init) => fetch(input, init))
    const open = (issuer: Issuer) => keysOf(issuer, { fetch: fetcher, now: this.#now })
    for (const issuer of issuers) this.#issuers.set(issuer.issuer, [...(this.#issuers.get(issuer.issuer) ?? []), { issuer, keys: open(issuer) }])
    this.#stored = options.stored ? new StoredIssuers({ ask: options.stored, open, now: this.#now, development: this.development }) : null
  }

  /** Is there an issuer of the environment of this name, and for this audience where one is given? */
  isOfEnvironment(issuer: string, audience?: string): boolean {
    return (this.#issuers.get(issuer) ?? []).some((trusted) => audience === undefined || trusted.issuer.audience === audience)
  }

  /** Drop what is kept of a stored issuer that is gone, its tokens too. */
  forget(issuerId: string): void {
    this.#stored?.forget(issuerId)
    this.#drop(({ issuer_id }) => issuer_id === issuerId)
  }

  /** Ask again for the stored issuers of a name when they are next met: one was added or deleted here. */
  forgetNamed(issuer: string): void {
    this.#stored?.forgetNamed(issuer)
  }

  /**
   * Told of what changed in the database, as lines of its change feed: stored issuers of those names are asked for anew, as
   * one may be bound above the one that is known, or be gone; so are all where it cannot be told what changed.
   */
  changed(changes: readonly { kind: string; ref: string }[] | 'everything'): void {
    if (changes === 'everything' || changes.some(({ kind }) => kind === 'installation')) {
      this.#stored?.forgetAll()
      this.#drop(({ issuer_id }) => issuer_id !== undefined)
      return
    }
    const names = new Set(changes.flatMap(({ kind, ref }) => (kind === 'issuer' ? [ref] : [])))
    if (names.size === 0) return
    for (const name of names) this.#stored?.forgetNamed(name)
    this.#drop(({ issuer, issuer_id }) => issuer_id !== undefined && names.has(issuer))
  }

  #drop(matches: (credential: TokenCredential) => boolean): void {
    this.#dropped++
    this.#verified.deleteWhere(({ credential }) => matches(credential))
  }

  /** The credential of a token that was verified before, where that still counts. */
  known(token: string): TokenCredential | undefined {
    const known = this.#verified.get(token)
    if (!known || this.#now() < known.until) return known?.credential
    this.#verified.delete(token)
    return undefined
  }

  /**
   * Verify a compact JWS and answer the credential that SQL judges. It is one and the same object while it is kept, and frozen.
   * @throws {TokenInvalidError} whatever is wrong with the token.
   * @throws {ServerUnreachableError} when the issuer's key set cannot be had, which is not the token's fault.
   * @throws what asking for a stored issuer throws, and what `beforeAsking` does
   */
  async verify(token: string, options: VerifyOptions = {}): Promise<TokenCredential> {
    if (token.length > MAXIMUM_CHARACTERS) throw refusedAsForeign(`it is longer than ${MAXIMUM_CHARACTERS} characters`)
    const known = this.known(token)
    if (known) return known
    const [now, dropped] = [this.#now(), this.#dropped]
    const { credential, expires } = await this.#judge(token, now, options)
    const until = Math.min(expires, now + KEPT_MS)
    if (until > now && (credential.issuer_id === undefined || dropped === this.#dropped)) this.#verified.set(token, { credential, until })
    return credential
  }

  async #judge(token: string, now: number, options: VerifyOptions) {
    const payload = unverified(token)
    const trusted = this.#ofEnvironment(payload) ?? (await this.#ofDatabase(token, payload, options))
    try {
      return await this.#judgeBy(trusted, token, now)
    } catch (error) {
      // An issuer that was replaced, with other keys, is known by its old ones until its tokens fail.
      const other = trusted.id === undefined ? null : await this.#stored?.findOther(trusted, audiencesOf(payload))
      if (!other) throw error
      return this.#judgeBy(other, token, now)
    }
  }

  async #judgeBy({ id, issuer, keys }: Trusted, token: string, now: number) {
    const payload = await this.#claims(token, issuer, keys, now)
    return { credential: credentialOf(payload, issuer, id), expires: (payload.exp ?? 0) * 1000 }
  }

  #ofEnvironment(payload: JWTPayload): Trusted | undefined {
    const audiences = audiencesOf(payload)
    return this.#issuers.get(payload.iss ?? '')?.find(({ issuer }) => audiences.includes(issuer.audience))
  }

  async #ofDatabase(token: string, payload: JWTPayload, options: VerifyOptions): Promise<Trusted> {
    const audiences = audiencesOf(payload)
    const found = mayBeStored(token, payload) ? await this.#stored?.find(payload.iss ?? '', audiences, options) : null
    if (found) return found
    throw refusedAsForeign(this.#issuers.has(payload.iss ?? '') ? 'it is for another audience' : 'its issuer is not trusted')
  }

  async #claims(token: string, issuer: Issuer, keys: JWTVerifyGetKey, now: number): Promise<JWTPayload> {
    try {
      const { payload } = await jwtVerify(token, keys, {
        issuer: issuer.issuer,
        audience: issuer.audience,
        algorithms: issuer.algorithms,
        requiredClaims: ['exp'],
        clockTolerance: CLOCK_TOLERANCE_S,
        currentDate: new Date(now),
      })
      // JSON.parse reads 1e999 as Infinity: a token that never expires.
      if (!Number.isFinite(payload.exp)) throw refused('its exp is not valid')
      return payload
    } catch (error) {
      throw refusal(error)
    }
  }
}
