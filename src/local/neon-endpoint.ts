/**
 * Neon's SQL-over-HTTP protocol in front of any PostgreSQL server, for development and tests: the
 * driver that runs at the edge talks to it exactly as it talks to Neon. Not for production: no
 * TLS, no limits per client.
 */
import { randomUUID } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { ConnectionPool, type PooledConnection } from './neon-pool.ts'
import {
  bareHost,
  batchHeaders,
  errorBody,
  type Payload,
  RequestError,
  type RequestMode,
  readCredentials,
  readMode,
  readPayload,
  type Statement,
  startTransaction,
} from './neon-protocol.ts'
import { asRequestError, isIdle, type OutputBudget, type OutputMode, runStatement } from './neon-query.ts'
import { serveWebSockets } from './neon-websocket.ts'

/** A running endpoint. */
export interface NeonEndpoint {
  /** The TCP port on 127.0.0.1. */
  readonly port: number
  /** For the driver's `neonConfig.fetchEndpoint`, for example http://localhost:4444/sql. */
  readonly url: string
  /** How many POST /sql requests were answered so far, failures too, a batch being one. */
  readonly requests: number
  /** Takes no new requests, finishes those that run, then closes every connection. WebSockets are cut. */
  close(): Promise<void>
}

/** How to start an endpoint. */
export interface NeonEndpointOptions {
  /** Default 127.0.0.1. */
  postgresHost?: string
  postgresPort: number
  /** TCP port to listen on; 0 or absent: a free one. */
  port?: number
  /** Host names a connection string may carry. Default localhost, 127.0.0.1, ::1, db.localtest.me. */
  hosts?: readonly string[]
  /** Default 10 MiB, as Neon. */
  maxRequestBytes?: number
  /** Of all rows of an answer together. Default 10 MiB, as Neon. */
  maxResponseBytes?: number
  /** How long an unused connection to PostgreSQL stays open, in milliseconds. Default 1000. */
  idleTimeoutMs?: number
  /**
   * Default false: each request finds a clean session. True is what Neon really does: settings,
   * temporary tables and session locks stay on the connection for whoever gets it next. For tests
   * that prove nothing leaks.
   */
  keepSessionState?: boolean
  /** Receives a line for each failure that has no place in an answer. */
  log?: (line: string) => void
}

const DEFAULT_HOSTS = ['localhost', '127.0.0.1', '::1', 'db.localtest.me']
const MEBIBYTE = 1024 * 1024
const DEFAULT_MAX_BYTES = 10 * MEBIBYTE
const DEFAULT_IDLE_TIMEOUT_MS = 1000
// Longer than clients keep idle connections, so that none is closed as it is being used again.
const KEEP_ALIVE_MS = 75_000

/**
 * Starts the endpoint and resolves when it listens on 127.0.0.1.
 *
 * @throws Error in one sentence when the port is taken.
 */
export async function startNeonEndpoint(options: NeonEndpointOptions): Promise<NeonEndpoint> {
  const log = options.log ?? (() => {})
  const postgres = { host: options.postgresHost ?? '127.0.0.1', port: options.postgresPort }
  const hosts = new Set((options.hosts ?? DEFAULT_HOSTS).map(bareHost))
  const pool = new ConnectionPool({
    ...postgres,
    idleTimeoutMs: options.idleTimeoutMs ?? DEFAULT_IDLE_TIMEOUT_MS,
    keepSessionState: options.keepSessionState ?? false,
    log,
  })
  const context: Context = {
    pool,
    hosts,
    log,
    maxRequestBytes: options.maxRequestBytes ?? DEFAULT_MAX_BYTES,
    maxResponseBytes: options.maxResponseBytes ?? DEFAULT_MAX_BYTES,
  }
  let requests = 0
  let closing: Promise<void> | undefined
  const server = createServer((request, response) => {
    // Emitted early when the client goes away, and after the answer, when nobody listens any more.
    const gone = new AbortController()
    response.once('close', () => gone.abort())
    void handle(context, request, gone.signal).then((answer) => {
      if (answer.counted) requests += 1
      response.shouldKeepAlive = closing === undefined
      send(response, answer)
    })
  })
  server.keepAliveTimeout = KEEP_ALIVE_MS
  const closeWebSockets = serveWebSockets(server, { ...postgres, hosts, log })
  const port = await listen(server, options.port ?? 0)
  return {
    port,
    url: `http://localhost:${port}/sql`,
    get requests() {
      return requests
    },
    close() {
      closing ??= new Promise<void>((done) => {
        server.close(() => done())
        closeWebSockets()
      }).then(() => pool.close())
      return closing
    },
  }
}

interface Context {
  readonly pool: ConnectionPool
  readonly hosts: ReadonlySet<string>
  readonly log: (line: string) => void
  readonly maxRequestBytes: number
  readonly maxResponseBytes: number
}

interface Answer {
  readonly status: number
  readonly headers: Record<string, string>
  readonly body: string
  /** Whether it answers a POST /sql. */
  readonly counted: boolean
}

const JSON_TYPE = { 'Content-Type': 'application/json' }
const ANY_ORIGIN = { 'Access-Control-Allow-Origin': '*' }
const PREFLIGHT = {
  Allow: 'OPTIONS, POST',
  ...ANY_ORIGIN,
  'Access-Control-Allow-Headers':
    'Authorization, Neon-Connection-String, Neon-Raw-Text-Output, Neon-Array-Mode, Neon-Pool-Opt-In, Neon-Batch-Read-Only, Neon-Batch-Isolation-Level',
  'Access-Control-Max-Age': '86400',
}

/** Answers a request. Never rejects. */
async function handle(context: Context, request: IncomingMessage, gone: AbortSignal): Promise<Answer> {
  const path = request.url?.split('?')[0]
  if (path === '/sql' && request.method === 'OPTIONS') {
    return { status: 200, headers: PREFLIGHT, body: '', counted: false }
  }
  if (path !== '/sql' || request.method !== 'POST') {
    request.resume()
    return { status: 400, headers: JSON_TYPE, body: JSON.stringify('query is not supported'), counted: false }
  }
  const headers = { ...JSON_TYPE, ...ANY_ORIGIN }
  try {
    const { body, extra } = await answerSql(context, request, gone)
    return { status: 200, headers: { ...headers, ...extra }, body, counted: true }
  } catch (error) {
    // What is left of an unwanted body has to be read away, or the client would not see the answer.
    request.resume()
    if (!(error instanceof RequestError)) context.log(`internal error: ${error instanceof Error ? error.stack : String(error)}`)
    const known = error instanceof RequestError ? error : new RequestError(500, 'internal error', error)
    return { status: known.status, headers, body: errorBody(known), counted: true }
  }
}

interface SqlAnswer {
  readonly body: string
  readonly extra: Record<string, string>
}

async function answerSql(context: Context, request: IncomingMessage, gone: AbortSignal): Promise<SqlAnswer> {
  const credentials = readCredentials(request.headers, context.hosts)
  const mode = readMode(request.headers)
  const payload = readPayload(await readBody(request, context.maxRequestBytes))
  const connection = await context.pool.acquire(credentials)
  const cancel = (): void => context.pool.cancel(connection)
  gone.addEventListener('abort', cancel)
  let reusable = false
  try {
    const budget: OutputBudget = { used: 0, max: context.maxResponseBytes }
    const run = payload.batch ? runBatch : runSingle
    const answer = await run(connection, payload, mode, budget, gone)
    reusable = true
    return answer
  } catch (error) {
    // As Neon: a batch that was rolled back leaves a good connection, all else is thrown away.
    reusable = error instanceof RolledBack
    throw error instanceof RolledBack ? error.cause : error
  } finally {
    gone.removeEventListener('abort', cancel)
    // After a cancellation its signal may still be on the way, and would hit the next request.
    context.pool.release(connection, reusable && !gone.aborted && isIdle(connection.client))
  }
}

async function runSingle({ client }: PooledConnection, payload: Payload, mode: RequestMode, budget: OutputBudget, gone: AbortSignal): Promise<SqlAnswer> {
  assertWanted(gone)
  const results = []
  for (const statement of payload.statements) {
    results.push(await runStatement(client, statement, outputMode(statement, mode), budget))
  }
  return { body: results.join(), extra: {} }
}

/** Marks the cause of a batch's failure when its transaction is known to be rolled back. */
class RolledBack extends Error {}

async function runBatch({ client }: PooledConnection, payload: Payload, mode: RequestMode, budget: OutputBudget, gone: AbortSignal): Promise<SqlAnswer> {
  const results = []
  await command(client, startTransaction(mode))
  try {
    for (const statement of payload.statements) {
      assertWanted(gone)
      results.push(await runStatement(client, statement, outputMode(statement, mode), budget))
    }
    assertWanted(gone)
  } catch (cause) {
    // With rows under way there is no rolling back by a statement; where there is no connection
    // there is no need to. Closing it does the same.
    if (cause instanceof RequestError && cause.status === 507) throw cause
    const rolledBack = await command(client, 'ROLLBACK').then(
      () => true,
      () => false,
    )
    throw rolledBack ? new RolledBack('batch rolled back', { cause }) : cause
  }
  await command(client, 'COMMIT')
  return { body: `{"results":[${results.join(',')}]}`, extra: batchHeaders(mode) }
}

async function command(client: PooledConnection['client'], sql: string): Promise<void> {
  await client.query(sql).catch((error: Error) => {
    throw asRequestError(error)
  })
}

function outputMode(statement: Statement, mode: RequestMode): OutputMode {
  return { rawText: mode.rawText, arrayMode: statement.arrayMode ?? mode.arrayMode }
}

function assertWanted(gone: AbortSignal): void {
  if (gone.aborted) throw new RequestError(400, 'Query cancelled, connection was terminated')
}

async function readBody(request: IncomingMessage, max: number): Promise<string> {
  const tooLarge = new RequestError(413, `request is too large (max is ${max} bytes)`)
  if (Number(request.headers['content-length'] ?? 0) > max) throw tooLarge
  const chunks: Buffer[] = []
  let size = 0
  return new Promise((done, fail) => {
    request.on('data', (chunk: Buffer) => {
      size += chunk.length
      if (size > max) fail(tooLarge)
      else chunks.push(chunk)
    })
    request.once('end', () => done(Buffer.concat(chunks).toString('utf8')))
    request.once('error', (cause) => fail(new RequestError(400, `could not read the HTTP request body: ${cause.message}`, cause)))
  })
}

function send(response: ServerResponse, answer: Answer): void {
  response.writeHead(answer.status, {
    ...answer.headers,
    'Neon-Request-Id': randomUUID(),
    'Content-Length': Buffer.byteLength(answer.body),
  })
  response.end(answer.body)
}

function listen(server: Server, port: number): Promise<number> {
  return new Promise((done, fail) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const taken = error.code === 'EADDRINUSE'
      fail(taken ? new Error(`Port ${port} is already in use: choose another for the Neon endpoint with --port.`) : error)
    })
    server.listen(port, '127.0.0.1', () => {
      const address = server.address()
      done(typeof address === 'object' && address !== null ? address.port : port)
    })
  })
}
