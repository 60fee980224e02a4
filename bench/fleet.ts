/**
 * What the application's migrations over all tenants cost: `node bench/fleet.ts`, with `--small` for a tenth.
 *
 * One ALTER TABLE over 1,000 schemas of 3 tables each, in schemas a second, beside the same statements sent by hand
 * one transaction after the other; and "is every place current?" at 10,000 tenants, the median of 21 in milliseconds.
 * On a server of its own.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { migrate, overPostgres } from '../src/db/migrate.ts'
import { ensureRoles, generatePassword } from '../src/db/roles.ts'
import { startPostgres } from '../src/local/postgres.ts'
import { migrateFleet } from '../src/provisioning/fleet/migrate-fleet.ts'
import { fleetStatus } from '../src/provisioning/fleet/status.ts'
import { openServer } from '../src/provisioning/server.ts'

const small = process.argv.includes('--small')
const SCHEMAS = small ? 100 : 1_000
const TENANTS = small ? 1_000 : 10_000
const median = (values: number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN
const seconds = async (work: () => Promise<unknown>) => {
  const begun = performance.now()
  await work()
  return (performance.now() - begun) / 1_000
}

// Straight into the tables, so that making the tenants takes no time; the ids are made from their numbers.
const PLANT = `
  insert into stratum.tenants (id, number, path, slug, name, isolation_strategy, isolation_name)
  select ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, n, stratum.text2ltree(to_hex(n)), 't' || n, 'Tenant', 'SCHEMA_PER_TENANT', 'tenant_t' || n
  from generate_series($1::int, $2::int) as n`

const schemaOf = (n: number) => `create schema tenant_t${n};
  create table tenant_t${n}.customers (tenant_id uuid not null, id uuid primary key, name text);
  create table tenant_t${n}.orders (tenant_id uuid not null, id uuid primary key, customer_id uuid references tenant_t${n}.customers, total integer);
  create index on tenant_t${n}.orders (tenant_id, total);
  create table tenant_t${n}.lines (tenant_id uuid not null, id uuid primary key, order_id uuid references tenant_t${n}.orders, product text)`

async function plantSchemas(client: pg.Client) {
  await client.query('create table public.orders (id uuid primary key)')
  await client.query(PLANT, [1, SCHEMAS])
  for (let n = 1; n <= SCHEMAS; n += 50) await client.query(Array.from({ length: 50 }, (_, at) => schemaOf(n + at)).join(';'))
}

async function measureMigration(client: pg.Client, url: string) {
  const server = openServer(url, { databaseLimit: 0 })
  const folder = await mkdtemp(join(tmpdir(), 'stratum-bench-'))
  await plantSchemas(client)
  for (const [round, concurrency] of [1, 2, 4, 8].entries()) {
    await writeFile(join(folder, `000${round}.sql`), `alter table orders add column note${round} text`)
    const took = await seconds(async () => {
      const { failed, migrated } = await migrateFleet(server, folder, { concurrency })
      if (failed.length > 0 || migrated !== SCHEMAS + 1) throw new Error(`${migrated} migrated; ${JSON.stringify(failed[0])}`)
    })
    console.log(`ALTER TABLE over ${SCHEMAS} schemas, ${concurrency} at once: ${Math.round(SCHEMAS / took)} schemas/s`)
  }
  const byHand = await seconds(async () => {
    for (let n = 1; n <= SCHEMAS; n++) await client.query(`begin; alter table tenant_t${n}.orders add column by_hand text; commit`)
  })
  console.log(`the statements alone, one connection: ${Math.round(SCHEMAS / byHand)} schemas/s`)
  await rm(folder, { recursive: true })
  await server.close()
}

async function measureStatus(client: pg.Client) {
  await client.query(PLANT, [SCHEMAS + 1, TENANTS])
  await client.query(`insert into stratum.fleet_places (tenant_id, migration) select t.id, '0003.sql' from stratum.tenants t on conflict do nothing`)
  await client.query('analyze stratum.tenants; analyze stratum.fleet_places')
  for (const behind of [0, 10]) {
    await client.query(`update stratum.fleet_places set migration = '0002.sql' where tenant_id in (select id from stratum.tenants limit $1)`, [behind])
    const times: number[] = []
    for (let round = 0; round < 21; round++) times.push(1_000 * (await seconds(() => fleetStatus(client))))
    const { counts } = await fleetStatus(client)
    console.log(`is every place current? ${TENANTS} tenants, ${counts.behind} behind: ${median(times).toFixed(1)} ms`)
  }
}

const directory = await mkdtemp(join(tmpdir(), 'stratum-bench-'))
const postgres = await startPostgres({ directory: join(directory, 'postgres'), password: generatePassword() })
const admin = new pg.Client(postgres.url('postgres'))
await admin.connect()
try {
  const connection = overPostgres(admin)
  const passwords = { owner: generatePassword(), control: generatePassword(), app: generatePassword() }
  await ensureRoles(connection, passwords)
  await migrate(connection, { owner: 'stratum_owner' })
  const url = new URL(postgres.url('postgres'))
  url.username = 'stratum_owner'
  url.password = passwords.owner
  const client = new pg.Client({ connectionString: url.href, statement_timeout: 0 })
  await client.connect()
  await measureMigration(client, url.href)
  await measureStatus(client)
  await client.end()
} finally {
  await admin.end()
  await postgres.stop()
  await rm(directory, { recursive: true, force: true })
}
