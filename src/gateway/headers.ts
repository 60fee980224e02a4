/** Which headers go on to the origin and back, and what the gateway says itself. */
import { fromBase64 } from '../crypto/base64.ts'
import type { Trace } from '../http/trace.ts'

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
const REPLACED =
  /^(stratum-|x-tenant(-|$)|x-forwarded(-|$)|forwarded$|(x-real|true-client|x-client|x-cluster-client|fastly-client)-ip$|x-original-(host|url)$|x-rewrite-url$|cf-worker$)/
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

/** A request's headers, read once: each look into `Headers` leaves JavaScript. Names in lower case. */
export type Fields = ReadonlyMap<string, string>

/** The request's own id if it is a plain one, else a new one. */
export function requestIdOf(fields: { get(name: string): string | null | undefined }): string {
  const given = fields.get('x-request-id')
  return given && REQUEST_ID.test(given) ? given : crypto.randomUUID()
}

/** Does a header's value hold an API key of ours, in clear or as the name or password of Basic? */
function holdsApiKey(name: string, value: string): boolean {
  if (value.includes('sk_') && API_KEY.test(value)) return true
  if (name !== 'authorization') return false
  const [, encoded] = /^basic +(\S+) *$/i.exec(value) ?? []
  return encoded !== undefined && API_KEY.test(String.fromCharCode(...(fromBase64(encoded.slice(0, 4_096)) ?? [])))
}

/** Many servers, and what reads their answers, take `x_tenant_id` and `x-tenant-id` for one name. */
const withDashes = (name: string) => (name.includes('_') ? name.replaceAll('_', '-') : name)
const isReplaced = (name: string) => REPLACED.test(withDashes(name))

/** The names that Connection declares to be of this connection only. */
const namedBy = (connection: string | null | undefined): string[] | undefined => connection?.split(',').map((name) => name.trim().toLowerCase())

/** What the gateway says itself of a request that it forwards. */
export interface Forwarding {
  /** The scheme, and the host with its port, that were asked for. */
  scheme: string
  hostAndPort: string
  requestId: string
  trace: Trace
  /** The signed context; null where the request is for no tenant. */
  context: string | null
  /** Value of {@link LOOP_HEADER}. */
  loopMark: string
  /** The bearer token is one of ours, and not for this origin. */
  withhold: boolean
}

/**
 * The headers for the origin: the client's without those that are the gateway's to say, of one connection, or hold an
 * API key of ours. Cookies, traces and the app's own credentials pass.
 */
export function headersForOrigin(
  request: Request,
  fields: Fields,
  { scheme, hostAndPort, requestId, trace, context, loopMark, withhold }: Forwarding,
): Headers {
  const headers = new Headers(request.headers)
  const connection = namedBy(fields.get('connection'))
  for (const [name, value] of fields) {
    if (HOP_BY_HOP.has(name) || isReplaced(name) || connection?.includes(name) || holdsApiKey(name, value)) headers.delete(name)
  }
  if (fields.has('upgrade') && isWebSocketUpgrade(request)) headers.set('upgrade', 'websocket')
  // To a request without it the platform adds `no-cache`, as it is not to cache: no app then answers 304.
  if (!fields.has('cache-control')) headers.set('cache-control', 'max-age=0')
  if (withhold) headers.delete('authorization')
  // The URL of the forwarded request says which host the origin is asked for.
  headers.delete('host')
  headers.set('x-forwarded-host', hostAndPort)
  headers.set('x-forwarded-proto', scheme)
  const client = fields.get('cf-connecting-ip')
  if (client !== undefined) headers.set('x-forwarded-for', client)
  headers.set('x-request-id', requestId)
  if (trace.begun !== null) {
    headers.set('traceparent', trace.begun)
    // It was of a traceparent that could not be read.
    if (fields.has('tracestate')) headers.delete('tracestate')
  }
  headers.set(LOOP_HEADER, loopMark)
  if (context !== null) headers.set(CONTEXT_HEADER, context)
  return headers
}

/** Which of an origin's headers are ours to say, or of one connection. */
export function unfitForClient(names: readonly string[], headers: Headers): string[] {
  const connection = names.includes('connection') ? namedBy(headers.get('connection')) : undefined
  // Upgrade is the answer's own word for what to speak instead, e.g. beside 426.
  return names.filter((name) => withDashes(name).startsWith('stratum-') || (HOP_BY_HOP.has(name) && name !== 'upgrade') || connection?.includes(name))
}
