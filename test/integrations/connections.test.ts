/** What a connection that stays open, a proxy in front, another request's callback or a WebSocket could do to a request's tenant. */
import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import { connect } from 'node:net'
import express, { type ErrorRequestHandler } from 'express'
import fastify from 'fastify'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { WebSocket, WebSocketServer } from 'ws'
import { stratumError } from '../../src/core/error-classes.ts'
import type { MiddlewareOptions } from '../../src/integrations/context.ts'
import { createContextReader, stratum as forExpress, runWithTenant } from '../../src/integrations/express.ts'
import { stratum as forFastify } from '../../src/integrations/fastify.ts'
import { currentTenantContext } from '../../src/tenant-scope.ts'
import { ALPHA, APP, BETA, beta, createGatewayKeys, GATEWAY, type Gateway } from './gateway-keys.ts'
import { ask, portOf } from './web-server.ts'

let gateway: Gateway
let behind: { jwks: { keys: Record<string, unknown>[] }; issuer: string; audience: string }
const closing: Array<() => unknown> = []
beforeAll(async () => {
  gateway = await createGatewayKeys()
  behind = { jwks: await gateway.keySet(), issuer: GATEWAY, audience: APP }
})
afterAll(() => Promise.all(closing.map((close) => close())))

const scope = () => currentTenantContext()?.tenant_id ?? null
const listening = (server: Server) => {
  closing.push(
    () => server.close(),
    () => server.closeAllConnections(),
  )
  return portOf(server)
}

/** Apps that answer the scope they find a request in. */
const FRAMEWORKS: Record<string, (options: MiddlewareOptions) => Promise<number>> = {
  async express(options) {
    const app = express().use(forExpress(options), express.json(), async (_req, res) => void res.json(scope()))
    return listening(app.listen(0))
  },
  async fastify(options) {
    const app = fastify()
    await app.register(forFastify, options)
    app.all('*', async () => JSON.stringify(scope()))
    await app.listen({ port: 0, host: '127.0.0.1' })
    return listening(app.server)
  },
}

/** Send what HTTP libraries would not, all at once, and answer what came back when `count` answers have. */
async function sendRaw(port: number, text: string, count: number): Promise<string> {
  const socket = connect(port, '127.0.0.1')
  socket.write(text)
  let answered = ''
  for await (const part of socket) {
    answered += part
    if (answered.split('HTTP/1.1 ').length > count && /\r\n\r\n.+$/s.test(answered)) break
  }
  return answered
}

const request = (headers: Record<string, string>, body = '') =>
  [
    ...[`${body ? 'POST' : 'GET'} / HTTP/1.1`, 'Host: app.test', ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`)],
    ...(body ? ['Content-Type: application/json', `Content-Length: ${body.length}`] : []),
    ...['', body],
  ].join('\r\n')

describe.each(Object.keys(FRAMEWORKS))('%s', (framework) => {
  const serveWith = (options: MiddlewareOptions) => (FRAMEWORKS[framework] as (options: MiddlewareOptions) => Promise<number>)(options)

  it('leaves nothing of a request to the next one of its connection', async () => {
    const port = await serveWith({ ...behind, required: false })
    const context = { 'Stratum-Context': await gateway.sign() }
    const answered = await sendRaw(port, [context, {}, { 'Stratum-Context': await gateway.sign(beta) }, {}].map((it) => request(it, '{"id":1}')).join(''), 4)
    expect(answered.match(/^("[\w-]+"|null)/gm)).toEqual([`"${ALPHA}"`, 'null', `"${BETA}"`, 'null'])
  })
  it('takes two Hosts for the name of nobody, where a proxy may have gone by either', async () => {
    const asked: unknown[] = []
    const resolve = async (question?: unknown) => {
      asked.push(question)
      throw stratumError('TENANT_SUSPENDED')
    }
    const port = await serveWith({ client: { resolve } })
    expect(await sendRaw(port, request({ Host: 'other.test' }), 1)).toMatch(/^HTTP\/1\.1 404 .*TENANT_NOT_FOUND/s)
    expect(await sendRaw(port, request({}), 1)).toMatch(/^HTTP\/1\.1 403 /)
    expect(asked).toEqual([{ host: 'app.test' }])
  })
})

describe('a request of no tenant', () => {
  // As a callback of a shared connection does, which another request opened.
  const ofAnother = (proceed: () => void) => void runWithTenant({ tenant_id: BETA }, () => setImmediate(proceed))

  it('is in no scope of Fastify, also after a hook that went on in that of another request', async () => {
    const app = fastify()
    await app.register(forFastify, { ...behind, required: false })
    app.addHook('preParsing', (_request, _reply, payload, done) => ofAnother(() => done(null, payload)))
    app.get('/', async () => JSON.stringify(scope()))
    expect((await app.inject('/')).body).toBe('null')
  })
  it('is in none of Express, also after middleware that did', async () => {
    const app = express().use((_req, _res, next) => ofAnother(next))
    app.get('/before', (_req, res) => void res.json(scope()))
    app.use(forExpress({ ...behind, required: false }), (_req, res) => void res.json(scope()))
    const port = listening(app.listen(0))
    expect((await ask(port, { path: '/before' })).json).toBe(BETA)
    expect((await ask(port)).json).toBeNull()
  })
})

describe('an error in Express', () => {
  const tell: ErrorRequestHandler = (error: Error, _req, res, _next) => void res.status(418).json([error.message, scope()])

  it('of an async handler reaches the handler of errors, in the scope of its request', async () => {
    const app = express().use(forExpress(behind), async () => Promise.reject(new Error('of the handler')))
    const port = listening(app.use(tell).listen(0))
    const { status, json } = await ask(port, { headers: { 'stratum-context': await gateway.sign() } })
    expect([status, json]).toEqual([418, ['of the handler', ALPHA]])
  })
  it('of the log does too, and refuses', async () => {
    const log = () => {
      throw new Error('of the log')
    }
    const port = listening(
      express()
        .use(forExpress({ ...behind, log }))
        .use(tell)
        .listen(0),
    )
    const { status, json } = await ask(port)
    expect([status, json]).toEqual([418, ['of the log', null]])
  })
  it('is none where somebody has answered meanwhile', async () => {
    let answered = () => {}
    const meanwhile = new Promise<void>((done) => {
      answered = done
    })
    const resolve = () => meanwhile.then(() => Promise.reject(stratumError('TENANT_NOT_FOUND')))
    const failed: unknown[] = []
    const app = express().use((_req, res, next) => {
      next()
      res.once('finish', answered).status(503).send('too slow')
    })
    app.use(forExpress({ client: { resolve } }), ((error, _req, _res, _next) => void failed.push(error)) as ErrorRequestHandler)
    const { status, text } = await ask(listening(app.listen(0)))
    await new Promise(setImmediate)
    expect([status, text, failed]).toEqual([503, 'too slow', []])
  })
})

describe('a WebSocket', () => {
  it('passes no middleware of Express: its upgrade is verified with a reader, and its messages run for the tenant', async () => {
    const reader = createContextReader(behind)
    const server = createServer(express().use(forExpress(behind))).listen(0)
    const sockets = new WebSocketServer({ noServer: true })
    server.on('upgrade', async (request, socket, head) => {
      const tenant = await reader.read(String(request.headers['stratum-context'])).catch(() => null)
      if (!tenant) return socket.end('HTTP/1.1 403 Forbidden\r\n\r\n')
      sockets.handleUpgrade(request, socket, head, (ws) => {
        ws.on('message', () => ws.send(JSON.stringify([scope(), runWithTenant(tenant, scope)])))
      })
    })
    const url = `ws://127.0.0.1:${listening(server)}`
    for (const [context, tenant] of [
      [await gateway.sign(), ALPHA],
      [await gateway.sign(beta), BETA],
    ] as const) {
      const ws = new WebSocket(url, { headers: { 'stratum-context': context } })
      await once(ws, 'open')
      ws.send('who am I')
      const [message] = await once(ws, 'message')
      expect(JSON.parse(String(message))).toEqual([null, tenant])
      ws.terminate()
    }
    for (const headers of [{}, { 'stratum-context': 'forged' }]) {
      const [error] = await once(new WebSocket(url, { headers }), 'error')
      expect(String(error)).toContain('403')
    }
  })
})
