/** Noting which rows of a tenant change while it is copied: triggers on the tables of the source. */
import type pg from 'pg'
import { identifier, literal } from '../../isolation/identifiers.ts'
import { columnsOf, type MovedTable, PRESENT, sameKey, unquoted } from './tables.ts'

/** Names of a move's own, so that what is left of an earlier one is not taken for it. */
const triggerName = (moveId: string, operation: string) => identifier(`stratum_capture_${moveId.replaceAll('-', '')}_${operation}`)
const OPERATIONS = [
  ['insert', 'new.tenant_id = %'],
  ['update', 'old.tenant_id = % or new.tenant_id = %'],
  ['delete', 'old.tenant_id = %'],
] as const

const LOCK_WAIT = '200ms'
const TRIES = 100

/**
 * Autovacuum gives way only to who has waited for it as long as `deadlock_timeout`. Nobody who reads or writes the table
 * waits behind this lock meanwhile, and no other worker begins while it is held.
 */
const pastAutovacuum = (table: string) =>
  `select set_config('lock_timeout', (setting::int + 2000)::text, true) from pg_settings where name = 'deadlock_timeout';
   lock table ${table} in share update exclusive mode;`

/**
 * Change a table or sequence that is in use: its lock is waited for only shortly, as all who come after wait behind, and
 * then again a little later.
 * @param table where the statements change one: a sequence is never vacuumed
 * @throws the driver's 55P03 after many tries
 */
export async function whileInUse(client: pg.ClientBase, statements: string, table?: string): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      // several statements of one request are one transaction
      await client.query(`${table ? pastAutovacuum(table) : ''} set local lock_timeout = '${LOCK_WAIT}'; ${statements}`)
      return
    } catch (error) {
      if ((error as { code?: string }).code !== '55P03' || attempt >= TRIES) throw error
      await new Promise((resolve) => setTimeout(resolve, Math.min(50 * attempt, 1_000)))
    }
  }
}

/** Triggers of a move that are there, as [table, trigger]. */
async function present(source: pg.ClientBase, tables: readonly MovedTable[], moveId: string): Promise<Set<string>> {
  const names = OPERATIONS.map(([operation]) => unquoted(triggerName(moveId, operation)))
  const { rows } = await source.query<{ name: string }>(
    `select tgrelid || '.' || tgname as name from pg_trigger where tgname = any ($1) and not tgisinternal`,
    [names],
  )
  const there = new Set(rows.map((row) => row.name))
  const oids = await source.query<{ source: string; oid: string }>(`select s as source, to_regclass(s)::oid as oid from unnest($1::text[]) as s`, [
    tables.map((table) => table.source),
  ])
  const captured = oids.rows.filter(({ oid }) => OPERATIONS.every(([operation]) => there.has(`${oid}.${unquoted(triggerName(moveId, operation))}`)))
  return new Set(captured.map((row) => row.source))
}

/** From when this resolves, every change of the tenant's rows is noted in the transaction that makes it. */
export async function startCapture(source: pg.ClientBase, tables: readonly MovedTable[], moveId: string, tenantId: string): Promise<void> {
  const there = await present(source, tables, moveId)
  for (const table of tables.filter((each) => !there.has(each.source))) {
    const key = table.key.map((column) => literal(unquoted(column))).join(', ')
    const triggers = OPERATIONS.map(
      ([operation, condition]) =>
        `create or replace trigger ${triggerName(moveId, operation)} after ${operation} on ${table.source} for each row
         when (${condition.replaceAll('%', literal(tenantId))}) execute function stratum_guard.capture(${literal(tenantId)}, ${key})`,
    )
    await whileInUse(source, triggers.join('; '), table.source)
  }
}

/** Take the triggers away. What they noted is forgotten by {@link forgetCaptured}. */
export async function stopCapture(source: pg.ClientBase, tables: readonly MovedTable[], moveId: string): Promise<void> {
  for (const table of tables) {
    const drops = OPERATIONS.map(([operation]) => `drop trigger if exists ${triggerName(moveId, operation)} on ${table.source}`)
    await whileInUse(source, drops.join('; '), table.source)
  }
}

export const forgetCaptured = (source: pg.ClientBase, tenantId: string) => source.query('delete from stratum_guard.captured where tenant_id = $1', [tenantId])

/** How many noted changes wait, counted up to a limit. */
export async function countCaptured(source: pg.ClientBase, tenantId: string, limit: number): Promise<number> {
  const { rows } = await source.query<{ waiting: number }>(
    'select count(*)::int as waiting from (select from stratum_guard.captured where tenant_id = $1 limit $2) as c',
    [tenantId, limit],
  )
  return rows[0]?.waiting ?? 0
}

/**
 * Take out the noted keys that the transaction's snapshot sees, into the `keys` of their tables, and answer the tables
 * that have any. Those of other tables than these are dropped: they were not begun, so all their rows will be read.
 */
export async function drain(source: pg.ClientBase, tables: readonly MovedTable[], tenantId: string): Promise<{ changed: MovedTable[]; keys: number }> {
  const { rowCount } = await source.query(
    `with taken as (delete from stratum_guard.captured where tenant_id = $1 returning table_name, key)
     insert into pg_temp.stratum_drained select distinct table_name, key from taken`,
    [tenantId],
  )
  if (!rowCount) return { changed: [], keys: 0 }
  const { rows } = await source.query<{ table_name: string }>('select distinct table_name from pg_temp.stratum_drained')
  const changed = tables.filter((table) => rows.some((row) => row.table_name === table.name))
  for (const table of changed) {
    const key = columnsOf('r', table.key)
    await source.query(
      `insert into ${table.keys} select distinct on (${key}) ${key}, false
       from pg_temp.stratum_drained d, jsonb_populate_record(null::${table.source}, d.key) r where d.table_name = $1`,
      [table.name],
    )
    await lookUp(source, table)
  }
  return { changed, keys: rowCount }
}

/** Mark the keys whose rows are there. */
export const lookUp = (source: pg.ClientBase, table: MovedTable) =>
  source.query(`update ${table.keys} k set ${PRESENT} = exists (select from ${table.source} t where ${sameKey(table, 't', 'k')})`)
