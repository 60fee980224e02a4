/**
 * Stands in front of an app that knows nothing of it: finds the tenant by the host, cleans the request of what only
 * the gateway may say, signs what it found, and forwards.
 */
import type { NamedTenant } from '../core/actor.ts'
import { stratumError } from '../core/error-classes.ts'
import { StratumError } from '../core/errors.ts'
import { describeCause, type LogLine, type RequestFacts, tenths } from '../http/log.ts'
import { type Trace, traceOf } from '../http/trace.ts'
import type { HostRules } from '../resolver/identify.ts'
import { errorAnswer, redirectToHost } from './answers.ts'
import type { GatewayContext } from './context.ts'
import { type ContextTokens, KEY_SET_PATH } from './context-token.ts'
import { forward } from './forward.ts'
import { type Fields, headersForOrigin, isWebSocketUpgrade, LOOP_HEADER, requestIdOf } from './headers.ts'
import type { Origin, Origins } from './origins.ts'
import { pathOf, placeReader, type Site } from './place.ts'
import { canonicalHostOf, type Maintenance, maintenanceOf, originOf } from './settings.ts'

/** Milliseconds until an origin's headers. */
const DEFAULT_TIMEOUT = 30_000

/** Keeps what goes on beside a request alive after its answer. */
export type WaitUntil = (work: Promise<unknown>) => void

/** A request on its way in. */
export interface Arrival {
  fields: Fields
  /** What the host names; null for a host of the app, where who asks says for which tenant. */
  named: NamedTenant | null
  requestId: string
  /** What is found out about it, for the log. */
  facts: RequestFacts
  waitUntil?: WaitUntil | undefined
}

export interface GatewayOptions {
  hosts: HostRules
  /**
   * The context of the tenant that the host names, for whom the request's credential says; where the host names none, of the
   * tenant that the credential is bound to, and null without one.
   * @throws {StratumError} that refuses the request, such as TENANT_NOT_FOUND, TENANT_SUSPENDED, TOKEN_INVALID
   */
  resolve: (arrival: Arrival) => GatewayContext | null | Promise<GatewayContext | null>
  tokens: ContextTokens
  origins: Origins
  /** Where a tenant's requests go whose config names no origin; null: such a tenant's host serves the API. */
  origin: Origin | null
  /** The audience of contexts for `origin`. Default: its identity. */
  audience?: string | undefined
  /** Milliseconds until an origin's headers. Default 30,000. */
  timeout?: number | undefined
  /** Receives one line for each request that is not the API's. */
  log?: ((line: LogLine) => void) | undefined
}

/** Answers what is for the gateway; null for what the API serves. */
export type Gateway = (request: Request, beside?: { waitUntil?: WaitUntil }) => Promise<Response | null>

/** A request on its way, and what has been found out about it. */
interface Passage {
  request: Request
  /** Null for what is no host: then neither is the URL that workerd makes with it one. */
  site: Site | null
  /** With the query. */
  path: string
  arrival: Arrival
  trace: Trace
  maintenance?: Maintenance
}

/** Others would send their body again, or not at all, and a socket cannot be redirected. */
const isMovable = (request: Request) => (request.method === 'GET' || request.method === 'HEAD') && !isWebSocketUpgrade(request)

const isForKeys = (request: Request, path: string) =>
  path.startsWith(KEY_SET_PATH) && path.split('?')[0] === KEY_SET_PATH && (request.method === 'GET' || request.method === 'HEAD')

/** What is served from an answer older than was promised says so. A socket's beginning cannot. */
function markedStale(answer: Response, { context }: RequestFacts): Response {
  if (context !== 'stale' || answer.status === 101) return answer
  const marked = new Response(answer.body, answer)
  marked.headers.set('stratum-stale', 'true')
  return marked
}

/** The answer to one request, or null where the API has to give it. @throws {StratumError} */
async function pass(
  passage: Passage,
  { resolve, tokens, origins, origin: usual, audience, timeout = DEFAULT_TIMEOUT }: GatewayOptions,
): Promise<Response | null> {
  const { request, site, path, arrival, trace } = passage
  const { fields, requestId, facts } = arrival
  if (site === null) throw stratumError('REQUEST_NOT_FORWARDABLE', { reason: 'it does not name one valid host' })
  if (tokens.isLoopMark(fields.get(LOOP_HEADER))) throw stratumError('ORIGIN_LOOP')
  const found = resolve(arrival)
  const context = found instanceof Promise ? await found : found
  if (context) facts.tenant = context.tenant_id
  const named = context && originOf(context)
  if (named === null && usual === null) return null
  const maintenance = context && maintenanceOf(context)
  if (maintenance) {
    passage.maintenance = maintenance
    throw stratumError('TENANT_MAINTENANCE', {}, maintenance.message === undefined ? {} : { message: maintenance.message })
  }
  const canonical = context && arrival.named && canonicalHostOf(context)
  if (canonical !== null && canonical !== site.host && isMovable(request)) return redirectToHost(site.origin + path, canonical, requestId)
  const origin = named === null ? (usual as Origin) : origins.named(named)
  const reader = origin.identity === usual?.identity ? (audience ?? origin.identity) : origin.identity
  const signed = context && (tokens.kept(context, reader) ?? (await tokens.sign(context, reader)))
  const { scheme, hostAndPort } = site
  // Whoever may write a tenant's config says where this goes, and must not get what others show us.
  const withhold = named !== null && origin.identity !== usual?.identity && facts.principal === 'token'
  const headers = headersForOrigin(request, fields, { scheme, hostAndPort, requestId, trace, context: signed, loopMark: tokens.loopMark, withhold })
  // What was refused as it came back says so to who sent it.
  const isReturned = (answer: Headers) => tokens.isLoopMark(answer.get(LOOP_HEADER))
  const answer = await forward({ request, target: { site: site.origin, path }, headers }, { origin, timeout, isReturned })
  return markedStale(answer, facts)
}

function logLine({ request, arrival, trace }: Passage, started: number, status: number, error?: StratumError): LogLine {
  const cause = error?.cause !== undefined && status >= 500 ? describeCause(error) : undefined
  return {
    level: error !== undefined && status >= 500 ? 'error' : 'info',
    request_id: arrival.requestId,
    method: request.method,
    route: 'gateway',
    status,
    duration_ms: tenths(performance.now() - started),
    trace_id: trace.id,
    ...arrival.facts,
    ...(error === undefined ? {} : { code: error.code }),
    ...(cause === undefined ? {} : { cause }),
  }
}

export function createGateway(options: GatewayOptions): Gateway {
  const { hosts, tokens, log } = options
  const placeOf = placeReader(hosts)

  return async (request, { waitUntil } = {}) => {
    const { url, headers } = request
    const path = pathOf(url)
    if (isForKeys(request, path)) return tokens.keySet()
    const { named, site, isApp } = placeOf(url, headers.get('host'))
    if (named === null && !isApp) return null
    const fields: Fields = new Map(headers)
    const arrival: Arrival = { fields, named, requestId: requestIdOf(fields), facts: named ? { sources: named.source } : {}, waitUntil }
    const passage: Passage = { request, site, path, arrival, trace: traceOf(fields.get('traceparent')) }
    const started = performance.now()
    try {
      const answer = await pass(passage, options)
      if (answer) log?.(logLine(passage, started, answer.status))
      return answer
    } catch (thrown) {
      const error = thrown instanceof StratumError ? thrown : stratumError('INTERNAL_ERROR', {}, { cause: thrown })
      log?.(logLine(passage, started, error.status, error))
      const answer = await errorAnswer(request, error, arrival.requestId, passage.maintenance)
      if (error.code === 'ORIGIN_LOOP') answer.headers.set(LOOP_HEADER, tokens.loopMark)
      return answer
    }
  }
}
