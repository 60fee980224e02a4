/**
 * Moving a tenant's rows from one place to another while the tenant works. Who may have what moved, and what follows,
 * is the caller's; this copies, follows what changes, compares, and cuts over.
 */
import type pg from 'pg'
import { schemaOf } from '../../isolation/place.ts'
import { addForeignKeys, dropPlace, makePlace, withPlace } from '../places.ts'
import { startCapture } from './capture.ts'
import { compareAll, compareShapes } from './compare.ts'
import { copyAll } from './copy.ts'
import { cutOver, reopen } from './fence.ts'
import { catchUp } from './follow.ts'
import { type Move, type Phase, type Running, save } from './running.ts'
import { advanceSequences, numberedColumns } from './sequences.ts'
import { type MovedTable, movedTables, prepareSession, refreshStatistics } from './tables.ts'

/** Make the target and begin to note changes; what an earlier move left at the target goes first. */
async function prepare(move: Move) {
  await dropPlace(move.server, move.tenantId, move.target)
  await move.cleared()
  await move.checkpoint('move: cleared')
  await makePlace(move.server, move.tenantId, move.target, { routingVersion: 0, open: false, foreignKeys: false })
  await move.checkpoint('move: made')
}

async function hasForeignKeys(target: pg.ClientBase, tables: readonly MovedTable[]): Promise<boolean> {
  const { rows } = await target.query(`select 1 from pg_constraint where contype = 'f' and conrelid = any ($1::regclass[]) limit 1`, [
    tables.map((table) => table.target),
  ])
  return rows.length > 0
}

async function inPhase(running: Running, phase: Phase, work: () => Promise<void>) {
  if (running.move.progress.phase !== phase) return
  await work()
}

async function run(running: Running): Promise<number> {
  const { move, source } = running
  await inPhase(running, 'preparing', async () => {
    for (const table of running.tables) await refreshStatistics(source, table.source)
    await startCapture(source, running.tables, move.id, move.tenantId)
    await move.checkpoint('move: capturing')
    await save(running, 'copying')
  })
  await inPhase(running, 'copying', async () => {
    await copyAll(running)
    for (const table of running.tables) await refreshStatistics(running.target, table.target)
    await save(running, 'catching_up')
  })
  await inPhase(running, 'catching_up', async () => {
    await catchUp(running, false)
    await move.checkpoint('move: caught up')
    await addForeignKeys(move.server, move.tenantId, move.target)
    running.enforced = true
    await move.checkpoint('move: keys')
    await save(running, 'verifying')
  })
  await inPhase(running, 'verifying', async () => {
    await compareAll(running)
    await advanceSequences(running, { greatest: true, briefly: false })
    await save(running, 'fenced')
  })
  return cutOver(running)
}

/**
 * Move a tenant's rows, or go on where an earlier try ended. The caller holds the tenant's provisioning lock, and
 * everybody is still sent to the source.
 *
 * @returns the milliseconds in which no batch of the tenant could begin
 * @throws COPY_DIFFERS, PLACE_NOT_OURS, DATABASE_LIMIT_REACHED, PLACE_REFUSED, and what `checkpoint` throws
 */
export async function moveRows(move: Move): Promise<number> {
  if (move.progress.phase === 'preparing') await prepare(move)
  const tables = movedTables(move.tables, schemaOf(move.source), schemaOf(move.target))
  return withPlace(move.server, move.tenantId, move.source, (source) =>
    withPlace(move.server, move.tenantId, move.target, async (target) => {
      await compareShapes({ move, source, target })
      await prepareSession(source, tables, move.id, 'source')
      await prepareSession(target, tables, move.id, 'target')
      const [enforced, sequences] = [await hasForeignKeys(target, tables), await numberedColumns({ source, target, tables })]
      const running: Running = { move, source, target, tenantId: move.tenantId, tables, enforced, sequences }
      await reopen(running)
      return run(running)
    }),
  )
}
