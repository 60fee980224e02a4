/** What the middleware of each framework does beyond its example: where no tenant is required, under a path, when something fails. */
import express from 'express'
import fastify from 'fastify'
import { Hono } from 'hono'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { stratumError } from '../../src/core/error-classes.ts'
import type { StratumError } from '../../src/core/errors.ts'
import type { MiddlewareOptions } from '../../src/integrations/context.ts'
import { stratum as forExpress } from '../../src/integrations/express.ts'
import { stratum as forFastify } from '../../src/integrations/fastify.ts'
import { stratum as forHono } from '../../src/integrations/hono.ts'
import { stratum as forNext } from '../../src/integrations/next.ts'
import type { TenantQuestion } from '../../src/integrations/resolver.ts'
import { currentTenantContext, runWithTenant } from '../../src/tenant-scope.ts'
import { ALPHA, APP, BETA, createGatewayKeys, GATEWAY, type Gateway } from './gateway-keys.ts'
import { ask, portOf, serve } from './web-server.ts'

interface Served {
  port: number
  close(): Promise<unknown>
}

const seen = (tenant: unknown) => ({ tenant: (tenant as { slug: string } | null)?.slug ?? null, scope: currentTenantContext()?.tenant_id ?? null })

/** An app that shows, at any path, the tenant it was given and the one that its code finds itself in. */
const serveWith: Record<string, (options: MiddlewareOptions) => Promise<Served>> = {
  async hono(options) {
    const app = new Hono().use(forHono(options)).all('*', async (c) => c.json(seen(c.get('tenant'))))
    return serve((request) => app.fetch(request))
  },
  async express(options) {
    const app = express()
    // Mounted at the path that names the tenant, where req.url lacks it.
    app.use('/t', forExpress(options))
    app.use(forExpress(options), (req, res) => void res.json(seen(req.tenant)))
    const server = app.listen(0)
    return { port: portOf(server), close: async () => server.close() }
  },
  async fastify(options) {
    const app = fastify()
    await app.register(forFastify, options)
    app.all('*', async (request) => seen(request.tenant))
    await app.listen({ port: 0, host: '127.0.0.1' })
    return { port: portOf(app.server), close: () => app.close() }
  },
  async next(options) {
    const handler = forNext(options).withTenant(async (_request, { tenant }) => Response.json(seen(tenant)))
    return serve((request) => handler(request, { params: Promise.resolve({}) }))
  },
}

let gateway: Gateway
let behind: MiddlewareOptions
beforeAll(async () => {
  gateway = await createGatewayKeys()
  behind = { jwks: await gateway.keySet(), issuer: GATEWAY, audience: APP }
})
const open: Served[] = []
afterAll(() => Promise.all(open.map(({ close }) => close())))

async function portWith(framework: string, options: MiddlewareOptions): Promise<number> {
  const served = await (serveWith[framework] as (typeof serveWith)[string])(options)
  open.push(served)
  return served.port
}

/** A service that answers by refusing, and notes what it was asked. */
function refusing(error: StratumError) {
  const asked: Array<TenantQuestion | undefined> = []
  const resolve = async (question?: TenantQuestion) => {
    asked.push(question)
    throw error
  }
  return { asked, client: { resolve } }
}

describe.each(Object.keys(serveWith))('%s', (framework) => {
  it('lets a request of no tenant pass where none is required, and then there is none', async () => {
    const port = await portWith(framework, { ...behind, required: false })
    expect((await ask(port)).json).toEqual({ tenant: null, scope: null })
    expect((await ask(port, { headers: { 'stratum-context': await gateway.sign() } })).json).toEqual({ tenant: 'alpha', scope: ALPHA })
  })
  it('refuses a forged context there too, and a tenant that is not to be found', async () => {
    const port = await portWith(framework, { ...behind, required: false })
    expect((await ask(port, { headers: { 'stratum-context': 'forged' } })).status).toBe(403)
    const { client } = refusing(stratumError('TENANT_NOT_FOUND'))
    expect((await ask(await portWith(framework, { client, required: false }))).status).toBe(404)
    const none = refusing(stratumError('TENANT_REQUIRED'))
    expect((await ask(await portWith(framework, { client: none.client, required: false }))).json).toEqual({ tenant: null, scope: null })
  })
  it('asks with the host, the bearer token, and of the path the part that names the tenant', async () => {
    const { asked, client } = refusing(stratumError('TENANT_NOT_FOUND'))
    const port = await portWith(framework, { client, pathPrefix: '/t' })
    await ask(port, { host: 'One.test:81', path: '/t/acme/orders?id=1', headers: { authorization: 'Bearer a.b.c' } })
    await ask(port, { host: 'two.test', path: '/T/acme', headers: { authorization: 'Basic YTpi' } })
    await ask(port, { host: 'three.test', path: '/orders/t/acme' })
    await ask(port, { host: 'four.test', path: '/tea/acme' })
    expect(asked).toEqual([
      { host: 'one.test', path: '/t/acme', token: 'a.b.c' },
      { host: 'two.test', path: '/t/acme' },
      { host: 'three.test' },
      { host: 'four.test' },
    ])
  })
  it('asks with what the app says instead', async () => {
    const { asked, client } = refusing(stratumError('TENANT_NOT_FOUND'))
    const port = await portWith(framework, { client, identify: ({ header }) => ({ host: header('x-forwarded-host') }) })
    await ask(port, { headers: { 'x-forwarded-host': 'alpha.test' } })
    expect(asked).toEqual([{ host: 'alpha.test' }])
  })
  it('tells the user nothing of what went wrong between app and service, and the operator all', async () => {
    const told: StratumError[] = []
    const log = (error: StratumError) => void told.push(error)
    const busy = refusing(stratumError('RATE_LIMITED', { what: 'by this key', retry_after: 7 }))
    const answer = await ask(await portWith(framework, { client: busy.client, log }))
    expect([answer.status, answer.json.error.code, answer.headers['retry-after']]).toEqual([503, 'SERVER_UNREACHABLE', '7'])
    const wrong = refusing(stratumError('SCOPE_REQUIRED', { scope: 'read' }))
    const failed = await ask(await portWith(framework, { client: wrong.client, log }))
    expect([failed.status, failed.json.error.code, failed.text.includes('scope')]).toEqual([500, 'INTERNAL_ERROR', false])
    const identify = () => {
      throw new Error('a secret of the app')
    }
    const broken = await ask(await portWith(framework, { client: wrong.client, identify, log }))
    expect([broken.status, broken.text.includes('secret')]).toEqual([500, false])
    expect(told.map(({ cause }) => (cause as Error).message)).toEqual([
      'Too many requests by this key. Try again in 7 seconds.',
      'This needs the scope read. Use a credential that holds it.',
      'a secret of the app',
    ])
  })
  it('leaves out what the service told the app in confidence', async () => {
    const { client } = refusing(stratumError('TENANT_SUSPENDED', { tenant_id: ALPHA }))
    const { status, json } = await ask(await portWith(framework, { client }))
    expect([status, json.error.code, json.error.details]).toEqual([403, 'TENANT_SUSPENDED', undefined])
  })
  it('does not start with options that cannot work', async () => {
    const wrong = [
      { ...behind, client: { resolve: () => Promise.reject() } },
      { ...behind, audience: '' },
      { baseUrl: 'https://stratum.test', apiKey: 'k', pathPrefix: 't/' },
      {},
    ]
    for (const options of wrong) {
      await expect(async () => portWith(framework, options as never)).rejects.toMatchObject({ code: 'CONFIGURATION_INVALID' })
    }
  })
})

describe('beyond handlers', () => {
  it('the tenant of a server component of Next.js is that of its headers, and the log is told where there is none', async () => {
    const told: StratumError[] = []
    const { tenantOf } = forNext({ ...behind, log: (error) => void told.push(error) })
    expect((await tenantOf(new Headers({ 'stratum-context': await gateway.sign() }))).slug).toBe('alpha')
    await expect(tenantOf(new Headers())).rejects.toMatchObject({ code: 'GATEWAY_CONTEXT_REQUIRED' })
    expect(told.map(({ code }) => code)).toEqual(['GATEWAY_CONTEXT_REQUIRED'])
  })
  it('the proxy of Next.js answers what is refused, and nothing else', async () => {
    const { proxy } = forNext(behind)
    expect(await proxy(new Request(APP, { headers: { 'stratum-context': await gateway.sign() } }))).toBeUndefined()
    expect((await proxy(new Request(APP)))?.status).toBe(401)
    expect((await proxy(new Request(APP, { headers: { 'stratum-context': 'forged' } })))?.status).toBe(403)
  })
  it('a build of Next.js needs no options, and what it renders is refused', async () => {
    vi.stubEnv('NEXT_PHASE', 'phase-production-build')
    const { tenantOf } = forNext({ baseUrl: '', apiKey: '' })
    await expect(tenantOf(new Headers())).rejects.toMatchObject({ code: 'CONFIGURATION_INVALID' })
    vi.unstubAllEnvs()
    expect(() => forNext({ baseUrl: '', apiKey: '' })).toThrow(expect.objectContaining({ code: 'CONFIGURATION_INVALID' }))
  })
  it('what Next.js asks of the service it asks anew, whatever a route says of fetches', async () => {
    const asked: Array<string | null> = []
    const server = await serve(({ headers }) => {
      asked.push(headers.get('cache-control'))
      return Response.json({ error: { code: 'TENANT_NOT_FOUND', message: '', request_id: '1' } }, { status: 404 })
    })
    open.push(server)
    await expect(forNext({ baseUrl: server.url, apiKey: 'k' }).tenantOf(new Headers({ host: 'a.test' }))).rejects.toMatchObject({ status: 404 })
    const { tenantOf } = forNext({ jwks: server.url, issuer: GATEWAY, audience: APP })
    await expect(tenantOf(new Headers({ 'stratum-context': await gateway.sign() }))).rejects.toMatchObject({ code: 'SERVER_UNREACHABLE' })
    // What the platform's fetch says where it is told to store nothing.
    expect(asked).toEqual(['no-cache', 'no-cache'])
  })
  it('the hooks of Fastify before and after the body know the tenant, and routes beside the plugin do', async () => {
    const app = fastify()
    const scopes: Array<string | null> = []
    const note = async () => void scopes.push(currentTenantContext()?.tenant_id ?? null)
    await app.register(forFastify, behind)
    for (const hook of ['onRequest', 'preParsing', 'preValidation', 'preHandler', 'preSerialization', 'onSend', 'onResponse'] as const) app.addHook(hook, note)
    app.post('/', async ({ body }) => body)
    await app.inject({ method: 'POST', url: '/', payload: { id: 1 }, headers: { 'stratum-context': await gateway.sign() } })
    expect(scopes).toEqual(Array.from({ length: 7 }, () => ALPHA))
  })
  it('a handler of Fastify is in its own scope, also after a hook that went on in that of another request', async () => {
    const app = fastify()
    await app.register(forFastify, behind)
    const scopes: Array<string | undefined> = []
    // As a callback of a shared connection does, which another request opened.
    app.addHook('preParsing', (_request, _reply, payload, done) => runWithTenant({ tenant_id: BETA }, () => void setImmediate(done, null, payload)))
    app.addHook('preValidation', async () => void scopes.push(currentTenantContext()?.tenant_id))
    app.post('/', async () => void scopes.push(currentTenantContext()?.tenant_id))
    await app.inject({ method: 'POST', url: '/', payload: { id: 1 }, headers: { 'stratum-context': await gateway.sign() } })
    expect(scopes).toEqual([ALPHA, ALPHA])
  })
  it('an error of a handler stays the app’s own', async () => {
    const app = new Hono().use(forHono(behind)).get('/', () => {
      throw new Error('of the handler')
    })
    app.onError(({ message }, c) => c.text(message, 418))
    const answer = await app.request('/', { headers: { 'stratum-context': await gateway.sign() } })
    expect([answer.status, await answer.text()]).toEqual([418, 'of the handler'])
  })
})
