/** The issuers whose tokens are trusted: what the environment lists, and what each must be like wherever it is kept. */
import * as z from 'zod'
import { stratumError } from '../core/error-classes.ts'
import { issuerFields } from '../core/issuer.ts'
import { unstorable } from '../core/json.ts'
import { fits, isSymmetric, Jwk } from './jwk.ts'
import { networkOf } from './network.ts'

const VARIABLE = 'STRATUM_ISSUERS'

const Fields = z.strictObject({ ...issuerFields, keys: z.array(Jwk).min(1).max(100).optional() })

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

const issuerSchema = (development: boolean) =>
  Fields.superRefine((issuer, context) => {
    const problem = problemOf(issuer, development)
    if (problem) context.addIssue({ code: 'custom', ...problem })
  })

const problemOfStored = (issuer: Issuer): Problem | null => {
  const unfit = unstorable(issuer)
  if (unfit !== null) return { path: [], message: `The issuer ${unfit}.` }
  // Whoever reads the database could sign tokens with it.
  return issuer.algorithms.some(isSymmetric) ? { path: ['algorithms'], message: 'A shared secret belongs in STRATUM_ISSUERS.' } : null
}

/** What an issuer that is kept in the database must be like. It is judged when it is stored, and by each process that reads it. */
export const storedIssuerSchema = (development: boolean) =>
  issuerSchema(development).superRefine((issuer, context) => {
    const problem = problemOfStored(issuer)
    if (problem) context.addIssue({ code: 'custom', ...problem })
  })

const issuersSchema = (development: boolean) =>
  z.array(issuerSchema(development)).superRefine((issuers, context) => {
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
