/**
 * Stands in front of an app that knows nothing of it: finds the tenant by the host, cleans the request of what only
 * the gateway may say, signs what it found, and forwards.
 */
import type { NamedTenant } from '../core/actor.ts'
import { stratumError } from '../core/error-classes.ts'
import { StratumError } from '../core/errors.ts'
import { BoundedMap } from '../crypto/bounded-map.ts'
import { canonicalHost, type HostRules, identifyHost } from '../resolver/identify.ts'
import { errorAnswer, redirectToHost } from './answers.ts'
import type { GatewayContext } from './context.ts'
import { type ContextTokens, KEY_SET_PATH } from './context-token.ts'
import { forward } from './forward.ts'
import { headersForOrigin, isWebSocketUpgrade, LOOP_HEADER, requestIdOf } from './headers.ts'
import type { Origin, Origins } from './origins.ts'
import { canonicalHostOf, type Maintenance, maintenanceOf, originOf } from './settings.ts'

/** Milliseconds until an origin's headers. */
const DEFAULT_TIMEOUT = 30_000

/** Keeps what goes on beside a request alive after its answer. */
export type WaitUntil = (work: Promise<unknown>) => void

/** A request on its way in. */
export interface Arrival {
  /** As it came. */
  host: string
  /** What the host names. */
  named: NamedTenant
  requestId: string
  waitUntil?: WaitUntil | undefined
}

/** One line of the log; never a header, a body, a path or a query. */
export interface GatewayLogLine {
  level: 'info' | 'error'
  request_id: string
  method: string
  route: 'gateway'
  status: number
  duration_ms: number
  tenant_id?: string
  /** Of an answer of the gateway's own. */
  code?: string
  /** What went wrong underneath, by its kind; only for 5xx. */
  cause?: string
}

export interface GatewayOptions {
  hosts: HostRules
  /**
   * The context of the tenant that the host names, for whom the request's credential says.
   * @throws {StratumError} that refuses the request, such as TENANT_NOT_FOUND, TENANT_SUSPENDED, TOKEN_INVALID
   */
  resolve: (request: Request, arrival: Arrival) => Promise<GatewayContext>
  tokens: ContextTokens
  origins: Origins
  /** Where a tenant's requests go whose config names no origin; null: such a tenant's host serves the API. */
  origin: Origin | null
  /** The audience of contexts for `origin`. Default: its identity. */
  audience?: string | undefined
  /** Milliseconds until an origin's headers. Default 30,000. */
  timeout?: number | undefined
  log?: (line: GatewayLogLine) => void
}

/** Answers what is for the gateway; null for what the API serves. */
export type Gateway = (request: Request, beside?: { waitUntil?: WaitUntil }) => Promise<Response | null>

/** What a Host header says, as far as it can be read without the database. */
interface ReadHost {
  /** As it is compared; null for what is no host. */
  host: string | null
  named: NamedTenant | null
}

const MAXIMUM_HOSTS = 1_000

/** Hosts, read once each. */
function hostReader(rules: HostRules): (asked: string) => ReadHost {
  const known = new BoundedMap<string, ReadHost>(MAXIMUM_HOSTS)
  return (asked) => {
    const kept = known.get(asked)
    if (kept) return kept
    const read = { host: canonicalHost(asked), named: identifyHost(asked, rules) }
    if (read.host !== null) known.set(asked, read)
    return read
  }
}

/** A request on its way, and what has been found out about it. */
interface Passage {
  request: Request
  /** Null where Host is no host: then neither is the URL that workerd makes with it one. */
  url: URL | null
  /** As it is compared; null for what is no host. */
  host: string | null
  arrival: Arrival
  context?: GatewayContext
  maintenance?: Maintenance
}

/** The URL and host of a request that says one and the same with both. @throws REQUEST_NOT_FORWARDABLE */
function placeOf({ url, host, arrival }: Passage): { url: URL; host: string } {
  // Two Host headers, or a URL that names another host than they do: it is anybody's guess which the app would take.
  if (url !== null && host !== null && (arrival.host === url.host || host === canonicalHost(url.host))) return { url, host }
  throw stratumError('REQUEST_NOT_FORWARDABLE', { reason: 'it does not name one valid host' })
}

/** Others would send their body again, or not at all, and a socket cannot be redirected. */
const isMovable = (request: Request) => (request.method === 'GET' || request.method === 'HEAD') && !isWebSocketUpgrade(request)

/** The answer to one request, or null where the API has to give it. @throws {StratumError} */
async function pass(
  passage: Passage,
  { resolve, tokens, origins, origin: usual, audience, timeout = DEFAULT_TIMEOUT }: GatewayOptions,
): Promise<Response | null> {
  const { request, arrival } = passage
  const { url, host } = placeOf(passage)
  if (tokens.isLoopMark(request.headers.get(LOOP_HEADER))) throw stratumError('ORIGIN_LOOP')
  const context = await resolve(request, arrival)
  passage.context = context
  const named = originOf(context)
  if (named === null && usual === null) return null
  const maintenance = maintenanceOf(context)
  if (maintenance) {
    passage.maintenance = maintenance
    throw stratumError('TENANT_MAINTENANCE', {}, maintenance.message === undefined ? {} : { message: maintenance.message })
  }
  const canonical = canonicalHostOf(context)
  if (canonical !== null && canonical !== host && isMovable(request)) return redirectToHost(url, canonical, arrival.requestId)
  const origin = named === null ? (usual as Origin) : origins.named(named)
  const signed = await tokens.sign(context, origin.identity === usual?.identity ? (audience ?? origin.identity) : origin.identity)
  const headers = headersForOrigin(request, { url, host, requestId: arrival.requestId, context: signed, loopMark: tokens.loopMark })
  // What was refused as it came back says so to who sent it.
  return forward(request, url, headers, { origin, timeout, isReturned: (answer) => tokens.isLoopMark(answer.get(LOOP_HEADER)) })
}

const describe = ({ cause }: StratumError) => (cause instanceof Error ? `${cause.name}: ${cause.message.split(':')[0]?.slice(0, 200)}` : undefined)

function logLine({ request, arrival, context }: Passage, started: number, status: number, error?: StratumError): GatewayLogLine {
  const cause = error !== undefined && status >= 500 ? describe(error) : undefined
  return {
    level: error !== undefined && status >= 500 ? 'error' : 'info',
    request_id: arrival.requestId,
    method: request.method,
    route: 'gateway',
    status,
    duration_ms: Math.round((performance.now() - started) * 10) / 10,
    ...(context === undefined ? {} : { tenant_id: context.tenant_id }),
    ...(error === undefined ? {} : { code: error.code }),
    ...(cause === undefined ? {} : { cause }),
  }
}

export function createGateway(options: GatewayOptions): Gateway {
  const { hosts, tokens, log = () => {} } = options
  const readHost = hostReader(hosts)

  return async (request, { waitUntil } = {}) => {
    const url = URL.canParse(request.url) ? new URL(request.url) : null
    if (url?.pathname === KEY_SET_PATH && (request.method === 'GET' || request.method === 'HEAD')) return tokens.keySet()
    const asked = request.headers.get('host') ?? url?.host ?? ''
    const { host, named } = readHost(asked)
    if (named === null) return null
    const passage: Passage = { request, url, host, arrival: { host: asked, named, requestId: requestIdOf(request.headers), waitUntil } }
    const started = performance.now()
    try {
      const answer = await pass(passage, options)
      if (answer) log(logLine(passage, started, answer.status))
      return answer
    } catch (thrown) {
      const error = thrown instanceof StratumError ? thrown : stratumError('INTERNAL_ERROR', {}, { cause: thrown })
      log(logLine(passage, started, error.status, error))
      const answer = await errorAnswer(request, error, passage.arrival.requestId, passage.maintenance)
      if (error.code === 'ORIGIN_LOOP') answer.headers.set(LOOP_HEADER, tokens.loopMark)
      return answer
    }
  }
}
