/** How a request wants its operation run: shown and not done, done only as it was shown, or done once. */
import type { Context } from 'hono'
import { type Endpoint, isDoneOnce } from '../core/endpoint.ts'
import { stratumError } from '../core/error-classes.ts'
import type { RunOptions } from '../features/operation.ts'

const refuse = (path: string, message: string) => stratumError('INVALID_REQUEST', { reason: `${path}: ${message}`, issues: [{ path, message }] })

/** Is this a dry run? @throws INVALID_REQUEST for another value than true or false, or where there is none to be had */
export function wantsPreview(context: Context, endpoint: Endpoint): boolean {
  const asked = context.req.queries('dry_run')
  if (asked === undefined) return false
  if (!endpoint.preview) throw refuse('dry_run', 'this operation cannot be shown without being done')
  if (asked.length !== 1 || !/^(true|false)$/.test(asked[0] ?? '')) throw refuse('dry_run', 'must be true or false')
  return asked[0] === 'true'
}

/** The version that an answer has to hold at least, as a write answered it in `Stratum-Version`. @throws INVALID_REQUEST */
export function readMinimumVersion(context: Context): string | undefined {
  const given = context.req.header('stratum-min-version')
  if (given !== undefined && !/^\d{1,19}$/.test(given)) throw refuse('Stratum-Min-Version', 'must be what an answer said in Stratum-Version')
  return given
}

/** `Idempotency-Key` of a POST that changes something, and `If-Match` of what can be shown. @throws INVALID_REQUEST */
export function readRunOptions(context: Context, endpoint: Endpoint): RunOptions {
  const key = isDoneOnce(endpoint) ? context.req.header('idempotency-key') : undefined
  const match = endpoint.preview ? context.req.header('if-match') : undefined
  if (key !== undefined && !/^[\x21-\x7e]{1,255}$/.test(key)) throw refuse('Idempotency-Key', 'must be 1 to 255 visible ASCII characters')
  if (key !== undefined && match !== undefined) throw refuse('If-Match', 'must not be sent with Idempotency-Key')
  return { ...(key === undefined ? {} : { idempotencyKey: key }), ...(match === undefined ? {} : { ifMatch: match.replace(/^(W\/)?"(.*)"$/, '$2') }) }
}
