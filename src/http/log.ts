import type { MiddlewareHandler } from 'hono'
import { routePath } from 'hono/route'
import { StratumError } from '../core/errors.ts'
import { traceOf } from './trace.ts'

/** One line of the log. Never a header, a body or a query: these may hold secrets. */
export interface LogLine {
  level: 'info' | 'error'
  request_id: string
  method: string
  /** The route's pattern, not the path that was asked for. */
  route: string
  status: number
  duration_ms: number
  /** Of the W3C trace context: the caller's, or one that begins here. */
  trace_id: string
  /** What kind of principal asked: `api_key`, `token` or, at the gateway, `visitor`. */
  principal?: string
  /** What named the tenant, in the order in which it was judged, and the first name. */
  sources?: string
  tenant?: string
  /** Where a kept context came from. */
  context?: 'hit' | 'miss' | 'stale'
  /** Milliseconds spent waiting for the database. */
  database_ms?: number
  code?: string
  /** What went wrong underneath; only for 5xx. */
  cause?: string
}
export type Log = (line: LogLine) => void

/** What is found out while a request is answered. */
export type RequestFacts = Pick<LogLine, 'principal' | 'sources' | 'tenant' | 'context' | 'database_ms'>

/** Milliseconds with one digit after the point. */
export const tenths = (milliseconds: number): number => Math.round(milliseconds * 10) / 10

/** Give every request an id (the caller's, if it is a plain one), answer it back, and log the outcome. */
export const requestLog =
  (log: Log): MiddlewareHandler<{ Variables: { requestId: string; facts: RequestFacts } }> =>
  async (context, next) => {
    const given = context.req.header('x-request-id')
    const requestId = given && /^[\w.:-]{1,128}$/.test(given) ? given : crypto.randomUUID()
    const { id: traceId } = traceOf(context.req.header('traceparent'))
    context.set('requestId', requestId)
    context.set('facts', {})
    // Before the answer is made, as all headers that are known by then: each one set on it makes it anew.
    context.header('x-request-id', requestId)
    // The trace goes on in the answer: https://w3c.github.io/trace-context/#traceresponse-header
    context.header('traceresponse', `00-${traceId}-${crypto.randomUUID().replaceAll('-', '').slice(16)}-00`)
    const started = performance.now()
    await next()
    const { status } = context.res
    const error = context.error
    log({
      level: status >= 500 ? 'error' : 'info',
      request_id: requestId,
      method: context.req.method,
      route: routePath(context, -1),
      status,
      duration_ms: tenths(performance.now() - started),
      trace_id: traceId,
      ...context.get('facts'),
      ...(error instanceof StratumError ? { code: error.code } : {}),
      ...(status >= 500 && error ? { cause: describeCause(error) } : {}),
    })
  }

/**
 * The kind of failure. A server's own words may quote what it was sent: of the database's only the SQLSTATE
 * is told, of others what stands before a colon.
 */
export function describeCause(error: Error): string {
  const cause = error.cause instanceof Error ? error.cause : error
  const { code } = cause as { code?: unknown }
  if (typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code)) return `SQLSTATE ${code}`
  // Where there was no connection, Neon's driver carries the whole answer of its endpoint after the colon.
  const [, state, system] = /"code":"([0-9A-Z]{5})"|\b(E(?:CONN[A-Z]+|TIMEDOUT|NOTFOUND|HOSTUNREACH))\b/.exec(cause.message) ?? []
  const known = state ? ` SQLSTATE ${state}` : system ? ` ${system}` : ''
  return `${cause.name}: ${cause.message.split(':')[0]?.slice(0, 200)}${known}`
}
