/** The signed context and the keys it is signed with. */
import { createLocalJWKSet, decodeJwt, exportJWK, generateKeyPair, type JSONWebKeySet, jwtVerify } from 'jose'
import { describe, expect, it } from 'vitest'
import { ConfigurationInvalidError } from '../../src/core/error-classes.ts'
import type { GatewayContext } from '../../src/gateway/context.ts'
import { generateContextKey, parseContextKeys } from '../../src/gateway/context-keys.ts'
import { ContextTokens } from '../../src/gateway/context-token.ts'

const CONTEXT: GatewayContext = {
  tenant_id: '0190a000-0000-7000-8000-000000000001',
  tenant: { slug: 'acme' },
  ancestors: [],
  config: {
    theme: { value: 'dark', source_tenant_id: null, sensitive: false },
    password: { value: null, source_tenant_id: null, sensitive: true },
    other: { value: 1, source_tenant_id: null, sensitive: false },
  },
  permissions: { reports: { value: ['read'] } },
  isolation: { strategy: 'SHARED_RLS' },
  region: null,
  principal: { type: 'token', id: 'ann', issuer: 'https://a.test', scopes: ['read'] },
  version: '10:10:',
}

const keys = async (...names: string[]) => parseContextKeys(JSON.stringify(await Promise.all(names.map(generateContextKey))))
const tokensOf = async (now = () => Date.now()) =>
  new ContextTokens(await keys('a'), { issuer: 'https://stratum.test', configKeys: ['theme', 'password', 'absent', 'constructor'], now })

describe('a signature', () => {
  it('serves identical contexts for half of its lifetime, and no other', async () => {
    let now = Date.parse('2026-01-01T00:00:00Z')
    const tokens = await tokensOf(() => now)
    const first = await tokens.sign(CONTEXT, 'app')
    expect(await tokens.sign({ ...CONTEXT }, 'app')).toBe(first)
    const principal = { type: 'token', id: 'ann', scopes: ['read'] }
    const others: Array<[GatewayContext, string]> = [
      [CONTEXT, 'another-app'],
      [{ ...CONTEXT, version: '11:11:' }, 'app'],
      [{ ...CONTEXT, tenant_id: '0190a000-0000-7000-8000-000000000002' }, 'app'],
      [{ ...CONTEXT, acting_as: CONTEXT.tenant_id }, 'app'],
      [{ ...CONTEXT, principal: null }, 'app'],
      [{ ...CONTEXT, principal: { ...principal, issuer: 'https://b.test' } }, 'app'],
      [{ ...CONTEXT, principal: { ...principal, issuer: 'https://a.test', id: 'bob' } }, 'app'],
      [{ ...CONTEXT, principal: { ...principal, issuer: 'https://a.test', scopes: ['read', 'write'] } }, 'app'],
    ]
    const signed = await Promise.all(others.map(([context, audience]) => tokens.sign(context, audience)))
    expect(new Set([first, ...signed]).size).toBe(others.length + 1)
    now += 29_999
    expect(await tokens.sign(CONTEXT, 'app')).toBe(first)
    now += 1
    const later = decodeJwt(await tokens.sign(CONTEXT, 'app'))
    expect([later.iat, later.exp]).toEqual([now / 1000, now / 1000 + 60])
  })

  it('holds the listed config keys alone, and of these no secret', async () => {
    const claims = decodeJwt(await (await tokensOf()).sign(CONTEXT, 'app'))
    expect(claims).toMatchObject({ config: { theme: 'dark' }, permissions: { reports: ['read'] } })
    expect(Object.keys(claims['config'] as object)).toEqual(['theme'])
  })

  it('fits a header: what is too large is left out, and it says so', async () => {
    const tokens = await tokensOf()
    const permissions = Object.fromEntries(Array.from({ length: 200 }, (_, n) => [`permission_${n}`, { value: 'x'.repeat(30) }]))
    const token = await tokens.sign({ ...CONTEXT, permissions }, 'app')
    expect(token.length).toBeLessThan(8_192)
    const claims = decodeJwt(token)
    expect(claims).toMatchObject({ truncated: true, tenant_id: CONTEXT.tenant_id, principal: { id: 'ann' } })
    expect(claims).not.toHaveProperty('permissions')
    expect(claims).not.toHaveProperty('config')
  })
})

describe('keys', () => {
  it('may be of P-256, and are published without what is private', async () => {
    const { privateKey } = await generateKeyPair('ES256', { extractable: true })
    const tokens = new ContextTokens(parseContextKeys(JSON.stringify([{ ...(await exportJWK(privateKey)), kid: 'curve' }, ...(await keys('a'))])), {
      issuer: 'i',
      configKeys: [],
    })
    const published = (await tokens.keySet().json()) as JSONWebKeySet
    expect(published.keys.map(({ kid, alg }) => [kid, alg])).toEqual([
      ['curve', 'ES256'],
      ['a', 'EdDSA'],
    ])
    expect(JSON.stringify(published)).not.toContain('"d"')
    await expect(
      jwtVerify(await tokens.sign(CONTEXT, 'app'), createLocalJWKSet(published), { issuer: 'i', audience: 'app', algorithms: ['ES256'] }),
    ).resolves.toBeDefined()
  })

  const valid = { kty: 'OKP', crv: 'Ed25519', kid: 'a', d: 'hunter2hunter2hunter2hunter2hunter2hunter2h', x: 'hunter2hunter2hunter2hunter2hunter2hunter2h' }
  it.each([
    ['no JSON', 'hunter2'],
    ['no array', JSON.stringify(valid)],
    ['none', '[]'],
    ['a public key', JSON.stringify([{ ...valid, d: undefined }])],
    ['a key without a name', JSON.stringify([{ ...valid, kid: undefined }])],
    ['a symmetric key', JSON.stringify([{ kty: 'oct', kid: 'a', k: 'hunter2' }])],
    ['another curve', JSON.stringify([{ ...valid, crv: 'X25519' }])],
    ['a short key', JSON.stringify([{ ...valid, d: 'hunter2' }])],
    ['one name twice', JSON.stringify([valid, valid])],
  ])('of %s are refused, in a sentence that tells nothing of them', (_, json) => {
    expect(() => parseContextKeys(json)).toThrow(ConfigurationInvalidError)
    expect(() => parseContextKeys(json)).toThrow(/^STRATUM_CONTEXT_KEYS (?!.*hunter2).*npx stratum keys --context\.$/)
  })
})
