/**
 * What the middleware of every framework shares: from a request to its tenant, or to the answer that refuses it.
 */
import { stratumError } from '../core/error-classes.ts'
import { StratumError } from '../core/errors.ts'
import { CONTEXT_HEADER, requestIdOf } from '../gateway/headers.ts'
import { type ContextReaderOptions, createContextReader } from './context-reader.ts'
import type { RequestTenant } from './request-tenant.ts'
import { createResolver, type ResolverOptions, type TenantQuestion } from './resolver.ts'

/** A request, as any framework can tell of it. */
export interface IncomingRequest {
  /** The header of this lower-case name; several of one name are joined with commas. */
  header(name: string): string | undefined
  /** Path and query as they were sent, also of an app that is mounted under a path. */
  url: string
}

interface Common {
  /**
   * False: a request that names no tenant passes, with null in the tenant's place. One that names a tenant wrongly, or
   * carries a forged context, is refused all the same. Default true.
   */
  required?: boolean
  /** Is told of every refusal and failure; its `cause`, where there is one, is for the operator only. */
  log?: (error: StratumError) => void
}

/** For an app behind the gateway: believes the header `Stratum-Context`, verified offline. */
export type BehindGateway = Common & ContextReaderOptions & { client?: never; baseUrl?: never }

/** For an app that is reached directly: asks the service. */
export type WithoutGateway = Common &
  ResolverOptions & {
    jwks?: never
    /** The service's path prefix, e.g. `/t`, if `/t/<slug>/…` is to name the tenant. Default: the path names none. */
    pathPrefix?: string
    /** What of a request says for which tenant it is. Default: its Host, its bearer token, and its path under `pathPrefix`. */
    identify?: (request: IncomingRequest) => TenantQuestion
  }

/** How an app learns its requests' tenants: `{ jwks, issuer, audience }` behind the gateway, else `{ baseUrl, apiKey }` or `{ client }`. */
export type MiddlewareOptions = BehindGateway | WithoutGateway

/** The tenant as an app finds it with these options: null only where no tenant is required. */
export type TenantOf<O extends MiddlewareOptions> = O extends { required: infer R } ? (R extends true ? RequestTenant : RequestTenant | null) : RequestTenant

/** An answer in place of the app's. */
export interface Refusal {
  status: number
  headers: Record<string, string>
  /** JSON, in the shape of the API's errors. */
  body: string
}

/** What came of a request. */
export type Found = { tenant: RequestTenant | null; refusal?: undefined } | { refusal: Refusal; tenant?: undefined }

/** A URL's path as it was sent: normalised it might name another tenant than the app's own router sees. */
const pathOf = (url: string) => url.replace(/^[a-z][a-z0-9+.-]*:\/\/[^/?#]*/i, '').split(/[?#]/)[0] ?? ''

/** The tenant's part of a path alone, so that all paths of a tenant are one question. Routers may take `/T` for `/t`. */
function namedBy(url: string, prefix: string): string | undefined {
  const path = pathOf(url)
  if (path.slice(0, prefix.length + 1).toLowerCase() !== `${prefix.toLowerCase()}/`) return undefined
  return `${prefix}/${path.slice(prefix.length + 1).split('/')[0]}`
}

const bearerOf = (authorization: string | undefined) => /^bearer +(\S+) *$/i.exec(authorization ?? '')?.[1]

function prefixOf({ pathPrefix }: WithoutGateway): string | undefined {
  if (pathPrefix === undefined || /^(\/[^/?#]+)+$/.test(pathPrefix)) return pathPrefix
  throw stratumError('CONFIGURATION_INVALID', { reason: 'The option pathPrefix must begin with / and not end with it, such as /t.' })
}

type FindTenant = (request: IncomingRequest) => Promise<RequestTenant>

function fromGateway(options: BehindGateway): FindTenant {
  const reader = createContextReader(options)
  return async ({ header }) => {
    const token = header(CONTEXT_HEADER)
    if (token === undefined) throw stratumError('GATEWAY_CONTEXT_REQUIRED')
    return reader.read(token)
  }
}

function fromService(options: WithoutGateway): FindTenant {
  const resolver = createResolver(options)
  const prefix = prefixOf(options)
  const usual = ({ header, url }: IncomingRequest): TenantQuestion => ({
    // HTTP/2 has the pseudo-header in its place.
    host: header('host') ?? header(':authority'),
    token: bearerOf(header('authorization')),
    path: prefix === undefined ? undefined : namedBy(url, prefix),
  })
  const { identify = usual } = options
  return async (request) => resolver.resolve(identify(request))
}

/** The answer. Without details: those that the service gave are for the app, which may see more than the user. */
function refusalFor(error: StratumError, { header }: IncomingRequest): Refusal {
  const { status, code, message, retryAfter } = error
  const given = header('x-request-id')
  const requestId = requestIdOf(new Headers(given === undefined ? {} : { 'x-request-id': given }))
  return {
    status,
    headers: {
      ...{ 'content-type': 'application/json', 'cache-control': 'no-store', 'x-content-type-options': 'nosniff', 'x-request-id': requestId },
      ...(retryAfter === undefined ? {} : { 'retry-after': String(retryAfter) }),
      ...(status === 401 ? { 'www-authenticate': 'Bearer' } : {}),
    },
    body: JSON.stringify({ error: { code, message, request_id: requestId } }),
  }
}

/** Nothing in the request names a tenant, as against naming one wrongly. */
const namesNone = ({ code }: StratumError) => code === 'TENANT_REQUIRED' || code === 'GATEWAY_CONTEXT_REQUIRED'

/**
 * Finds the tenant of each request.
 * @throws CONFIGURATION_INVALID when it is made, never for a request
 */
export function createTenantFinder(options: MiddlewareOptions): {
  /** The tenant, or null where none is required and none is named. `log` in place of the options' where that has none. @throws {StratumError} */
  find(request: IncomingRequest, log?: (error: StratumError) => void): Promise<RequestTenant | null>
  /** The same, or the answer that refuses the request. */
  answer(request: IncomingRequest, log?: (error: StratumError) => void): Promise<Found>
} {
  if (options.jwks !== undefined && (options.client ?? options.baseUrl) !== undefined) {
    throw stratumError('CONFIGURATION_INVALID', {
      reason: 'The option jwks is for an app behind the gateway, client and baseUrl for one without. Give one of them.',
    })
  }
  const { required = true } = options
  const named = options.jwks === undefined ? fromService(options as WithoutGateway) : fromGateway(options)
  const found = async (request: IncomingRequest, tell?: (error: StratumError) => void): Promise<{ tenant: RequestTenant | null } | { error: StratumError }> => {
    try {
      return { tenant: await named(request) }
    } catch (thrown) {
      const error = thrown instanceof StratumError ? thrown : stratumError('INTERNAL_ERROR', {}, { cause: thrown })
      if (!required && namesNone(error)) return { tenant: null }
      tell?.(error)
      return { error }
    }
  }
  return {
    async find(request, log) {
      const answer = await found(request, options.log ?? log)
      if ('error' in answer) throw answer.error
      return answer.tenant
    },
    async answer(request, log) {
      const answer = await found(request, options.log ?? log)
      return 'error' in answer ? { refusal: refusalFor(answer.error, request) } : answer
    },
  }
}

/** A request of the web's own kind: Workers, Hono, Next.js. */
export const webRequest = ({ headers, url }: { headers: { get(name: string): string | null }; url: string }): IncomingRequest => ({
  // Asking Headers for a name that no header can have throws.
  header: (name) => (name.startsWith(':') ? undefined : (headers.get(name) ?? undefined)),
  url,
})

/** What of Node's own request counts. */
interface NodeMessage {
  headers: Readonly<Record<string, string | string[] | undefined>>
  /** Names and values by turns, as they were sent. */
  rawHeaders: readonly string[]
}

/** Node tells of the first of several alone, where a proxy before it may have gone by another. */
const hostsOf = ({ rawHeaders }: NodeMessage) => rawHeaders.filter((_, index) => index % 2 === 1 && rawHeaders[index - 1]?.toLowerCase() === 'host')

/** A request of Node's: Express, Fastify. */
export const nodeRequest = (message: NodeMessage, url: string): IncomingRequest => ({
  header(name) {
    const hosts = name === 'host' ? hostsOf(message) : []
    const value = hosts.length > 1 ? hosts : message.headers[name]
    return Array.isArray(value) ? value.join(', ') : value
  },
  url,
})
