/** The first copy of all rows, chunk by chunk, so that no snapshot is held for long. */
import { bringOver } from './follow.ts'
import { nextRange, wholeOf } from './range.ts'
import { type Running, save, type TableProgress } from './running.ts'
import { inGroups, type MovedTable } from './tables.ts'

async function countRows({ source, tenantId }: Running, table: MovedTable): Promise<number> {
  const { rows } = await source.query<{ total: string }>(`select count(*) as total from ${table.source} where tenant_id = $1`, [tenantId])
  return Number(rows[0]?.total)
}

/** Copy a table chunk by chunk, from where the last try came to. */
async function copyTable(running: Running, table: MovedTable, progress: TableProgress) {
  const { move, tenantId } = running
  let size = 1_000
  while (!progress.done) {
    await move.checkpoint('move: chunk')
    const started = performance.now()
    const { rows, ranges } = await bringOver(running, {
      ranges: async (source) => [await nextRange(source, table, progress.last_key, size, tenantId)],
      check: false,
    })
    const end = ranges[0]?.upTo ?? null
    Object.assign(progress, { copied: progress.copied + rows, last_key: end, done: end === null })
    await save(running)
    const elapsed = performance.now() - started
    size = Math.max(100, Math.min(100_000, Math.round(size * Math.min(4, Math.max(0.25, move.limits.stepMs / elapsed)))))
  }
}

/** Copy all tables, those that are referenced first; go on where the last try came to. */
export async function copyAll(running: Running) {
  const { move } = running
  for (const group of inGroups(running.tables)) {
    for (const table of group) {
      // Stored before the first row is there: from then on the table's noted keys are brought over.
      move.progress.tables[table.name] ??= { copied: 0, total: await countRows(running, table), last_key: null, done: false, verified: false }
    }
    await save(running)
    const progress = group.map((table) => move.progress.tables[table.name]).filter((each) => each !== undefined)
    if (running.enforced && group.some((table) => table.cyclic) && progress.some((each) => !each.done)) {
      // Rows that reference each other in a circle can only come together.
      await move.checkpoint('move: cycle')
      await bringOver(running, { ranges: async () => group.map(wholeOf), check: false })
      for (const each of progress) Object.assign(each, { copied: each.total, done: true })
      await save(running)
    } else {
      for (const [index, table] of group.entries()) await copyTable(running, table, progress[index] as TableProgress)
    }
  }
}
