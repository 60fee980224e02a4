import type { Context, Hono } from 'hono'
import { cors } from 'hono/cors'
import { HonoBase } from 'hono/hono-base'
import { TrieRouter } from 'hono/router/trie-router'
import type { Actor, Credential, NamedTenant } from '../core/actor.ts'
import { stratumError } from '../core/error-classes.ts'
import { StratumError } from '../core/errors.ts'
import { toBase64 } from '../crypto/base64.ts'
import { endpointList } from '../features/endpoints.ts'
import type { Operation, RunOptions, Services } from '../features/operation.ts'
import { operationList } from '../features/operations.ts'
import { TENANT_NAME } from '../resolver/identify.ts'
import { DOCS_STYLE, docsPage } from './docs.ts'
import { type Log, type RequestFacts, requestLog, tenths } from './log.ts'
import { openApiDocument } from './openapi.ts'
import { RateLimiter } from './rate-limit.ts'
import { readCredential, readInput, readNamedTenants, withStandingIssuer } from './request.ts'
import { readMinimumVersion, readRunOptions, wantsPreview } from './run-options.ts'

export interface AppOptions {
  /** What operations work with, or why there is none: then every request is answered 500 and the reason logged. */
  services: Services
  /** Origins that browsers may call from; none by default. */
  corsOrigins?: readonly string[]
  /** Judges how often somebody may ask; unlimited by default. */
  limiter?: RateLimiter
  /** Receives one line for each request; silent by default. */
  log?: Log
  version: string
}

type AppEnv = { Variables: { requestId: string; facts: RequestFacts; apiKey?: Credential } }

const BASE = '/api/v1'

/** With the one router that can hold our routes: hono's own choice would carry two, and find that out at the first request. */
const emptyApp = (): Hono<AppEnv> => new HonoBase<AppEnv>({ router: new TrieRouter() })

const literalFirst = ({ endpoint }: Operation) => endpoint.path.replaceAll(':', '~')

/** Made at the first call and kept: describing the API takes longer than most requests. */
function once<T>(make: () => T): () => T {
  let made: { value: T } | undefined
  return () => {
    made ??= { value: make() }
    return made.value
  }
}

const sha256 = async (text: string) => toBase64(new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text))))

function errorResponse(context: Context<AppEnv>, error: StratumError): Response {
  const { code, message, details } = error
  const requestId = context.get('requestId')
  if (error.retryAfter !== undefined) context.header('retry-after', String(error.retryAfter))
  if (error.status === 401) context.header('www-authenticate', 'Bearer')
  const body = { error: { code, message, ...(Object.keys(details).length > 0 ? { details } : {}), request_id: requestId } }
  return context.json(body, error.status as 400)
}

/** What keeps work alive after the answer; hono throws where the platform has none. */
function waitUntilOf(context: Context): ((work: Promise<unknown>) => void) | undefined {
  try {
    const { executionCtx } = context
    return (work) => executionCtx.waitUntil(work)
  } catch {
    return undefined
  }
}

/** Work that goes on though the client leaves: the platform drops what then still waits, and nobody would note how a call of the database ended. */
function seeThrough<T>(context: Context, work: Promise<T>): Promise<T> {
  waitUntilOf(context)?.(work.catch(() => undefined))
  return work
}

/** The credential of a request. An issuer that nobody knows is asked of the database, so naming ever new ones is guessing too. */
async function readWelcome(context: Context, services: Services, limiter: RateLimiter): Promise<Credential | null> {
  let asked = false
  try {
    const read = readCredential(context.req.raw, services, () => {
      limiter.requireWelcome(addressOf(context))
      asked = true
    })
    return await (asked ? seeThrough(context, read) : read)
  } catch (error) {
    if (asked) limiter.noteRefusal(addressOf(context), error, ['TOKEN_INVALID'])
    throw error
  }
}

/**
 * Answer one operation. 401 comes before 400: a request that cannot be read is still judged by its
 * credential first, with the one database request that the operation would have cost.
 */
async function answer(context: Context<AppEnv>, operation: Operation, services: Services, limiter: RateLimiter): Promise<Response> {
  const { endpoint } = operation
  const credential = await readWelcome(context, services, limiter)
  if (credential === null) {
    if (endpoint.open) return context.json({ status: 'ok' })
    throw stratumError('AUTHENTICATION_REQUIRED')
  }
  if (credential.type === 'api_key') {
    context.set('apiKey', credential)
    limiter.requireWelcome(addressOf(context), credential)
  }
  const actor: Actor = { credential, named: [], exposed: true, request_id: context.get('requestId'), source_ip: addressOf(context) }
  const readAgain = async () => {
    actor.credential = (await readCredential(context.req.raw, services)) ?? credential
  }
  const facts = context.get('facts')
  const judged = <T>(work: () => Promise<T>) => {
    const done = withStandingIssuer(services, readAgain, work)
    // What is served as it is kept says so at once, and has nothing to see through.
    return facts.context === 'hit' ? done : seeThrough(context, done)
  }
  let input: Record<string, unknown>
  let preview: boolean
  let options: RunOptions
  try {
    // first, as a request that cannot be read costs the database as much as one that can
    await limiter.count(context, credential)
    input = await readInput(context, endpoint)
    preview = wantsPreview(context, endpoint)
    options = {
      ...readRunOptions(context, endpoint),
      asking: { minimumVersion: readMinimumVersion(context), waitUntil: waitUntilOf(context) },
      tell: ({ version, outcome, milliseconds }) => {
        if (outcome) facts.context = outcome
        if (milliseconds !== undefined) facts.database_ms = tenths((facts.database_ms ?? 0) + milliseconds)
        if (version) context.header('stratum-version', version)
        if (outcome) context.header('server-timing', `context;desc=${outcome}`, { append: true })
        if (milliseconds !== undefined) context.header('server-timing', `database;dur=${tenths(milliseconds)}`, { append: true })
        if (outcome === 'stale') context.header('stratum-stale', 'true')
      },
    }
    actor.named = readNamedTenants(context, credential, services)
    Object.assign(facts, namedFacts(credential, actor.named))
  } catch (error) {
    // Who asks too often is told so without the database, which that is to spare.
    if (!(error instanceof StratumError && error.code === 'RATE_LIMITED')) await judged(() => services.db.call('authenticate', actor, {}))
    throw error
  }
  const done = await judged<object>(() =>
    preview ? operation.preview(services, actor, input) : (operation.run(services, actor, input, options) as Promise<object>),
  )
  limiter.noteAccepted(credential)
  return context.json(done, preview ? 200 : endpoint.status)
}

/** What the log says of who asks and for whom; a principal's own name is nobody's but the audit trail's. */
function namedFacts(credential: Credential, named: readonly NamedTenant[]): RequestFacts {
  const claimed = credential.type === 'token' && credential.tenant !== null ? [{ source: 'token', tenant: credential.tenant }] : []
  // An issuer's own name for a tenant may be anything, a person's address too.
  const first = [...named, ...claimed].find(({ tenant }) => TENANT_NAME.test(tenant))
  const sources = [...named, ...claimed].map(({ source }) => source).join(' ')
  return { principal: credential.type, ...(first ? { sources, tenant: first.tenant } : {}) }
}

const addressOf = (context: Context): string | null => context.req.header('cf-connecting-ip') ?? null

/** Guessing keys costs a database request each: an address that was refused too often is not asked about any more. */
async function limited(context: Context<AppEnv>, limiter: RateLimiter, work: () => Promise<Response>): Promise<Response> {
  try {
    return await work()
  } catch (error) {
    limiter.noteRefusal(addressOf(context), error, ['API_KEY_INVALID'], context.get('apiKey'))
    throw error
  }
}

/** The API as a Hono app. It needs only Web APIs. */
export function createApp({ services, corsOrigins = [], limiter = new RateLimiter(), log = () => {}, version }: AppOptions): Hono<AppEnv> {
  const api = emptyApp()
  // Literal segments before parameters: /config/batch is not the key "batch".
  for (const operation of [...operationList].sort((a, b) => (literalFirst(a) < literalFirst(b) ? -1 : 1))) {
    api.on(operation.endpoint.method, operation.endpoint.path, (context) => limited(context, limiter, () => answer(context, operation, services, limiter)))
  }
  const describe = once(() => openApiDocument(endpointList, { version }))
  const docs = once(() => docsPage(describe()))

  const app = emptyApp()
  app.use(requestLog(log))
  const forBrowsers = cors({
    origin: [...corsOrigins],
    allowHeaders: [
      ...['authorization', 'content-type', 'x-api-key', 'x-tenant-id', 'x-request-id', 'idempotency-key', 'if-match', 'stratum-min-version'],
      ...['traceparent', 'tracestate'],
    ],
    exposeHeaders: ['x-request-id', 'retry-after', 'ratelimit', 'ratelimit-policy', 'stratum-version', 'stratum-stale', 'server-timing', 'traceresponse'],
    maxAge: 600,
  })
  // Nobody else sends an origin, and the answer is not kept by anybody whom it would have to vary for.
  app.use((context, next) => (context.req.method === 'OPTIONS' || context.req.raw.headers.has('origin') ? forBrowsers(context, next) : next()))
  app.use((context, next) => {
    context.header('cache-control', 'no-store')
    context.header('x-content-type-options', 'nosniff')
    return next()
  })
  app.get(`${BASE}/openapi.json`, (context) => context.json(describe()))
  app.get('/docs', async (context) => {
    const policy = `default-src 'none'; style-src 'sha256-${await sha256(DOCS_STYLE)}'; base-uri 'none'; form-action 'none'`
    return context.html(docs(), 200, { 'content-security-policy': policy })
  })
  app.get('/', (context) => context.redirect('/docs'))
  app.route(BASE, api)
  app.route(`${services.hosts.pathPrefix}/:named_tenant${BASE}`, api)
  app.notFound((context) => errorResponse(context, stratumError('ROUTE_NOT_FOUND')))
  app.onError((error, context) => errorResponse(context, error instanceof StratumError ? error : stratumError('INTERNAL_ERROR', {}, { cause: error })))
  return app
}
