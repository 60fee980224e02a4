/** Which headers go on to the origin and back, and what the gateway says itself. */
import { fromBase64 } from '../crypto/base64.ts'

/** RFC 9110 §7.6.1, and those that are of one connection by custom. */
const HOP_BY_HOP = new Set([
  'connection',
  'http2-settings',
  'keep-alive',
  'proxy-authenticate',
  'proxy-authorization',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
])
/** What says who the client is and which host it asked: the gateway's word alone. And Cloudflare's mark of a Worker's own request. */
const REPLACED = /^(stratum-|x-tenant-|x-forwarded-|forwarded$|x-real-ip$|x-original-host$|cf-worker$)/
const API_KEY = /sk_(live|test)_[A-Za-z0-9_-]{43}/
const REQUEST_ID = /^[\w.:-]{1,128}$/

/** The header of a request that the gateway forwards, which tells it when that comes back. Its value: the id of a context key. */
export const LOOP_HEADER = 'stratum-gateway'
/** The header of a forwarded request that holds the signed context. */
export const CONTEXT_HEADER = 'stratum-context'
/** Marks an answer of the gateway's own, as against the origin's, which never carries it. */
export const ERROR_HEADER = 'stratum-error'

/** Does this request ask for a WebSocket? */
export const isWebSocketUpgrade = ({ method, headers }: Request): boolean => method === 'GET' && headers.get('upgrade')?.toLowerCase() === 'websocket'

/** The request's own id if it is a plain one, else a new one. */
export function requestIdOf(headers: Headers): string {
  const given = headers.get('x-request-id')
  return given !== null && REQUEST_ID.test(given) ? given : crypto.randomUUID()
}

/** Does a header's value hold an API key of ours, in clear or as the name or password of Basic? */
function holdsApiKey(name: string, value: string): boolean {
  if (value.includes('sk_') && API_KEY.test(value)) return true
  if (name !== 'authorization') return false
  const [, encoded] = /^basic +(\S+) *$/i.exec(value) ?? []
  return encoded !== undefined && API_KEY.test(String.fromCharCode(...(fromBase64(encoded.slice(0, 4_096)) ?? [])))
}

/** Many servers read `x_tenant_id` and `x-tenant-id` as one name. */
const isReplaced = (name: string) => REPLACED.test(name.includes('_') ? name.replaceAll('_', '-') : name)

/** The names that Connection declares to be of this connection only; null for none. */
function namedByConnection(headers: Headers): string[] | null {
  const named = headers.get('connection')
  return named === null ? null : named.split(',').map((name) => name.trim().toLowerCase())
}

export interface Forwarding {
  /** The URL that was asked for. */
  url: URL
  /** The host that was asked, as it is compared. */
  host: string
  requestId: string
  /** The signed context. */
  context: string
  /** Value of {@link LOOP_HEADER}. */
  loopMark: string
}

/**
 * The headers for the origin: the client's without those that are the gateway's to say, of one connection, or hold an
 * API key of ours. `traceparent`, cookies and the app's own credentials pass.
 */
export function headersForOrigin(request: Request, { url, host, requestId, context, loopMark }: Forwarding): Headers {
  const headers = new Headers(request.headers)
  const connection = namedByConnection(headers)
  for (const [name, value] of request.headers) {
    if (HOP_BY_HOP.has(name) || isReplaced(name) || connection?.includes(name) || holdsApiKey(name, value)) headers.delete(name)
  }
  if (isWebSocketUpgrade(request)) headers.set('upgrade', 'websocket')
  // The URL of the forwarded request says which host the origin is asked for.
  headers.delete('host')
  headers.set('x-forwarded-host', url.port === '' ? host : `${host}:${url.port}`)
  headers.set('x-forwarded-proto', url.protocol.slice(0, -1))
  const client = request.headers.get('cf-connecting-ip')
  if (client !== null) headers.set('x-forwarded-for', client)
  headers.set('x-request-id', requestId)
  headers.set(LOOP_HEADER, loopMark)
  headers.set(CONTEXT_HEADER, context)
  return headers
}

/** What of an origin's headers is ours to say, or of one connection. */
export function unfitForClient(headers: Headers): string[] {
  const connection = namedByConnection(headers)
  // Upgrade is the answer's own word for what to speak instead, e.g. beside 426.
  const isUnfit = (name: string) => name.startsWith('stratum-') || (HOP_BY_HOP.has(name) && name !== 'upgrade') || (connection?.includes(name) ?? false)
  return [...headers.keys()].filter(isUnfit)
}
