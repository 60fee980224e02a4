/** Reads the context that the gateway signed, without asking anybody but for its public keys. */
import { errors, jwtVerify } from 'jose'
import * as z from 'zod'
import { type Algorithm, Jwk } from '../auth/jwk.ts'
import { keysOf } from '../auth/key-sets.ts'
import { networkOf } from '../auth/network.ts'
import { stratumError } from '../core/error-classes.ts'
import { StratumError } from '../core/errors.ts'
import { CONTEXT_TYPE } from '../gateway/context-token.ts'
import { type RequestTenant, tenantOfClaims } from './request-tenant.ts'

/** What the gateway signs with. */
const ALGORITHMS: Algorithm[] = ['EdDSA', 'ES256']
/** Seconds that the clocks of gateway and app may be apart. */
const DEFAULT_CLOCK_TOLERANCE = 5
const MAXIMUM_CLOCK_TOLERANCE = 60

type PublicKeys = readonly Record<string, unknown>[]

/** Whose contexts are believed, and for which app. */
export interface ContextReaderOptions {
  /**
   * The gateway's public keys: where it publishes them (`https://<any host of it>/.well-known/stratum-jwks.json`; read
   * when first needed, kept for 10 minutes, read again for an unknown key), or the keys themselves.
   */
  jwks: string | URL | PublicKeys | { keys: PublicKeys }
  /** The gateway's `STRATUM_CONTEXT_ISSUER`. */
  issuer: string
  /** This app as the gateway calls it: `STRATUM_CONTEXT_AUDIENCE`, else the origin of the app's URL, or `service:NAME`. */
  audience: string | string[]
  /** Seconds, at most 60. Default 5. */
  clockTolerance?: number
  /** How the keys are fetched. Default: the platform's fetch. */
  fetch?: typeof fetch
  /** Milliseconds since 1970. */
  now?: () => number
}

/** See {@link createContextReader}. */
export interface ContextReader {
  /**
   * @param token the value of the header `Stratum-Context`
   * @throws GATEWAY_CONTEXT_INVALID for what the gateway did not sign, not for this app, or too long ago
   * @throws SERVER_UNREACHABLE when the keys cannot be had
   */
  read(token: string): Promise<RequestTenant>
}

const refuse = (wrong: string) => stratumError('CONFIGURATION_INVALID', { reason: `The option ${wrong}.` })

/** Whoever can answer for the keys can name any tenant: so not in clear over a network. */
function urlOfKeys(text: string): string {
  if (!URL.canParse(text)) throw refuse('jwks is no URL')
  const { protocol, hostname } = new URL(text)
  if (protocol === 'https:' || (protocol === 'http:' && networkOf(hostname) === 'loopback')) return text
  throw refuse('jwks must begin with https://; http:// serves on this machine only. Else give the keys themselves')
}

function givenKeys(keys: unknown): Jwk[] {
  const parsed = z.array(Jwk).min(1).max(100).safeParse(keys)
  if (!parsed.success) throw refuse('jwks holds no list of public keys as the gateway publishes it')
  if (parsed.data.some(({ kty }) => kty !== 'OKP' && kty !== 'EC'))
    throw refuse('jwks holds a key that is neither Ed25519 nor P-256, which no gateway signs with')
  return parsed.data
}

function keySource({ jwks, fetch: fetcher, now = () => Date.now() }: ContextReaderOptions) {
  // Workers refuse a fetch that is called as a method of something else.
  const beside = { fetch: fetcher ?? ((input: RequestInfo | URL, init?: RequestInit) => fetch(input, init)), now }
  if (typeof jwks === 'string' || jwks instanceof URL) return keysOf({ jwks_uri: urlOfKeys(String(jwks)), algorithms: ALGORITHMS }, beside)
  return keysOf({ keys: givenKeys('keys' in jwks ? jwks.keys : jwks), algorithms: ALGORITHMS }, beside)
}

/** In words, and without a cause: these errors carry the payload, which is nothing for a log. */
function refusal(error: unknown): StratumError {
  if (error instanceof StratumError) return error
  if (error instanceof errors.JWKSTimeout) return stratumError('SERVER_UNREACHABLE', { reason: "the gateway's keys cannot be fetched" })
  const invalid = (reason: string) => stratumError('GATEWAY_CONTEXT_INVALID', { reason })
  if (error instanceof errors.JWTExpired) return invalid('it has expired')
  if (error instanceof errors.JWTClaimValidationFailed) return invalid(`its ${error.claim} is not the one expected here`)
  return invalid(error instanceof z.ZodError ? 'it does not read as a context' : 'it is not signed by the gateway')
}

/**
 * Verifies contexts: signature, algorithm, type, issuer, audience, expiry.
 * @throws CONFIGURATION_INVALID
 */
export function createContextReader(options: ContextReaderOptions): ContextReader {
  const { issuer, audience, clockTolerance = DEFAULT_CLOCK_TOLERANCE, now = () => Date.now() } = options
  // Left out, jose would take any issuer's and any app's.
  if (!issuer) throw refuse('issuer is missing: it is the STRATUM_CONTEXT_ISSUER of the gateway')
  if ([audience].flat().some((name) => !name) || audience.length === 0) throw refuse('audience is missing: it is what the gateway calls this app')
  if (!(clockTolerance >= 0 && clockTolerance <= MAXIMUM_CLOCK_TOLERANCE)) throw refuse('clockTolerance must be 0 to 60 seconds')
  const keys = keySource(options)
  return {
    async read(token) {
      try {
        const { payload } = await jwtVerify(token, keys, {
          ...{ issuer, audience, clockTolerance, algorithms: ALGORITHMS, typ: CONTEXT_TYPE, requiredClaims: ['exp', 'tenant_id'] },
          currentDate: new Date(now()),
        })
        return tenantOfClaims(payload)
      } catch (error) {
        throw refusal(error)
      }
    },
  }
}
