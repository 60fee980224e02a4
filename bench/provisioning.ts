/**
 * How long a new tenant waits for its place, and how many a provisioner makes in a second: `node bench/provisioning.ts`,
 * with `--small` for a quick look. One server, one control database with three managed tables, the provisioner in this
 * process, tenants created through the embedded class.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { generateRingKey, parseKeyRing } from '../src/crypto/key-ring.ts'
import { migrate, overPostgres } from '../src/db/migrate.ts'
import { ensureRoles, generatePassword } from '../src/db/roles.ts'
import type { IsolationStrategy } from '../src/isolation/place.ts'
import { migrateTables } from '../src/isolation/register.ts'
import { startPostgres } from '../src/local/postgres.ts'
import { tolerateBreaks } from '../src/provisioning/queue.ts'
import { startProvisioner } from '../src/provisioning/runner.ts'
import { Stratum } from '../src/stratum.ts'

const SMALL = process.argv.includes('--small')
const COUNTS: ReadonlyArray<[IsolationStrategy, number, number]> = SMALL
  ? [
      ['SCHEMA_PER_TENANT', 20, 5],
      ['DB_PER_TENANT', 5, 3],
    ]
  : [
      ['SCHEMA_PER_TENANT', 500, 50],
      ['DB_PER_TENANT', 100, 25],
    ]
const CONCURRENCY = 4

const TABLES = `
create table customers (id uuid primary key default gen_random_uuid(), name text not null);
create table orders (id uuid primary key default gen_random_uuid(), customer_id uuid not null references customers (id), total numeric not null);
create table invoices (id uuid primary key default gen_random_uuid(), order_id uuid not null references orders (id), paid boolean not null default false)`

const ring = (variable: string) => parseKeyRing(generateRingKey('bench'), { variable, bytes: 32, exact: true })
const median = (values: number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0

async function untilReady(owner: pg.Pool, ids: readonly string[]) {
  const text = `select count(*)::int as left from stratum.tenants where id = any ($1) and provisioning_status <> 'ready'`
  while ((await owner.query<{ left: number }>(text, [ids])).rows[0]?.left) await new Promise((resolve) => setTimeout(resolve, 2))
}

let planted = 0
const spec = (isolation_strategy: IsolationStrategy) => ({ slug: `bench_${++planted}`, name: 'Bench', isolation_strategy })

async function measure(stratum: Stratum, owner: pg.Pool, strategy: IsolationStrategy, many: number, singles: number) {
  const waits: number[] = []
  for (let single = 0; single < singles; single++) {
    const began = performance.now()
    const { id } = await stratum.createTenant(spec(strategy))
    await untilReady(owner, [id])
    waits.push(performance.now() - began)
  }
  const began = performance.now()
  const ids: string[] = []
  for (let left = many; left > 0; left -= 100) {
    const made = await stratum.batchCreateTenants(Array.from({ length: Math.min(left, 100) }, () => spec(strategy)))
    ids.push(...made.map(({ id }) => id))
  }
  await untilReady(owner, ids)
  const perSecond = many / ((performance.now() - began) / 1_000)
  console.log(
    `${strategy.padEnd(18)} one: ${median(waits).toFixed(0)} ms (slowest ${Math.max(...waits).toFixed(0)}, target 1000), ${many} at once: ${perSecond.toFixed(1)} a second`,
  )
}

/** From the answer of a suspension to the route of the tenant's own database. */
async function measureStatus(stratum: Stratum, owner: pg.Pool, urlOf: (database: string) => string) {
  const { id, isolation_name } = await stratum.createTenant(spec('DB_PER_TENANT'))
  await untilReady(owner, [id])
  const there = new pg.Client(urlOf(isolation_name ?? ''))
  await there.connect()
  const waits: number[] = []
  for (let round = 0; round < (SMALL ? 3 : 20); round++) {
    const status = round % 2 === 0 ? 'suspended' : 'active'
    await (status === 'suspended' ? stratum.suspendTenant(id) : stratum.resumeTenant(id))
    const began = performance.now()
    while ((await there.query('select from stratum_guard.route where tenant_id = $1 and status = $2', [id, status])).rowCount === 0);
    waits.push(performance.now() - began)
  }
  await there.end()
  console.log(`status reaches the database of a tenant in ${median(waits).toFixed(0)} ms (slowest ${Math.max(...waits).toFixed(0)}, bound 2000)`)
}

const directory = await mkdtemp(join(tmpdir(), 'stratum-bench-'))
const postgres = await startPostgres({ directory: join(directory, 'postgres'), password: 'admin', durable: !SMALL })
const passwords = { owner: generatePassword(), control: generatePassword(), app: generatePassword() }
const admin = new pg.Client(postgres.url())
await admin.connect()
await ensureRoles(overPostgres(admin), passwords)
await migrate(overPostgres(admin), { owner: 'stratum_owner' })
await admin.end()
const urlOf = (database: string) => `postgresql://stratum_owner:${passwords.owner}@127.0.0.1:${postgres.port}/${database}`
const owner = tolerateBreaks(new pg.Pool({ connectionString: urlOf('postgres'), max: 2 }))
const client = await owner.connect()
await client.query(TABLES)
await client.query('begin')
await migrateTables(client, ['customers', 'orders', 'invoices'])
await client.query('commit')
client.release()
const provisioner = await startProvisioner({
  databaseUrl: urlOf('postgres'),
  masterKeys: ring('STRATUM_MASTER_KEYS'),
  apiKeySecrets: ring('STRATUM_API_KEY_SECRETS'),
  databaseLimit: 10_000,
  port: 0,
  host: '127.0.0.1',
  concurrency: CONCURRENCY,
  dnsUrl: 'https://dns.invalid/dns-query',
  log: (level, event, fields) => level === 'error' && console.error(event, fields),
})
const stratum = new Stratum({ pool: owner })
console.log(`3 managed tables, ${CONCURRENCY} jobs at once${SMALL ? '' : ', fsync on'}`)
for (const [strategy, many, singles] of COUNTS) await measure(stratum, owner, strategy, many, singles)
await measureStatus(stratum, owner, urlOf)
await provisioner.stop()
await owner.end()
await postgres.stop()
await rm(directory, { recursive: true, force: true })
