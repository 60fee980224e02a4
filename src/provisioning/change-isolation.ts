/** Changing how a tenant is isolated: its rows are moved while it works, and then everybody is sent to the new place. */
import type pg from 'pg'
import { stratumError } from '../core/error-classes.ts'
import { StratumError } from '../core/errors.ts'
import { isSqlState } from '../db/errors.ts'
import { type ManagedTable, readManagedTables } from '../isolation/catalog.ts'
import { COPIES_LOCK } from '../isolation/copies.ts'
import { type IsolationStrategy, type Place, schemaOf } from '../isolation/place.ts'
import { jobErrorOf } from './job-error.ts'
import { withTenantLock } from './lock.ts'
import { forgetCaptured, stopCapture } from './move/capture.ts'
import { OutcomeUnknown } from './move/fence.ts'
import { moveRows } from './move/move.ts'
import { LIMITS, type Limits, type Move, type Progress, type Route } from './move/running.ts'
import { movedTables } from './move/tables.ts'
import { dropPlace, type Server, withPlace } from './places.ts'
import { rollbackWindow } from './rollback-window.ts'
import type { Task, TaskContext } from './task.ts'

interface Change {
  id: string
  tenant_id: string
  from_strategy: IsolationStrategy
  from_name: string | null
  to_strategy: IsolationStrategy
  to_name: string | null
  phase: Progress['phase'] | 'done' | 'cancelled'
  progress: Partial<Pick<Progress, 'tables'>>
}

export interface ChangeOptions {
  limits?: Partial<Limits>
  /** How long the rows stay at the old place, as an interval of Postgres. Default 24 hours. */
  keepFor?: string | undefined
}

/** The change was called off. */
class CalledOff extends Error {}

/** Trying the same again would fail again: the change ends, and what it made is removed. */
const LASTING = new Set(['COPY_DIFFERS', 'PLACE_NOT_OURS', 'PLACE_REFUSED', 'DATABASE_LIMIT_REACHED'])

const placesOf = (change: Change): { source: Place; target: Place } => ({
  source: { strategy: change.from_strategy, name: change.from_name },
  target: { strategy: change.to_strategy, name: change.to_name },
})

const isGone = (error: unknown) => (error as { code?: string }).code === '3D000'

/** Take the triggers of a change off its source; a database that was dropped meanwhile has none. */
async function endCapture(server: Server, change: Change, tables: readonly ManagedTable[]) {
  const { source, target } = placesOf(change)
  try {
    await withPlace(server, change.tenant_id, source, async (client) => {
      const there = await client.query<{ name: string }>(
        `select relname as name from pg_class where relnamespace = to_regnamespace(quote_ident($1)) and relkind = 'r'`,
        [schemaOf(source)],
      )
      const present = tables.filter((table) => there.rows.some((row) => row.name === table.name))
      await stopCapture(client, movedTables(present, schemaOf(source), schemaOf(target)), change.id)
      const { rowCount } = await server.pool.query('select 1 from stratum.isolation_changes where tenant_id = $1 and finished_at is null and id <> $2', [
        change.tenant_id,
        change.id,
      ])
      // What a later change noted is not this one's to forget.
      if (rowCount === 0) await forgetCaptured(client, change.tenant_id)
    })
  } catch (error) {
    if (!isGone(error)) throw error
  }
}

/** Remove all that a change made; the tenant stays where it is. */
async function undo(server: Server, change: Change, tables: readonly ManagedTable[], endedAs: 'failed' | 'cancelled', reason: unknown) {
  const { source, target } = placesOf(change)
  const { rows } = await server.pool.query<Place>('select isolation_strategy as strategy, isolation_name as name from stratum.tenants where id = $1', [
    change.tenant_id,
  ])
  if (rows[0]?.strategy === target.strategy && rows[0].name === target.name) throw new Error('A change of isolation that is done cannot be undone.')
  await withPlace(server, change.tenant_id, source, (client) =>
    client.query('update stratum_guard.route set fenced = false where tenant_id = $1 and fenced', [change.tenant_id]),
  )
  await endCapture(server, change, tables)
  await server.step('change_isolation: no longer capturing')
  await dropPlace(server, change.tenant_id, target).catch((error: { code?: string }) => {
    // somebody else's, which the change ended at
    if (error.code !== 'PLACE_NOT_OURS') throw error
  })
  await server.step('change_isolation: removed')
  await server.pool.query('select stratum.abandon_isolation_change($1, $2, $3)', [change.id, endedAs, reason === null ? null : JSON.stringify(reason)])
}

/** The transaction that sends everybody to the new place, on the connection that holds the tenant's lock: it ends with it. */
async function switchOver(
  control: pg.ClientBase,
  server: Server,
  change: Change,
  tables: readonly ManagedTable[],
  keepFor: string,
  open: (route: Route) => Promise<void>,
) {
  try {
    // The tenant waits meanwhile; whatever holds a lock for longer is let by.
    await control.query(`begin; set local lock_timeout = '300ms'; select pg_advisory_xact_lock_shared(${COPIES_LOCK})`)
    if (JSON.stringify(await readManagedTables(control)) !== JSON.stringify(tables))
      throw stratumError('COPY_DIFFERS', { table: 'which the application has changed meanwhile' })
    const { rows } = await control.query<{ route: { status: string; cancelled: boolean; routing_version: number } }>(
      'select stratum.lock_isolation_change($1) as route',
      [change.id],
    )
    const [found] = rows
    if (!found || found.route.cancelled) throw new CalledOff()
    await open(found.route)
    await server.step('change_isolation: open')
    await control.query('select stratum.switch_isolation($1, $2)', [change.id, keepFor])
  } catch (error) {
    await control.query('rollback')
    throw error
  }
  await control.query('commit').catch((error: { code?: string }) => {
    if (isSqlState(error.code) && !error.code.startsWith('57P')) throw error
    throw new OutcomeUnknown('the connection broke at the commit of a cutover', { cause: error })
  })
}

async function moveOver(control: pg.ClientBase, context: TaskContext, change: Change, tables: readonly ManagedTable[], options: ChangeOptions) {
  const { server } = context
  const keepFor = options.keepFor ?? rollbackWindow()
  const checkpoint = async (name: string) => {
    await server.step(name)
    if (await context.cancelled()) throw new CalledOff()
  }
  const store = async ({ phase, tables: of }: Progress) => {
    await control.query('update stratum.isolation_changes set phase = $2, progress = $3 where id = $1', [change.id, phase, JSON.stringify({ tables: of })])
    await context.progress({ phase, tables: Object.fromEntries(Object.entries(of).map(([name, { copied, total }]) => [name, { copied, total }])) })
  }
  const move: Move = {
    ...placesOf(change),
    ...{ id: change.id, server, tenantId: change.tenant_id, tables, checkpoint, save: store },
    progress: { phase: change.phase as Progress['phase'], tables: change.progress.tables ?? {} },
    // a place that the tenant left earlier, and that was kept
    cleared: async () => {
      await control.query(
        `update stratum.isolation_changes set source_dropped_at = clock_timestamp() where tenant_id = $1 and phase = 'done' and source_dropped_at is null
         and (from_strategy, from_name) is not distinct from ($2, $3)`,
        [change.tenant_id, change.to_strategy, change.to_name],
      )
    },
    switchOver: (open) => switchOver(control, server, change, tables, keepFor, open),
    limits: { ...LIMITS, ...options.limits },
  }
  const fencedMs = await moveRows(move)
  await control.query('update stratum.isolation_changes set fenced_ms = $2 where id = $1', [change.id, fencedMs])
  context.log({ event: 'isolation.changed', fenced_ms: fencedMs })
  await context.progress({ phase: 'done', fenced_ms: fencedMs })
}

async function change(control: pg.ClientBase, context: TaskContext, options: ChangeOptions) {
  const { server, job } = context
  const { rows } = await control.query<{ change: Change | null }>('select stratum.take_up_isolation_change($1) as change', [job.payload['change_id']])
  const taken = rows[0]?.change
  if (!taken || taken.phase === 'cancelled') return
  const tables = await readManagedTables(control)
  if (taken.phase !== 'done') {
    try {
      if (await context.cancelled()) throw new CalledOff()
      await moveOver(control, context, taken, tables, options)
    } catch (error) {
      if (error instanceof CalledOff) {
        await undo(server, taken, tables, 'cancelled', null)
        return
      }
      if (!(error instanceof StratumError && LASTING.has(error.code))) throw error
      const shown = jobErrorOf(error)
      await undo(server, taken, tables, 'failed', shown)
      // only somebody who has seen to it can say that trying again makes sense
      await control.query('select stratum.fail_job($1, $2, true)', [job.id, JSON.stringify(shown)])
      context.log({ event: 'isolation.change_failed', ...shown })
      return
    }
  }
  await server.step('change_isolation: switched')
  await endCapture(server, taken, tables)
  await server.step('change_isolation: done')
}

/** Task: do, or finish, the change of isolation that `payload.change_id` names. */
export const changeIsolationWith =
  (options: ChangeOptions): Task =>
  async (context) => {
    const { tenant_id } = context.job
    if (tenant_id === null) return
    await withTenantLock(context.server.pool, tenant_id, ({ client }) => change(client, context, options))
  }

export const changeIsolation: Task = changeIsolationWith({})
