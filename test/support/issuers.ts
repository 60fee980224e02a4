/** Issuers of one's own, whose tokens are signed here. */
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { SignJWT } from 'jose'
import type { CallOf } from '../../src/core/endpoint.ts'
import type { endpoints } from '../../src/features/endpoints.ts'

let made = 0

type IssuerFields = CallOf<typeof endpoints.createIssuer>

export interface OwnIssuer {
  name: string
  /** What to store of it. */
  fields(more?: Partial<IssuerFields>): IssuerFields
  /** A token of it, that may do everything its issuer may. */
  token(claims?: Record<string, unknown>, options?: { audience?: string | string[]; expires?: string; subject?: string }): Promise<string>
}

/** An issuer with a key pair of its own; the same name twice is two that claim to be one. */
export function ownIssuer(name = `https://idp-${++made}.test`, audience = 'stratum'): OwnIssuer {
  const { publicKey, privateKey }: { publicKey: KeyObject; privateKey: KeyObject } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const key = { ...publicKey.export({ format: 'jwk' }), kty: 'EC' }
  return {
    name,
    fields: (more = {}) => ({ issuer: name, audience, algorithms: ['ES256'], keys: [key], max_scopes: ['admin'], ...more }),
    token: (claims = {}, options = {}) =>
      new SignJWT({ scope: 'admin', ...claims })
        .setProtectedHeader({ alg: 'ES256' })
        .setIssuer(name)
        .setAudience(options.audience ?? audience)
        .setSubject(options.subject ?? 'ada')
        .setIssuedAt()
        .setExpirationTime(options.expires ?? '5m')
        .sign(privateKey),
  }
}
