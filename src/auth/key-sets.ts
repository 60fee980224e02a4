/** Where the keys of an issuer come from: its configuration, or the key set it publishes. */
import { createLocalJWKSet, createRemoteJWKSet, customFetch, errors, type FetchImplementation, type JWK, type JWTVerifyGetKey } from 'jose'
import * as z from 'zod'
import { stratumError } from '../core/error-classes.ts'
import { responseText } from '../core/response-text.ts'
import { fromBase64 } from '../crypto/base64.ts'
import type { Issuer } from './issuers.ts'
import { type Algorithm, fits, Jwk } from './jwk.ts'

const FETCH_MS = 5_000
const KEPT_MS = 600_000
/** An unknown kid makes the set be read again no sooner. */
const COOLDOWN_MS = 30_000
/** After a failure the set is not asked for again so soon, or every token would cost a wait. */
const RETRY_MS = 5_000
/** Sets of large providers have under 20 KiB, and few keys. */
const MAXIMUM_BYTES = 65_536
const MAXIMUM_KEYS = 100

const KeySet = z.object({ keys: z.array(z.looseObject({})).max(MAXIMUM_KEYS) })

const unavailable = (cause?: unknown) => stratumError('SERVER_UNREACHABLE', { reason: 'the key set of the issuer cannot be fetched' }, { cause })

/**
 * The keys of a set that fit the algorithms, with the members that verifying needs: whatever else an issuer publishes
 * would be kept and searched through for as long as it is known.
 */
function fitKeys(entries: readonly unknown[], algorithms: readonly Algorithm[]): JWK[] {
  return entries.flatMap((entry) => {
    const jwk = Jwk.safeParse(entry).data
    if (!jwk || !algorithms.some((algorithm) => fits(jwk, algorithm))) return []
    const { kty, kid, alg, crv, n, e, x, y } = jwk as JWK
    return [{ kty, kid, alg, crv, n, e, x, y } as JWK]
  })
}

async function readKeySet(fetcher: typeof fetch, url: string, init: RequestInit & { signal: AbortSignal }, algorithms: readonly Algorithm[]) {
  // jose asks with redirect: 'manual', so a redirect is an answer like any other that is not 200.
  const response = await fetcher(url, init)
  if (response.status !== 200) {
    await response.body?.cancel()
    throw new Error(`The key set was answered with status ${response.status}.`)
  }
  const text = await responseText(response, { signal: init.signal, maximumBytes: MAXIMUM_BYTES })
  const { keys } = KeySet.parse(JSON.parse(text))
  return Response.json({ keys: fitKeys(keys, algorithms) })
}

/** A fetch for one key set that answers 200 and the keys of it that fit, or throws SERVER_UNREACHABLE. */
function keySetFetch(fetcher: typeof fetch, now: () => number, algorithms: readonly Algorithm[]): FetchImplementation {
  let failed = Number.NEGATIVE_INFINITY
  return async (url, init) => {
    const since = now() - failed
    if (since >= 0 && since < RETRY_MS) throw unavailable()
    try {
      return await readKeySet(fetcher, url, init, algorithms)
    } catch (cause) {
      failed = now()
      throw unavailable(cause)
    }
  }
}

/** A sole key without a name serves whatever kid a token has, and a sole key a token without one. */
function soleKid(keys: readonly Jwk[], kid: string | undefined): string | undefined {
  const [sole] = keys
  return keys.length === 1 && (kid === undefined || sole?.kid === undefined) ? sole?.kid : kid
}

function sharedSecrets(keys: readonly Jwk[]): JWTVerifyGetKey {
  const imported = new Map<string, CryptoKey>()
  return async ({ alg, kid }) => {
    const name = soleKid(keys, kid)
    const index = keys.findIndex((key) => key.kid === name && fits(key, alg as Algorithm))
    const jwk = keys[index]
    const secret = jwk?.kty === 'oct' ? fromBase64(jwk.k) : null
    if (secret === null) throw new errors.JWKSNoMatchingKey()
    const place = `${alg} ${index}`
    const known = imported.get(place)
    if (known) return known
    const key = await crypto.subtle.importKey('raw', secret, { name: 'HMAC', hash: `SHA-${alg.slice(2)}` }, false, ['verify'])
    imported.set(place, key)
    return key
  }
}

function publicKeys(keys: readonly Jwk[], algorithms: readonly Algorithm[]): JWTVerifyGetKey {
  const local = createLocalJWKSet({ keys: fitKeys(keys, algorithms) })
  return ({ kid, ...header }, token) => {
    const name = soleKid(keys, kid)
    return local(name === undefined ? header : { ...header, kid: name }, token)
  }
}

/** Finds the key that a token's header names. It does no I/O before it is first asked. */
export function keysOf(
  { jwks_uri, keys = [], algorithms }: Pick<Issuer, 'jwks_uri' | 'keys' | 'algorithms'>,
  options: { fetch: typeof fetch; now: () => number },
): JWTVerifyGetKey {
  if (jwks_uri !== undefined) {
    return createRemoteJWKSet(new URL(jwks_uri), {
      timeoutDuration: FETCH_MS,
      cooldownDuration: COOLDOWN_MS,
      cacheMaxAge: KEPT_MS,
      [customFetch]: keySetFetch(options.fetch, options.now, algorithms),
    })
  }
  return keys.some(({ kty }) => kty === 'oct') ? sharedSecrets(keys) : publicKeys(keys, algorithms)
}
