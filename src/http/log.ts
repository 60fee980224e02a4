import type { MiddlewareHandler } from 'hono'
import { routePath } from 'hono/route'
import { StratumError } from '../core/errors.ts'

/** One line of the log. Never a header, a body or a query: these may hold secrets. */
export interface LogLine {
  level: 'info' | 'error'
  request_id: string
  method: string
  /** The route's pattern, not the path that was asked for. */
  route: string
  status: number
  duration_ms: number
  code?: string
  /** What went wrong underneath; only for 5xx. */
  cause?: string
}
export type Log = (line: LogLine) => void

/** Give every request an id (the caller's, if it is a plain one), answer it back, and log the outcome. */
export const requestLog =
  (log: Log): MiddlewareHandler<{ Variables: { requestId: string } }> =>
  async (context, next) => {
    const given = context.req.header('x-request-id')
    const requestId = given && /^[\w.:-]{1,128}$/.test(given) ? given : crypto.randomUUID()
    context.set('requestId', requestId)
    const started = performance.now()
    await next()
    context.header('x-request-id', requestId)
    const { status } = context.res
    const error = context.error
    log({
      level: status >= 500 ? 'error' : 'info',
      request_id: requestId,
      method: context.req.method,
      route: routePath(context, -1),
      status,
      duration_ms: Math.round((performance.now() - started) * 10) / 10,
      ...(error instanceof StratumError ? { code: error.code } : {}),
      ...(status >= 500 && error ? { cause: describeCause(error) } : {}),
    })
  }

/**
 * The kind of failure. A server's own words may quote what it was sent: of the database's only the SQLSTATE
 * is told, of others what stands before a colon.
 */
function describeCause(error: Error): string {
  const cause = error.cause instanceof Error ? error.cause : error
  const { code } = cause as { code?: unknown }
  return typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code) ? `SQLSTATE ${code}` : `${cause.name}: ${cause.message.split(':')[0]?.slice(0, 200)}`
}
