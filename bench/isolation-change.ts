/**
 * What a change of isolation costs: `node bench/isolation-change.ts`, with `--small` for 50,000 rows instead of
 * 1,000,000. One tenant is moved through every pair of strategies while writers insert, update and delete without a
 * pause, on a server of its own. Printed for each: rows copied per second, the milliseconds in which no batch could
 * begin (target ≤ 500), and the longest that a write took then, against the longest in quiet times.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { migrate, overPostgres } from '../src/db/migrate.ts'
import { ensureRoles } from '../src/db/roles.ts'
import { createTenantPool, type TenantPool } from '../src/isolation/handles/tenant-pool.ts'
import type { IsolationStrategy } from '../src/isolation/place.ts'
import { migrateTables } from '../src/isolation/register.ts'
import { startPostgres } from '../src/local/postgres.ts'
import { changeIsolation } from '../src/provisioning/change-isolation.ts'
import { installJobs } from '../src/provisioning/queue.ts'
import { runJob } from '../src/provisioning/run-job.ts'
import { openServer } from '../src/provisioning/server.ts'
import { Stratum } from '../src/stratum.ts'

const ROWS = process.argv.includes('--small') ? 50_000 : 1_000_000
const WRITERS = 4
/** Every pair of strategies in both directions. */
const ROUTE: IsolationStrategy[] = ['SCHEMA_PER_TENANT', 'DB_PER_TENANT', 'SHARED_RLS', 'DB_PER_TENANT', 'SCHEMA_PER_TENANT', 'SHARED_RLS']
const TARGET_MS = 500

const TABLES = `
  create table accounts (id uuid primary key default gen_random_uuid(), name text not null);
  create table orders (id uuid primary key default gen_random_uuid(), account uuid references accounts (id), amount numeric not null, note text, at timestamptz default now())`

interface Writers {
  latencies: number[]
  writes: number
  failures: Map<string, number>
  stop(): Promise<void>
}

function startWriters(handle: TenantPool, accounts: string[]): Writers {
  const writers: Writers = { latencies: [], writes: 0, failures: new Map(), stop: async () => {} }
  let stopped = false
  const loop = async () => {
    const own: string[] = []
    while (!stopped) {
      const started = performance.now()
      try {
        const roll = Math.random()
        const id = own[Math.floor(Math.random() * own.length)]
        if (id === undefined || roll < 0.4) {
          const account = accounts[Math.floor(Math.random() * accounts.length)]
          const { rows } = await handle.query<{ id: string }>('insert into orders (account, amount) values ($1, 1) returning id', [account])
          own.push(rows[0]?.id ?? '')
        } else if (roll < 0.8) await handle.query('update orders set amount = amount + 1 where id = $1', [id])
        else {
          await handle.query('delete from orders where id = $1', [id])
          own.splice(own.indexOf(id), 1)
        }
        writers.writes++
        writers.latencies.push(performance.now() - started)
      } catch (error) {
        const code = String((error as { code?: string }).code ?? error)
        writers.failures.set(code, (writers.failures.get(code) ?? 0) + 1)
      }
    }
  }
  const loops = Array.from({ length: WRITERS }, loop)
  writers.stop = async () => {
    stopped = true
    await Promise.all(loops)
  }
  return writers
}

async function plant(pool: pg.Pool, tenantId: string): Promise<string[]> {
  const client = await pool.connect()
  try {
    await client.query('begin')
    await client.query('select stratum_guard.enter($1)', [tenantId])
    await client.query('set local statement_timeout = 0')
    const { rows } = await client.query<{ id: string }>(`insert into accounts (name) select 'account ' || n from generate_series(1, 1000) n returning id`)
    const ids = rows.map(({ id }) => id)
    await client.query(
      `insert into orders (account, amount, note) select ($1::uuid[])[1 + n % 1000], n * 1.01, 'an order with a note of the usual length, number ' || n from generate_series(1, $2::int) n`,
      [ids, ROWS],
    )
    await client.query('commit')
    return ids
  } finally {
    client.release()
  }
}

const greatest = (values: readonly number[]) => values.reduce((most, value) => Math.max(most, value), 0)

const directory = await mkdtemp(join(tmpdir(), 'stratum-bench-'))
const postgres = await startPostgres({ directory: join(directory, 'postgres'), password: 'admin', durable: false })
const urlOf = (role: string) => {
  const url = new URL(postgres.url('postgres'))
  Object.assign(url, { username: role, password: role })
  return url.href
}
try {
  const admin = new pg.Client(postgres.url('postgres'))
  await admin.connect()
  await ensureRoles(overPostgres(admin), { owner: 'stratum_owner', control: 'stratum_control', app: 'stratum_app' })
  await migrate(overPostgres(admin), { owner: 'stratum_owner' })
  await installJobs(postgres.url('postgres'))
  await admin.end()
  const server = openServer(urlOf('stratum_owner'), { databaseLimit: 100 })
  const owner = await server.pool.connect()
  await owner.query(TABLES)
  await migrateTables(owner, ['accounts', 'orders'])
  owner.release()
  const controlPool = new pg.Pool({ connectionString: urlOf('stratum_control'), max: 2 })
  controlPool.on('error', () => {})
  const stratum = new Stratum({ pool: controlPool })
  const tenant = await stratum.createOrganization({ slug: 'acme', name: 'Acme' })
  const appPool = new pg.Pool({ connectionString: urlOf('stratum_app'), max: WRITERS + 2 })
  appPool.on('error', () => {})
  const accounts = await plant(appPool, tenant.id)
  await server.pool.query('analyze')
  const handle = createTenantPool(appPool, () => tenant.id)
  const writers = startWriters(handle, accounts)
  await new Promise((resolve) => setTimeout(resolve, 3_000))
  console.log(
    `${ROWS.toLocaleString('en')} rows, ${WRITERS} writers; the longest write in 3 quiet seconds: ${greatest(writers.latencies).toFixed(0)} ms of ${writers.writes} writes\n`,
  )
  console.log(
    `${'change'.padEnd(40)}${'seconds'.padStart(10)}${'rows/s'.padStart(12)}${'fenced ms'.padStart(12)}${'longest write'.padStart(16)}${'writes'.padStart(10)}`,
  )
  const fenced: number[] = []
  let from: IsolationStrategy = 'SHARED_RLS'
  for (const to of ROUTE) {
    writers.latencies.length = 0
    const [before, started] = [writers.writes, performance.now()]
    const { job_id } = await stratum.migrateIsolation(tenant.id, to)
    let [capturing, copied] = [0, 0]
    const step = async (name: string) => {
      if (name === 'move: capturing') capturing = performance.now()
      if (name === 'move: caught up') copied = performance.now()
    }
    const watched = { ...server, step }
    await runJob(job_id, { server: watched, tasks: { change_isolation: changeIsolation }, log: () => {}, signal: new AbortController().signal })
    const seconds = (performance.now() - started) / 1_000
    const [change] = (await stratum.listIsolationChanges(tenant.id, { limit: 1 })).data
    fenced.push(change?.fenced_ms ?? Number.NaN)
    console.log(
      `${`${from} → ${to}`.padEnd(40)}${seconds.toFixed(1).padStart(10)}${Math.round(ROWS / ((copied - capturing) / 1_000))
        .toLocaleString('en')
        .padStart(12)}` +
        `${String(change?.fenced_ms).padStart(12)}${`${greatest(writers.latencies).toFixed(0)} ms`.padStart(16)}${String(writers.writes - before).padStart(10)}`,
    )
    from = to
  }
  await writers.stop()
  console.log(`\nfenced: ${fenced.toSorted((a, b) => a - b).join(', ')} ms; target ≤ ${TARGET_MS}: ${greatest(fenced) <= TARGET_MS ? 'met' : 'missed'}`)
  console.log(`refused writes: ${JSON.stringify(Object.fromEntries(writers.failures))}`)
  await handle.end()
  await appPool.end()
  await controlPool.end()
  await server.close()
} finally {
  await postgres.stop()
  await rm(directory, { recursive: true, force: true })
}
