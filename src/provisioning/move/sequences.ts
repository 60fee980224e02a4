/** Each place numbers its rows by sequences of its own, which must be past every number that came with the rows. */
import { whileInUse } from './capture.ts'
import type { Running } from './running.ts'
import { type MovedTable, unquoted } from './tables.ts'

/** A sequence that numbers a column, at both ends. */
export interface Sequence {
  table: MovedTable
  column: string
  source: string
  target: string
}

/** More than this many numbers are not drawn one by one. */
const DRAWN = 20_000

/** Which columns are numbered by a sequence; looked up before the tenant is fenced. */
export async function numberedColumns({ source, target, tables }: Pick<Running, 'source' | 'target' | 'tables'>): Promise<Sequence[]> {
  const columns = tables.flatMap((table) => table.columns.map((column) => ({ table, column })))
  const ask = `select pg_get_serial_sequence(t, c) as name from unnest($1::text[], $2::text[]) with ordinality as n (t, c, place) order by place`
  const plain = columns.map(({ column }) => unquoted(column))
  const [from, to] = await Promise.all([
    source.query<{ name: string | null }>(ask, [columns.map(({ table }) => table.source), plain]),
    target.query<{ name: string | null }>(ask, [columns.map(({ table }) => table.target), plain]),
  ])
  return columns.flatMap(({ table, column }, index) => {
    const [a, b] = [from.rows[index]?.name, to.rows[index]?.name]
    return a && b ? [{ table, column, source: a, target: b }] : []
  })
}

const LAST = (sequence: string) => `select case when is_called then last_value end as last from ${sequence}`

/**
 * Bring the sequences of the target past those of the source, and with `greatest` past the rows' own numbers. Sequences
 * of the shared tables are in use: numbers are drawn from them, which never sets one back.
 *
 * @param briefly while the tenant is fenced
 * @returns false when there was too much to do for a brief moment
 */
export async function advanceSequences(running: Running, { greatest, briefly }: { greatest: boolean; briefly: boolean }): Promise<boolean> {
  const { source, target, tenantId, move } = running
  for (const { table, column, source: from, target: to } of running.sequences) {
    const { rows } = await source.query<{ last: string | null }>(
      greatest ? `select greatest((${LAST(from)}), (select max(${column}) from ${table.source} where tenant_id = $1)) as last` : LAST(from),
      greatest ? [tenantId] : [],
    )
    const wanted = rows[0]?.last
    if (wanted == null) continue
    if (move.target.strategy !== 'SHARED_RLS') {
      await target.query(`select setval('${to.replaceAll("'", "''")}', greatest($1::bigint, last_value)) from ${to}`, [wanted])
      continue
    }
    const { rows: gaps } = await target.query<{ gap: string; increment: string }>(
      `select $1::bigint - last_value as gap, (select seqincrement from pg_sequence where seqrelid = $2::regclass) as increment from ${to}`,
      [wanted, to],
    )
    const numbers = Math.ceil(Number(gaps[0]?.gap) / Number(gaps[0]?.increment)) + 1
    if (Number(gaps[0]?.gap) < 0 || Number(gaps[0]?.increment) < 0) continue
    if (numbers <= DRAWN) await target.query(`select nextval($1::regclass) from generate_series(1, $2::int)`, [to, numbers])
    else if (briefly) return false
    else await restart(running, to, wanted, gaps[0]?.increment ?? '1')
  }
  return true
}

/** An ALTER takes the lock that keeps everybody from drawing between the look and the change. */
const restart = ({ target }: Running, sequence: string, wanted: string, increment: string) =>
  whileInUse(
    target,
    `do $do$ begin
       alter sequence ${sequence} increment by ${increment};
       if (select last_value from ${sequence}) <= ${wanted} then alter sequence ${sequence} restart with ${BigInt(wanted) + BigInt(increment)}; end if;
     end $do$`,
  )
