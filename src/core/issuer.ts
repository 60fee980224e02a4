/** What an issuer of tokens is described by, wherever it is configured. Keys are looked at closely by src/auth. */
import * as z from 'zod'
import { Uuid } from './endpoint.ts'
import { text } from './json.ts'
import { Scope } from './scopes.ts'

/** The signature algorithms an issuer may use: those that Node and Workers both verify, and never `none`. */
export const ALGORITHMS = [
  'HS256',
  'HS384',
  'HS512',
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
  'Ed25519',
] as const
export type Algorithm = (typeof ALGORITHMS)[number]

/** Names of objects within objects with dots between them, or one name that is a URL, as some providers demand. */
const ClaimPath = text(1, 255).refine((path) => /^https?:\/\//.test(path) || path.split('.').every((name) => name !== ''), {
  message: 'Must be names with single dots between them.',
})

/** The `iss` of an issuer's tokens, and an `aud`. */
export const IssuerName = text(1, 1024)

/** The fields of an issuer; `jwks_uri` or `keys`, not both. */
export const issuerFields = {
  issuer: IssuerName.describe('The iss of its tokens.'),
  audience: IssuerName.describe('The aud of its tokens, or one of them.'),
  jwks_uri: z.string().max(2048).optional().describe('Where it publishes its keys: https, a public host. Give this or keys.'),
  keys: z
    .array(z.looseObject({ kty: z.string() }))
    .min(1)
    .max(100)
    .optional()
    .describe('Its public keys, as JWKs.'),
  algorithms: z.array(z.enum(ALGORITHMS)).min(1),
  tenant_id: Uuid.nullable().default(null).describe('Its tokens reach this tenant and those below at most.'),
  tenant_claim: ClaimPath.default('tenant').describe('Which claim names the tenant, dots between the names of nested objects.'),
  scopes_claim: ClaimPath.nullable().default('scope').describe('Which claim lists scopes; null: each token holds max_scopes.'),
  max_scopes: z.array(Scope).min(1).default(['read']).describe('The most that its tokens may do.'),
  global: z.boolean().default(false).describe('Its tokens reach everything where they name no tenant.'),
}
