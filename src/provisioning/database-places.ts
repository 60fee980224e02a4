/**
 * A database of a tenant's own. `create database` cannot be undone by a rollback, and a comment can only be set
 * afterwards; so a database is made under a random name that only our ledger knows, marked, filled, and then
 * renamed. Whatever has that name is ours at any point of a crash.
 */
import { randomBytes } from 'node:crypto'
import type pg from 'pg'
import { stratumError } from '../core/error-classes.ts'
import {
  type Blueprint,
  COPIES_LOCK,
  lastMigration,
  makeCopies,
  makePrerequisites,
  notOurs,
  readBlueprint,
  recordFleetPlace,
  recordMigrations,
  type WhichForeignKeys,
} from '../isolation/copies.ts'
import { applyGuard } from '../isolation/guard.ts'
import { identifier, literal } from '../isolation/identifiers.ts'
import { markOf } from '../isolation/place.ts'
import type { MakePlaceOptions, Server } from './places.ts'

export interface Sessions {
  withClient<T>(server: Server, database: string, work: (client: pg.Client) => Promise<T>): Promise<T>
  inTransaction<T>(client: pg.ClientBase, work: () => Promise<T>): Promise<T>
}

interface Found {
  control: string
  count: number
  /** undefined: no such database; null: it carries no mark */
  mark: string | null | undefined
  working: { name: string; exists: boolean } | null
  /** Whose the ledger says it is. */
  owner: string | null
}

const FIND = `
  select current_database() as control, (select count(*)::int from pg_database where not datistemplate) as count,
    (select jsonb_build_object('mark', shobj_description(d.oid, 'pg_database')) from pg_database d where d.datname = $1) as final,
    l.tenant_id as owner, l.working_name as working, exists (select from pg_database d where d.datname = l.working_name) as working_exists
  from (select) as one left join stratum.tenant_databases l on l.database_name = $1`

async function find(server: Server, name: string): Promise<Found> {
  type Row = { control: string; count: number; final: { mark: string | null } | null; owner: string | null; working: string | null; working_exists: boolean }
  const { rows } = await server.pool.query<Row>(FIND, [name])
  const row = rows[0] as Row
  return {
    control: row.control,
    count: row.count,
    mark: row.final === null ? undefined : row.final.mark,
    working: row.working === null ? null : { name: row.working, exists: row.working_exists },
    owner: row.owner,
  }
}

/** Nothing but what is this tenant's may stand at the name. */
function check(found: Found, tenantId: string, name: string) {
  const foreign = found.mark !== undefined && found.mark !== markOf(tenantId)
  if (foreign || name === found.control || (found.owner !== null && found.owner !== tenantId)) throw notOurs('database', name)
}

const REFUSALS: Record<string, string> = {
  '42501':
    'the owner’s role may not; it needs CREATEDB, CREATE on the control database, CREATEROLE for roles of tenants, and to drop a database membership in the data plane’s role',
  '53100': 'its disk is full',
  '53300': 'it has too many connections',
  '0A000': 'an extension that the tables use is not available there',
  '58P01': 'an extension that the tables use is not available there',
}

/** The server's refusal as an error of ours; the rest is left as it is. */
export function refusalOf(error: unknown, kind: 'schema' | 'database', name: string): unknown {
  const { code = '' } = (error ?? {}) as { code?: string }
  // somebody else made a database of this name while ours was filled
  if (code === '42P04' || code === '42P06') return notOurs(kind, name)
  const reason = REFUSALS[code]
  return reason === undefined ? error : stratumError('PLACE_REFUSED', { kind, name, reason }, { cause: error })
}

// Sorted and encoded as the control database, or indexes and comparisons would differ; datlocale is new in Postgres 17.
const LOCALE = `
  select format('encoding %L lc_collate %L lc_ctype %L locale_provider %s%s', pg_encoding_to_char(encoding), datcollate, datctype,
    case datlocprovider when 'c' then 'libc' when 'i' then 'icu' else 'builtin' end,
    case datlocprovider when 'c' then '' else format(case datlocprovider when 'i' then ' icu_locale %L' else ' builtin_locale %L' end,
      coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale')) end) as locale
  from pg_database d where datname = current_database()`

async function create(server: Server, found: Found, working: string) {
  if (found.count >= server.databaseLimit) throw stratumError('DATABASE_LIMIT_REACHED', { count: found.count, limit: server.databaseLimit })
  const { rows } = await server.pool.query<{ locale: string }>(LOCALE)
  const client = await server.pool.connect()
  try {
    await client.query('set statement_timeout = 0')
    await client.query(`create database ${identifier(working)} template template0 ${rows[0]?.locale ?? ''}`)
  } finally {
    await client.query('reset statement_timeout').catch(() => {})
    client.release()
  }
}

/** The tenant's line in its own database: what a batch there must find. */
const ROUTE = `
  insert into stratum_guard.route as r (tenant_id, routing_version, status, fenced) values ($1, $2, $3, $4)
  on conflict (tenant_id) do update set routing_version = excluded.routing_version, status = excluded.status, fenced = excluded.fenced`

interface Filling {
  tenantId: string
  database: string
  blueprint: Blueprint
  status: string
  /** Null leaves the route as it is. */
  options: MakePlaceOptions | null
  foreignKeys: WhichForeignKeys
}

/** @returns the last of the application's migrations there */
async function fill(client: pg.Client, filling: Filling): Promise<string> {
  const { tenantId, database, blueprint, status, options } = filling
  const role = blueprint.role === null ? [] : [`grant connect on database ${identifier(database)} to ${identifier(blueprint.role)}`]
  const open = [`revoke all on database ${identifier(database)} from public`, 'revoke create on schema public from public', ...role]
  for (const statement of open) await client.query(statement)
  await applyGuard(client)
  if (blueprint.role !== null) await client.query(`grant usage on schema public to ${identifier(blueprint.role)}`)
  await client.query(`select set_config('app.current_tenant_id', $1, true)`, [tenantId])
  await makePrerequisites(client, blueprint)
  const made = await makeCopies(client, blueprint, 'public', filling.foreignKeys)
  // One that was filled before has a ledger of its own: what the shared tables have had since, it has not.
  const isNew = made.length === blueprint.tables.length && (await lastMigration(client, '')) === ''
  if (isNew) await recordMigrations(client, blueprint, '')
  if (options) await client.query(ROUTE, [tenantId, options.routingVersion, status, !options.open])
  return lastMigration(client, '')
}

async function fillDatabase(
  server: Server,
  tenantId: string,
  database: string,
  options: MakePlaceOptions | null,
  foreignKeys: WhichForeignKeys,
  sessions: Sessions,
) {
  const { withClient, inTransaction } = sessions
  const { rows } = await server.pool.query<{ control: string; status: string | null }>(
    'select current_database() as control, (select status from stratum.tenants where id = $1) as status',
    [tenantId],
  )
  const { control = '', status = null } = rows[0] ?? {}
  // The lock is held until the copies are committed: a table that becomes managed meanwhile waits, and then finds this database in the ledger.
  await withClient(server, control, (locking) =>
    inTransaction(locking, async () => {
      await locking.query(`select pg_advisory_xact_lock_shared(${COPIES_LOCK})`)
      const blueprint = await readBlueprint(locking)
      const migration = await withClient(server, database, (client) =>
        inTransaction(client, () => fill(client, { tenantId, database, blueprint, status: status ?? 'active', options, foreignKeys })),
      )
      await recordFleetPlace(locking, tenantId, migration)
    }),
  )
}

/** @throws PLACE_NOT_OURS, DATABASE_LIMIT_REACHED, PLACE_REFUSED */
export async function makeDatabase(server: Server, tenantId: string, name: string, options: MakePlaceOptions, sessions: Sessions): Promise<void> {
  try {
    await makeDatabaseSteps(server, tenantId, name, options, sessions)
  } catch (error) {
    throw refusalOf(error, 'database', name)
  }
}

async function makeDatabaseSteps(server: Server, tenantId: string, name: string, options: MakePlaceOptions, sessions: Sessions) {
  let found = await find(server, name)
  check(found, tenantId, name)
  if (found.working === null) {
    if (found.mark === undefined && found.count >= server.databaseLimit) {
      throw stratumError('DATABASE_LIMIT_REACHED', { count: found.count, limit: server.databaseLimit })
    }
    await server.pool.query('insert into stratum.tenant_databases (database_name, tenant_id, working_name) values ($1, $2, $3) on conflict do nothing', [
      name,
      tenantId,
      `stratum_making_${randomBytes(16).toString('hex')}`,
    ])
    await server.step('recorded')
    found = await find(server, name)
    check(found, tenantId, name)
  }
  const working = found.working?.name ?? ''
  const finished = found.mark !== undefined
  if (!finished && !found.working?.exists) {
    await create(server, found, working)
    await server.step('created')
  }
  const database = finished ? name : working
  if (!finished) {
    await server.pool.query(`comment on database ${identifier(working)} is ${literal(markOf(tenantId))}`)
    await server.step('marked')
  }
  await fillDatabase(server, tenantId, database, options, options.foreignKeys === false ? 'none' : 'all', sessions)
  await server.step('filled')
  if (!finished) {
    await server.pool.query(`alter database ${identifier(working)} rename to ${identifier(name)}`)
    await server.step('renamed')
  }
}

/** Make the copies that a finished database lacks; its route stays as it is. */
export async function addCopiesToDatabase(server: Server, tenantId: string, name: string, sessions: Sessions): Promise<void> {
  const found = await find(server, name)
  check(found, tenantId, name)
  if (found.mark !== undefined) await fillDatabase(server, tenantId, name, null, 'new', sessions)
}

/** Of those that the owner may end. It is refused those of a superuser and of roles that are not its own; autovacuum's workers have no user here. */
const END_SESSIONS = `
  select pg_terminate_backend(a.pid) from pg_stat_activity a join pg_roles r on r.oid = a.usesysid
  where a.datname = $1 and not r.rolsuper and pg_has_role(r.oid, 'USAGE')`
const SESSIONS_LEFT = `select coalesce(string_agg(distinct a.usename, ', '), '') as users from pg_stat_activity a where a.datname = $1 and a.usesysid is not null`

/** A session that was about to begin when the others were ended shows only later. */
const DROP_TRIES = 2

/**
 * Nobody may connect from here on, also where the drop is refused.
 *
 * Not `with (force)`: that is refused to whoever is no superuser while autovacuum is at work in the database, as its
 * workers are a superuser's; without it the server ends them by itself, and waits up to five seconds for all who go.
 */
async function dropWithSessions(client: pg.ClientBase, database: string) {
  await client.query(`alter database ${identifier(database)} allow_connections false`)
  for (let tries = 1; ; tries++) {
    await client.query(END_SESSIONS, [database])
    try {
      await client.query(`drop database ${identifier(database)}`)
      return
    } catch (error) {
      if ((error as { code?: string }).code !== '55006') throw error
      if (tries === DROP_TRIES) throw await occupied(client, database, error)
    }
  }
}

async function occupied(client: pg.ClientBase, database: string, cause: unknown) {
  const { rows } = await client.query<{ users: string }>(SESSIONS_LEFT, [database])
  const who = rows[0]?.users ? `sessions of ${rows[0].users}, which the owner may not end` : 'prepared transactions or replication slots'
  return stratumError('PLACE_REFUSED', { kind: 'database', name: database, reason: `it is still used by ${who}` }, { cause })
}

/** @throws PLACE_NOT_OURS, PLACE_REFUSED */
export async function dropDatabase(server: Server, tenantId: string, name: string, { withClient }: Pick<Sessions, 'withClient'>): Promise<void> {
  const found = await find(server, name)
  check(found, tenantId, name)
  const doomed = [...(found.mark === undefined ? [] : [name]), ...(found.working?.exists ? [found.working.name] : [])]
  try {
    await withClient(server, found.control, async (client) => {
      for (const database of doomed) {
        await dropWithSessions(client, database)
        await server.step('dropped')
      }
      await client.query('delete from stratum.tenant_databases where database_name = $1 and tenant_id = $2', [name, tenantId])
    })
  } catch (error) {
    throw refusalOf(error, 'database', name)
  }
}
