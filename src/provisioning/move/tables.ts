/** The tables of a move, as SQL names them at its two ends. */
import type pg from 'pg'
import type { ManagedTable } from '../../isolation/catalog.ts'
import { identifier } from '../../isolation/identifiers.ts'

export interface MovedTable {
  name: string
  /** Schema-qualified. */
  source: string
  target: string
  /** Columns that are written: all that Postgres does not compute. Quoted, like all names here. */
  columns: string[]
  /** All of them, computed ones too: what must be equal. */
  compared: string[]
  key: string[]
  /** Columns that an update may set. */
  updatable: string[]
  /** An update cannot set them: the row has to be replaced. */
  replaced: boolean
  /** Managed tables that its foreign keys point at. */
  references: string[]
  cyclic: boolean
  /** Temporary tables of either session: keys that are to be brought over, with whether the row is there; and rows on their way. */
  keys: string
  rows: string
}

/** Not the name of any column that people make. */
export const PRESENT = '"stratum present"'

export function movedTables(tables: readonly ManagedTable[], sourceSchema: string, targetSchema: string): MovedTable[] {
  return tables.map((table, index) => {
    const written = table.columns.filter((column) => !column.generated)
    const fixed = new Set([...table.primaryKey, ...written.filter((column) => column.identity === 'always').map((column) => column.name)])
    return {
      name: table.name,
      source: `${identifier(sourceSchema)}.${identifier(table.name)}`,
      target: `${identifier(targetSchema)}.${identifier(table.name)}`,
      columns: written.map((column) => identifier(column.name)),
      compared: table.columns.map((column) => identifier(column.name)),
      key: table.primaryKey.map(identifier),
      updatable: written.filter((column) => !fixed.has(column.name)).map((column) => identifier(column.name)),
      replaced: written.some((column) => column.identity === 'always' && !table.primaryKey.includes(column.name)),
      references: table.references,
      cyclic: table.cyclic,
      keys: `pg_temp.stratum_keys_${index}`,
      rows: `pg_temp.stratum_rows_${index}`,
    }
  })
}

/** Each with those it shares a cycle of foreign keys with; a group after those that it references. */
export function inGroups(tables: readonly MovedTable[]): MovedTable[][] {
  const byName = new Map(tables.map((table) => [table.name, table]))
  const reach = (from: MovedTable): Set<string> => {
    const seen = new Set<string>()
    const open = [...from.references]
    for (let next = open.pop(); next !== undefined; next = open.pop()) {
      if (seen.has(next)) continue
      seen.add(next)
      open.push(...(byName.get(next)?.references ?? []))
    }
    return seen
  }
  const reached = new Map(tables.map((table) => [table.name, reach(table)]))
  const together = (a: MovedTable, b: MovedTable) => reached.get(a.name)?.has(b.name) && reached.get(b.name)?.has(a.name)
  const groups: MovedTable[][] = []
  for (const table of tables) {
    const group = groups.find(([first]) => first && together(first, table))
    if (group) group.push(table)
    else groups.push([table])
  }
  return groups
}

/** The name that a quoted one stands for. */
export const unquoted = (name: string): string => name.slice(1, -1).replaceAll('""', '"')

/** Columns as `alias` has them. */
export const columnsOf = (alias: string, columns: readonly string[]): string => columns.map((column) => `${alias}.${column}`).join(', ')

/** `a.k1 = b.k1 and …` */
export const sameKey = (table: MovedTable, a: string, b: string): string => table.key.map((column) => `${a}.${column} = ${b}.${column}`).join(' and ')

/**
 * The rows of a table that its `keys` name, as `t` beside `k`. Looked up one by one: the planner knows too little of
 * tables that are being filled to choose, and took quadratic plans.
 */
export const byKeys = (table: MovedTable, from: string, select = 't.*'): string =>
  `${table.keys} k cross join lateral (select ${select} from ${from} t where ${sameKey(table, 't', 'k')} offset 0) t`

/** Tell the planner of a table that was filled; where it is locked, another time will do. */
export async function refreshStatistics(client: pg.ClientBase, table: string): Promise<void> {
  await client.query(`analyze ${table}`).catch((error: { code?: string }) => {
    if (error.code !== '55P03' && error.code !== '40P01') throw error
  })
}

/** How both sessions of a move write values, so that equal ones are equal texts. */
const SETTINGS = `
  set datestyle = 'ISO, YMD'; set intervalstyle = 'postgres'; set timezone = 'UTC'; set extra_float_digits = 1; set bytea_output = 'hex';
  set lc_monetary = 'C'; set client_encoding = 'UTF8'; set xmloption = 'content'; set default_transaction_isolation = 'read committed';
  set jit = off`

/** Make a session of one end ready. `end` is which one: of two processes that work on a move only one has a session of it. */
export async function prepareSession(client: pg.ClientBase, tables: readonly MovedTable[], moveId: string, end: 'source' | 'target'): Promise<void> {
  await client.query(SETTINGS)
  await client.query('select pg_advisory_lock(hashtextextended($1, 0))', [`stratum.move.${moveId}.${end}`])
  const temporary = tables.map((table) => {
    const of = end === 'source' ? table.source : table.target
    return `create temp table ${table.keys.replace('pg_temp.', '')} on commit delete rows as select ${table.key.join(', ')}, true as ${PRESENT} from ${of} with no data;
      create temp table ${table.rows.replace('pg_temp.', '')} on commit delete rows as select ${table.columns.join(', ')} from ${of} with no data;`
  })
  await client.query(`create temp table stratum_drained (table_name text, key jsonb) on commit delete rows; ${temporary.join('\n')}`)
}
