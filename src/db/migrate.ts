/**
 * The migration runner. Two kinds of files: `NNNN_*.sql` hold state, are applied once in order and never
 * change; `routines/*.sql` hold functions, triggers and grants, and are applied again when their text
 * changes. Each state file is one transaction, all changed routines together another, so the runner works
 * over TCP and over Neon's HTTP batches alike.
 */
import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import type { NeonQueryFunction } from '@neondatabase/serverless'
import { stratumError } from '../core/error-classes.ts'
import { VERSION } from '../version.ts'
import { isTransient } from './errors.ts'

/** What the runner needs of a connection. */
export interface MigrationConnection {
  query(text: string): Promise<Array<Record<string, unknown>>>
  /** Run the statements as one transaction. */
  transaction(statements: readonly string[]): Promise<void>
}

export interface MigrateOptions {
  /**
   * Role that shall own the schema; the connecting role must be able to SET ROLE to it. A schema that is there
   * and the connecting role's own is handed over. Default: who owns the schema, else the connecting role.
   */
  owner?: string
  /** Where the files are, a directory's URL with a slash at its end. Default: this package's own. */
  folder?: URL
  /** Told of each file applied. */
  onApplied?: (name: string) => void
}

interface MigrationFile {
  name: string
  hash: string
  statements: string[]
}

const FOLDER = new URL('../../migrations/', import.meta.url)
const GRANTS = 'routines/99_grants.sql'
const GUARD = 'routines/01_guard.sql'
const TRIES = 5
/** Where the ledger keeps the version that was here last. */
const VERSION_ENTRY = 'version'
/** The schemas that are ours: the control plane's, and the guard's. */
const OURS = `select oid from pg_namespace where nspname in ('stratum', 'stratum_guard')`
const SCHEMA_OWNER = `select pg_get_userbyid(nspowner)::text from pg_namespace where nspname = 'stratum'`

async function readFiles(root: URL, folder: string, pattern: RegExp): Promise<MigrationFile[]> {
  const names = (await readdir(new URL(folder, root))).filter((name) => pattern.test(name)).sort()
  return Promise.all(
    names.map(async (file) => {
      const text = await readFile(new URL(folder + file, root), 'utf8')
      const statements = text.split('--> statement-breakpoint').map((statement) => statement.trim())
      return { name: folder + file, hash: createHash('sha256').update(text).digest('hex'), statements: statements.filter((statement) => statement !== '') }
    }),
  )
}

const literal = (text: string) => `'${text.replaceAll("'", "''")}'`
const identifier = (name: string) => `"${name.replaceAll('"', '""')}"`
const sqlState = (error: unknown) => (error as { code?: unknown } | null)?.code

function inTransaction(statements: readonly string[], options: MigrateOptions): string[] {
  const fallback = options.owner ? literal(options.owner) : 'current_user'
  return [
    // A migration that waits for a lock makes everybody behind it wait: give up soon and try again.
    `set local lock_timeout = '3s'`,
    `set local statement_timeout = 0`,
    `select pg_advisory_xact_lock(hashtextextended('stratum.migrate', 0))`,
    // All in the schema belongs to one role, whoever migrates: functions run as their owner.
    `select set_config('role', coalesce((${SCHEMA_OWNER}), ${fallback}), true)`,
    ...statements,
  ]
}

/** Apply in one transaction, again when a lock was not to be had or another transaction went first. */
async function apply(connection: MigrationConnection, statements: readonly string[], options: MigrateOptions) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await connection.transaction(inTransaction(statements, options))
    } catch (error) {
      if (!isTransient(error) || attempt === TRIES) throw error
      await new Promise((resolve) => setTimeout(resolve, 200 * attempt))
    }
  }
}

/** Refuse what cannot work with a sentence, before anything is made. */
async function checkServer(connection: MigrationConnection) {
  const [facts] = await connection.query(
    `select current_setting('server_version_num')::int as version, (select extnamespace::regnamespace::text from pg_extension where extname = 'ltree') as ltree`,
  )
  const refuse = (reason: string) => stratumError('CONFIGURATION_INVALID', { reason })
  if (Number(facts?.['version']) < 160_000) throw refuse('PostgreSQL 16 or newer is needed.')
  const ltree = facts?.['ltree']
  if (typeof ltree === 'string' && ltree !== 'stratum') {
    throw refuse(
      `The extension ltree is installed in schema ${ltree}; run ALTER EXTENSION ltree SET SCHEMA stratum (after CREATE SCHEMA stratum) and try again.`,
    )
  }
}

async function prepare(connection: MigrationConnection, options: MigrateOptions) {
  const [ledger] = await connection.query(`select to_regclass('stratum.migrations') is not null as present`)
  if (ledger?.['present'] === true) return
  await apply(
    connection,
    [
      'create schema if not exists stratum',
      'create extension if not exists ltree schema stratum',
      'create table if not exists stratum.migrations (name text primary key, hash text not null, applied_at timestamptz not null default now())',
    ],
    options,
  )
}

/** Where the embedded class migrated first, the schema is the application's; `npx stratum setup` gives it to its own role. */
async function handOver(connection: MigrationConnection, options: MigrateOptions) {
  if (!options.owner) return
  const [schema] = await connection.query(`select (${SCHEMA_OWNER}) as owner`)
  if (schema?.['owner'] === options.owner) return
  const heir = identifier(options.owner)
  // the schemas first: whoever gets what is in one must be able to make things there
  const statements = `
    select format('alter schema %I owner to %s', n.nspname, heir) from pg_namespace n where n.oid in (${OURS})
    union all
    select format('alter table %s owner to %s', c.oid::regclass, heir) from pg_class c where c.relnamespace in (${OURS}) and c.relkind = 'r'
    union all
    select format('alter function %s owner to %s', p.oid::regprocedure, heir) from pg_proc p where p.pronamespace in (${OURS})
      and not exists (select from pg_depend d where d.objid = p.oid and d.classid = 'pg_proc'::regclass and d.deptype = 'e')`
  await apply(
    connection,
    [
      'set local role none',
      `do $do$ declare heir text := ${literal(heir)}; change text; begin for change in ${statements} loop execute change; end loop; end $do$`,
    ],
    options,
  )
}

/** The files that grant are due too where a role was made after the schema that it may use. */
async function lackingGrants(connection: MigrationConnection): Promise<string[]> {
  const rows = await connection.query(
    `select distinct f.file from (values ('stratum', 'control', '${GRANTS}'), ('stratum_guard', 'app', '${GUARD}'), ('stratum_guard', 'tenants', '${GUARD}')) as f (schema, part, file)
       join pg_namespace n on n.nspname = f.schema join pg_roles o on o.oid = n.nspowner join pg_roles r on r.rolname = regexp_replace(o.rolname, 'owner$', f.part)
     where o.rolname <> r.rolname and not has_schema_privilege(r.oid, n.oid, 'usage')`,
  )
  return rows.map((row) => String(row['file']))
}

async function readLedger(connection: MigrationConnection): Promise<Map<string, string>> {
  const rows = await connection.query('select name, hash from stratum.migrations')
  return new Map(rows.map((row) => [String(row['name']), String(row['hash'])]))
}

/** True when version `a` comes after `b`; both are `major.minor.patch`. */
function isLater(a: string, b: string): boolean {
  const [x, y] = [a, b].map((version) => version.split('.').map(Number))
  const differs = x?.findIndex((part, index) => part !== y?.[index]) ?? -1
  return differs >= 0 && (x?.[differs] ?? 0) > (y?.[differs] ?? 0)
}

/** Routines name no version of their own: without this, an older release would put its own in place of newer ones. */
function checkVersion(ledger: Map<string, string>) {
  const applied = ledger.get(VERSION_ENTRY)
  if (applied !== undefined && isLater(applied, VERSION)) {
    throw stratumError('CONFIGURATION_INVALID', {
      reason: `The database is newer than this version, ${VERSION}: it was brought to ${applied}. Use that or a later one.`,
    })
  }
}

function checkLedger(ledger: Map<string, string>, states: MigrationFile[]) {
  checkVersion(ledger)
  const known = new Map(states.map((file) => [file.name, file.hash]))
  for (const [name, hash] of ledger) {
    if (name.startsWith('routines/') || name === VERSION_ENTRY) continue
    if (!known.has(name)) {
      throw stratumError('CONFIGURATION_INVALID', {
        reason: `The database is newer than this version: it has migration ${name}. Use the version that applied it, or a later one.`,
      })
    }
    if (known.get(name) !== hash)
      throw stratumError('CONFIGURATION_INVALID', {
        reason: `Migration ${name} was changed after it was applied. Put its text back and add a new migration instead.`,
      })
  }
}

const upsert = (entry: { name: string; hash: string }) => `${record(entry)} on conflict (name) do update set hash = excluded.hash, applied_at = now()`
const record = (file: { name: string; hash: string }) => `insert into stratum.migrations (name, hash) values (${literal(file.name)}, ${literal(file.hash)})`

async function applyStates(connection: MigrationConnection, states: MigrationFile[], options: MigrateOptions): Promise<string[]> {
  const applied: string[] = []
  for (const file of states) {
    try {
      // Recorded first: where another runner was faster, nothing of the file runs twice.
      await apply(connection, [record(file), 'set local search_path = stratum', ...file.statements], options)
    } catch (error) {
      if (sqlState(error) === '23505' && (await readLedger(connection)).get(file.name) === file.hash) continue
      throw error
    }
    applied.push(file.name)
    options.onApplied?.(file.name)
  }
  return applied
}

/**
 * Bring the database to this version. Safe to repeat and to run from several places at once.
 *
 * @returns the names of the files applied
 * @throws CONFIGURATION_INVALID when the server is too old, the database newer than this version, or a migration was altered
 */
export async function migrate(connection: MigrationConnection, options: MigrateOptions = {}): Promise<string[]> {
  const root = options.folder ?? FOLDER
  const [states, routines] = await Promise.all([readFiles(root, '', /^\d{4}_.*\.sql$/), readFiles(root, 'routines/', /\.sql$/)])
  await checkServer(connection)
  await prepare(connection, options)
  await handOver(connection, options)
  const ledger = await readLedger(connection)
  checkLedger(ledger, states)
  const missing = states.filter((file) => !ledger.has(file.name))
  const applied = await applyStates(connection, missing, options)
  const changed = routines.filter((file) => ledger.get(file.name) !== file.hash).map((file) => file.name)
  // The grants look at what is there, so they are due whenever anything changed.
  const names = new Set([...changed, ...(changed.length > 0 ? [GRANTS] : []), ...(await lackingGrants(connection))])
  const due = routines.filter((file) => names.has(file.name))
  if (due.length > 0) {
    await apply(connection, [...due.flatMap((file) => [...file.statements, upsert(file)]), upsert({ name: VERSION_ENTRY, hash: VERSION })], options)
    for (const file of due) options.onApplied?.(file.name)
  }
  return [...applied, ...due.map((file) => file.name)]
}

/** What a `pg` pool or client offers the runner. */
export interface PgConnection {
  query(text: string): Promise<{ rows: Array<Record<string, unknown>> }>
}

/** The runner's connection over one `pg` client; a transaction must not be spread over a pool. */
export const overPostgres = (client: PgConnection): MigrationConnection => ({
  query: async (text) => (await client.query(text)).rows,
  transaction: async (statements) => {
    await client.query('begin')
    try {
      for (const statement of statements) await client.query(statement)
      await client.query('commit')
    } catch (error) {
      await client.query('rollback')
      throw error
    }
  },
})

/** The runner's connection over Neon's HTTP protocol: a transaction is one batch. */
export const overNeon = (sql: NeonQueryFunction<false, false>): MigrationConnection => ({
  query: (text) => sql.query(text),
  transaction: async (statements) => {
    await sql.transaction(statements.map((statement) => sql.query(statement)))
  },
})
