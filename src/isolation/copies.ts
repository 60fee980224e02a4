/** Copies of the managed tables in a schema or database of a tenant's own. */
import type pg from 'pg'
import { stratumError } from '../core/error-classes.ts'
import { inReferenceOrder } from './catalog.ts'
import { defineTable, defineView, type TableDefinition } from './definitions.ts'
import { identifier, literal } from './identifiers.ts'
import { viewObstacles, viewsReading } from './obstacles.ts'
import { pathTo, readTableFacts, type TableFacts, underSearchPath } from './table-facts.ts'

/** What the copies are made from, as read in one transaction of the control database. */
export interface Blueprint {
  tables: TableDefinition[]
  /** Statements that make what the tables use, for another database. */
  extensions: string[]
  enums: string[]
  /** The data plane's role. */
  role: string | null
  /** The application's migrations that the shared tables have had. */
  migrations: Array<{ name: string; hash: string; applied_at: string }>
}

/**
 * Held shared while copies are made and alone while the set of managed tables changes, so that no place misses a
 * table: always before any table's lock.
 */
export const COPIES_LOCK = `hashtextextended('stratum.managed_tables', 0)`

/** The data plane's role of the family that owns the guard, or null. */
export async function dataRole(client: pg.ClientBase): Promise<string | null> {
  const { rows } = await client.query<{ role: string }>(`
    select r.rolname as role from pg_namespace n join pg_roles o on o.oid = n.nspowner join pg_roles r on r.rolname = regexp_replace(o.rolname, 'owner$', 'app')
    where n.nspname = 'stratum_guard' and o.rolname <> r.rolname`)
  return rows[0]?.role ?? null
}

const EXTENSIONS = `
  select format('create schema if not exists %I', n.nspname) as schema, format('create extension if not exists %I schema %I', x.extname, n.nspname) as extension
  from pg_extension x join pg_namespace n on n.oid = x.extnamespace where x.extname = any ($1) order by x.extname`

const ENUMS = `
  select format('do $do$ begin if to_regtype(%L) is null then create type %s as enum (%s); end if; end $do$', quote_ident(n.nspname) || '.' || quote_ident(t.typname),
    quote_ident(n.nspname) || '.' || quote_ident(t.typname), string_agg(quote_literal(e.enumlabel), ', ' order by e.enumsortorder)) as statement
  from pg_type t join pg_namespace n on n.oid = t.typnamespace join pg_enum e on e.enumtypid = t.oid
  where (n.nspname, t.typname) in (select * from unnest($1::text[], $2::text[])) group by n.nspname, t.typname order by 1`

/** Names of the managed tables. */
export async function readRegistered(client: pg.ClientBase): Promise<Set<string>> {
  const { rows } = await client.query<{ table_name: string }>('select table_name from stratum.managed_tables order by table_name')
  return new Set(rows.map((row) => row.table_name))
}

/** Views over managed tables that can be copied, each after those it reads. */
function copiedViews(registered: ReadonlySet<string>, facts: readonly TableFacts[]): TableFacts[] {
  const views = facts.filter(({ kind }) => kind === 'v' || kind === 'm')
  let copied = viewsReading(registered, views)
  for (let before = -1; before !== copied.length; ) {
    before = copied.length
    const names = new Set([...registered, ...copied.map(({ name }) => name)])
    copied = copied.filter((view) => viewObstacles(view, (name) => names.has(name)).length === 0)
  }
  return inReferenceOrder(copied.map((view) => ({ ...view, references: view.reads.map(([, name]) => name) })))
}

/** What is copied: the managed tables, and the views over them. Inside a transaction only. */
export async function readManagedFacts(client: pg.ClientBase): Promise<{ tables: TableFacts[]; views: TableFacts[] }> {
  const registered = await readRegistered(client)
  const facts = registered.size === 0 ? [] : await readTableFacts(client)
  return { tables: facts.filter(({ kind, name }) => kind === 'r' && registered.has(name)), views: copiedViews(registered, facts) }
}

/** Read what copies are made from. Inside a transaction of the control database that holds {@link COPIES_LOCK}. */
export async function readBlueprint(client: pg.ClientBase): Promise<Blueprint> {
  const role = await dataRole(client)
  const managed = await readManagedFacts(client)
  const tables = [...managed.tables.map((table) => defineTable(table, role)), ...managed.views.map((view) => defineView(view, role))]
  const names = [...new Set(tables.flatMap((table) => table.extensions))]
  const enums = tables.flatMap((table) => table.enums)
  const extensions = names.length === 0 ? [] : (await client.query<{ schema: string; extension: string }>(EXTENSIONS, [names])).rows
  const types = enums.length === 0 ? [] : (await client.query<{ statement: string }>(ENUMS, [enums.map((e) => e.schema), enums.map((e) => e.name)])).rows
  const migrations = await client.query<Blueprint['migrations'][number]>(
    `select name, hash, applied_at::text from stratum_guard.applied_migrations where schema_name = '' order by name`,
  )
  return {
    tables,
    extensions: extensions.flatMap(({ schema, extension }) => [schema, extension]),
    enums: [...new Set(enums.map(({ schema }) => `create schema if not exists ${identifier(schema)}`)), ...types.map((type) => type.statement)],
    role,
    migrations: migrations.rows,
  }
}

async function presentTables(client: pg.ClientBase, schema: string): Promise<Set<string>> {
  const { rows } = await client.query<{ name: string }>(
    `select relname as name from pg_class where relnamespace = to_regnamespace($1) and relkind in ('r', 'p', 'v', 'm', 'f')`,
    [identifier(schema)],
  )
  return new Set(rows.map((row) => row.name))
}

/** Of the constraints that the copies should have, those that a schema lacks. */
async function missingConstraints(
  client: pg.ClientBase,
  schema: string,
  due: ReadonlyArray<{ table: string; name: string; statement: string }>,
): Promise<string[]> {
  const { rows } = await client.query<{ key: string }>(
    `select c.relname || '.' || k.conname as key from pg_constraint k join pg_class c on c.oid = k.conrelid where c.relnamespace = to_regnamespace($1)`,
    [identifier(schema)],
  )
  const present = new Set(rows.map((row) => row.key))
  return due.filter(({ table, name }) => !present.has(`${table}.${name}`)).map(({ statement }) => statement)
}

const keysOf = (tables: readonly TableDefinition[]) => tables.flatMap((table) => table.keys.map((key) => ({ table: table.name, ...key })))
const foreignKeysOf = (tables: readonly TableDefinition[]) => tables.flatMap((table) => table.foreignKeys.map((key) => ({ table: table.name, ...key })))

/** Run statements as one request. An empty list is none. */
async function runAll(client: pg.ClientBase, statements: readonly string[]) {
  if (statements.length > 0) await client.query(statements.join(';\n'))
}

/** Foreign keys of every table, of those made now, or of none: a place that is being filled gets them at the end. */
export type WhichForeignKeys = 'all' | 'new' | 'none'

/**
 * Make the copies that a schema lacks. Inside a transaction, in the database of the schema, with the tenant's context.
 *
 * @returns the names of the tables made
 */
export async function makeCopies(client: pg.ClientBase, blueprint: Blueprint, schema: string, foreignKeys: WhichForeignKeys): Promise<string[]> {
  const present = await presentTables(client, schema)
  const missing = blueprint.tables.filter((table) => !present.has(table.name))
  await underSearchPath(client, pathTo(schema), async () => {
    await runAll(
      client,
      missing.flatMap((table) => table.statements),
    )
    await runAll(client, await missingConstraints(client, schema, keysOf(blueprint.tables.filter((table) => present.has(table.name)))))
    const bound = { all: blueprint.tables, new: missing, none: [] }[foreignKeys]
    await runAll(client, await missingConstraints(client, schema, foreignKeysOf(bound)))
  })
  return missing.map((table) => table.name)
}

/**
 * Add the foreign keys that a place lacks, and check what is there. The rows must all be of the tenant that the
 * session's context names. Inside a transaction.
 */
export async function makeForeignKeys(client: pg.ClientBase, blueprint: Blueprint, schema: string): Promise<void> {
  await underSearchPath(client, pathTo(schema), async () => runAll(client, await missingConstraints(client, schema, foreignKeysOf(blueprint.tables))))
}

/** In another database: what the copies use. Inside a transaction. @throws PLACE_REFUSED where an extension may not be made */
export async function makePrerequisites(client: pg.ClientBase, blueprint: Blueprint): Promise<void> {
  await runAll(client, [...blueprint.extensions, ...blueprint.enums])
}

/** Write down which of the application's migrations a place has by its making. `ledger` is the place's name in that table. */
export async function recordMigrations(client: pg.ClientBase, blueprint: Blueprint, ledger: string): Promise<void> {
  await runAll(
    client,
    blueprint.migrations.map(
      ({ name, hash, applied_at }) =>
        `insert into stratum_guard.applied_migrations (schema_name, name, hash, applied_at)
         values (${literal(ledger)}, ${literal(name)}, ${literal(hash)}, ${literal(applied_at)}) on conflict do nothing`,
    ),
  )
}

/** Name of the last of the application's migrations that a place has had by its own ledger, '' before the first. */
export async function lastMigration(client: pg.ClientBase, ledger: string): Promise<string> {
  const { rows } = await client.query<{ name: string | null }>(
    'select max(name collate "C") as name from stratum_guard.applied_migrations where schema_name = $1',
    [ledger],
  )
  return rows[0]?.name ?? ''
}

/**
 * Tell the fleet's summary of a new place, in the transaction of the control database that holds {@link COPIES_LOCK}: a
 * fleet migration either finds it there or was copied into it.
 */
export async function recordFleetPlace(client: pg.ClientBase, tenantId: string, migration: string): Promise<void> {
  await client.query('insert into stratum.fleet_places (tenant_id, migration) values ($1, $2) on conflict (tenant_id) do nothing', [tenantId, migration])
}

/** The error for a place that something else stands at. */
export const notOurs = (kind: 'schema' | 'database' | 'role', name: string) => stratumError('PLACE_NOT_OURS', { kind, name })
