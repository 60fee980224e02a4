/** The issuers whose tokens are trusted, as the environment lists them. */
import * as z from 'zod'
import { Uuid } from '../core/endpoint.ts'
import { stratumError } from '../core/error-classes.ts'
import { text } from '../core/json.ts'
import { Scope } from '../core/scopes.ts'
import { ALGORITHMS, fits, isSymmetric, Jwk } from './jwk.ts'
import { networkOf } from './network.ts'

const VARIABLE = 'STRATUM_ISSUERS'

/** Names of objects within objects with dots between them, or one name that is a URL, as some providers demand. */
const ClaimPath = text(1, 255).refine((path) => /^https?:\/\//.test(path) || path.split('.').every((name) => name !== ''), {
  message: 'Must be names with single dots between them.',
})

const Fields = z.strictObject({
  issuer: text(1, 1024),
  audience: text(1, 1024),
  jwks_uri: z.string().max(2048).optional(),
  keys: z.array(Jwk).min(1).max(100).optional(),
  algorithms: z.array(z.enum(ALGORITHMS)).min(1),
  tenant_id: Uuid.nullable().default(null),
  tenant_claim: ClaimPath.default('tenant'),
  scopes_claim: ClaimPath.nullable().default('scope'),
  max_scopes: z.array(Scope).min(1).default(['read']),
  global: z.boolean().default(false),
})

/** An issuer whose tokens are trusted, for one audience. */
export type Issuer = z.output<typeof Fields>

type Problem = { path: PropertyKey[]; message: string }

function problemOfUri(uri: string, development: boolean): string | null {
  if (!URL.canParse(uri)) return 'Must be a URL.'
  const { protocol, hostname, username, password } = new URL(uri)
  const network = networkOf(hostname)
  if (protocol !== 'https:' && !(protocol === 'http:' && development && network === 'loopback')) return 'Must begin with https://.'
  if (username || password) return 'Must not carry a user name or password.'
  if (network !== 'public' && !development) return 'Must name a public host.'
  return null
}

function problemOfKeys(keys: readonly Jwk[], algorithms: Issuer['algorithms']): Problem | null {
  const kids = new Set(keys.map(({ kid }) => kid))
  if (keys.length > 1 && (kids.has(undefined) || kids.size < keys.length)) {
    return { path: ['keys'], message: 'Needs a kid of its own in each of several keys.' }
  }
  const idle = keys.findIndex((key) => !algorithms.some((algorithm) => fits(key, algorithm)))
  if (idle !== -1) return { path: ['keys', idle], message: 'Fits, by type and size, none of the algorithms.' }
  const keyless = algorithms.findIndex((algorithm) => !keys.some((key) => fits(key, algorithm)))
  return keyless === -1 ? null : { path: ['algorithms', keyless], message: 'Has no key that fits it, by type and size.' }
}

function problemOf(issuer: Issuer, development: boolean): Problem | null {
  const { jwks_uri, keys, algorithms } = issuer
  if ((jwks_uri === undefined) === (keys === undefined)) return { path: [], message: 'Needs exactly one of jwks_uri and keys.' }
  const symmetric = algorithms.filter(isSymmetric).length
  // With both kinds allowed, a public key could be passed off as a shared secret.
  if (symmetric !== 0 && symmetric !== algorithms.length) return { path: ['algorithms'], message: 'Must not mix HS* with others.' }
  if (symmetric !== 0 && jwks_uri !== undefined) return { path: ['algorithms'], message: 'HS* needs keys and not a jwks_uri.' }
  if (issuer.global && issuer.tenant_id !== null) return { path: ['global'], message: 'Must not be set together with tenant_id.' }
  const uri = jwks_uri === undefined ? null : problemOfUri(jwks_uri, development)
  if (uri !== null) return { path: ['jwks_uri'], message: uri }
  return keys === undefined ? null : problemOfKeys(keys, algorithms)
}

const issuersSchema = (development: boolean) =>
  z
    .array(
      Fields.superRefine((issuer, context) => {
        const problem = problemOf(issuer, development)
        if (problem) context.addIssue({ code: 'custom', ...problem })
      }),
    )
    .superRefine((issuers, context) => {
      const names = issuers.map(({ issuer, audience }) => JSON.stringify([issuer, audience]))
      const twin = names.findIndex((name, index) => names.indexOf(name) !== index)
      if (twin !== -1) context.addIssue({ code: 'custom', path: [twin], message: 'Has issuer and audience of an entry before it.' })
    })

const refuse = (wrong: string) => stratumError('CONFIGURATION_INVALID', { reason: `${VARIABLE} ${wrong}.` })

function parseJson(json: string): unknown {
  try {
    return JSON.parse(json)
  } catch {
    // The parser's own message quotes what it read, which may be a key.
    throw refuse('is not valid JSON; write an array of issuers, [] for none')
  }
}

/**
 * Parse the JSON array of trusted issuers. In development a jwks_uri may lie in a private network, and on
 * this machine it may be http.
 * @throws {ConfigurationInvalidError} in one sentence that names the entry and no key.
 */
export function parseIssuers(json: string, options: { development?: boolean } = {}): Issuer[] {
  const parsed = issuersSchema(options.development ?? false).safeParse(parseJson(json))
  if (parsed.success) return parsed.data
  const [issue] = parsed.error.issues
  const place = issue?.path.map((name) => (typeof name === 'number' ? `[${name}]` : `.${String(name)}`)).join('') ?? ''
  throw refuse(`is not valid${place === '' ? '' : ` at ${place.replace(/^\./, '')}`}: ${(issue?.message ?? 'unknown').replace(/\.$/, '')}`)
}
