/** One file in one place: the file, its line in the ledger and the summary commit together. */
import type pg from 'pg'
import { StratumError } from '../../core/errors.ts'
import { fromDriver, isTransient } from '../../db/errors.ts'
import { identifier, literal } from '../../isolation/identifiers.ts'
import { schemaOf } from '../../isolation/place.ts'
import { type FleetMigration, migrationInvalid } from './files.ts'
import { type FleetPlace, isShared, ledgerOf } from './places.ts'

export interface Applying {
  /** The owner's, in the control database. */
  control: pg.ClientBase
  /** The owner's, in the place's database; another connection than `control`. */
  beside(): Promise<pg.ClientBase>
  /** Names of the managed tables. */
  managed: readonly string[]
  /** Milliseconds a statement waits for a lock before it gives way to who waits behind it. */
  lockTimeout: number
  /** Files whose recorded hash is to be replaced. */
  acceptChanged: ReadonlySet<string>
}

const TRIES = 8
const pause = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds))

const limits = ({ lockTimeout }: Applying) => [
  'begin',
  'set local statement_timeout = 0',
  'set local idle_in_transaction_session_timeout = 0',
  `set local lock_timeout = ${lockTimeout}`,
]
/** What a file has set for its session goes with it. */
const AFTERWARDS = ['reset role', 'reset all']

const beginPlace = (place: FleetPlace, file: FleetMigration) =>
  `select stratum.begin_place_migration(${literal(place.tenant_id)}, ${place.name === null ? 'null' : literal(place.name)}, ${literal(file.name)}, ${literal(file.hash)})`
const endPlace = (place: FleetPlace, file: FleetMigration) => `select stratum.end_place_migration(${literal(place.tenant_id)}, ${literal(file.name)})`
const ledgerLine = (place: FleetPlace, file: FleetMigration) =>
  `insert into stratum_guard.applied_migrations (schema_name, name, hash) values (${literal(ledgerOf(place))}, ${literal(file.name)}, ${literal(file.hash)})`

/** Managed tables that a file of the shared tables may read or write the rows of. */
function unforced(place: FleetPlace, file: FleetMigration, managed: readonly string[]): string[] {
  if (!isShared(place) || !file.touchesRows) return []
  return managed.filter((table) => file.validates || file.text.includes(table))
}

/**
 * A file's statements, under the search path of its place and nothing else: where a table is missing in a schema, the
 * shared one must not be taken for it. In a place of its own the context is the tenant's. The shared tables hold rows
 * of all, so for this transaction row security does not bind their owner; it binds everybody else as ever, and nobody
 * sees the table meanwhile.
 */
function body(place: FleetPlace, file: FleetMigration, managed: readonly string[]): string[] {
  if (file.sharedOnly && !isShared(place)) return []
  const open = unforced(place, file, managed).map((table) => `public.${identifier(table)}`)
  return [
    ...(isShared(place) ? [] : [`select set_config('app.current_tenant_id', ${literal(place.tenant_id)}, true)`]),
    ...open.map((table) => `alter table ${table} no force row level security`),
    `set local search_path = ${identifier(schemaOf(place))}, pg_temp`,
    `${file.text}\n`,
    ...(open.length > 0 ? ['set constraints all immediate'] : []),
    ...open.map((table) => `alter table if exists ${table} force row level security`),
  ]
}

const run = (client: pg.ClientBase, statements: readonly string[]) => client.query(statements.join(';\n'))
const giveUp = (client: pg.ClientBase) => run(client, ['rollback', ...AFTERWARDS]).catch(() => {})

/** In the control database: one request. */
async function applyHere(applying: Applying, place: FleetPlace, file: FleetMigration) {
  const { control, managed } = applying
  const statements = [...limits(applying), beginPlace(place, file), ledgerLine(place, file), ...body(place, file, managed), endPlace(place, file), 'commit']
  try {
    await run(control, [...statements, ...AFTERWARDS])
  } catch (error) {
    await giveUp(control)
    throw error
  }
}

const INVALID_INDEXES = `
  select string_agg(i.indexrelid::regclass::text, ', ') as names from pg_index i join pg_class c on c.oid = i.indexrelid
  where not i.indisvalid and c.relnamespace = to_regnamespace($1)`

/** One statement outside of a transaction. It can be repeated, so a line of the ledger that is missing does no harm. */
async function runAlone(client: pg.ClientBase, place: FleetPlace, file: FleetMigration) {
  const schema = identifier(schemaOf(place))
  await run(client, ['set statement_timeout = 0', 'set lock_timeout = 0', `set search_path = ${schema}, pg_temp`])
  try {
    await client.query(file.text)
    const { rows } = await client.query<{ names: string | null }>(INVALID_INDEXES, [schema])
    if (rows[0]?.names) throw migrationInvalid(file.name, `the index ${rows[0].names} is left invalid; drop it there and run this again`)
  } finally {
    await run(client, AFTERWARDS)
  }
}

/** The file runs on a second connection, while the first holds the tenant where it is. */
async function applyBeside(applying: Applying, place: FleetPlace, file: FleetMigration) {
  const { control, managed } = applying
  const elsewhere = place.strategy === 'DB_PER_TENANT'
  const skipped = file.sharedOnly && !isShared(place)
  try {
    await run(control, [...limits(applying), beginPlace(place, file), ...(elsewhere ? [] : [ledgerLine(place, file)])])
    const client = await applying.beside()
    if (!file.transaction && !skipped) await runAlone(client, place, file)
    if (elsewhere) {
      const text = file.transaction ? body(place, file, managed) : []
      await run(client, [...limits(applying), ledgerLine(place, file), ...text, 'commit', ...AFTERWARDS]).catch(async (error: unknown) => {
        await giveUp(client)
        if (!(await isApplied(error, client, applying, place, file))) throw error
      })
    }
    await run(control, [endPlace(place, file), 'commit'])
  } catch (error) {
    await giveUp(control)
    throw error
  }
}

/** True for the refusal of a ledger's line that is there already, with the same text. @throws MIGRATION_INVALID for another text */
async function isApplied(error: unknown, client: pg.ClientBase, { acceptChanged }: Applying, place: FleetPlace, file: FleetMigration): Promise<boolean> {
  const { code, constraint } = error as { code?: string; constraint?: string }
  if (code !== '23505' || constraint !== 'applied_migrations_pkey') return false
  const key = [ledgerOf(place), file.name]
  if (acceptChanged.has(file.name)) {
    await client.query('update stratum_guard.applied_migrations set hash = $3 where schema_name = $1 and name = $2', [...key, file.hash])
  }
  const { rows } = await client.query<{ hash: string }>('select hash from stratum_guard.applied_migrations where schema_name = $1 and name = $2', key)
  if (rows[0]?.hash === file.hash) return true
  throw migrationInvalid(file.name, 'it was changed after it was applied there')
}

/**
 * Apply a file to a place; that it was applied already is no error. Where a lock is not to be had it gives way, and
 * tries again a few times.
 *
 * @throws whatever the file's statements fail with; TENANT_NOT_FOUND where the place is no more, ISOLATION_CHANGE_RUNNING
 *   where its rows are being moved
 */
export async function applyFile(applying: Applying, place: FleetPlace, file: FleetMigration): Promise<void> {
  const apply = place.strategy === 'DB_PER_TENANT' || !file.transaction ? applyBeside : applyHere
  for (let attempt = 1; ; attempt++) {
    try {
      return await apply(applying, place, file)
    } catch (error) {
      if (place.strategy !== 'DB_PER_TENANT' && (await isApplied(error, applying.control, applying, place, file))) {
        await run(applying.control, [endPlace(place, file)])
        return
      }
      if (!isTransient(error) || attempt === TRIES) throw error
      await pause(Math.min(50 * 2 ** attempt, 2_000))
    }
  }
}

/** Why a file failed, for people: the database's own words, as the statements are the operator's. */
export function describeFailure(error: unknown): { code: string; message: string; sqlstate?: string } {
  if (error instanceof StratumError) return { code: error.code, message: error.message }
  const { code, message = '' } = error as { code?: string; message?: string }
  if (code === 'STRAT') {
    const known = fromDriver(error)
    return { code: known.code, message: known.message }
  }
  return { code: 'MIGRATION_FAILED', message, ...(code === undefined ? {} : { sqlstate: code }) }
}
