/** The guard of the rows (migrations/routines/01_guard.sql), which every database that holds rows of tenants has. */
import { readFile } from 'node:fs/promises'
import type pg from 'pg'

// The functions that let batches in; schema stratum_guard is the same in every database.
const GUARD = `select md5(string_agg(concat_ws(' ', p.oid::regprocedure, p.prosrc, p.proconfig::text, p.prosecdef), ';' order by p.oid::regprocedure::text collate "C")) as guard
  from pg_proc p where p.pronamespace = to_regnamespace('stratum_guard')`

/** Tells one guard from another; null where there is none. */
export const guardOf = async (client: Pick<pg.ClientBase, 'query'>): Promise<string | null> =>
  (await client.query<{ guard: string | null }>(GUARD)).rows[0]?.guard ?? null

const FILE = new URL('../../migrations/routines/01_guard.sql', import.meta.url)

/** Make the guard of a tenant's own database what this version has, statement by statement. Inside a transaction. */
export async function applyGuard(client: pg.ClientBase): Promise<void> {
  const text = await readFile(FILE, 'utf8')
  // two at once would meet at the same rows of the catalog
  await client.query(`select pg_advisory_xact_lock(hashtextextended('stratum.guard', 0))`)
  for (const statement of text.split('--> statement-breakpoint')) if (statement.trim() !== '') await client.query(statement)
}
