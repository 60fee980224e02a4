/** Who asks for a forwarded request. Only what is ours is judged; the rest is between the client and the app. */
import { type ApiKeySecrets, looksLikeApiKey } from '../auth/api-keys.ts'
import { isForeign, type TokenVerifier } from '../auth/tokens.ts'
import type { Credential } from '../core/actor.ts'
import { stratumError } from '../core/error-classes.ts'
import type { Asking } from '../resolver/contexts.ts'
import type { Arrival } from './gateway.ts'
import type { Guard } from './guard.ts'

interface Verifiers {
  tokens: TokenVerifier
  apiKeys: ApiKeySecrets
  contexts?: { isCurrent(asking: Asking): Promise<boolean> } | undefined
}

const VISITOR: Credential = { type: 'visitor' }

const isOfOurs = (text: string | undefined): text is string => text !== undefined && /^sk_(live|test)_/.test(text)

/**
 * The credential of ours that a request carries: a token that one of our issuers made, or an API key; a visitor's where it
 * carries none, or the app's own. At once for a visitor and for a token that was verified before.
 * @throws TOKEN_INVALID for a token that claims to be of one of our issuers and does not verify
 * @throws RATE_LIMITED for a token whose issuer would have to be asked for, where too much from this address was refused:
 * it may be one of ours, so it is not taken for nobody's
 * @throws API_KEY_INVALID, CREDENTIALS_AMBIGUOUS, SERVER_UNREACHABLE
 */
export function readForwardedCredential(arrival: Arrival, verifiers: Verifiers, guard: Guard): Credential | Promise<Credential> {
  const apiKey = arrival.fields.get('x-api-key')
  const authorization = arrival.fields.get('authorization')
  if (apiKey === undefined && authorization === undefined) return VISITOR
  const bearer = /^bearer +(\S+) *$/i.exec(authorization ?? '')?.[1]
  const keys = [apiKey, bearer].filter(isOfOurs)
  const token = bearer === undefined || isOfOurs(bearer) ? undefined : bearer
  if (keys.length > 0) return readKey(keys, token, arrival, verifiers, guard)
  return token === undefined ? VISITOR : (verifiers.tokens.known(token) ?? verifyUnlessForeign(token, arrival, verifiers, guard))
}

async function readKey([key = '', ...others]: string[], token: string | undefined, arrival: Arrival, verifiers: Verifiers, guard: Guard): Promise<Credential> {
  const isToken = token !== undefined && (await verifyUnlessForeign(token, arrival, verifiers, guard)) !== VISITOR
  if (isToken || others.length > 0) throw stratumError('CREDENTIALS_AMBIGUOUS')
  if (!looksLikeApiKey(key)) throw stratumError('API_KEY_INVALID')
  return { type: 'api_key', hashes: await verifiers.apiKeys.hashes(key) }
}

async function verifyUnlessForeign(token: string, { waitUntil }: Arrival, { tokens, contexts }: Verifiers, guard: Guard): Promise<Credential> {
  try {
    // An app's own tokens are of an issuer that we do not have; the feed of what is kept tells when we come to have it.
    const noneStands = contexts && (() => contexts.isCurrent({ waitUntil }))
    return await tokens.verify(token, { beforeAsking: () => guard.beforeAsking(), noneStands })
  } catch (error) {
    if (!isForeign(error)) throw error
    guard.noteRefusal(error)
    return VISITOR
  }
}
