/**
 * The words of Neon's SQL-over-HTTP protocol: what a request carries and what an error looks like.
 * Messages and status codes are those of Neon's proxy, letter for letter.
 */
import type { IncomingHttpHeaders } from 'node:http'
import { DatabaseError } from 'pg'

/** Where a request wants to go, from its connection string. */
export interface Credentials {
  readonly user: string
  readonly password: string
  readonly database: string
}

/** One statement of a request. Parameters are text as PostgreSQL reads it, or null. */
export interface Statement {
  readonly query: string
  readonly params: readonly (string | null)[]
  /** Undefined: as the request's header says. */
  readonly arrayMode: boolean | undefined
}

/** A request's body: a single statement, or several that are one transaction. */
export interface Payload {
  readonly batch: boolean
  readonly statements: readonly Statement[]
}

/** A request's headers that change how it runs and how its answer looks. */
export interface RequestMode {
  readonly rawText: boolean
  readonly arrayMode: boolean
  /** For example `RepeatableRead`; undefined: the server's default. */
  readonly isolationLevel: string | undefined
  readonly readOnly: boolean
  readonly deferrable: boolean
}

/** A failure with the HTTP answer it becomes; `cause` is a DatabaseError when PostgreSQL said it. */
export class RequestError extends Error {
  readonly status: number

  constructor(status: number, message: string, cause?: unknown) {
    super(message, { cause })
    this.name = 'RequestError'
    this.status = status
  }
}

const ISOLATION_LEVELS: Readonly<Record<string, string>> = {
  Serializable: 'SERIALIZABLE',
  ReadUncommitted: 'READ UNCOMMITTED',
  ReadCommitted: 'READ COMMITTED',
  RepeatableRead: 'REPEATABLE READ',
}

/**
 * Reads the `Neon-Connection-String` header. Its query part (application_name, options, sslmode)
 * is ignored over HTTP, as Neon does.
 *
 * @param hosts the host names it may carry, in lower case, IPv6 addresses without brackets
 * @throws RequestError 400 with Neon's sentence.
 */
export function readCredentials(headers: IncomingHttpHeaders, hosts: ReadonlySet<string>): Credentials {
  const header = headers['neon-connection-string']
  if (typeof header !== 'string' || /[^\t\x20-\x7e]/.test(header)) {
    throw new RequestError(400, 'invalid header: neon-connection-string')
  }
  let url: URL
  try {
    url = new URL(header)
  } catch (cause) {
    throw new RequestError(400, 'invalid connection string: relative URL without a base', cause)
  }
  if (url.protocol !== 'postgres:' && url.protocol !== 'postgresql:') throw new RequestError(400, 'incorrect scheme')
  if (!url.pathname.startsWith('/')) throw new RequestError(400, 'missing database name')
  const user = decode(url.username, 'invalid username')
  if (user === '') throw new RequestError(400, 'missing username')
  if (headers.authorization !== undefined || url.password === '') {
    throw new RequestError(400, 'missing authentication credentials: required password')
  }
  const host = bareHost(url.hostname)
  if (host === '') throw new RequestError(400, 'missing hostname')
  if (!hosts.has(host)) {
    throw new RequestError(400, "The requested endpoint could not be found, or you don't have access to it. Please check the provided ID and try again.")
  }
  // PostgreSQL takes an empty database name for the user's own.
  const database = decode(url.pathname.split('/')[1] ?? '', 'invalid database name') || user
  return { user, password: decode(url.password, 'invalid password'), database }
}

/** A host name in the form the allowed ones are kept in. */
export function bareHost(host: string): string {
  return host.toLowerCase().replace(/^\[|\]$/g, '')
}

function decode(text: string, complaint: string): string {
  try {
    return decodeURIComponent(text)
  } catch (cause) {
    throw new RequestError(400, `${complaint}: invalid utf-8 sequence`, cause)
  }
}

/**
 * Reads the mode headers. As with Neon, anything but exactly `true` means false.
 *
 * @throws RequestError 400 for an isolation level Neon does not know.
 */
export function readMode(headers: IncomingHttpHeaders): RequestMode {
  const isolationLevel = headers['neon-batch-isolation-level']
  if (isolationLevel !== undefined && (typeof isolationLevel !== 'string' || !Object.hasOwn(ISOLATION_LEVELS, isolationLevel))) {
    throw new RequestError(400, 'invalid isolation level')
  }
  return {
    rawText: headers['neon-raw-text-output'] === 'true',
    arrayMode: headers['neon-array-mode'] === 'true',
    isolationLevel,
    readOnly: headers['neon-batch-read-only'] === 'true',
    deferrable: headers['neon-batch-deferrable'] === 'true',
  }
}

/** The statement that begins a batch's transaction. */
export function startTransaction(mode: RequestMode): string {
  const level = mode.isolationLevel === undefined ? undefined : ISOLATION_LEVELS[mode.isolationLevel]
  const modes = [level && `ISOLATION LEVEL ${level}`, mode.readOnly && 'READ ONLY', mode.deferrable && 'DEFERRABLE']
  return ['START TRANSACTION', modes.filter(Boolean).join(', ')].join(' ').trim()
}

/** The headers by which the answer to a batch repeats the modes it ran in. */
export function batchHeaders(mode: RequestMode): Record<string, string> {
  return {
    ...(mode.readOnly ? { 'Neon-Batch-Read-Only': 'true' } : {}),
    ...(mode.deferrable ? { 'Neon-Batch-Deferrable': 'true' } : {}),
    ...(mode.isolationLevel === undefined ? {} : { 'Neon-Batch-Isolation-Level': mode.isolationLevel }),
  }
}

/**
 * Reads a request's body.
 *
 * @throws RequestError 400 when it is not JSON, or not of a known shape.
 */
export function readPayload(body: string): Payload {
  let value: unknown
  try {
    value = JSON.parse(body, keepNumberText)
  } catch (cause) {
    throw new RequestError(400, `could not parse the HTTP request body: ${cause instanceof Error ? cause.message : String(cause)}`, cause)
  }
  const single = readStatement(value)
  if (single) return { batch: false, statements: [single] }
  if (isObject(value) && Array.isArray(value.queries)) {
    const statements = value.queries.map(readStatement)
    if (statements.every((statement) => statement !== undefined)) return { batch: true, statements }
  }
  throw new RequestError(400, 'could not parse the HTTP request body: data did not match any variant of untagged enum Payload')
}

function readStatement(value: unknown): Statement | undefined {
  if (!isObject(value)) return undefined
  const { query, params = [], arrayMode } = value
  if (typeof query !== 'string' || !Array.isArray(params)) return undefined
  if (arrayMode !== undefined && arrayMode !== null && typeof arrayMode !== 'boolean') return undefined
  return { query, params: params.map(parameterText), arrayMode: arrayMode ?? undefined }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

// Of Node 22 and later; not in the language's declarations yet. A raw number keeps the digits it
// was written with and writes them again.
const { rawJSON, isRawJSON } = JSON as unknown as { rawJSON(text: string): object; isRawJSON(value: unknown): boolean }

function keepNumberText(this: unknown, _key: string, value: unknown, context?: { source?: string }): unknown {
  const source = context?.source
  return typeof value === 'number' && source !== undefined && String(value) !== source ? rawJSON(source) : value
}

/** A JSON parameter as PostgreSQL's input functions read it: arrays as array literals, objects as JSON. */
function parameterText(value: unknown): string | null {
  if (value === null) return null
  if (typeof value === 'string') return value
  return Array.isArray(value) ? arrayLiteral(value) : JSON.stringify(value)
}

function arrayLiteral(values: readonly unknown[]): string {
  const items = values.map((value) => {
    if (value === null) return 'NULL'
    if (Array.isArray(value)) return arrayLiteral(value)
    // JSON's quoting is also that of array literals. An object goes in as the string of its JSON.
    const text = JSON.stringify(value)
    return isObject(value) && !isRawJSON(value) ? JSON.stringify(text) : text
  })
  return `{${items.join(',')}}`
}

/** The JSON body of an error. Fields are null when PostgreSQL did not send them; the driver needs all. */
export function errorBody(error: RequestError): string {
  const db = error.cause instanceof DatabaseError ? error.cause : undefined
  // Neon knows one position only: in the statement, else in the query a function ran inside.
  const internal = db?.position === undefined ? db?.internalPosition : undefined
  return JSON.stringify({
    message: error.message,
    code: db?.code ?? '',
    detail: db?.detail ?? null,
    hint: db?.hint ?? null,
    position: db?.position ?? null,
    internalPosition: internal ?? null,
    internalQuery: internal === undefined ? null : (db?.internalQuery ?? null),
    severity: db?.severity ?? '',
    where: db?.where ?? null,
    table: db?.table ?? null,
    column: db?.column ?? null,
    schema: db?.schema ?? null,
    dataType: db?.dataType ?? null,
    constraint: db?.constraint ?? null,
    file: db?.file ?? null,
    line: db?.line ?? null,
    routine: db?.routine ?? null,
  })
}
