import * as z from 'zod'
import { ALGORITHMS, type Algorithm } from '../core/issuer.ts'
import { fromBase64 } from '../crypto/base64.ts'

export { ALGORITHMS, type Algorithm }

/** True for the algorithms whose key both signs and verifies. */
export const isSymmetric = (algorithm: Algorithm): boolean => algorithm.startsWith('HS')

const MINIMUM_RSA_BYTES = 256
/** Bytes of one coordinate, by curve. */
const CURVES = { 'P-256': ['ES256', 32], 'P-384': ['ES384', 48], 'P-521': ['ES512', 66] } as const
const PRIVATE_MEMBERS = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k', 'priv']

/** base64url that decodes to a number of bytes within bounds. */
const bytes = (minimum: number, maximum: number) =>
  z.string().refine(
    (text) => {
      const length = fromBase64(text)?.length ?? 0
      return length >= minimum && length <= maximum
    },
    { message: `Must be base64url of ${minimum === maximum ? minimum : `at least ${minimum}`} bytes.` },
  )

const named = {
  kid: z.string().min(1).max(255).optional(),
  alg: z.enum(ALGORITHMS).optional(),
  use: z.literal('sig').optional(),
  key_ops: z
    .array(z.string())
    .refine((operations) => operations.includes('verify') && new Set(operations).size === operations.length, {
      message: 'Must list verify, and nothing twice.',
    })
    .optional(),
  ext: z.boolean().optional(),
}

/** A verification key. Public ones may carry what else their issuer publishes, such as x5t. */
export const Jwk = z
  .discriminatedUnion('kty', [
    z.strictObject({ kty: z.literal('oct'), ...named, k: bytes(32, 1024) }),
    z.looseObject({ kty: z.literal('RSA'), ...named, n: bytes(MINIMUM_RSA_BYTES, 2048), e: bytes(1, 8) }),
    z.looseObject({ kty: z.literal('EC'), ...named, crv: z.enum(['P-256', 'P-384', 'P-521']), x: bytes(32, 66), y: bytes(32, 66) }),
    z.looseObject({ kty: z.literal('OKP'), ...named, crv: z.literal('Ed25519'), x: bytes(32, 32) }),
  ])
  .superRefine((jwk, context) => {
    const secret = PRIVATE_MEMBERS.find((member) => jwk.kty !== 'oct' && Object.hasOwn(jwk, member))
    if (secret) context.addIssue({ code: 'custom', path: [secret], message: 'Is private; give the public key only.' })
    if (jwk.kty !== 'EC') return
    const size = CURVES[jwk.crv][1]
    if (fromBase64(jwk.x)?.length === size && fromBase64(jwk.y)?.length === size) return
    context.addIssue({ code: 'custom', message: `Needs x and y of ${size} bytes each for ${jwk.crv}.` })
  })
export type Jwk = z.infer<typeof Jwk>

/** Whether a key can verify signatures of an algorithm. */
export function fits(jwk: Jwk, algorithm: Algorithm): boolean {
  if (jwk.alg !== undefined && jwk.alg !== algorithm) return false
  switch (jwk.kty) {
    case 'oct':
      // RFC 7518 §3.2: a key at least as long as the hash.
      return isSymmetric(algorithm) && (fromBase64(jwk.k)?.length ?? 0) * 8 >= Number(algorithm.slice(2))
    case 'RSA':
      return algorithm.startsWith('RS') || algorithm.startsWith('PS')
    case 'EC':
      return algorithm === CURVES[jwk.crv][0]
    case 'OKP':
      return algorithm === 'EdDSA' || algorithm === 'Ed25519'
  }
}
