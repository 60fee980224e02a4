/** The signed context that goes to the origin: a compact JWS that it verifies offline, with the published keys. */
import { stratumError } from '../core/error-classes.ts'
import { toBase64Url } from '../crypto/base64.ts'
import { BoundedMap } from '../crypto/bounded-map.ts'
import type { GatewayContext } from './context.ts'
import { algorithmOf, type ContextKey } from './context-keys.ts'

/** Where the public keys are, on every host. */
export const KEY_SET_PATH = '/.well-known/stratum-jwks.json'
/** The `typ` of a context, so that no other token of ours or anybody's passes for one. */
export const CONTEXT_TYPE = 'stratum-context+jwt'

/** Seconds that a context is valid. */
const LIFETIME = 60
/** Seconds that one signature serves identical contexts, so that what arrives is valid for at least 30 more. */
const SERVED = 30
const MAXIMUM_CHARACTERS = 8_192
const MAXIMUM_KEPT = 2_000
const KEY_SET_AGE = 300

export interface ContextTokensOptions {
  /** The `iss`. */
  issuer: string
  /** The config keys that stand in the context. */
  configKeys: readonly string[]
  now?: () => number
}

/** A token and, in milliseconds since 1970, until when it is served. */
interface Signed {
  audience: string
  token: string
  until: number
}

const ALGORITHM_PARAMETERS = { OKP: { name: 'Ed25519' }, EC: { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } }
const encoder = new TextEncoder()

async function importSigningKey({ kid: _, ...key }: ContextKey): Promise<CryptoKey> {
  try {
    return await crypto.subtle.importKey('jwk', key, ALGORITHM_PARAMETERS[key.kty], false, ['sign'])
  } catch (cause) {
    throw stratumError('CONFIGURATION_INVALID', { reason: 'The first key of STRATUM_CONTEXT_KEYS is no valid key.' }, { cause })
  }
}

const valuesOf = (entries: ReadonlyArray<readonly [string, { value: unknown }]>) => Object.fromEntries(entries.map(([key, { value }]) => [key, value]))

export class ContextTokens {
  readonly #keys: readonly ContextKey[]
  readonly #options: Required<ContextTokensOptions>
  readonly #signed = new BoundedMap<string, Signed>(MAXIMUM_KEPT)
  /** What was signed last of a context that is kept as it is. */
  readonly #last = new WeakMap<GatewayContext, Signed>()
  /** Kept once imported: requests of a Worker must not share a promise. */
  #key: CryptoKey | null = null

  /** @param keys newest first: it signs, and all are published */
  constructor(keys: readonly ContextKey[], options: ContextTokensOptions) {
    this.#keys = keys
    this.#options = { now: () => Date.now(), ...options }
  }

  get #newest(): ContextKey {
    const [newest] = this.#keys
    if (newest === undefined) throw stratumError('CONFIGURATION_INVALID', { reason: 'The gateway needs STRATUM_CONTEXT_KEYS: npx stratum keys --context.' })
    return newest
  }

  /** What marks a request as forwarded by this deployment. */
  get loopMark(): string {
    return this.#newest.kid
  }

  /** Was a request with this mark forwarded by this deployment? */
  isLoopMark(mark: string | null | undefined): boolean {
    return mark != null && this.#keys.some(({ kid }) => kid === mark)
  }

  /** The public keys, as an answer. */
  keySet(): Response {
    const keys = this.#keys.map(({ d: _, ...key }) => ({ ...key, alg: algorithmOf(key as ContextKey), use: 'sig' }))
    const headers = { 'content-type': 'application/jwk-set+json', 'cache-control': `public, max-age=${KEY_SET_AGE}`, 'access-control-allow-origin': '*' }
    return new Response(JSON.stringify({ keys }), { headers })
  }

  /** The context for one audience as it was signed at most 30 seconds ago, where it is known by being the same object. */
  kept(context: GatewayContext, audience: string): string | undefined {
    const last = this.#last.get(context)
    return last && last.audience === audience && this.#options.now() < last.until ? last.token : undefined
  }

  /** The context for one audience, signed now or at most 30 seconds ago. */
  async sign(context: GatewayContext, audience: string): Promise<string> {
    const now = this.#options.now()
    const { tenant_id, version, principal, acting_as } = context
    // What stands in a tenant's context is settled by the snapshot it was read from.
    const key = JSON.stringify([audience, tenant_id, version, principal, acting_as])
    const known = this.#signed.get(key)
    const signed =
      known && now < known.until ? known : { audience, token: await this.#sign(context, audience, Math.floor(now / 1000)), until: now + SERVED * 1000 }
    if (signed !== known) this.#signed.set(key, signed)
    this.#last.set(context, signed)
    return signed.token
  }

  async #sign(context: GatewayContext, audience: string, now: number): Promise<string> {
    const { config, permissions } = context
    const known = {
      tenant_id: context.tenant_id,
      slug: context.tenant.slug,
      ancestor_ids: context.ancestors.map(({ id }) => id),
      isolation: context.isolation,
      region: context.region,
      principal: principalClaim(context),
      ...(context.acting_as === undefined ? {} : { acting_as: context.acting_as }),
      version: context.version,
    }
    const listed = this.#options.configKeys.flatMap((name) => {
      const entry = Object.hasOwn(config, name) ? config[name] : undefined
      return entry === undefined || entry.sensitive ? [] : [[name, entry] as const]
    })
    const token = await this.#jws({ ...known, permissions: valuesOf(Object.entries(permissions)), config: valuesOf(listed) }, audience, now)
    return token.length <= MAXIMUM_CHARACTERS ? token : this.#jws({ ...known, truncated: true }, audience, now)
  }

  /** By Web Crypto alone, whose signatures of both kinds are those of JWS: a library for it weighs as much as the gateway. */
  async #jws(claims: Record<string, unknown>, audience: string, now: number): Promise<string> {
    const newest = this.#newest
    this.#key ??= await importSigningKey(newest)
    const header = { alg: algorithmOf(newest), kid: newest.kid, typ: CONTEXT_TYPE }
    const payload = { iss: this.#options.issuer, aud: audience, iat: now, exp: now + LIFETIME, ...claims }
    const signed = [header, payload].map((part) => toBase64Url(encoder.encode(JSON.stringify(part)))).join('.')
    const signature = await crypto.subtle.sign(ALGORITHM_PARAMETERS[newest.kty], this.#key, encoder.encode(signed))
    return `${signed}.${toBase64Url(new Uint8Array(signature))}`
  }
}

function principalClaim({ principal }: GatewayContext) {
  if (principal === null) return null
  const { type, id, issuer, scopes } = principal
  return { type, id, ...(issuer === undefined ? {} : { issuer }), scopes }
}
