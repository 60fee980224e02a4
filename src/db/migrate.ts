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

/** What the runner needs of a connection. */
export interface MigrationConnection {
  query(text: string): Promise<Array<Record<string, unknown>>>
  /** Run the statements as one transaction. */
  transaction(statements: readonly string[]): Promise<void>
}

export interface MigrateOptions {
  /** Role that shall own what is made; the connecting role must be able to SET ROLE to it. */
  owner?: string
  /** What the names of the service's roles begin with. Default `stratum_`. */
  rolePrefix?: string
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
const TRIES = 5

async function readFolder(folder: string, pattern: RegExp): Promise<MigrationFile[]> {
  const names = (await readdir(new URL(folder, FOLDER))).filter((name) => pattern.test(name)).sort()
  return Promise.all(
    names.map(async (file) => {
      const text = await readFile(new URL(folder + file, FOLDER), 'utf8')
      const statements = text.split('--> statement-breakpoint').map((statement) => statement.trim())
      return { name: folder + file, hash: createHash('sha256').update(text).digest('hex'), statements: statements.filter((statement) => statement !== '') }
    }),
  )
}

const literal = (text: string) => `'${text.replaceAll("'", "''")}'`
const identifier = (name: string) => `"${name.replaceAll('"', '""')}"`
const sqlState = (error: unknown) => (error as { code?: unknown } | null)?.code

function inTransaction(statements: readonly string[], options: MigrateOptions): string[] {
  return [
    ...(options.owner ? [`set local role ${identifier(options.owner)}`] : []),
    // A migration that waits for a lock makes everybody behind it wait: give up soon and try again.
    `set local lock_timeout = '3s'`,
    `set local statement_timeout = 0`,
    `select set_config('stratum.role_prefix', ${literal(options.rolePrefix ?? 'stratum_')}, true)`,
    `select pg_advisory_xact_lock(hashtextextended('stratum.migrate', 0))`,
    ...statements,
  ]
}

/** Apply in one transaction, again when a lock was not to be had. */
async function apply(connection: MigrationConnection, statements: readonly string[], options: MigrateOptions) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await connection.transaction(inTransaction(statements, options))
    } catch (error) {
      if (sqlState(error) !== '55P03' || attempt === TRIES) throw error
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

async function readLedger(connection: MigrationConnection): Promise<Map<string, string>> {
  const rows = await connection.query('select name, hash from stratum.migrations')
  return new Map(rows.map((row) => [String(row['name']), String(row['hash'])]))
}

function checkLedger(ledger: Map<string, string>, states: MigrationFile[]) {
  const known = new Map(states.map((file) => [file.name, file.hash]))
  for (const [name, hash] of ledger) {
    if (name.startsWith('routines/')) continue
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

const record = (file: MigrationFile) => `insert into stratum.migrations (name, hash) values (${literal(file.name)}, ${literal(file.hash)})`

/**
 * Bring the database to this version. Safe to repeat and to run from several places at once.
 *
 * @returns the names of the files applied
 * @throws CONFIGURATION_INVALID when the server is too old, the database newer than this version, or a migration was altered
 */
export async function migrate(connection: MigrationConnection, options: MigrateOptions = {}): Promise<string[]> {
  const [states, routines] = await Promise.all([readFolder('', /^\d{4}_.*\.sql$/), readFolder('routines/', /\.sql$/)])
  await checkServer(connection)
  await prepare(connection, options)
  const ledger = await readLedger(connection)
  checkLedger(ledger, states)
  const applied: string[] = []
  for (const file of states) {
    if (ledger.has(file.name)) continue
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
  const changed = routines.filter((file) => ledger.get(file.name) !== file.hash)
  if (changed.length > 0) {
    // The grants look at what is there, so they are due whenever anything changed.
    const due = routines.filter((file) => changed.includes(file) || file.name === GRANTS)
    await apply(
      connection,
      due.flatMap((file) => [...file.statements, `${record(file)} on conflict (name) do update set hash = excluded.hash, applied_at = now()`]),
      options,
    )
    for (const file of due) options.onApplied?.(file.name)
    applied.push(...due.map((file) => file.name))
  }
  return applied
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
