/**
 * Making and dropping the places of tenants. Every step looks before it acts and marks what it makes, so a process
 * that ends between any two of them leaves nothing that the next try does not recognise.
 */
import type pg from 'pg'
import {
  COPIES_LOCK,
  dataRole,
  lastMigration,
  makeCopies,
  makeForeignKeys,
  notOurs,
  readBlueprint,
  recordFleetPlace,
  recordMigrations,
  type WhichForeignKeys,
} from '../isolation/copies.ts'
import { identifier, literal } from '../isolation/identifiers.ts'
import { markOf, type Place, schemaOf } from '../isolation/place.ts'
import { pathTo } from '../isolation/table-facts.ts'
import { dropTenantRole, giveTenantRole } from '../isolation/tenant-role.ts'
import { addCopiesToDatabase, dropDatabase, makeDatabase, refusalOf } from './database-places.ts'
import { dropRows } from './shared-rows.ts'

export { schemaOf } from '../isolation/place.ts'

/** The server that holds the control database and the tenants' own. */
export interface Server {
  /** The owner's connections to the control database, direct, not through a pooler. */
  pool: pg.Pool
  /** A client of the owner in another database of the same server; the caller ends it. */
  connect(database: string): Promise<pg.Client>
  /** Called between steps; tests throw here to stand for a crash. */
  step(name: string): Promise<void>
  /** How many databases the server may hold, ours and others. */
  databaseLimit: number
  /** Whether tenants that come to have a schema get a role of their own as well. Default false. */
  tenantRoles?: boolean
}

export interface MakePlaceOptions {
  /** What the route in a database of the tenant's own begins with. */
  routingVersion: number
  /** Whether batches may begin there; a place that is still to be filled is not open. */
  open: boolean
  /** False leaves the foreign keys to {@link addForeignKeys}, as filling goes faster without. Default true. */
  foreignKeys?: boolean
}

// The limits that the role's sessions begin with are for requests, not for making places.
const SESSION = `set statement_timeout = 0; set lock_timeout = '10s'; set idle_in_transaction_session_timeout = '10min'`

const controlDatabase = async (server: Server) => (await server.pool.query<{ name: string }>('select current_database() as name')).rows[0]?.name ?? ''

async function withClient<T>(server: Server, database: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = await server.connect(database)
  // A connection that breaks fails its query; without a listener it would also end the process.
  client.on('error', () => {})
  try {
    await client.query(SESSION)
    return await work(client)
  } finally {
    await client.end().catch(() => {})
  }
}

async function inTransaction<T>(client: pg.ClientBase, work: () => Promise<T>): Promise<T> {
  await client.query('begin')
  try {
    const result = await work()
    await client.query('commit')
    return result
  } catch (error) {
    await client.query('rollback').catch(() => {})
    throw error
  }
}

/** Under the tenant's context: the owner is subject to the policy like everybody. */
const setTenant = (client: pg.ClientBase, tenantId: string) => client.query(`select set_config('app.current_tenant_id', $1, true)`, [tenantId])

/** The mark of a schema, null where it has none, undefined where there is no such schema. */
async function schemaMark(client: pg.ClientBase, name: string): Promise<string | null | undefined> {
  const { rows } = await client.query<{ mark: string | null }>(`select obj_description(oid, 'pg_namespace') as mark from pg_namespace where nspname = $1`, [
    name,
  ])
  return rows[0]?.mark
}

async function makeSchema(server: Server, tenantId: string, name: string, foreignKeys: WhichForeignKeys) {
  await withClient(server, await controlDatabase(server), (client) =>
    inTransaction(client, async () => {
      await client.query(`select pg_advisory_xact_lock_shared(${COPIES_LOCK})`)
      const mark = await schemaMark(client, name)
      if (mark !== undefined && mark !== markOf(tenantId)) throw notOurs('schema', name)
      const role = await dataRole(client)
      if (mark === undefined) {
        const usage = role === null ? '' : `; grant usage on schema ${identifier(name)} to ${identifier(role)}`
        await client.query(`create schema ${identifier(name)}; comment on schema ${identifier(name)} is ${literal(markOf(tenantId))}${usage}`)
      }
      await server.step('schema')
      await setTenant(client, tenantId)
      const blueprint = await readBlueprint(client)
      await makeCopies(client, blueprint, name, foreignKeys)
      // One that was there has a ledger of its own: what the shared tables have had since, it has not.
      if (mark === undefined) await recordMigrations(client, blueprint, name)
      await recordFleetPlace(client, tenantId, await lastMigration(client, name))
      await server.step('copies')
      await giveTenantRole(client, tenantId, name, server.tenantRoles === true)
      await server.step('role')
    }),
  )
}

/**
 * Give a role to a tenant that had its schema before there were such. Nothing is done where its rows are not, or not yet,
 * in a schema. The tenant's row is locked: its place does not change meanwhile, and no migration makes something there.
 *
 * @throws PLACE_NOT_OURS
 */
export async function addTenantRole(server: Server, tenantId: string): Promise<void> {
  await withClient(server, await controlDatabase(server), (client) =>
    inTransaction(client, async () => {
      await client.query(`select pg_advisory_xact_lock_shared(${COPIES_LOCK})`)
      const { rows } = await client.query<{ name: string }>(
        `select isolation_name as name from stratum.tenants where id = $1 and isolation_strategy = 'SCHEMA_PER_TENANT' and provisioning_status = 'ready' for no key update`,
        [tenantId],
      )
      const name = rows[0]?.name
      if (name === undefined) return
      if ((await schemaMark(client, name)) !== markOf(tenantId)) throw notOurs('schema', name)
      await giveTenantRole(client, tenantId, name, true)
    }),
  )
}

/**
 * Make a tenant's place, whole: schema or database, its mark, copies of the managed tables, grants. Repeat it from
 * wherever it broke off. The shared tables are there already.
 *
 * @throws PLACE_NOT_OURS, DATABASE_LIMIT_REACHED, PLACE_REFUSED
 */
export async function makePlace(server: Server, tenantId: string, place: Place, options: MakePlaceOptions): Promise<void> {
  if (place.strategy === 'SHARED_RLS' || place.name === null) return
  if (place.strategy === 'SCHEMA_PER_TENANT') {
    await makeSchema(server, tenantId, place.name, options.foreignKeys === false ? 'none' : 'all').catch((error: unknown) => {
      throw refusalOf(error, 'schema', place.name ?? '')
    })
  } else await makeDatabase(server, tenantId, place.name, options, { withClient, inTransaction })
}

/** The blueprint, and the lock that keeps it true until `work` is done. */
async function withBlueprint<T>(server: Server, work: (blueprint: Awaited<ReturnType<typeof readBlueprint>>) => Promise<T>): Promise<T> {
  return withClient(server, await controlDatabase(server), (client) =>
    inTransaction(client, async () => {
      await client.query(`select pg_advisory_xact_lock_shared(${COPIES_LOCK})`)
      return work(await readBlueprint(client))
    }),
  )
}

/** Add and check the foreign keys of a place that was made without. */
export async function addForeignKeys(server: Server, tenantId: string, place: Place): Promise<void> {
  if (place.strategy === 'SHARED_RLS') return
  await withBlueprint(server, (blueprint) =>
    withPlace(server, tenantId, place, (client) =>
      inTransaction(client, async () => {
        await setTenant(client, tenantId)
        await makeForeignKeys(client, blueprint, schemaOf(place))
      }),
    ),
  )
}

/** Make the copies that a place lacks, of tables that became managed after it was made. */
export async function addMissingCopies(server: Server, tenantId: string, place: Place): Promise<void> {
  if (place.name === null) return
  if (place.strategy === 'SCHEMA_PER_TENANT') await makeSchema(server, tenantId, place.name, 'new')
  else if (place.strategy === 'DB_PER_TENANT') await addCopiesToDatabase(server, tenantId, place.name, { withClient, inTransaction })
}

async function dropSchema(server: Server, tenantId: string, name: string) {
  await withClient(server, await controlDatabase(server), (client) =>
    inTransaction(client, async () => {
      const mark = await schemaMark(client, name)
      if (mark !== undefined && mark !== markOf(tenantId)) throw notOurs('schema', name)
      if (mark !== undefined) await client.query(`drop schema ${identifier(name)} cascade`)
      await dropTenantRole(client, tenantId)
      await client.query('delete from stratum_guard.applied_migrations where schema_name = $1', [name])
      await server.step('dropped')
    }),
  )
}

/**
 * Drop a tenant's place: its rows in the shared tables, its schema, or its database with the connections to it.
 * What is gone already is no error; what does not carry the tenant's mark is left alone.
 *
 * @throws PLACE_NOT_OURS, PLACE_REFUSED
 */
export async function dropPlace(server: Server, tenantId: string, place: Place): Promise<void> {
  if (place.strategy === 'SHARED_RLS' || place.name === null) {
    await withPlace(server, tenantId, place, (client) => dropRows(client, tenantId))
    await server.step('dropped')
    return
  }
  if (place.strategy === 'SCHEMA_PER_TENANT') await dropSchema(server, tenantId, place.name)
  else await dropDatabase(server, tenantId, place.name, { withClient })
  await server.pool.query(
    `delete from stratum.fleet_places where tenant_id = $1
     and not exists (select from stratum.tenants where id = $1 and isolation_name is not null and isolation_name <> $2)`,
    [tenantId, place.name],
  )
}

/**
 * Work with a client of its own in the place's database, which is closed afterwards: session state may be left on it.
 * Its search path begins with the place's schema and its context is the tenant's, so row security holds for it.
 */
export async function withPlace<T>(server: Server, tenantId: string, place: Place, work: (client: pg.ClientBase) => Promise<T>): Promise<T> {
  const database = place.strategy === 'DB_PER_TENANT' && place.name !== null ? place.name : await controlDatabase(server)
  return withClient(server, database, async (client) => {
    await client.query(`select set_config('search_path', $1, false), set_config('app.current_tenant_id', $2, false)`, [pathTo(schemaOf(place)), tenantId])
    return work(client)
  })
}
