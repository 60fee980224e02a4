/** A handler of web-standard requests on a port of Node's, and requests to a port with a Host of one's own. */
import { createServer, type Server, request as send } from 'node:http'
import type { AddressInfo } from 'node:net'

export type Handler = (request: Request) => Response | Promise<Response>

export const portOf = (server: Server): number => (server.address() as AddressInfo).port

/** Serve a handler on a free port of this machine. */
export async function serve(handler: Handler): Promise<{ port: number; url: string; close(): Promise<void> }> {
  const server = createServer(async (incoming, outgoing) => {
    const headers = new Headers()
    for (const [name, value] of Object.entries(incoming.headers)) headers.set(name, Array.isArray(value) ? value.join(', ') : (value ?? ''))
    const parts: Buffer[] = []
    for await (const part of incoming) parts.push(part as Buffer)
    const body = incoming.method === 'GET' || incoming.method === 'HEAD' ? null : Buffer.concat(parts)
    const request = new Request(`http://${incoming.headers.host}${incoming.url}`, { method: incoming.method ?? 'GET', headers, body })
    const answer = await handler(request)
    outgoing.writeHead(answer.status, Object.fromEntries(answer.headers))
    outgoing.end(Buffer.from(await answer.arrayBuffer()))
  })
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done))
  const port = portOf(server)
  const close = () =>
    new Promise<void>((done) => {
      server.close(() => done())
      server.closeAllConnections()
    })
  return { port, url: `http://127.0.0.1:${port}`, close }
}

export interface Answer {
  status: number
  headers: Record<string, string | string[] | undefined>
  text: string
  // biome-ignore lint/suspicious/noExplicitAny: whatever the app answers
  json: any
}

interface Asking {
  path?: string
  method?: string
  host?: string
  headers?: Record<string, string | string[]>
  /** Sent as JSON. */
  body?: unknown
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}

/** One request, with any Host, which fetch would not send. */
export const ask = (port: number, { path = '/orders', method = 'GET', host = 'app.test', headers = {}, body }: Asking = {}): Promise<Answer> =>
  new Promise((done, failed) => {
    const content = body === undefined ? {} : { 'content-type': 'application/json' }
    const sent = send({ port, host: '127.0.0.1', path, method, headers: { host, ...content, ...headers }, agent: false }, async (answer) => {
      let text = ''
      for await (const part of answer) text += part
      done({ status: answer.statusCode ?? 0, headers: answer.headers, text, json: parsed(text) })
    })
    sent.on('error', failed)
    sent.end(body === undefined ? undefined : JSON.stringify(body))
  })
