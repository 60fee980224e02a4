/** Making tables of the application managed: they hold the rows of tenants from then on. */
import type pg from 'pg'
import { stratumError } from '../core/error-classes.ts'
import { asOwner, atomically, handOver, isView, notManageable, ownerOf, run } from './authority.ts'
import { COPIES_LOCK, dataRole, makeCopies, readBlueprint, readRegistered } from './copies.ts'
import { CURRENT_TENANT, compositeForeignKey, grantRows, grants, isComposite, POLICY, rowSecurity } from './definitions.ts'
import { boundedName, identifier, identifiers, literal } from './identifiers.ts'
import { DATABASES_IN_USE, tenantSchemas } from './marked-places.ts'
import { companyOf, lacksTenant, type ManageOptions, obstacles, viewsReading } from './obstacles.ts'
import { readTableFacts, type TableFacts } from './table-facts.ts'

const COLUMN = 'tenant_id'

/** The tenant that existing rows are given to must have its rows in the shared tables. */
async function checkBackfill(client: pg.ClientBase, tenantId: string | undefined, table: string) {
  if (tenantId === undefined) return
  const { rows } = await client.query('select from stratum.tenants where id::text = lower($1) and isolation_strategy = $2', [tenantId, 'SHARED_RLS'])
  if (rows.length === 0) throw notManageable(table, [`backfill names ${tenantId}, which is no tenant whose rows are in the shared tables`])
}

/** Give every row its tenant: the column, its values, its default. */
async function giveTenants(client: pg.ClientBase, table: TableFacts, options: ManageOptions) {
  const name = identifier(table.name)
  const has = table.columns.some((column) => column.name === COLUMN)
  const backfill = options.backfill === undefined ? null : literal(options.backfill)
  if (!has) await client.query(`alter table ${name} add column ${COLUMN} uuid${backfill === null ? '' : ` not null default ${backfill}`}`)
  else if (backfill !== null) await client.query(`update ${name} set ${COLUMN} = ${backfill} where ${COLUMN} is null`)
  const { rows } = await client.query<{ orphans: boolean; strangers: boolean }>(`
    select exists (select from ${name} where ${COLUMN} is null) as orphans,
      exists (select from ${name} r where ${COLUMN} is not null
        and not exists (select from stratum.tenants t where t.id = r.${COLUMN} and t.isolation_strategy = 'SHARED_RLS')) as strangers`)
  if (rows[0]?.orphans)
    throw notManageable(table.name, ['it holds rows of no tenant: give their tenant (--backfill <tenant id>, backfill: id), or delete them'])
  if (rows[0]?.strangers) throw notManageable(table.name, ['it holds rows whose tenant_id is of no tenant in the shared tables: correct or delete them'])
  await client.query(`alter table ${name} alter column ${COLUMN} set not null, alter column ${COLUMN} set default ${CURRENT_TENANT}`)
}

/** `(a, b)` of a key's definition begins at its first bracket; it then begins with tenant_id. */
const withTenant = (definition: string) => definition.replace('(', `(${COLUMN}, `)

/** Put tenant_id in front of keys that hold over all tenants. */
async function rewriteKeys(client: pg.ClientBase, table: TableFacts) {
  const name = identifier(table.name)
  const keys = table.constraints.filter(({ kind, columns }) => (kind === 'p' || kind === 'u') && lacksTenant(columns))
  const indexes = table.indexes.filter(({ unique, constraint, columns }) => unique && !constraint && lacksTenant(columns))
  await run(client, [
    ...keys.map((key) => `alter table ${name} drop constraint ${identifier(key.name)}, add constraint ${identifier(key.name)} ${withTenant(key.definition)}`),
    // the bracket after the access method, as the names before it may hold brackets too
    ...indexes.flatMap((index) => {
      const start = index.definition.indexOf(' USING ', `CREATE UNIQUE INDEX ${index.name} ON ${table.name}`.length)
      return [`drop index ${identifier(index.name)}`, index.definition.slice(0, start) + withTenant(index.definition.slice(start))]
    }),
  ])
}

const sameColumns = (a: ReadonlyArray<string | null>, b: readonly string[]) => a.length === b.length && b.every((column) => a.includes(column))

/** True when a foreign key may point at these columns. */
const hasKey = (table: TableFacts, columns: readonly string[]) =>
  table.constraints.some((key) => (key.kind === 'p' || key.kind === 'u') && !key.deferrable && sameColumns(key.columns, columns)) ||
  table.indexes.some((index) => index.unique && !index.constraint && !index.partial && index.valid && sameColumns(index.columns, columns))

async function addKey(client: pg.ClientBase, table: TableFacts, columns: readonly string[]) {
  const due = [COLUMN, ...columns.filter((column) => column !== COLUMN)]
  if (hasKey(table, due)) return
  const name = boundedName([table.name, ...due], 'key')
  await client.query(`alter table ${identifier(table.name)} add constraint ${identifier(name)} unique (${identifiers(due)})`)
  table.constraints.push({ name, kind: 'u', definition: '', columns: due, operators: [], deferrable: false, comment: null })
}

/** Foreign keys between managed tables: both ends of one tenant, checked when the transaction wishes. */
async function bindForeignKeys(client: pg.ClientBase, tables: readonly TableFacts[], facts: ReadonlyMap<string, TableFacts>) {
  for (const table of tables) {
    for (const key of table.foreign_keys) {
      const target = facts.get(key.references.table)
      if (isComposite(key)) {
        if (!key.deferrable) await client.query(`alter table ${identifier(table.name)} alter constraint ${identifier(key.name)} deferrable initially immediate`)
        continue
      }
      if (target) await addKey(client, target, key.references.columns)
      await client.query(compositeForeignKey(table.name, key))
    }
  }
}

const plainKeys = (table: TableFacts) => table.foreign_keys.filter((key) => !isComposite(key))

/** Convert tables that nothing stands in the way of. All are locked; none is managed yet. */
async function convert(client: pg.ClientBase, tables: readonly TableFacts[], registered: ReadonlySet<string>, options: ManageOptions) {
  const names = tables.map(({ name }) => name)
  // Their owner reads all rows until row security is made afresh.
  await run(
    client,
    names.map((name) => `alter table ${identifier(name)} no force row level security`),
  )
  for (const table of tables) await giveTenants(client, table, options)
  await run(
    client,
    tables.flatMap((table) => plainKeys(table).map((key) => `alter table ${identifier(table.name)} drop constraint ${identifier(key.name)}`)),
  )
  if (options.rewriteKeys) for (const table of tables) await rewriteKeys(client, table)
  const facts = new Map((await readTableFacts(client, 'public', [...names, ...registered])).map((table) => [table.name, table]))
  for (const name of names) {
    const table = facts.get(name)
    const primary = table?.constraints.find(({ kind }) => kind === 'p')
    if (table && primary) await addKey(client, table, primary.columns)
  }
  // The check of a new key reads under row security too, and here it is for all tenants. The tables are locked.
  const targets = [...new Set(tables.flatMap((table) => plainKeys(table).map((key) => key.references.table)))].filter((name) => registered.has(name))
  await run(
    client,
    targets.map((name) => `alter table ${identifier(name)} no force row level security`),
  )
  await bindForeignKeys(client, tables, facts)
  await run(
    client,
    targets.map((name) => `alter table ${identifier(name)} force row level security`),
  )
}

async function secure(client: pg.ClientBase, tables: readonly TableFacts[], views: readonly TableFacts[]) {
  const role = await dataRole(client)
  for (const table of tables) {
    const policies = table.policies.some(({ name }) => name === POLICY) ? [`drop policy ${POLICY} on ${identifier(table.name)}`] : []
    await run(client, [...policies, ...rowSecurity(table.name), ...(role === null ? [] : grants(table, role))])
  }
  if (role !== null)
    await run(
      client,
      views.map((view) => grantRows(view.name, role)),
    )
}

/** A change of isolation copies the tables that it found when it began: one more would be left behind. */
export async function refuseDuringChange(client: pg.ClientBase) {
  const { rows } = await client.query<{ tenant_id: string; job_id: string }>(
    'select tenant_id, job_id from stratum.isolation_changes where finished_at is null limit 1',
  )
  if (rows[0]) throw stratumError('ISOLATION_CHANGE_RUNNING', rows[0])
}

/** Copies in tenants' schemas come with this transaction; tenants' databases get theirs from the provisioner. */
async function spread(client: pg.ClientBase) {
  const blueprint = await readBlueprint(client)
  for (const { name, tenantId } of await tenantSchemas(client, { kept: false })) {
    await client.query(`select set_config('app.current_tenant_id', $1, true)`, [tenantId])
    await makeCopies(client, blueprint, name, 'new')
  }
  await client.query(`select stratum.enqueue('create_managed_copies', tenant_id, jsonb_build_object('database_name', name)) from (${DATABASES_IN_USE}) as d`)
}

/** The tables of these names, locked. Names that are wrong are told before anything waits for a lock. */
async function lockTables(client: pg.ClientBase, names: readonly string[]): Promise<TableFacts[]> {
  const found = await readTableFacts(client, 'public', names)
  for (const name of names) {
    if (!found.some((table) => table.name === name)) throw notManageable(name, ['there is no such table in schema public'])
  }
  const lockable = found.filter(({ kind }) => kind === 'r' || kind === 'p')
  if (lockable.length > 0) await client.query(`lock table ${identifiers(lockable.map(({ name }) => name))} in access exclusive mode`)
  return readTableFacts(client)
}

/** Convert what is not managed yet. */
async function manageFresh(client: pg.ClientBase, fresh: readonly string[], owner: string, options: ManageOptions) {
  const registered = await readRegistered(client)
  const all = await lockTables(client, fresh)
  const tables = all.filter(({ name }) => fresh.includes(name))
  const views = all.filter(isView)
  const company = companyOf(new Set(fresh), registered, all)
  for (const table of tables) {
    const reasons = obstacles(table, company, views, options)
    if (reasons.length > 0) throw notManageable(table.name, reasons)
    await checkBackfill(client, options.backfill, table.name)
  }
  const over = viewsReading(new Set(fresh), views)
  await handOver(client, [...tables, ...over], owner)
  await asOwner(client, owner, async () => {
    await convert(client, tables, registered, options)
    await secure(client, tables, over)
    await client.query('insert into stratum.managed_tables (table_name) select unnest($1::text[])', [fresh])
  })
}

async function manage(client: pg.ClientBase, names: readonly string[], options: ManageOptions) {
  await client.query(`select pg_advisory_xact_lock(${COPIES_LOCK})`)
  const owner = await ownerOf(client)
  await refuseDuringChange(client)
  const registered = await readRegistered(client)
  const fresh = names.filter((name) => !registered.has(name))
  if (fresh.length > 0) await manageFresh(client, fresh, owner, options)
  // also for those that were managed: a copy that a place lacks is made
  await asOwner(client, owner, () => spread(client))
}

/**
 * Make tables of schema public managed, together where foreign keys tie them: they get `tenant_id`, row security with
 * the one policy, keys and foreign keys within a tenant, and a copy in every place of a tenant's own. Tables that are
 * managed already stay as they are, and what copies a place lacks are made. All of it happens in the caller's transaction, or in one of its own; refused,
 * nothing is changed.
 *
 * The tables are locked while they are converted, and the default lock_timeout of the role bounds the wait for it.
 *
 * @param client of stratum_owner or a member of that role, in the control database
 * @param names as they are in the catalog, not quoted
 * @throws TABLE_NOT_MANAGEABLE with every reason in `details.reasons`; ISOLATION_CHANGE_RUNNING while any tenant's is;
 *   DATABASE_BUSY; CONFIGURATION_INVALID
 */
export async function migrateTables(client: pg.ClientBase, names: readonly string[], options: ManageOptions = {}): Promise<void> {
  const [first] = names
  if (first !== undefined) await atomically(client, first, () => manage(client, [...new Set(names)], options))
}

/**
 * Make one table managed: see {@link migrateTables}.
 *
 * @example
 * await client.query('begin')
 * await migrateTable(client, 'orders') // tenant_id, row security, the policy
 * await client.query('commit')
 */
export const migrateTable = (client: pg.ClientBase, name: string, options: ManageOptions = {}): Promise<void> => migrateTables(client, [name], options)
