/** What the claims of a verified token say, under the limits of its issuer. */
import type { JWTPayload } from 'jose'
import type { TokenCredential } from '../core/actor.ts'
import { stratumError } from '../core/error-classes.ts'
import type { StratumError } from '../core/errors.ts'
import { unstorable } from '../core/json.ts'
import { intersectScopes } from '../core/scopes.ts'
import type { Issuer } from './issuers.ts'

const MAXIMUM_NAME = 255

/** A refusal in words that say nothing the bearer does not know. */
export const refused = (reason: string, cause?: unknown): StratumError => stratumError('TOKEN_INVALID', { reason }, { cause })

/**
 * The claim at a dotted path, or undefined. A path that is a URL is one name. Own members of objects
 * only: `constructor` is a claim when the token has one, and never what every object inherits.
 */
export function claimAt(payload: JWTPayload, path: string): unknown {
  let value: unknown = payload
  for (const name of /^https?:\/\//.test(path) ? [path] : path.split('.')) {
    if (typeof value !== 'object' || value === null || Array.isArray(value) || !Object.hasOwn(value, name)) return undefined
    value = (value as Record<string, unknown>)[name]
  }
  return value
}

function nameOf(claim: unknown, what: string): string | null {
  if (claim === undefined) return null
  // null is refused too: with a global issuer, no tenant means every tenant, which nobody should reach by accident.
  const valid = typeof claim === 'string' && claim !== '' && claim.length <= MAXIMUM_NAME && unstorable(claim) === null
  if (!valid) throw refused(`its ${what} is not a text of 1 to ${MAXIMUM_NAME} characters`)
  return claim
}

function scopesOf(claim: unknown): string[] {
  if (claim === undefined) return []
  if (typeof claim === 'string') return claim.split(' ')
  if (Array.isArray(claim) && claim.every((scope) => typeof scope === 'string')) return claim
  throw refused('its scopes are neither a text nor a list of texts')
}

/**
 * @param issuerId the id of a stored issuer
 * @throws {TokenInvalidError} when a claim that matters is not of its form.
 */
export function credentialOf(payload: JWTPayload, issuer: Issuer, issuerId?: string): TokenCredential {
  const { scopes_claim, max_scopes } = issuer
  return Object.freeze({
    type: 'token',
    issuer: issuer.issuer,
    ...(issuerId === undefined ? {} : { issuer_id: issuerId }),
    subject: nameOf(claimAt(payload, 'sub'), 'subject'),
    tenant: nameOf(claimAt(payload, issuer.tenant_claim), 'tenant'),
    issuer_tenant_id: issuer.tenant_id,
    global: issuer.global,
    scopes: Object.freeze(intersectScopes(scopes_claim === null ? max_scopes : scopesOf(claimAt(payload, scopes_claim)), max_scopes)),
  })
}
