/** docs/examples as they stand: behind the gateway, and without it before a real service. */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Tenant } from '../../src/features/tenants/contract.ts'
import { generateContextKey } from '../../src/gateway/context-keys.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { ALPHA, APP, BETA, beta, contextOf, createGatewayKeys, forge, GATEWAY, type Gateway } from './gateway-keys.ts'
import { startHonoWorkers } from './hono-worker.ts'
import { type ServedService, serveService } from './service.ts'
import { type Answer, ask, serve } from './web-server.ts'

const FRAMEWORKS = ['hono', 'express', 'fastify', 'next', 'hono on Workers'] as const
type Ports = Record<(typeof FRAMEWORKS)[number], number>

const EXAMPLES = fileURLToPath(new URL('serve-examples.ts', import.meta.url))
const children: ChildProcess[] = []

/** The examples, as processes of their own. */
async function start(environment: Record<string, string>): Promise<Omit<Ports, 'hono on Workers'>> {
  const child = fork(EXAMPLES, { env: { ...process.env, ...environment }, execArgv: [] })
  children.push(child)
  const ended = once(child, 'exit').then(([code]) => Promise.reject(new Error(`The examples ended with ${code}.`)))
  ended.catch(() => {})
  const [ports] = await Promise.race([once(child, 'message'), ended])
  return ports as Ports
}

let installation: Installation
let gateway: Gateway
let behind: Ports
let direct: Ports
const t = {} as Record<'alpha' | 'beta', Tenant>
const tokens = { alpha: '', beta: '' }
let service: ServedService
const closing: Array<() => Promise<void>> = []
beforeAll(async () => {
  gateway = await createGatewayKeys()
  const keys = await serve(async ({ url }) => (url.endsWith('/.well-known/stratum-jwks.json') ? gateway.tokens.keySet() : new Response(null, { status: 404 })))
  installation = await createInstallation()
  service = await serveService(installation)
  closing.push(keys.close, service.close)
  for (const slug of ['alpha', 'beta'] as const) {
    t[slug] = await installation.stratum.createOrganization({ slug: `shop_${slug}`, name: slug })
    tokens[slug] = await installation.token({ tenant: t[slug].id, scope: 'read' }, { subject: `user of ${slug}` })
  }
  const environments = {
    behind: { GATEWAY: keys.url, CONTEXT_ISSUER: GATEWAY, CONTEXT_AUDIENCE: APP },
    direct: { STRATUM_URL: service.url, STRATUM_API_KEY: await installation.apiKey(null, ['read']) },
  }
  const starting = [startHonoWorkers([environments.behind, environments.direct]), start(environments.behind), start(environments.direct)] as const
  const [workers, ...ports] = await Promise.all(starting)
  closing.push(workers.stop)
  const [first = 0, second = 0] = workers.ports
  behind = { ...ports[0], 'hono on Workers': first }
  direct = { ...ports[1], 'hono on Workers': second }
})
afterAll(async () => {
  for (const child of children) child.kill()
  for (const close of closing) await close()
  await installation.close()
})

const bearer = (token: string) => ({ authorization: `Bearer ${token}` })
const hostOf = (slug: string) => `shop-${slug}.stratum.test`

/** A refusal in the shape of the API's, and nothing besides. */
function expectRefusal({ status, json, headers }: Answer, expected: number, code: string) {
  expect([status, json.error?.code]).toEqual([expected, code])
  expect(json).toEqual({ error: { code, message: expect.any(String), request_id: expect.any(String) } })
  expect(headers['x-request-id']).toBe(json.error.request_id)
  expect(headers['content-type']).toMatch(/^application\/json/)
  expect(headers['cache-control']).toBe('no-store')
}

describe.each(FRAMEWORKS)('the example for %s, behind the gateway', (framework) => {
  const asks = (token: string | string[], more: Parameters<typeof ask>[1] = {}) => ask(behind[framework], { ...more, headers: { 'stratum-context': token } })

  it('serves the tenant and the user that the gateway says', async () => {
    const { status, json } = await asks(await gateway.sign())
    expect([status, json]).toEqual([200, { tenant: 'alpha', asks: 'ann', orders: [{ id: 1, tenant_id: ALPHA }] }])
  })
  it('whatever the host, an API key or a header of the client say', async () => {
    const headers = { 'stratum-context': await gateway.sign(), ...bearer(tokens.beta), 'x-tenant-id': BETA, stratum_context: await gateway.sign(beta) }
    const { json } = await ask(behind[framework], { host: hostOf('beta'), headers })
    expect(json.tenant).toBe('alpha')
  })
  it('knows the tenant still when it has read a body', async () => {
    const { status, json } = await asks(await gateway.sign(beta), { method: 'POST', body: { id: 2, text: 'x'.repeat(70_000) } })
    expect([status, json.id, json.tenant_id]).toEqual([201, 2, BETA])
  })
  it('never mixes up requests that run side by side', async () => {
    const [ofAlpha, ofBeta] = [await gateway.sign(), await gateway.sign(beta)]
    const told = await Promise.all(Array.from({ length: 40 }, (_, index) => asks(index % 2 ? ofAlpha : ofBeta, index % 3 ? {} : { method: 'POST', body: {} })))
    expect(told.map(({ json }) => json.tenant_id ?? json.orders[0].tenant_id)).toEqual(told.map((_, index) => (index % 2 ? ALPHA : BETA)))
  })
  it('refuses a request that came past the gateway', async () => {
    const answer = await ask(behind[framework], { headers: bearer(tokens.alpha) })
    expectRefusal(answer, 401, 'GATEWAY_CONTEXT_REQUIRED')
    expect(answer.headers['www-authenticate']).toBe('Bearer')
  })
  it('refuses a context that was forged, altered, meant for another app, or sent twice', async () => {
    const good = await gateway.sign()
    const [header, , signature] = good.split('.')
    const altered = `${header}.${Buffer.from(JSON.stringify({ ...contextOf(), tenant_id: BETA })).toString('base64url')}.${signature}`
    const forged = await forge(await generateContextKey('one'), { claims: { tenant_id: BETA } })
    const others = await gateway.sign(contextOf(), 'https://other.test')
    for (const token of [forged, altered, others, [await gateway.sign(beta), good], '', 'x'.repeat(9_000)]) {
      expectRefusal(await asks(token), 403, 'GATEWAY_CONTEXT_INVALID')
    }
  })
  it('answers what needs no tenant', async () => {
    expect((await ask(behind[framework], { path: '/health' })).text).toBe('ok')
  })
})

describe.each(FRAMEWORKS)('the example for %s, without a gateway', (framework) => {
  const asks = (host: string, headers: Record<string, string> = {}, more: Parameters<typeof ask>[1] = {}) => ask(direct[framework], { host, headers, ...more })

  it('serves the tenant of the host, and the user of the token', async () => {
    const { status, json } = await asks(hostOf('alpha'), bearer(tokens.alpha))
    expect([status, json]).toEqual([200, { tenant: 'shop_alpha', asks: 'user of alpha', orders: [{ id: 1, tenant_id: t.alpha.id }] }])
    expect((await asks(hostOf('alpha'))).json).toMatchObject({ tenant: 'shop_alpha', asks: null })
    expect((await asks('stratum.test', bearer(tokens.beta))).json).toMatchObject({ tenant: 'shop_beta', asks: 'user of beta' })
  })
  it('whatever a context or a tenant id of the client say', async () => {
    const headers = { 'stratum-context': await gateway.sign(beta), 'x-tenant-id': t.beta.id, 'x-forwarded-host': hostOf('beta') }
    expect((await asks(hostOf('alpha'), headers)).json.tenant).toBe('shop_alpha')
  })
  it('asks the service once for what is asked in quick succession, and mixes up nothing', async () => {
    await Promise.all([asks(hostOf('alpha')), asks(hostOf('beta'))])
    const [before, began] = [service.asked(), performance.now()]
    const told = await Promise.all(
      Array.from({ length: 40 }, (_, index) => asks(hostOf(index % 2 ? 'alpha' : 'beta'), {}, index % 3 ? {} : { method: 'POST', body: {} })),
    )
    expect(told.map(({ json }) => json.tenant_id ?? json.orders[0].tenant_id)).toEqual(told.map((_, index) => t[index % 2 ? 'alpha' : 'beta'].id))
    // Two for every two seconds. Requests of a Worker do not wait for each other: where those end, each asks.
    if (framework !== 'hono on Workers') expect(service.asked() - before).toBeLessThanOrEqual(2 * Math.ceil((performance.now() - began) / 2_000))
  })
  it("refuses as the service does: nobody's host, a user of another tenant, a token that is none, no tenant at all", async () => {
    expectRefusal(await asks('nobody.stratum.test'), 404, 'TENANT_NOT_FOUND')
    expectRefusal(await asks(hostOf('alpha'), bearer(tokens.beta)), 403, 'TENANT_MISMATCH')
    expectRefusal(await asks(hostOf('alpha'), bearer('nonsense')), 401, 'TOKEN_INVALID')
    expectRefusal(await asks('stratum.test'), 400, 'TENANT_REQUIRED')
  })
  it('quotes the id of the request', async () => {
    expect((await asks('nobody.stratum.test', { 'x-request-id': 'request-1' })).json.error.request_id).toBe('request-1')
    expect((await asks('nobody.stratum.test', { 'x-request-id': '<script>' })).json.error.request_id).toMatch(/^[0-9a-f-]{36}$/)
  })
})
