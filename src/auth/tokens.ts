import { decodeJwt, errors, type JWTPayload, type JWTVerifyGetKey, jwtVerify } from 'jose'
import { StratumError } from '../core/errors.ts'
import { BoundedMap } from '../crypto/bounded-map.ts'
import { credentialOf, refused, type TokenCredential } from './claims.ts'
import type { Issuer } from './issuers.ts'
import { keysOf } from './key-sets.ts'

const MAXIMUM_CHARACTERS = 16_384
const KEPT_MS = 300_000
const CLOCK_TOLERANCE_S = 5
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

type Trusted = { issuer: Issuer; keys: JWTVerifyGetKey }

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

function unverified(token: string): JWTPayload {
  // White space and the like inside would decode, and make many texts of one token.
  if (!COMPACT.test(token)) throw refused('it is not a signed token in compact form')
  try {
    return decodeJwt(token)
  } catch {
    throw refused('it is malformed')
  }
}

/**
 * Verifies bearer tokens of trusted issuers. Verified ones are kept until they expire, for 5 minutes at
 * most; what failed is never kept.
 */
export class TokenVerifier {
  readonly #issuers = new Map<string, Trusted[]>()
  readonly #verified: BoundedMap<string, { credential: TokenCredential; until: number }>
  readonly #now: () => number

  /** Of several issuers that a token with several audiences fits, the first listed is meant. */
  constructor(issuers: readonly Issuer[], options: { now?: () => number; fetch?: typeof fetch; maximumCached?: number } = {}) {
    this.#now = options.now ?? (() => Date.now())
    this.#verified = new BoundedMap(options.maximumCached ?? 1000)
    // Workers refuse a fetch that is called as a method of something else.
    const fetcher: typeof fetch = options.fetch ?? ((input, init) => fetch(input, init))
    for (const issuer of issuers) {
      const trusted = { issuer, keys: keysOf(issuer, { fetch: fetcher, now: this.#now }) }
      this.#issuers.set(issuer.issuer, [...(this.#issuers.get(issuer.issuer) ?? []), trusted])
    }
  }

  /**
   * Verify a compact JWS and answer the credential that SQL judges.
   * @throws {TokenInvalidError} whatever is wrong with the token.
   * @throws {ServerUnreachableError} when the issuer's key set cannot be had, which is not the token's fault.
   */
  async verify(token: string): Promise<TokenCredential> {
    if (token.length > MAXIMUM_CHARACTERS) throw refused(`it is longer than ${MAXIMUM_CHARACTERS} characters`)
    const now = this.#now()
    const known = this.#verified.get(token)
    if (known && now < known.until) return { ...known.credential, scopes: [...known.credential.scopes] }
    if (known) this.#verified.delete(token)

    const { issuer, keys } = this.#trusted(unverified(token))
    const payload = await this.#claims(token, issuer, keys, now)
    const credential = credentialOf(payload, issuer)
    const until = Math.min((payload.exp ?? 0) * 1000, now + KEPT_MS)
    if (until > now) this.#verified.set(token, { credential, until })
    return { ...credential, scopes: [...credential.scopes] }
  }

  #trusted({ iss, aud }: JWTPayload): Trusted {
    const candidates = typeof iss === 'string' ? this.#issuers.get(iss) : undefined
    if (!candidates) throw refused('its issuer is not trusted')
    const audiences: readonly unknown[] = Array.isArray(aud) ? aud : [aud]
    const trusted = candidates.find(({ issuer }) => audiences.includes(issuer.audience))
    if (!trusted) throw refused('it is for another audience')
    return trusted
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
