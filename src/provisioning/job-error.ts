/** What is kept of a job's failure: a code of the catalogue and its sentence. What the server said goes to the log. */
import { stratumError } from '../core/error-classes.ts'
import { StratumError } from '../core/errors.ts'
import { fromDriver, isSqlState } from '../db/errors.ts'

/** The driver's own errors carry no code. */
const CONNECTION_LOST =
  /^(Connection terminated|timeout expired|timeout exceeded|Client was closed|Client has encountered a connection error|Query read timeout)/

/** The error of the catalogue for whatever a task threw. */
function fromTask(error: unknown): StratumError {
  if (error instanceof StratumError) return error
  const { code, message = '', syscall } = (error ?? {}) as { code?: unknown; message?: string; syscall?: unknown }
  const ofDatabase = (typeof code === 'string' && isSqlState(code)) || code === 'STRAT' || typeof syscall === 'string' || CONNECTION_LOST.test(message)
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

/** What the log says of an error: no values of rows (`detail`), no statement, no parameters. */
export function describeError(error: unknown): object {
  const root = error instanceof StratumError && error.cause !== undefined ? error.cause : error
  if (!(root instanceof Error)) return { message: String(root) }
  const { code, severity, routine } = root as { code?: string; severity?: string; routine?: string }
  return { name: root.name, message: root.message, code, severity, routine, stack: root.stack }
}
