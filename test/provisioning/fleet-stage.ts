/**
 * Tenants in the shared tables, in three schemas and in a database, and a folder of migrations to run over them. What is
 * imported from here is made before the tests of the importing file, and each of them begins with a fleet that has had no file.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach } from 'vitest'
import { type FleetOptions, migrateFleet } from '../../src/provisioning/fleet/migrate-fleet.ts'
import { fleetStatus } from '../../src/provisioning/fleet/status.ts'
import type { Server } from '../../src/provisioning/places.ts'
import { createStage, type Made, type Stage } from '../isolation/stage.ts'

export let stage: Stage
export let schemas: [Made, Made, Made]
export let database: Made
export let shared: Made
export let folder: string
beforeAll(async () => {
  stage = await createStage()
  await stage.asOwner((client) =>
    client.query(`create table orders (id uuid primary key default gen_random_uuid(), total integer not null default 1);
      create table unmanaged (id integer primary key)`),
  )
  await stage.manage('orders')
  schemas = [await stage.placed('SCHEMA_PER_TENANT'), await stage.placed('SCHEMA_PER_TENANT'), await stage.placed('SCHEMA_PER_TENANT')]
  database = await stage.placed('DB_PER_TENANT')
  shared = await stage.tenant()
  for (const tenant of [...schemas, database, shared]) await stage.batch(tenant, 'insert into orders (total) values (7), (8)')
})
afterAll(() => stage.close())
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'stratum-fleet-'))
})
afterEach(async () => {
  await rm(folder, { recursive: true })
  // each test begins with a fleet that has had no file
  const forget = 'delete from stratum_guard.applied_migrations'
  await stage.owner.query(`${forget}; delete from stratum.fleet_migrations; update stratum.fleet_places set migration = '', status = 'current', error = null`)
  const { rows } = await stage.owner.query<{ name: string }>('select database_name as name from stratum.tenant_databases')
  for (const { name } of rows) {
    const client = await stage.server.connect(name)
    await client.query(forget).finally(() => client.end())
  }
})

export const put = (files: Record<string, string>) => Promise.all(Object.entries(files).map(([name, text]) => writeFile(join(folder, name), text)))
export const migrate = (options: FleetOptions = {}, server: Server = stage.server) => migrateFleet(server, folder, options)

/** The columns of a table in every place, by the place's name; '' for the shared tables. */
export async function columns(table: string): Promise<Record<string, string[]>> {
  const here = await stage.owner.query<{ place: string; names: string[] }>(
    `select case table_schema when 'public' then '' else table_schema::text end as place, array_agg(column_name::text order by column_name) as names
     from information_schema.columns where table_name = $1 group by 1`,
    [table],
  )
  const client = await stage.server.connect(database.place.name ?? '')
  const there = await client
    .query<{ names: string[] }>(`select array_agg(column_name::text order by column_name) as names from information_schema.columns where table_name = $1`, [
      table,
    ])
    .finally(() => client.end())
  return Object.fromEntries([...here.rows.map(({ place, names }) => [place, names]), [database.place.name, there.rows[0]?.names ?? []]])
}
/** The places whose orders have a column. */
export const having = async (column: string) =>
  Object.entries(await columns('orders'))
    .filter(([, names]) => names.includes(column))
    .map(([place]) => place)
    .sort()
export const everywhere = () => ['', ...schemas.map(({ place }) => place.name ?? ''), database.place.name ?? ''].sort()
export const slugOf = async ({ id }: Made) => (await stage.stratum.getTenant(id)).slug
export const status = () => fleetStatus(stage.owner)
