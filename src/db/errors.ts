import { stratumError } from '../core/error-classes.ts'
import { type ErrorDetails, isErrorCode, StratumError } from '../core/errors.ts'

/** What a driver tells of a failure. */
export interface DriverError {
  code?: string | undefined
  message?: string | undefined
  detail?: string | undefined
}

const asDriverError = (error: unknown): DriverError => {
  if (error === null || typeof error !== 'object') return {}
  const { code, message, detail } = error as Record<string, unknown>
  const text = (value: unknown) => (typeof value === 'string' ? value : undefined)
  return { code: text(code), message: text(message), detail: text(detail) }
}

const parseDetails = (detail: string | undefined): ErrorDetails => {
  const parsed: unknown = JSON.parse(detail ?? '{}')
  return parsed !== null && typeof parsed === 'object' ? (parsed as ErrorDetails) : {}
}

/** A code of the server's; `EPIPE` and its like, of the operating system, hold no digit. */
export const isSqlState = (code: string | undefined): code is string => code !== undefined && /^(?=.*\d)[0-9A-Z]{5}$/.test(code)

/**
 * lock_not_available, deadlock_detected, serialization_failure: rolled back, and likely to pass next time. And
 * no_data_found: what was authorized had gone before it was read, a purge being between; the next try says so.
 */
export const isTransient = (error: unknown): boolean => ['55P03', '40P01', '40001', 'P0002'].includes(asDriverError(error).code ?? '')

/** The server said no before running anything: login, missing database, too many connections, shutdown. */
const isUnavailable = (sqlState: string) => /^(08|28|57P|53)/.test(sqlState) || sqlState === '3D000'
/** A function, table or schema that this version calls is not there, or not granted to the role. */
const isOutdated = (sqlState: string) => ['42883', '42P01', '3F000', '42501'].includes(sqlState)

/**
 * The error of the catalogue for whatever a driver threw. SQL, parameters and the server's own words stay
 * in `cause`, which never leaves the process.
 */
export function fromDriver(error: unknown): StratumError {
  if (error instanceof StratumError) return error
  const { code, message, detail } = asDriverError(error)
  const because = { cause: error }
  if (code === 'STRAT') return isErrorCode(message) ? stratumError(message, parseDetails(detail)) : stratumError('INTERNAL_ERROR', {}, because)
  if (isTransient(error) || code === '57014') return stratumError('DATABASE_BUSY', {}, because)
  // Neon's own word for an answer over its limit, and Postgres's for a value over its own.
  if (code === '54000' || message?.includes('HTTP status 507')) return stratumError('ANSWER_TOO_LARGE', {}, because)
  if (!isSqlState(code) || isUnavailable(code)) return stratumError('DATABASE_UNAVAILABLE', {}, because)
  if (isOutdated(code)) return stratumError('DATABASE_OUTDATED', {}, because)
  return stratumError('INTERNAL_ERROR', {}, because)
}

/** The server refused a statement and goes on listening. */
export const leavesConnectionUsable = (error: unknown): boolean => {
  const { code } = asDriverError(error)
  return code === 'STRAT' || (isSqlState(code) && !isUnavailable(code))
}

/** Run a call; once more if it was rolled back by a lock, a deadlock or a serialization failure. */
export async function withOneRetry<T>(attempt: () => Promise<T>): Promise<T> {
  try {
    return await attempt()
  } catch (first) {
    if (!isTransient(first)) throw fromDriver(first)
  }
  try {
    return await attempt()
  } catch (second) {
    throw fromDriver(second)
  }
}

/**
 * The one statement of an operation. The name comes from a contract, never from a request. The version is asked for
 * around the call, as within one list of columns nothing says which is computed first.
 */
export const callStatement = (operation: string): string => {
  if (!/^[a-z_]+$/.test(operation)) throw new TypeError(`not the name of an operation: ${operation}`)
  return `select answer, pg_current_xact_id_if_assigned()::text as version from (select stratum.${operation}($1::jsonb, $2::jsonb) as answer offset 0) as call`
}
