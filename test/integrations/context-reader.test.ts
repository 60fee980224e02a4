/** An app behind the gateway believes what the gateway signed for it, and nothing else. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ErrorCode } from '../../src/core/errors.ts'
import { generateContextKey } from '../../src/gateway/context-keys.ts'
import { type ContextReader, type ContextReaderOptions, createContextReader } from '../../src/integrations/context-reader.ts'
import { refusal } from '../support/tree.ts'
import { ALPHA, APP, contextOf, createGatewayKeys, forge, GATEWAY, type Gateway, ROOT } from './gateway-keys.ts'
import { serve } from './web-server.ts'

let gateway: Gateway
let keys: { keys: Record<string, unknown>[] }
let reader: ContextReader
const readerWith = (change: Partial<ContextReaderOptions> = {}) => createContextReader({ jwks: keys, issuer: GATEWAY, audience: APP, ...change })
beforeAll(async () => {
  gateway = await createGatewayKeys()
  keys = await gateway.keySet()
  reader = readerWith()
})

describe('a context that the gateway signed for this app', () => {
  it('reads as the tenant, who asks, and what holds there', async () => {
    expect(await reader.read(await gateway.sign())).toEqual(
      expect.objectContaining({
        ...{ tenant_id: ALPHA, slug: 'alpha', ancestor_ids: [ROOT], isolation: { strategy: 'SHARED_RLS', name: null, status: 'ready' } },
        ...{ principal: { type: 'token', id: 'ann', issuer: 'https://id.test', scopes: ['read'] }, version: '10:10:', truncated: false },
        ...{ config: { max_users: 10 }, permissions: { export: true } },
      }),
    )
  })
  it('of nobody known has no principal', async () => {
    expect((await reader.read(await gateway.sign(contextOf({ principal: null })))).principal).toBeNull()
  })
  it('cannot be changed by a handler', async () => {
    const tenant = await reader.read(await gateway.sign())
    expect(() => Object.assign(tenant, { tenant_id: ROOT })).toThrow(TypeError)
    expect(() => Object.assign(tenant.config, { max_users: 99 })).toThrow(TypeError)
  })
  it('too large for a header says that it lacks config and permissions, and not that there are none', async () => {
    const large = { value: 'x'.repeat(9_000), source_tenant_id: ALPHA, sensitive: false }
    const tenant = await reader.read(await gateway.sign(contextOf({ config: { large }, version: '11:11:' })))
    expect([tenant.slug, tenant.truncated]).toEqual(['alpha', true])
    expect(() => tenant.config).toThrow(expect.objectContaining({ code: 'GATEWAY_CONTEXT_TRUNCATED' }))
    expect(() => tenant.permissions).toThrow(expect.objectContaining({ code: 'GATEWAY_CONTEXT_TRUNCATED' }))
    expect(JSON.parse(JSON.stringify(tenant))).not.toHaveProperty('config')
  })
  it('is believed for its minute and 5 seconds, and no longer', async () => {
    const token = await gateway.sign()
    const later = (seconds: number) => readerWith({ now: () => Date.now() + seconds * 1000 }).read(token)
    expect((await later(60)).tenant_id).toBe(ALPHA)
    await refusal(later(66), 'GATEWAY_CONTEXT_INVALID')
  })
})

describe('what is refused', () => {
  const cases: Array<[what: string, token: () => Promise<string>]> = [
    ['a context for another app', () => gateway.sign(contextOf(), 'https://other.test')],
    ['of another issuer', () => forge(gateway.key, { claims: { iss: 'https://gateway.evil' } })],
    ['a token of ours that is no context', () => forge(gateway.key, { header: { typ: 'JWT' } })],
    ['one that never expires', () => forge(gateway.key, { expires: null })],
    ['one that was altered', async () => (await gateway.sign()).replace(/\.[^.]+\./, `.${btoa(JSON.stringify({ tenant_id: ROOT })).replace(/=+$/, '')}.`)],
    ['one that expired', () => forge(gateway.key, { expires: '-6s' })],
    ['one of no tenant', () => forge(gateway.key, { claims: { tenant_id: undefined } })],
    ['one of a tenant that is no id', () => forge(gateway.key, { claims: { tenant_id: "' or true" } })],
    ['one signed by another key of the same name', async () => forge(await generateContextKey('one'))],
    ['one signed by an unknown key', async () => forge(await generateContextKey('two'))],
    ['one signed with the public key as a secret', () => forge({ kty: 'oct', k: String(gateway.key.x), kid: 'one' }, { header: { alg: 'HS256' } })],
    ['one that is not signed', async () => `${btoa('{"alg":"none","typ":"stratum-context+jwt"}')}.${btoa(`{"tenant_id":"${ALPHA}"}`)}.`],
    ['two contexts', async () => `${await gateway.sign()}, ${await gateway.sign()}`],
    ['nonsense', async () => 'alpha'],
    ['nothing', async () => ''],
  ]
  it.each(cases)('%s', async (_, token) => {
    await refusal(reader.read(await token()), 'GATEWAY_CONTEXT_INVALID')
  })
  it('without telling of the payload, here or in the cause', async () => {
    const token = await forge(gateway.key, { claims: { aud: 'https://other.test', slug: 'a-secret' } })
    const error = await refusal(reader.read(token), 'GATEWAY_CONTEXT_INVALID')
    expect([error.message, error.cause]).toEqual([expect.stringContaining('its aud is not the one expected here'), undefined])
  })
})

describe('keys that are published', () => {
  let asked = 0
  let published: () => Response | Promise<Response>
  let server: Awaited<ReturnType<typeof serve>>
  beforeAll(async () => {
    server = await serve(() => {
      asked++
      return published()
    })
  })
  afterAll(() => server.close())

  it('are fetched once for many contexts, and again for a key that is new', async () => {
    const next = await createGatewayKeys('two')
    published = async () => Response.json(keys)
    let now = Date.now()
    const remote = readerWith({ jwks: `${server.url}/.well-known/stratum-jwks.json`, now: () => now })
    expect(asked).toBe(0)
    for (let count = 0; count < 3; count++) expect((await remote.read(await gateway.sign())).slug).toBe('alpha')
    expect(asked).toBe(1)
    published = async () => Response.json({ keys: [...(await next.keySet()).keys, ...keys.keys] })
    // The set is not asked for again for every unknown key that somebody makes up.
    await refusal(remote.read(await next.sign()), 'GATEWAY_CONTEXT_INVALID')
    expect(asked).toBe(1)
    now += 1_000
    const fresh = readerWith({ jwks: new URL(`${server.url}/`) })
    expect((await fresh.read(await next.sign())).slug).toBe('alpha')
    expect((await fresh.read(await gateway.sign())).slug).toBe('alpha')
    expect(asked).toBe(2)
  })
  it('are known at once where they were published before they sign', async () => {
    const next = await createGatewayKeys('two')
    published = async () => Response.json({ keys: [...keys.keys, ...(await next.keySet()).keys] })
    const remote = readerWith({ jwks: server.url })
    const before = asked
    expect((await remote.read(await gateway.sign())).slug).toBe('alpha')
    published = async () => Response.json(await next.keySet())
    expect((await remote.read(await next.sign())).slug).toBe('alpha')
    expect(asked).toBe(before + 1)
  })
  it('that cannot be had are no fault of the request', async () => {
    published = () => new Response('no', { status: 500 })
    await refusal(readerWith({ jwks: server.url }).read(await gateway.sign()), 'SERVER_UNREACHABLE')
    published = () => Response.redirect('http://127.0.0.1:9/')
    await refusal(readerWith({ jwks: server.url }).read(await gateway.sign()), 'SERVER_UNREACHABLE')
  })
})

describe('options that would let anybody in', () => {
  const cases: Array<[what: string, change: Record<string, unknown>]> = [
    ['no issuer', { issuer: undefined }],
    ['no audience', { audience: undefined }],
    ['an empty audience', { audience: [] }],
    ['an audience left empty among others', { audience: [APP, ''] }],
    ['keys in clear over the network', { jwks: 'http://gateway.test/keys' }],
    ['no URL', { jwks: 'gateway.test' }],
    ['no keys', { jwks: [] }],
    ['a private key', { jwks: [{ kty: 'OKP', crv: 'Ed25519', x: 'A'.repeat(43), d: 'A'.repeat(43) }] }],
    ['a shared secret', { jwks: [{ kty: 'oct', k: 'A'.repeat(43) }] }],
    ['a day of tolerance', { clockTolerance: 86_400 }],
  ]
  it.each(cases)('%s', (_, change) => {
    const code: ErrorCode = 'CONFIGURATION_INVALID'
    expect(() => readerWith(change as Partial<ContextReaderOptions>)).toThrow(expect.objectContaining({ code }))
  })
})
