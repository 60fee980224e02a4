/** An application behind the gateway: a real server that shows what reached it, and misbehaves where it is asked to. */
import { createServer, request as httpRequest, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { gzipSync } from 'node:zlib'
import express from 'express'
import { WebSocketServer } from 'ws'

/** What reached the origin. */
export interface Seen {
  method: string
  url: string
  headers: Record<string, string>
  body: string
}

export interface TestOrigin {
  url: string
  /** The port of workerd, for the path that sends a request back. */
  gatewayPort: number
  /** Parts of an upload as they came. */
  parts: string[]
  /** How many requests to /hang were given up so far. */
  givenUp: number
  /** Lets /stream go on. */
  release(): void
  close(): Promise<void>
}

/** As a proxy that was misconfigured: the request goes back to where it came from, headers and all. */
function sendBack(origin: TestOrigin, { method, url, headers }: IncomingMessage, response: ServerResponse) {
  const host = headers['x-forwarded-host'] as string
  const again = httpRequest({ host: '127.0.0.1', port: origin.gatewayPort, method, path: url, headers: { ...headers, host } }, (answer) => {
    response.writeHead(answer.statusCode ?? 500, answer.headers)
    answer.pipe(response)
  })
  again.end()
}

async function echo(request: IncomingMessage, response: ServerResponse) {
  const seen = { method: request.method, url: request.url, headers: request.headers, body: await text(request) }
  response.writeHead(200, {
    'content-type': 'application/json',
    'stratum-version': 'forged',
    'stratum-error': '1',
    Stratum_Error: '1',
    'set-cookie': ['a=1', 'b=2'],
  })
  response.end(JSON.stringify(seen))
}

/** Says itself when it need not send a page again. */
const pages = express().get('/page', (_, response) => void response.send('a page'))

export async function startOrigin(): Promise<TestOrigin> {
  let release = () => {}
  const released = new Promise<void>((resolve) => {
    release = resolve
  })
  const sockets = new WebSocketServer({ noServer: true })
  const routes: Record<string, (request: IncomingMessage, response: ServerResponse) => unknown> = {
    '/stream': async (_, response) => {
      response.write('first ')
      await released
      response.end('last')
    },
    '/page': (request, response) => pages(request, response),
    '/upload': async (request, response) => {
      request.setEncoding('utf8')
      for await (const part of request) origin.parts.push(part as string)
      response.end(JSON.stringify(request.headers))
    },
    '/hang': (request) =>
      request.socket.once('close', () => {
        origin.givenUp++
      }),
    '/reset': (request) => request.socket.destroy(),
    '/garbage': (request) => request.socket.end('this is no HTTP\r\n\r\n'),
    '/broken': (request, response) => {
      response.writeHead(200, { 'content-length': '1000' })
      response.write('the first part', () => request.socket.destroy())
    },
    '/chunks': (request) => request.socket.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\nno size\r\n'),
    '/contradiction': (request) => request.socket.write('HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nabc'),
    '/gzip': (_, response) => response.writeHead(200, { 'content-encoding': 'gzip', 'content-type': 'text/plain' }).end(gzipSync('compressed by the origin')),
    '/error': (_, response) => response.writeHead(503, { 'content-type': 'text/plain' }).end('the app is busy'),
    '/redirect': (request, response) => response.writeHead(302, { location: new URL(`${request.url}`, 'http://x').searchParams.get('to') ?? '/' }).end(),
    '/loop': (request, response) => sendBack(origin, request, response),
  }
  const server: Server = createServer({ maxHeaderSize: 262_144 }, (request, response) => {
    const { pathname } = new URL(request.url ?? '', 'http://x')
    // What the client breaks off, it breaks off here too.
    Promise.resolve((routes[pathname] ?? echo)(request, response)).catch(() => response.destroy())
  })
  server.on('upgrade', (request, socket, head) =>
    sockets.handleUpgrade(request, socket, head, (client) => {
      client.send(JSON.stringify(request.headers))
      client.on('message', (message) => client.send(`echo ${message}`))
    }),
  )
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
  const origin: TestOrigin = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    gatewayPort: 0,
    givenUp: 0,
    parts: [],
    release,
    async close() {
      server.closeAllConnections()
      for (const client of sockets.clients) client.terminate()
      await new Promise((closed) => server.close(closed))
    },
  }
  return origin
}
