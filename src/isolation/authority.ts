/** As whom tables are changed, and that it is done whole or not at all. */
import type pg from 'pg'
import { stratumError } from '../core/error-classes.ts'
import { StratumError } from '../core/errors.ts'
import { fromDriver, isTransient } from '../db/errors.ts'
import { identifier } from './identifiers.ts'
import type { TableFacts } from './table-facts.ts'

export const notManageable = (table: string, reasons: readonly string[], cause?: unknown) =>
  stratumError('TABLE_NOT_MANAGEABLE', { table, reason: reasons.join('; '), reasons }, cause === undefined ? {} : { cause })

export const isView = ({ kind }: TableFacts) => kind === 'v' || kind === 'm'
/** Run statements as one request; none where the list is empty. */
export const run = async (client: pg.ClientBase, statements: readonly string[]) => {
  if (statements.length > 0) await client.query(statements.join(';\n'))
}

/** What the server said no to, as the reason. Whoever changes tables is trusted with its words. */
function explain(error: unknown, table: string): unknown {
  const { code, message, table: named } = (error ?? {}) as { code?: string; message?: string; table?: string }
  const refused = code !== undefined && /^(0A|22|23|2B|42|54|55000|55006)/.test(code) && !(error instanceof StratumError)
  if (refused && !isTransient(error)) return notManageable(named ?? table, [`the database refused: ${message}`], error)
  return fromDriver(error)
}

/**
 * Do it whole or not at all: in a savepoint of the caller's transaction, or in a transaction of its own where the
 * caller has begun none.
 */
export async function atomically<T>(client: pg.ClientBase, table: string, work: () => Promise<T>): Promise<T> {
  const own = await client.query('savepoint stratum_migrate').then(
    () => false,
    (error: { code?: string }) => {
      if (error.code !== '25P01') throw error
      return true
    },
  )
  if (own) await client.query('begin')
  try {
    const result = await work()
    await client.query(own ? 'commit' : 'release savepoint stratum_migrate')
    return result
  } catch (error) {
    await client.query(own ? 'rollback' : 'rollback to savepoint stratum_migrate; release savepoint stratum_migrate').catch(() => {})
    throw explain(error, table)
  }
}

/** Whose the control schema is: all that is managed becomes that role's, since it also alters and copies it. */
export async function ownerOf(client: pg.ClientBase): Promise<string> {
  const { rows } = await client.query<{ owner: string; member: boolean }>(`
    select o.rolname as owner, pg_has_role(current_user, o.oid, 'USAGE') as member from pg_namespace n join pg_roles o on o.oid = n.nspowner where n.nspname = 'stratum'`)
  const row = rows[0]
  if (!row) throw stratumError('CONFIGURATION_INVALID', { reason: 'This database has no schema stratum. Run npx stratum setup first.' })
  if (!row.member)
    throw stratumError('CONFIGURATION_INVALID', { reason: `Tables become managed by ${row.owner}, or by a member of that role. Connect as one.` })
  return row.owner
}

/** Run as the owner of the control schema, with its search path; the caller's role comes back afterwards. */
export async function asOwner<T>(client: pg.ClientBase, owner: string, work: () => Promise<T>): Promise<T> {
  const { rows } = await client.query<{ role: string; tenant: string | null; timeout: string }>(
    `select current_setting('role') as role, current_setting('app.current_tenant_id', true) as tenant, current_setting('statement_timeout') as timeout,
      set_config('role', $1, true), set_config('statement_timeout', '0', true)`,
    [owner],
  )
  const result = await work()
  await client.query(
    `select set_config('role', $1, true), set_config('app.current_tenant_id', coalesce($2, ''), true), set_config('statement_timeout', $3, true)`,
    [rows[0]?.role, rows[0]?.tenant, rows[0]?.timeout],
  )
  return result
}

export async function handOver(client: pg.ClientBase, relations: readonly TableFacts[], owner: string) {
  for (const relation of relations.filter((each) => each.owner !== owner)) {
    const { rows } = await client.query<{ may: boolean }>(`select pg_has_role(current_user, $1::name, 'USAGE') as may`, [relation.owner])
    if (!rows[0]?.may) throw notManageable(relation.name, [`it belongs to ${relation.owner}; run ALTER TABLE ${relation.name} OWNER TO ${owner} as that role`])
    await client.query(`alter ${isView(relation) ? 'view' : 'table'} ${identifier(relation.name)} owner to ${identifier(owner)}`)
  }
}
