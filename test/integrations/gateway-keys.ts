/** Contexts signed as the gateway signs them, and the key set it publishes. */
import { importJWK, SignJWT } from 'jose'
import type { GatewayContext } from '../../src/gateway/context.ts'
import { type ContextKey, generateContextKey } from '../../src/gateway/context-keys.ts'
import { ContextTokens } from '../../src/gateway/context-token.ts'

export const GATEWAY = 'https://gateway.test'
export const APP = 'https://app.test'
export const ALPHA = '0197a000-0000-4000-8000-00000000000a'
export const BETA = '0197a000-0000-4000-8000-00000000000b'
export const ROOT = '0197a000-0000-4000-8000-000000000001'

export const contextOf = (change: Partial<GatewayContext> = {}): GatewayContext => ({
  tenant_id: ALPHA,
  tenant: { slug: 'alpha' },
  ancestors: [{ id: ROOT }],
  config: { max_users: { value: 10, source_tenant_id: ROOT, sensitive: false } },
  permissions: { export: { value: true } },
  isolation: { strategy: 'SHARED_RLS', name: null, status: 'ready' },
  region: null,
  principal: { type: 'token', id: 'ann', issuer: 'https://id.test', scopes: ['read'] },
  version: '10:10:',
  ...change,
})

export const beta = contextOf({ tenant_id: BETA, tenant: { slug: 'beta' }, principal: null })

export interface Gateway {
  key: ContextKey
  tokens: ContextTokens
  keySet(): Promise<{ keys: Record<string, unknown>[] }>
  /** What the gateway sends to an app. */
  sign(context?: GatewayContext, audience?: string): Promise<string>
}

export async function createGatewayKeys(kid = 'one', options: { now?: () => number } = {}): Promise<Gateway> {
  const key = await generateContextKey(kid)
  const tokens = new ContextTokens([key], { issuer: GATEWAY, configKeys: ['max_users', 'large'], ...options })
  return {
    key,
    tokens,
    keySet: async () => (await tokens.keySet().json()) as never,
    sign: (context = contextOf(), audience = APP) => tokens.sign(context, audience),
  }
}

/** A token that the gateway would not make, with a key of one's choice. */
export async function forge(
  key: Record<string, unknown>,
  { header = {}, claims = {}, expires = '1m' }: { header?: Record<string, unknown>; claims?: Record<string, unknown>; expires?: string | null } = {},
): Promise<string> {
  const alg = typeof header['alg'] === 'string' ? header['alg'] : 'EdDSA'
  const { tenant, ancestors, config: _, permissions: __, ...rest } = contextOf()
  const token = new SignJWT({ ...rest, slug: tenant.slug, ancestor_ids: ancestors.map(({ id }) => id), iss: GATEWAY, aud: APP, ...claims })
    .setProtectedHeader({ alg, kid: String(key['kid']), typ: 'stratum-context+jwt', ...header })
    .setIssuedAt()
  if (expires !== null) token.setExpirationTime(expires)
  return token.sign(await importJWK(key, alg))
}
