/**
 * Bringing the target from one state of the source to a later one, in a transaction of the target. Constraints hold
 * there at every commit, and what is not deferrable at every statement, so the order matters.
 */
import type pg from 'pg'
import { identifier } from '../../isolation/identifiers.ts'
import { lookUp } from './capture.ts'
import { type Range, within } from './range.ts'
import { stream } from './stream.ts'
import { byKeys, columnsOf, inGroups, type MovedTable, PRESENT, sameKey } from './tables.ts'

export interface Ends {
  source: pg.ClientBase
  target: pg.ClientBase
  tenantId: string
  tables: readonly MovedTable[]
  /** Foreign keys are in force at the target. */
  enforced: boolean
}

/** Rows that are to be brought over: those of the noted keys, and those of the ranges. */
export interface Load {
  /** Tables whose `keys` at the source are not empty. */
  changed: readonly MovedTable[]
  ranges: readonly Range[]
}

/** How many rows came, and the tables with changed keys at either end. */
export interface Applied {
  rows: number
  changed: readonly MovedTable[]
}

/** Two rows may have swapped what must be unique, or an action of a foreign key stands in the way. */
const NEEDS_REPLACING = new Set(['23505', '23503', '23001', '23P01'])

const insert = (table: MovedTable, conflict: string) =>
  `insert into ${table.target} (${table.columns.join(', ')}) overriding system value
   select ${table.columns.join(', ')} from ${table.rows} on conflict (${table.key.join(', ')}) ${conflict}`

const upsert = (table: MovedTable) =>
  insert(table, table.updatable.length === 0 ? 'do nothing' : `do update set ${table.updatable.map((column) => `${column} = excluded.${column}`).join(', ')}`)

/** In one statement, so that the actions of foreign keys find all of it deleted. */
async function remove(target: pg.ClientBase, tables: readonly MovedTable[], condition = 'true') {
  if (tables.length === 0) return
  const parts = tables.map(
    (table, index) =>
      `d${index} as (delete from ${table.target} where ctid = any (array(select t.at from ${byKeys(table, table.target, 't.ctid as at')} where ${condition})))`,
  )
  await target.query(`with ${parts.join(', ')} select`)
}

/** Send the rows of a table's keys and ranges; none twice. */
async function sendRows({ source, target, tenantId }: Ends, table: MovedTable, { changed, ranges }: Load) {
  const own = ranges.filter((range) => range.table === table)
  const columns = columnsOf('t', table.columns)
  const outside = own.map((range) => ` and not (${within(range, 't', tenantId)})`).join('')
  const parts = own.map((range) => `select ${columns} from ${table.source} t where ${within(range, 't', tenantId)}`)
  if (changed.includes(table)) parts.push(`select ${columns} from ${byKeys(table, table.source)} where true${outside}`)
  return parts.length === 0 ? 0 : stream(source, parts.join(' union all '), target, table.rows)
}

const sendKeys = ({ source, target }: Ends, table: MovedTable) =>
  stream(source, `select ${table.key.join(', ')}, ${PRESENT} from ${table.keys}`, target, table.keys)

const touchedBy = (ends: Ends, { changed, ranges }: Load) =>
  ends.tables.filter((table) => changed.includes(table) || ranges.some((range) => range.table === table))

/** Without foreign keys the changed rows go first, and then nothing is in the way of anything. */
async function replace(ends: Ends, load: Load) {
  await remove(ends.target, load.changed)
  for (const table of touchedBy(ends, load)) await ends.target.query(insert(table, 'do nothing'))
}

/**
 * With foreign keys a row that others reference has to stay while it changes. Tables that reference go before those
 * they reference: when a row is deleted, nothing references it any more, and what is not there yet is only looked for
 * at the commit.
 */
async function update(ends: Ends, load: Load) {
  const touched = touchedBy(ends, load)
  for (const group of inGroups(ends.tables).reverse()) {
    const tables = group.filter((table) => touched.includes(table))
    const changed = tables.filter((table) => load.changed.includes(table))
    const circular = group.some((table) => table.cyclic)
    if (!circular) await remove(ends.target, changed, `not k.${PRESENT}`)
    for (const table of tables) await ends.target.query(upsert(table))
    if (circular) await remove(ends.target, changed, `not k.${PRESENT}`)
  }
}

const ACTIONS = `
  select child.relname as child, parent.relname as parent,
    (select array_agg(a.attname::text order by n.place) from unnest(k.conkey) with ordinality n (number, place)
      join pg_attribute a on a.attrelid = k.conrelid and a.attnum = n.number) as "from",
    (select array_agg(a.attname::text order by n.place) from unnest(k.confkey) with ordinality n (number, place)
      join pg_attribute a on a.attrelid = k.confrelid and a.attnum = n.number) as "to"
  from pg_constraint k join pg_class child on child.oid = k.conrelid join pg_class parent on parent.oid = k.confrelid
  where k.contype = 'f' and k.conrelid = any ($1::regclass[]) and (k.confdeltype <> 'a' or not k.condeferrable)`

/** Add to the keys at the target those of the rows that an action of a foreign key would reach. */
async function widen(ends: Ends): Promise<Set<string>> {
  const { rows: actions } = await ends.target.query<{ child: string; parent: string; from: string[]; to: string[] }>(ACTIONS, [
    ends.tables.map((table) => table.target),
  ])
  const byName = new Map(ends.tables.map((table) => [table.name, table]))
  const widened = new Set<string>()
  for (let found = true; found; ) {
    found = false
    for (const action of actions) {
      const [child, parent] = [byName.get(action.child), byName.get(action.parent)]
      if (!child || !parent) continue
      const referenced = action.from.map((column, index) => `c.${identifier(column)} = t.${identifier(action.to[index] ?? '')}`).join(' and ')
      const { rowCount } = await ends.target.query(
        `insert into ${child.keys} select distinct ${columnsOf('c', child.key)}, true
         from ${byKeys(parent, parent.target)} join ${child.target} c on ${referenced}
         where not exists (select from ${child.keys} o where ${sameKey(child, 'o', 'c')})`,
      )
      if (rowCount) {
        found = true
        widened.add(child.name)
      }
    }
  }
  return widened
}

/** Delete what changed with all that depends on it, and put it back as it is. */
async function replaceWidely(ends: Ends, load: Load): Promise<Applied> {
  for (const table of load.changed) await sendKeys(ends, table)
  const widened = await widen(ends)
  const changed = ends.tables.filter((table) => load.changed.includes(table) || widened.has(table.name))
  for (const table of changed.filter(({ name }) => widened.has(name))) {
    await ends.source.query(`delete from ${table.keys}`)
    await stream(ends.target, `select ${table.key.join(', ')}, false from ${table.keys}`, ends.source, table.keys)
    await lookUp(ends.source, table)
  }
  const wider = { ...load, changed }
  let rows = 0
  for (const table of touchedBy(ends, wider)) rows += await sendRows(ends, table, wider)
  await replace(ends, wider)
  return { rows, changed }
}

const begin = (target: pg.ClientBase) => target.query('begin; set constraints all deferred')

/**
 * Apply a load inside a transaction of the target, which is left open. The transaction of the source stays as it is,
 * so that all comes from its one snapshot.
 */
export async function apply(ends: Ends, load: Load): Promise<Applied> {
  await begin(ends.target)
  if (ends.enforced && load.changed.some((table) => table.replaced)) {
    return replaceWidely(ends, load)
  }
  for (const table of load.changed) await sendKeys(ends, table)
  let rows = 0
  for (const table of touchedBy(ends, load)) rows += await sendRows(ends, table, load)
  if (!ends.enforced) {
    await replace(ends, load)
    return { rows, changed: load.changed }
  }
  try {
    await update(ends, load)
    await ends.target.query('set constraints all immediate')
    return { rows, changed: load.changed }
  } catch (error) {
    if (!NEEDS_REPLACING.has((error as { code?: string }).code ?? '')) throw error
  }
  await ends.target.query('rollback')
  await begin(ends.target)
  return replaceWidely(ends, load)
}

export interface Checksum {
  rows: string
  sum: string
}

/** Number and digest of rows, whatever their order. */
const DIGEST = (table: MovedTable) =>
  `select count(*)::text as rows, coalesce(sum(hashtextextended(row(${columnsOf('t', table.compared)})::text collate "C", 0)::numeric), 0)::text as sum`

/** Tables whose changed rows, or whose rows of a range, are not the same at both ends. */
export async function differing(ends: Ends, changed: readonly MovedTable[], ranges: readonly Range[]): Promise<string[]> {
  const questions = [
    ...changed.map((table) => ({ table, of: (name: string) => `${DIGEST(table)} from ${byKeys(table, name)}` })),
    ...ranges.map((range) => ({
      table: range.table,
      of: (name: string) => `${DIGEST(range.table)} from ${name} t where ${within(range, 't', ends.tenantId)}`,
    })),
  ]
  const differ: string[] = []
  for (const { table, of } of questions) {
    const [there, here] = await Promise.all([ends.source.query<Checksum>(of(table.source)), ends.target.query<Checksum>(of(table.target))])
    if (there.rows[0]?.rows !== here.rows[0]?.rows || there.rows[0]?.sum !== here.rows[0]?.sum) differ.push(table.name)
  }
  return differ
}
