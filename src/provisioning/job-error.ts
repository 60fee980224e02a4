/** What is kept of a job's failure: a code of the catalogue and its sentence. What the server said goes to the log. */
import { stratumError } from '../core/error-classes.ts'
import { StratumError } from '../core/errors.ts'
import { fromDriver, isSqlState } from '../db/errors.ts'

/** The driver's own errors carry no code. */
const CONNECTION_LOST =
  /^(Connection terminated|timeout expired|timeout exceeded|Client was closed|Client has encountered a connection error|Query read timeout)/

/** Of no connection, or one that broke. Where a host has several addresses the error is one of all of them, with a code and no message. */
function isOfConnection(error: unknown): boolean {
  const { syscall, message = '' } = (error ?? {}) as { syscall?: unknown; message?: string }
  if (error instanceof AggregateError) return error.errors.length > 0 && error.errors.every(isOfConnection)
  return typeof syscall === 'string' || CONNECTION_LOST.test(message)
}

/** The error of the catalogue for whatever a task threw. */
function fromTask(error: unknown): StratumError {
  if (error instanceof StratumError) return error
  const { code } = (error ?? {}) as { code?: unknown }
  const ofDatabase = (typeof code === 'string' && isSqlState(code)) || code === 'STRAT' || isOfConnection(error)
  return ofDatabase ? fromDriver(error) : stratumError('INTERNAL_ERROR', {}, { cause: error })
}

export interface JobError {
  code: string
  message: string
}

export function jobErrorOf(error: unknown): JobError {
  const { code, message } = fromTask(error)
  return { code, message: code === 'INTERNAL_ERROR' ? 'Something went wrong in the provisioner. Its log says what, under the id of this job.' : message }
}

/** What the log says of an error: no values of rows (`detail`), no statement, no parameters; of a database that is away no stack, which is always the same. */
export function describeError(error: unknown): object {
  const root = error instanceof StratumError && error.cause !== undefined ? error.cause : error
  if (!(root instanceof Error)) return { message: String(root) }
  const { code, severity, routine } = root as { code?: string; severity?: string; routine?: string }
  const away = fromTask(root).code === 'DATABASE_UNAVAILABLE'
  return { name: root.name, message: root.message, code, severity, routine, ...(away ? {} : { stack: root.stack }) }
}
