/** A part of a table by its primary key, so that no read of it is long. */
import type pg from 'pg'
import { literal } from '../../isolation/identifiers.ts'
import { columnsOf, type MovedTable } from './tables.ts'

/** The values of a key as texts, in its order. */
export type Key = string[]

/** Rows after one key up to another; null is the beginning, or the end. */
export interface Range {
  table: MovedTable
  after: Key | null
  upTo: Key | null
}

export const wholeOf = (table: MovedTable): Range => ({ table, after: null, upTo: null })

/** Untyped literals take the types of the columns they are compared with. */
const beyond = (range: Range, alias: string, operator: string, key: Key) =>
  `(${columnsOf(alias, range.table.key)}) ${operator} (${key.map(literal).join(', ')})`

/** The condition that a row of `alias` lies in the range. */
export function within(range: Range, alias: string, tenantId: string): string {
  const conditions = [`${alias}.tenant_id = ${literal(tenantId)}`]
  if (range.after) conditions.push(beyond(range, alias, '>', range.after))
  if (range.upTo) conditions.push(beyond(range, alias, '<=', range.upTo))
  return conditions.join(' and ')
}

/** The range of the next so many rows after a key; to the end where there are no more. */
export async function nextRange(source: pg.ClientBase, table: MovedTable, after: Key | null, rows: number, tenantId: string): Promise<Range> {
  const key = table.key.map((column) => `t.${column}`)
  const { rows: last } = await source.query<{ key: Key }>(
    `select array[${key.map((column) => `${column}::text`).join(', ')}] as key from ${table.source} t
     where ${within({ table, after, upTo: null }, 't', tenantId)} order by ${key.join(', ')} offset ${rows - 1} limit 1`,
  )
  return { table, after, upTo: last[0]?.key ?? null }
}
