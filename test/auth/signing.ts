import { createHmac, generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { type Issuer, parseIssuers } from '../../src/auth/issuers.ts'

/** Seconds since 1970 at which the tests take place. */
export const NOW = 1_900_000_000
export const ISSUER = 'https://id.example.com/'
export const AUDIENCE = 'https://api.example.com'
export const TENANT = '0197a000-0000-4000-8000-00000000000a'

export const encode = (value: unknown): string => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url')

export const claims = (change: Record<string, unknown> = {}) => ({
  iss: ISSUER,
  aud: AUDIENCE,
  sub: 'user-1',
  exp: NOW + 3600,
  tenant: 'acme',
  scope: 'read',
  ...change,
})

const pairs = {
  RSA: generateKeyPairSync('rsa', { modulusLength: 2048 }),
  'P-256': generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  'P-384': generateKeyPairSync('ec', { namedCurve: 'P-384' }),
  'P-521': generateKeyPairSync('ec', { namedCurve: 'P-521' }),
  Ed25519: generateKeyPairSync('ed25519'),
}
export type Family = keyof typeof pairs
export const FAMILIES = { RS: 'RSA', PS: 'RSA', ES256: 'P-256', ES384: 'P-384', ES512: 'P-521', Ed: 'Ed25519' } as const

export const familyOf = (alg: string): Family => (alg.startsWith('ES') ? FAMILIES[alg as 'ES256'] : FAMILIES[alg.slice(0, 2) as 'RS' | 'PS' | 'Ed'])

export const publicKey = (family: Family): KeyObject => pairs[family].publicKey
export const privateJwk = (family: Family) => pairs[family].privateKey.export({ format: 'jwk' }) as Record<string, unknown>
export const publicJwk = (family: Family, change: Record<string, unknown> = {}) => ({
  ...(pairs[family].publicKey.export({ format: 'jwk' }) as Record<string, unknown>),
  ...change,
})

function signature(alg: string, input: string, secret: Uint8Array | string, privateKey?: KeyObject): Buffer {
  const hash = `sha${alg.slice(2)}`
  if (alg.startsWith('HS')) return createHmac(hash, secret).update(input).digest()
  const key = privateKey ?? pairs[familyOf(alg)].privateKey
  if (alg.startsWith('Ed')) return sign(null, Buffer.from(input), key)
  if (alg.startsWith('ES')) return sign(hash, Buffer.from(input), { key, dsaEncoding: 'ieee-p1363' })
  return sign(hash, Buffer.from(input), { key, ...(alg.startsWith('PS') ? { padding: 6, saltLength: Number(alg.slice(2)) / 8 } : {}) })
}

/** A token signed here, without the library that verifies it. */
export function token(
  payload: unknown = claims(),
  options: { alg?: string; header?: Record<string, unknown>; secret?: Uint8Array | string; key?: KeyObject } = {},
): string {
  const alg = options.alg ?? 'ES256'
  const input = `${encode({ alg, ...options.header })}.${encode(payload)}`
  return `${input}.${signature(alg, input, options.secret ?? '', options.key).toString('base64url')}`
}

/** An issuer as the environment would give it: one ES256 key unless told otherwise. */
export const issuer = (change: Record<string, unknown> = {}): Issuer => {
  const base = { issuer: ISSUER, audience: AUDIENCE, algorithms: ['ES256'] }
  const keys = 'jwks_uri' in change ? {} : { keys: [publicJwk('P-256')] }
  const [parsed] = parseIssuers(JSON.stringify([{ ...base, ...keys, ...change }]), { development: true })
  if (!parsed) throw new Error('no issuer')
  return parsed
}
