/** The keys that contexts are signed with: private JWKs, newest first. */
import * as z from 'zod'
import { stratumError } from '../core/error-classes.ts'
import { fromBase64 } from '../crypto/base64.ts'

const VARIABLE = 'STRATUM_CONTEXT_KEYS'

const coordinate = z.string().refine((text) => fromBase64(text)?.length === 32, { message: 'must be base64url of 32 bytes' })
const named = {
  kid: z.string({ error: 'is missing; each key needs a name of its own' }).regex(/^[A-Za-z0-9_.-]{1,64}$/, 'must be 1 to 64 letters, digits or _ . -'),
  d: coordinate,
  x: coordinate,
}

const ContextKeyFields = z.discriminatedUnion('kty', [
  z.object({ kty: z.literal('OKP'), crv: z.literal('Ed25519'), ...named }),
  z.object({ kty: z.literal('EC'), crv: z.literal('P-256'), ...named, y: coordinate }),
])

/** A private JWK, Ed25519 or P-256, with a `kid`. */
export type ContextKey = z.output<typeof ContextKeyFields>

/** The signature algorithm of a key. */
export const algorithmOf = ({ kty }: ContextKey): 'EdDSA' | 'ES256' => (kty === 'OKP' ? 'EdDSA' : 'ES256')

const refuse = (wrong: string) =>
  stratumError('CONFIGURATION_INVALID', { reason: `${VARIABLE} ${wrong}; it is a JSON array of private JWKs, newest first: npx stratum keys --context.` })

/**
 * Parse the JSON array of private keys. The first one signs; all are published, so that what an older one signed still verifies.
 * @throws {ConfigurationInvalidError} in one sentence that names the entry and no key
 */
export function parseContextKeys(json: string): ContextKey[] {
  let parsed: unknown
  try {
    parsed = JSON.parse(json)
  } catch {
    // The parser's own message quotes what it read, which is a key.
    throw refuse('is not valid JSON')
  }
  const keys = z.array(ContextKeyFields).min(1).max(10).safeParse(parsed)
  if (!keys.success) {
    const [issue] = keys.error.issues
    const place = issue?.path.map((name) => (typeof name === 'number' ? `[${name}]` : `.${String(name)}`)).join('') ?? ''
    throw refuse(`is not valid${place === '' ? '' : ` at ${place}`}: ${issue?.message ?? 'unknown'}`)
  }
  const twin = keys.data.findIndex(({ kid }, index) => keys.data.findIndex((other) => other.kid === kid) !== index)
  if (twin !== -1) throw refuse(`entry ${twin + 1} has the kid of an entry before it`)
  return keys.data
}

/** A new Ed25519 key, as one element of the array. */
export async function generateContextKey(kid: string): Promise<ContextKey> {
  const { privateKey } = (await crypto.subtle.generateKey({ name: 'Ed25519' }, true, ['sign', 'verify'])) as CryptoKeyPair
  const { kty, crv, d, x } = await crypto.subtle.exportKey('jwk', privateKey)
  return ContextKeyFields.parse({ kty, crv, kid, d, x })
}
