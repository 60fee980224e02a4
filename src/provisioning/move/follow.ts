/**
 * Following the source. Every step takes one snapshot of it and brings the target there: keys noted by the triggers are
 * taken out and their rows read again, together with the next chunk. The target commits before the source does. A
 * process that ends in between leaves the keys where they were, and the next takes them out again, which changes nothing.
 */
import type pg from 'pg'
import { stratumError } from '../../core/error-classes.ts'
import { apply, differing } from './apply.ts'
import { drain } from './capture.ts'
import type { Range } from './range.ts'
import type { Running } from './running.ts'

/** What the next step brings over. */
interface Plan {
  ranges?: (source: pg.ClientBase) => Promise<Range[]>
  compare?: Range[]
  check: boolean
}

const begun = ({ tables, move }: Running) => tables.filter((table) => move.progress.tables[table.name] !== undefined)

/** Bring the target to a snapshot of the source. @throws COPY_DIFFERS where a check finds the two different */
export async function bringOver(running: Running, { ranges, compare = [], check }: Plan): Promise<{ rows: number; keys: number; ranges: Range[] }> {
  const { source, target, tenantId, move } = running
  await source.query('begin isolation level repeatable read')
  try {
    const { changed, keys } = await drain(source, begun(running), tenantId)
    const next = ranges ? await ranges(source) : []
    const applied = await apply(running, { changed, ranges: next })
    const [table] = check ? await differing(running, applied.changed, compare) : []
    if (table !== undefined) throw stratumError('COPY_DIFFERS', { table })
    await target.query('commit')
    await move.server.step('move: applied')
    await source.query('commit')
    return { rows: applied.rows, keys, ranges: next }
  } catch (error) {
    await Promise.allSettled([target.query('rollback'), source.query('rollback')])
    throw error
  }
}

const ROUNDS = 30
const CALM_MS = 50
const FEW = 20

/** Follow what changed until little is left, or following gets no nearer. */
export async function catchUp(running: Running, check: boolean): Promise<void> {
  let before = Number.POSITIVE_INFINITY
  for (let round = 0; round < ROUNDS; round++) {
    await running.move.checkpoint('move: round')
    const started = performance.now()
    const { keys } = await bringOver(running, { check })
    if (keys <= FEW || keys >= before || performance.now() - started < CALM_MS) return
    before = keys
  }
}
