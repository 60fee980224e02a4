/** The typed client, derived from the contracts: one method for each operation, taking one flat object. */
import type { CallOf, Endpoint, OutputOf, Preview } from '../core/endpoint.ts'
import { stratumError } from '../core/error-classes.ts'
import { isErrorCode, type StratumError } from '../core/errors.ts'
import { endpointList, type endpoints } from '../features/endpoints.ts'

/** How to make a {@link StratumClient}: which service, with which credential. */
export interface ClientOptions {
  /** Where the service is, e.g. `https://stratum.example.com`, or with a path prefix that names a tenant. */
  baseUrl: string
  /** An API key. Give this or `token`. */
  apiKey?: string | undefined
  /** A bearer token, or what fetches a fresh one. */
  token?: string | (() => string | Promise<string>)
  /** Further headers for every request, e.g. `x-tenant-id`. */
  headers?: Record<string, string>
  /** Default: the platform's fetch. */
  fetch?: (request: Request) => Response | Promise<Response>
}

/** How one call is to be run. */
export interface CallOptions {
  /** For a POST: sent again with the same key, it is done once and answered alike for 24 hours. */
  idempotencyKey?: string
  /** The `version` of a dry run: do exactly what that showed, or fail with VERSION_MISMATCH. */
  ifMatch?: string
}

type Endpoints = typeof endpoints
type Method<E extends Endpoint> =
  Record<never, never> extends CallOf<E>
    ? (input?: CallOf<E>, options?: CallOptions) => Promise<OutputOf<E>>
    : (input: CallOf<E>, options?: CallOptions) => Promise<OutputOf<E>>

/** Every operation as a method: `client.createTenant({ slug, name })`. Each rejects with a {@link StratumError}. */
export type StratumClient = { readonly [K in keyof Endpoints]: Method<Endpoints[K]> } & {
  /** What an operation would change, without doing it; `version` is for `ifMatch`. Only for those that can be shown. */
  readonly dryRun: { readonly [K in keyof Endpoints]: (input: CallOf<Endpoints[K]>) => Promise<Preview> }
}

/** URLs fold away `.` and `..`, and an empty segment: as an id, these would name another route. */
function pathSegment(name: string, value: string): string {
  if (/^\.{0,2}$/.test(value)) throw stratumError('INVALID_REQUEST', { reason: `${name}: "${value}" is no id`, issues: [{ path: name, message: 'is no id' }] })
  return encodeURIComponent(value)
}

/** The request for an operation: what the path names goes there, query and body as the contract has them. */
function buildRequest(endpoint: Endpoint, input: Record<string, unknown>, baseUrl: string, headers: Headers, dryRun = false): Request {
  const path = endpoint.path.replace(/:(\w+)/g, (_, name: string) => pathSegment(name, String(input[name])))
  const url = new URL(`${baseUrl.replace(/\/$/, '')}/api/v1${path}`)
  const body: Record<string, unknown> = {}
  for (const [key, value] of Object.entries(input)) {
    if (value === undefined || Object.hasOwn(endpoint.params.shape, key)) continue
    if (Object.hasOwn(endpoint.query.shape, key)) url.searchParams.set(key, String(value))
    else body[key] = value
  }
  if (dryRun) url.searchParams.set('dry_run', 'true')
  const hasBody = endpoint.method !== 'GET' && endpoint.method !== 'DELETE'
  if (hasBody) headers.set('content-type', 'application/json')
  return new Request(url, { method: endpoint.method, headers, ...(hasBody ? { body: JSON.stringify(body) } : {}) })
}

/** The same error the service raised, as its own class. */
async function toError(response: Response): Promise<StratumError> {
  const answer = (await response.json().catch(() => null)) as {
    error?: { code?: unknown; message?: string; details?: Record<string, unknown>; request_id?: string }
  } | null
  const { code, message, details = {}, request_id } = answer?.error ?? {}
  if (!isErrorCode(code)) return stratumError('SERVER_UNREACHABLE', { reason: `HTTP status ${response.status} without an error of the API` })
  return stratumError(code, { ...details, ...(request_id === undefined ? {} : { request_id }) }, message === undefined ? {} : { message })
}

interface Sending extends CallOptions {
  dryRun?: boolean
}

/** The newest change that this client has made, so that whatever isolate answers next, it sees it. */
class OwnWrites {
  #newest = 0n

  note(version: string | null): void {
    if (version !== null && /^\d+$/.test(version) && BigInt(version) > this.#newest) this.#newest = BigInt(version)
  }

  ask(headers: Headers): void {
    if (this.#newest > 0n && !headers.has('stratum-min-version')) headers.set('stratum-min-version', String(this.#newest))
  }
}

async function send(
  endpoint: Endpoint,
  input: Record<string, unknown>,
  options: ClientOptions,
  own: OwnWrites,
  { dryRun, idempotencyKey, ifMatch }: Sending = {},
): Promise<unknown> {
  const headers = new Headers(options.headers)
  own.ask(headers)
  if (idempotencyKey !== undefined) headers.set('idempotency-key', idempotencyKey)
  if (ifMatch !== undefined) headers.set('if-match', `"${ifMatch}"`)
  if (options.apiKey !== undefined) headers.set('x-api-key', options.apiKey)
  if (options.token !== undefined) headers.set('authorization', `Bearer ${typeof options.token === 'function' ? await options.token() : options.token}`)
  const request = buildRequest(endpoint, input, options.baseUrl, headers, dryRun)
  let response: Response
  try {
    response = await (options.fetch ?? fetch)(request)
  } catch (error) {
    throw stratumError('SERVER_UNREACHABLE', { reason: 'the connection failed' }, { cause: error })
  }
  own.note(response.headers.get('stratum-version'))
  if (!response.ok) throw await toError(response)
  try {
    return await response.json()
  } catch (error) {
    throw stratumError('SERVER_UNREACHABLE', { reason: `HTTP status ${response.status} without an answer of the API` }, { cause: error })
  }
}

/** Make a client of a Stratum service. It sees its own writes at once, from whatever isolate it is answered. */
export function createClient(options: ClientOptions): StratumClient {
  const client: Record<string, unknown> = {}
  const own = new OwnWrites()
  const dryRun: Record<string, unknown> = {}
  for (const endpoint of endpointList) {
    client[endpoint.id] = (input: Record<string, unknown> = {}, call: CallOptions = {}) => send(endpoint, input, options, own, call)
    dryRun[endpoint.id] = (input: Record<string, unknown> = {}) => send(endpoint, input, options, own, { dryRun: true })
  }
  client['dryRun'] = dryRun
  return client as StratumClient
}
