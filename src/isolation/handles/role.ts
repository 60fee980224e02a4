/** Whether the role of a connection may serve tenants' rows at all. */
import type pg from 'pg'
import { stratumError } from '../../core/error-classes.ts'
import { fromDriver } from '../../db/errors.ts'

/** Fails with DATA_ROLE_REFUSED where the role is unfit, else answers no row. */
export const CHECK_ROLE = `select stratum_guard.fail('DATA_ROLE_REFUSED', pg_catalog.jsonb_build_object('role', session_user, 'reason', problem))
from stratum_guard.role_problem() as problem where problem is not null`

/** The catalogue's error for a check that failed; other errors as they are. */
export function roleRefusal(error: unknown): unknown {
  const { code, message } = error as { code?: unknown; message?: unknown }
  if (code === 'STRAT') return fromDriver(error)
  // Not the caller's own tables or functions, which over HTTP fail in the same batch.
  if (!String(message).includes('stratum_guard')) return error
  if (code === '42501') {
    const details = { role: 'of this connection', reason: 'it was given no right to enter (schema stratum_guard)' }
    return stratumError('DATA_ROLE_REFUSED', details, { cause: error })
  }
  // 3F000, 42883: there is no guard here.
  return code === '3F000' || code === '42883' ? fromDriver(error) : error
}

/** Asks once for each connection: what a role may do does not change under a running process without new connections. */
export function roleCheck(): (client: pg.ClientBase) => Promise<void> {
  const checked = new WeakSet<pg.ClientBase>()
  return async (client) => {
    if (checked.has(client)) return
    if (typeof client.getTransactionStatus !== 'function') {
      throw stratumError('CONFIGURATION_INVALID', {
        reason: 'This pool comes from a version of pg that createTenantPool cannot use. Install the one that stratum-edge depends on, or a newer one.',
      })
    }
    await client.query(CHECK_ROLE).catch((error: unknown) => {
      throw roleRefusal(error)
    })
    checked.add(client)
  }
}
