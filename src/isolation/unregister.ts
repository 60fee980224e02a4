/** Tables that are managed no more: the application's alone again. */
import type pg from 'pg'
import { stratumError } from '../core/error-classes.ts'
import { StratumError } from '../core/errors.ts'
import { asOwner, atomically, notManageable, ownerOf, run } from './authority.ts'
import { COPIES_LOCK, dataRole, readRegistered } from './copies.ts'
import { POLICY } from './definitions.ts'
import { dropCopies, filledCopies } from './dropped-copies.ts'
import { identifier } from './identifiers.ts'
import { DATABASES_IN_USE, tenantSchemas } from './marked-places.ts'
import { viewsReading } from './obstacles.ts'
import { refuseDuringChange } from './register.ts'
import { connectAs } from './siblings.ts'
import { readTableFacts, type TableFacts } from './table-facts.ts'

export interface UnmanageOptions {
  /** A client in another database of the same server, to see that the copies there are empty. Default: as the given client is connected. */
  connect?: (database: string) => Promise<pg.ClientBase & { end(): Promise<void> }>
}

async function refuseFilled(client: pg.ClientBase, name: string | undefined, tenantId: string) {
  if (name === undefined) return
  const { rows } = await client.query<{ slug: string }>('select slug from stratum.tenants where id = $1', [tenantId])
  const tenant = rows[0] ? `${rows[0].slug} (${tenantId})` : tenantId
  throw notManageable(name, [`tenant ${tenant} has rows in a copy of its own: delete them, or change its isolation to SHARED_RLS`])
}

async function checkDatabases(client: pg.ClientBase, names: readonly string[], connect: NonNullable<UnmanageOptions['connect']>) {
  const { rows } = await client.query<{ name: string; tenantId: string }>(`
    select l.name, l.tenant_id as "tenantId" from (${DATABASES_IN_USE}) as l join pg_database d on d.datname = l.name order by 1`)
  for (const { name, tenantId } of rows) {
    const there = await connect(name)
    try {
      await there.query('begin')
      const [filled] = await filledCopies(there, 'public', names)
      await there.query('rollback')
      await refuseFilled(client, filled, tenantId)
    } finally {
      await there.end()
    }
  }
}

/** The sentence of the catalogue is of a table that is to become managed. */
const stays = ({ code, details, cause }: StratumError) =>
  stratumError(code, details, { cause, message: `The table ${details['table']} cannot be made unmanaged: ${details['reason']}.` })

/** Nothing that stays managed may be tied to what does not. */
function checkTies(tables: readonly TableFacts[], names: ReadonlySet<string>, registered: ReadonlySet<string>) {
  for (const table of tables) {
    const ties = [
      ...table.foreign_keys.map((key) => ({ other: key.references.table, key: key.name })),
      ...table.referenced_by.filter(([schema]) => schema === 'public').map(([, other, key]) => ({ other, key })),
    ].filter(({ other }) => registered.has(other) && !names.has(other))
    if (ties.length > 0) {
      throw notManageable(
        table.name,
        ties.map(({ other, key }) => `the foreign key ${key} ties it to ${other}, which stays managed: remove both in one call, or drop the key`),
      )
    }
  }
}

async function unmanage(client: pg.ClientBase, names: readonly string[], connect: NonNullable<UnmanageOptions['connect']>) {
  await client.query(`select pg_advisory_xact_lock(${COPIES_LOCK})`)
  const owner = await ownerOf(client)
  await refuseDuringChange(client)
  const registered = await readRegistered(client)
  const stranger = names.find((name) => !registered.has(name))
  if (stranger !== undefined) throw notManageable(stranger, ['it is not managed'])
  await asOwner(client, owner, async () => {
    const facts = await readTableFacts(client)
    const tables = facts.filter(({ kind, name }) => kind === 'r' && names.includes(name))
    checkTies(tables, new Set(names), registered)
    await checkDatabases(client, names, connect)
    for (const { name: schema, tenantId } of await tenantSchemas(client, { kept: false })) {
      const [filled] = await filledCopies(client, schema, names)
      await refuseFilled(client, filled, tenantId)
      await dropCopies(client, schema, names)
    }
    const over = viewsReading(new Set(names), facts).filter(({ kind }) => kind === 'v')
    await release(client, tables, over)
    await client.query('delete from stratum.managed_tables where table_name = any ($1)', [names])
    await client.query(
      `select stratum.enqueue('create_managed_copies', tenant_id, jsonb_build_object('database_name', name, 'dropped', $1::text[]))
       from (${DATABASES_IN_USE}) as d`,
      [names],
    )
  })
}

/** Without the policy the data plane's role would read the rows of all tenants: it reads none. */
async function release(client: pg.ClientBase, tables: readonly TableFacts[], views: readonly TableFacts[]) {
  const role = await dataRole(client)
  for (const { name, policies } of tables) {
    const table = `public.${identifier(name)}`
    await run(client, [
      ...(policies.some((policy) => policy.name === POLICY) ? [`drop policy ${POLICY} on ${table}`] : []),
      `alter table ${table} no force row level security`,
      `alter table ${table} disable row level security`,
      `alter table ${table} alter column tenant_id drop default`,
    ])
  }
  if (role === null) return
  await run(
    client,
    [...tables, ...views].map(({ name }) => `revoke all on public.${identifier(name)} from ${identifier(role)}`),
  )
}

/**
 * Make tables managed no more: row security, the policy, the default of `tenant_id` and the data plane's rights go; the
 * column, its values, keys and foreign keys stay. Copies must be empty: those in tenants' schemas go in the same
 * transaction, those in tenants' databases by a job. What a tenant has left, and is kept for the rollback window, stays
 * as it is and goes with its place. In the caller's transaction, or in one of its own.
 *
 * @param client of stratum_owner or a member of that role, in the control database
 * @throws TABLE_NOT_MANAGEABLE, ISOLATION_CHANGE_RUNNING, DATABASE_BUSY, CONFIGURATION_INVALID
 */
export async function unmigrateTables(client: pg.ClientBase, names: readonly string[], options: UnmanageOptions = {}): Promise<void> {
  const [first] = names
  const connect = options.connect ?? ((database: string) => connectAs(client, database))
  if (first === undefined) return
  await atomically(client, first, () => unmanage(client, [...new Set(names)], connect)).catch((error: unknown) => {
    throw error instanceof StratumError && error.code === 'TABLE_NOT_MANAGEABLE' ? stays(error) : error
  })
}

/** Make one table managed no more: see {@link unmigrateTables}. */
export const unmigrateTable = (client: pg.ClientBase, name: string, options: UnmanageOptions = {}): Promise<void> => unmigrateTables(client, [name], options)
