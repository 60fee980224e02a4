/** Comparing both ends of a move before anybody is sent to the target. */
import type pg from 'pg'
import { stratumError } from '../../core/error-classes.ts'
import { type Place, schemaOf } from '../../isolation/place.ts'
import { bringOver } from './follow.ts'
import { type Key, nextRange, type Range, wholeOf } from './range.ts'
import { type Running, save } from './running.ts'
import type { MovedTable } from './tables.ts'

/** Texts may sort otherwise in another database: a key with one is compared as a whole. */
async function sortsAlike({ source, target }: Running, table: MovedTable): Promise<boolean> {
  const { rows } = await source.query<{ collated: boolean }>(
    `select exists (select from pg_attribute where attrelid = $1::regclass and attcollation <> 0 and quote_ident(attname) = any ($2)) as collated`,
    [table.source, table.key.map((column) => column)],
  )
  if (!rows[0]?.collated) return true
  const database = 'select datcollate, datlocprovider from pg_database where datname = current_database()'
  const [a, b] = await Promise.all([source.query(database), target.query(database)])
  return JSON.stringify(a.rows) === JSON.stringify(b.rows)
}

// Columns as they are at each end, and which of the application's migrations the place has had.
const SHAPE = `
  select c.relname as table, string_agg(format('%s %s %s', a.attname, format_type(a.atttypid, a.atttypmod), a.attgenerated), ', ' order by a.attname) as shape,
    array_agg(a.attname::text order by a.attname collate "C") as columns
  from pg_class c join pg_attribute a on a.attrelid = c.oid where c.relnamespace = to_regnamespace(quote_ident($1)) and c.relname = any ($2)
    and a.attnum > 0 and not a.attisdropped group by 1
  union all
  select 'of the migrations', coalesce(string_agg(name, ', ' order by name), ''), '{}' from stratum_guard.applied_migrations where schema_name = $3`

type Shape = { table: string; shape: string; columns: string[] }

const shapesAt = async (client: pg.ClientBase, place: Place, names: readonly string[]): Promise<Map<string, Shape>> => {
  const ledger = place.strategy === 'SCHEMA_PER_TENANT' ? schemaOf(place) : ''
  const { rows } = await client.query<Shape>(SHAPE, [schemaOf(place), names, ledger])
  return new Map(rows.map((row) => [row.table, row]))
}

/**
 * See that both ends have the columns that are moved, and have had the same migrations: one may have been migrated meanwhile.
 * @throws COPY_DIFFERS
 */
export async function compareShapes({ source, target, move }: Pick<Running, 'source' | 'target' | 'move'>): Promise<void> {
  const names = move.tables.map(({ name }) => name)
  const [there, here] = await Promise.all([shapesAt(source, move.source, names), shapesAt(target, move.target, names)])
  for (const [table, { shape }] of there) if (here.get(table)?.shape !== shape) throw stratumError('COPY_DIFFERS', { table })
  for (const { name, columns } of move.tables) {
    const expected = columns.map((column) => column.name).sort()
    if (there.get(name)?.columns.join() !== expected.join()) throw stratumError('COPY_DIFFERS', { table: name })
  }
}

/** Compare both ends, range by range. Each range is equal at its own moment; what changes later is checked as it comes. */
export async function compareAll(running: Running) {
  const { move, tenantId, source } = running
  await compareShapes(running)
  for (const table of running.tables) {
    const progress = move.progress.tables[table.name]
    if (!progress || progress.verified) continue
    const inRanges = await sortsAlike(running, table)
    for (let after: Key | null = null, first = true; first || after !== null; first = false) {
      await move.checkpoint('move: compare')
      const range: Range = inRanges ? await nextRange(source, table, after, move.limits.compareRows, tenantId) : wholeOf(table)
      await bringOver(running, { compare: [range], check: true })
      after = range.upTo
    }
    progress.verified = true
    await save(running)
  }
}
