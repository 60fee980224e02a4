/** The WebSocket form of Neon's protocol, for the driver's `Pool` and `Client`: PostgreSQL's bytes in frames. */
import type { IncomingMessage, Server } from 'node:http'
import { connect } from 'node:net'
import { type Duplex, pipeline } from 'node:stream'
import { createWebSocketStream, WebSocketServer } from 'ws'
import { bareHost } from './neon-protocol.ts'

/** Where the bytes go. */
export interface WebSocketOptions {
  readonly host: string
  readonly port: number
  /** Host names the `address` of a request may carry. */
  readonly hosts: ReadonlySet<string>
  readonly log: (line: string) => void
}

/**
 * Accepts `GET /v2` and `GET /v2?address=host:port` upgrades on a server. The port in `address` is the one of the
 * connection string and means nothing here, as with Neon: all bytes go to the one PostgreSQL.
 *
 * @returns a function that cuts every WebSocket
 */
export function serveWebSockets(server: Server, options: WebSocketOptions): () => void {
  const upgrader = new WebSocketServer({ noServer: true })
  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    socket.on('error', (error) => options.log(`WebSocket: ${error.message}`))
    const refusal = refuse(request, options.hosts)
    if (refusal) {
      socket.end(`HTTP/1.1 ${refusal}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`)
      return
    }
    upgrader.handleUpgrade(request, socket, head, (webSocket) => {
      const frames = createWebSocketStream(webSocket)
      const postgres = connect({ host: options.host, port: options.port, noDelay: true })
      // Either side's end or failure ends the other.
      pipeline(frames, postgres, frames, (error) => {
        if (error) options.log(`WebSocket: ${error.message}`)
      })
    })
  })
  return () => {
    for (const webSocket of upgrader.clients) webSocket.terminate()
  }
}

function refuse(request: IncomingMessage, hosts: ReadonlySet<string>): string | undefined {
  const [path, query] = (request.url ?? '').split('?')
  if (path !== '/v2') return '404 Not Found'
  // Without an address the host is the one the client came to.
  const address = new URLSearchParams(query).get('address') ?? request.headers.host ?? ''
  return hosts.has(bareHost(address.replace(/:\d+$/, ''))) ? undefined : '403 Forbidden'
}
