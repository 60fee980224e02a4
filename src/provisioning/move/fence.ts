/**
 * The cutover. New batches of the tenant wait for its lock, or find it fenced; those under way have ended when the lock
 * is had. So nothing more is written at the source, and when the last changes are brought over and checked, everybody
 * is sent to the target.
 */
import { stratumError } from '../../core/error-classes.ts'
import { literal } from '../../isolation/identifiers.ts'
import { countCaptured } from './capture.ts'
import { compareShapes } from './compare.ts'
import { bringOver, catchUp } from './follow.ts'
import type { Route, Running } from './running.ts'
import { advanceSequences } from './sequences.ts'

/** Whether everybody was sent to the target is not known, as the connection broke while it was committed. */
export class OutcomeUnknown extends Error {}

/** lock_not_available, deadlock_detected, serialization_failure, query_canceled: another try may pass. */
const PASSING = new Set(['55P03', '40P01', '40001', '57014'])

const hasOwnRoute = (running: Running) => running.move.target.strategy === 'DB_PER_TENANT'

const setFenced = ({ source, tenantId }: Running, fenced: boolean) =>
  source.query('update stratum_guard.route set fenced = $2 where tenant_id = $1 and fenced <> $2', [tenantId, fenced])

/** Let batches begin at the source again; whoever has been sent to the target by a broken cutover is refused there. */
export async function reopen(running: Running): Promise<void> {
  if (hasOwnRoute(running)) await running.target.query('update stratum_guard.route set fenced = true where tenant_id = $1', [running.tenantId])
  await setFenced(running, false)
}

/** Open the target's own database to batches that come with the version of the new place. */
async function openTarget(running: Running, { status, routing_version }: Route) {
  if (!hasOwnRoute(running)) return
  await running.target.query(
    `insert into stratum_guard.route (tenant_id, routing_version, status, fenced) values ($1, $2, $3, false)
     on conflict (tenant_id) do update set routing_version = excluded.routing_version, status = excluded.status, fenced = false, database_name = null, schema_name = null`,
    [running.tenantId, routing_version, status],
  )
}

/** Wait for the batches that are under way, as long as new ones may be kept waiting. */
async function lock({ source, tenantId, move }: Running): Promise<boolean> {
  try {
    await source.query(`set lock_timeout = ${move.limits.fenceWaitMs}; select pg_advisory_lock(stratum_guard.lock_key(${literal(tenantId)}))`)
    return true
  } catch (error) {
    if ((error as { code?: string }).code !== '55P03') throw error
    return false
  } finally {
    await source.query(`set lock_timeout = '10s'`)
  }
}

const unlock = ({ source, tenantId }: Running) => source.query('select pg_advisory_unlock(stratum_guard.lock_key($1))', [tenantId])

/** What is done while the tenant waits. @returns whether everybody was sent to the target */
async function whileFenced(running: Running): Promise<boolean> {
  const { move, source, tenantId } = running
  await setFenced(running, true)
  await move.server.step('move: fenced')
  if ((await countCaptured(source, tenantId, move.limits.fencedKeys + 1)) > move.limits.fencedKeys) return false
  await bringOver(running, { check: true })
  await move.server.step('move: last changes')
  if (!(await advanceSequences(running, { greatest: false, briefly: true }))) return false
  await compareShapes(running)
  await move.switchOver((route) => openTarget(running, route))
  return true
}

/** One try. @returns the milliseconds that the tenant waited, or null when it goes on at the source */
async function attempt(running: Running): Promise<number | null> {
  const started = performance.now()
  if (!(await lock(running))) return null
  let switched = false
  try {
    switched = await whileFenced(running)
  } catch (error) {
    // What was committed cannot be taken back: the next try looks which it was.
    if (error instanceof OutcomeUnknown) throw error
    await reopen(running)
    if (!PASSING.has((error as { code?: string }).code ?? '')) throw error
  }
  if (!switched) await reopen(running)
  await unlock(running)
  return switched ? Math.round(performance.now() - started) : null
}

/**
 * Send everybody to the target. Where batches under way end too late, or too much changed, the tenant goes on at the
 * source, and it is tried again a little later.
 *
 * @returns the milliseconds in which no batch of the tenant could begin
 * @throws DATABASE_BUSY when no try succeeded
 */
export async function cutOver(running: Running): Promise<number> {
  const { move } = running
  for (let tried = 0; tried < move.limits.fenceTries; tried++) {
    await catchUp(running, true)
    await move.checkpoint('move: before the fence')
    const fencedMs = await attempt(running)
    if (fencedMs !== null) return fencedMs
    await new Promise((resolve) => setTimeout(resolve, Math.min(50 * (tried + 1), 2_000)))
  }
  throw stratumError('DATABASE_BUSY')
}
