/**
 * What row security and a tenant handle cost: `node bench/rls.ts`, 1,000,000 rows of 1,000 tenants on a server of its
 * own; `--small` for a fiftieth of that. Each query runs in turn under the policy (as stratum_app) and with an explicit
 * `where tenant_id` (as a superuser, whom policies do not hold), on the same table; ratios are of medians.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { migrate, overPostgres } from '../src/db/migrate.ts'
import { ensureRoles } from '../src/db/roles.ts'
import { createTenantPool } from '../src/isolation/handles/tenant-pool.ts'
import { migrateTable } from '../src/isolation/register.ts'
import { startPostgres } from '../src/local/postgres.ts'
import { Stratum } from '../src/stratum.ts'

const SMALL = process.argv.includes('--small')
const TENANTS = SMALL ? 100 : 1_000
const ROWS = SMALL ? 20_000 : 1_000_000
const ROUNDS = SMALL ? 51 : 301
const PASSWORD = 'bench'

const median = (values: number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN

/** `where` of the tenant is put in by hand, or left to the policy. */
const QUERIES: Array<[name: string, text: (where: string) => string]> = [
  ['count of all rows of the tenant', (where) => `select count(*), sum(amount) from orders where ${where}`],
  ['20 of its rows, one page', (where) => `select id, item, amount from orders where ${where} order by id limit 20`],
  ['its rows of one day', (where) => `select id, item, amount from orders where ${where} and day = 7`],
  ['one row by its key', (where) => `select id, item, amount from orders where ${where} and id = (select id from one_order)`],
]

async function createTenants(url: string): Promise<string[]> {
  const pool = new pg.Pool({ connectionString: Object.assign(new URL(url), { username: 'stratum_control', password: PASSWORD }).href, max: 1 })
  const stratum = new Stratum({ pool })
  const ids: string[] = []
  while (ids.length < TENANTS) {
    const tenants = Array.from({ length: 100 }, (_, index) => ({ slug: `tenant_${ids.length + index}`, name: `Tenant ${ids.length + index}` }))
    ids.push(...(await stratum.batchCreateTenants(tenants)).map(({ id }) => id))
  }
  await pool.end()
  return ids
}

async function prepare(url: (database: string) => string): Promise<string[]> {
  const admin = new pg.Client(url('postgres'))
  await admin.connect()
  try {
    const connection = overPostgres(admin)
    await ensureRoles(connection, { owner: PASSWORD, control: PASSWORD, app: PASSWORD })
    await migrate(connection, { owner: 'stratum_owner' })
    const ids = await createTenants(url('postgres'))
    await admin.query(`create table orders (tenant_id uuid not null, id uuid primary key default gen_random_uuid(), item text not null, amount integer not null, day integer not null);
      alter table orders owner to stratum_owner`)
    // Tenants' rows lie among each other's, as they come in.
    await admin.query(
      `insert into orders (tenant_id, item, amount, day) select ($1::uuid[])[1 + n % ${TENANTS}], 'item ' || n, n % 1000, (n / ${TENANTS}) % 100 from generate_series(1, ${ROWS}) n`,
      [ids],
    )
    await admin.query('begin')
    await migrateTable(admin, 'orders')
    await admin.query('commit')
    await admin.query(`create table one_order as select id from orders where tenant_id = $1 limit 1`.replace('$1', `'${ids[0]}'`))
    await admin.query('grant select on one_order to stratum_app')
    await admin.query('vacuum analyze')
    return ids
  } finally {
    await admin.end()
  }
}

/** Milliseconds of planning and of execution, as the server measured them. */
async function explained(client: pg.Client, text: string): Promise<{ planning: number; execution: number }> {
  const { rows } = await client.query(`explain (analyze, timing off, format json) ${text}`)
  const [plan] = rows[0]['QUERY PLAN']
  return { planning: plan['Planning Time'], execution: plan['Execution Time'] }
}

async function inPostgres(url: string, tenant: string) {
  const superuser = new pg.Client(url)
  const app = new pg.Client(Object.assign(new URL(url), { username: 'stratum_app', password: PASSWORD }).href)
  await superuser.connect()
  await app.connect()
  await app.query('begin')
  await app.query('select stratum_guard.enter($1)', [tenant])
  console.log(
    `\n${'in Postgres, median ms of execution (with planning)'.padEnd(54)}${'where'.padStart(18)}${'row security'.padStart(18)}${'ratio'.padStart(16)}`,
  )
  for (const [name, text] of QUERIES) {
    const times = { where: [] as number[], policy: [] as number[], whereAll: [] as number[], policyAll: [] as number[] }
    for (let round = -5; round < ROUNDS; round++) {
      const where = await explained(superuser, text(`tenant_id = '${tenant}'`))
      const policy = await explained(app, text('true'))
      if (round < 0) continue
      times.where.push(where.execution)
      times.policy.push(policy.execution)
      times.whereAll.push(where.execution + where.planning)
      times.policyAll.push(policy.execution + policy.planning)
    }
    const [where, policy, whereAll, policyAll] = [times.where, times.policy, times.whereAll, times.policyAll].map(median) as [number, number, number, number]
    const cells = [
      `${where.toFixed(3)} (${whereAll.toFixed(3)})`,
      `${policy.toFixed(3)} (${policyAll.toFixed(3)})`,
      `${(policy / where).toFixed(2)} (${(policyAll / whereAll).toFixed(2)})`,
    ]
    console.log(name.padEnd(54) + cells.map((cell, index) => cell.padStart(index < 2 ? 18 : 16)).join(''))
  }
  await app.query('commit')
  await app.end()
  await superuser.end()
}

/** Milliseconds on the client's clock, through a pool, one query after the other. */
async function throughHandle(url: string, tenant: string) {
  const superuser = new pg.Pool({ connectionString: url, max: 1 })
  const app = new pg.Pool({ connectionString: Object.assign(new URL(url), { username: 'stratum_app', password: PASSWORD }).href, max: 1 })
  const handle = createTenantPool(app, () => tenant)
  const bare = 'select id, item, amount from orders where tenant_id = $1 and day = 7'
  const plain = 'select id, item, amount from orders where day = $1'
  const inTransaction = async (client: pg.PoolClient, text: string, values: unknown[]) => {
    await client.query('begin')
    await client.query(text, values)
    await client.query('commit')
    client.release()
  }
  const ways: Array<[name: string, run: () => Promise<unknown>, roundTrips: number]> = [
    ['a query with where, pool.query', () => superuser.query(bare, [tenant]), 1],
    ['the same by a handle, one statement', () => handle.query(plain, [7]), 1],
    ['the same by hand: begin, enter, query, commit', async () => byHand(app, tenant, plain), 4],
    ['a transaction of one query with where', async () => inTransaction(await superuser.connect(), bare, [tenant]), 3],
    ['the same by a handle', async () => inTransaction(await handle.connect(), plain, [7]), 3],
  ]
  const times = new Map(ways.map(([name]) => [name, [] as number[]]))
  for (let round = -20; round < ROUNDS * 3; round++) {
    for (const [name, run] of ways) {
      const start = performance.now()
      await run()
      if (round >= 0) times.get(name)?.push(performance.now() - start)
    }
  }
  const base = median(times.get(ways[0]?.[0] ?? '') ?? [])
  console.log(`\n${'through a pool on the same machine'.padEnd(54)}${'median ms'.padStart(12)}${'ratio'.padStart(8)}${'round trips'.padStart(14)}`)
  for (const [name, , trips] of ways) {
    const value = median(times.get(name) ?? [])
    console.log(name.padEnd(54) + value.toFixed(3).padStart(12) + (value / base).toFixed(2).padStart(8) + String(trips).padStart(14))
  }
  await handle.end()
  await Promise.all([superuser.end(), app.end()])
}

async function byHand(pool: pg.Pool, tenant: string, text: string) {
  const client = await pool.connect()
  await client.query('begin')
  await client.query('select stratum_guard.enter($1)', [tenant])
  await client.query(text, [7])
  await client.query('commit')
  client.release()
}

const directory = await mkdtemp(join(tmpdir(), 'stratum-bench-'))
const postgres = await startPostgres({ directory: join(directory, 'postgres'), password: 'admin', durable: false })
try {
  const ids = await prepare((database) => postgres.url(database))
  console.log(`${ROWS.toLocaleString('en')} rows of ${TENANTS.toLocaleString('en')} tenants`)
  await inPostgres(postgres.url('postgres'), ids[0] ?? '')
  await throughHandle(postgres.url('postgres'), ids[0] ?? '')
} finally {
  await postgres.stop()
  await rm(directory, { recursive: true, force: true })
}
