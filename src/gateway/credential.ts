/** Who asks for a forwarded request. Only what is ours is judged; the rest is between the client and the app. */
import { type ApiKeySecrets, looksLikeApiKey } from '../auth/api-keys.ts'
import { isForeign, type TokenVerifier } from '../auth/tokens.ts'
import type { Credential } from '../core/actor.ts'
import { stratumError } from '../core/error-classes.ts'

const isOfOurs = (text: string | null): text is string => text !== null && /^sk_(live|test)_/.test(text)

/**
 * The credential of ours that a request carries: a token that one of our issuers made, or an API key; null where it
 * carries none, or the app's own.
 * @throws TOKEN_INVALID for a token that claims to be of one of our issuers and does not verify
 * @throws API_KEY_INVALID, CREDENTIALS_AMBIGUOUS, SERVER_UNREACHABLE
 */
export async function readForwardedCredential(
  { headers }: Request,
  { tokens, apiKeys }: { tokens: TokenVerifier; apiKeys: ApiKeySecrets },
): Promise<Credential | null> {
  const apiKey = headers.get('x-api-key')
  const bearer = /^bearer +(\S+) *$/i.exec(headers.get('authorization') ?? '')?.[1] ?? null
  const [key, ...others] = [apiKey, bearer].filter(isOfOurs)
  const token = bearer === null || isOfOurs(bearer) ? null : await verifyUnlessForeign(tokens, bearer)
  if (key === undefined) return token
  if (token !== null || others.length > 0) throw stratumError('CREDENTIALS_AMBIGUOUS')
  if (!looksLikeApiKey(key)) throw stratumError('API_KEY_INVALID')
  return { type: 'api_key', hashes: await apiKeys.hashes(key) }
}

async function verifyUnlessForeign(tokens: TokenVerifier, token: string) {
  try {
    return await tokens.verify(token)
  } catch (error) {
    if (isForeign(error)) return null
    throw error
  }
}
