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

/** What is known of a request by the time it is answered, for its answer and the log. */
interface Progress {
  context?: GatewayContext
  maintenance?: Maintenance
}

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

const describe = ({ cause }: StratumError) => (cause instanceof Error ? `${cause.name}: ${cause.message.split(':')[0]?.slice(0, 200)}` : undefined)

export function createGateway({
  hosts,
  resolve,
  tokens,
  origins,
  origin: usual,
  audience,
  timeout = DEFAULT_TIMEOUT,
  log = () => {},
}: GatewayOptions): Gateway {
  async function serve(request: Request, url: URL | null, arrival: Arrival, progress: Progress): Promise<Response | null> {
    const { host } = readHost(arrival.host)
    // Two Host headers, or a request line that names another host than they do: it is anybody's guess which the app would take.
    if (url === null || host === null || (arrival.host !== url.host && host !== canonicalHost(url.host))) {
      throw stratumError('REQUEST_NOT_FORWARDABLE', { reason: 'it does not name one valid host' })
    }
    if (tokens.isLoopMark(request.headers.get(LOOP_HEADER))) throw stratumError('ORIGIN_LOOP')
    const context = await resolve(request, arrival)
    progress.context = context
    const named = originOf(context)
    if (named === null && usual === null) return null
    const maintenance = maintenanceOf(context)
    if (maintenance) {
      progress.maintenance = maintenance
      throw stratumError('TENANT_MAINTENANCE', {}, maintenance.message === undefined ? {} : { message: maintenance.message })
    }
    const canonical = canonicalHostOf(context)
    // Others would send their body again, or not at all, and a socket cannot be redirected.
    const movable = (request.method === 'GET' || request.method === 'HEAD') && !isWebSocketUpgrade(request)
    if (canonical !== null && canonical !== host && movable) return redirectToHost(url, canonical, arrival.requestId)
    const origin = named === null ? (usual as Origin) : origins.named(named)
    const signed = await tokens.sign(context, origin.identity === usual?.identity ? (audience ?? origin.identity) : origin.identity)
    const headers = headersForOrigin(request, { url, host, requestId: arrival.requestId, context: signed, loopMark: tokens.loopMark })
    // What was refused as it came back says so to who sent it.
    return forward(request, url, headers, { origin, timeout, isReturned: (answer) => tokens.isLoopMark(answer.get(LOOP_HEADER)) })
  }

  return async (request, { waitUntil } = {}) => {
    // Where Host is no host, neither is the URL that workerd makes with it one.
    const url = URL.canParse(request.url) ? new URL(request.url) : null
    if (url?.pathname === KEY_SET_PATH && (request.method === 'GET' || request.method === 'HEAD')) return tokens.keySet()
    const asked = request.headers.get('host') ?? url?.host ?? ''
    const { named } = readHost(asked)
    if (named === null) return null
    const arrival: Arrival = { host: asked, named, requestId: requestIdOf(request.headers), waitUntil }
    const [started, progress]: [number, Progress] = [performance.now(), {}]
    const tell = (status: number, error?: StratumError) => {
      const cause = error !== undefined && status >= 500 ? describe(error) : undefined
      log({
        level: error !== undefined && status >= 500 ? 'error' : 'info',
        request_id: arrival.requestId,
        method: request.method,
        route: 'gateway',
        status,
        duration_ms: Math.round((performance.now() - started) * 10) / 10,
        ...(progress.context === undefined ? {} : { tenant_id: progress.context.tenant_id }),
        ...(error === undefined ? {} : { code: error.code }),
        ...(cause === undefined ? {} : { cause }),
      })
    }
    try {
      const answer = await serve(request, url, arrival, progress)
      if (answer) tell(answer.status)
      return answer
    } catch (thrown) {
      const error = thrown instanceof StratumError ? thrown : stratumError('INTERNAL_ERROR', {}, { cause: thrown })
      tell(error.status, error)
      const answer = await errorAnswer(request, error, arrival.requestId, progress.maintenance)
      if (error.code === 'ORIGIN_LOOP') answer.headers.set(LOOP_HEADER, tokens.loopMark)
      return answer
    }
  }
}
