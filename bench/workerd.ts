/** What benches of the edge run on: a database with one tenant, and workerd with a Worker of theirs, driven directly. */
import { execFile, spawn } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { createServer } from 'node:net'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import pg from 'pg'
import { generateRingKey } from '../src/crypto/key-ring.ts'
import { migrate, overPostgres } from '../src/db/migrate.ts'
import { ensureRoles, generatePassword } from '../src/db/roles.ts'
import { startNeonEndpoint } from '../src/local/neon-endpoint.ts'
import { startPostgres } from '../src/local/postgres.ts'
import { onceWeAreGone } from '../src/local/watchdog.ts'
import { DEV_AUDIENCE, DEV_ISSUER } from '../src/local/worker-variables.ts'
import { Stratum } from '../src/stratum.ts'
import { cpuOf, send } from './load.ts'

const ROUNDS = 9
const CONNECTIONS = 8
const PROJECT = fileURLToPath(new URL('../', import.meta.url))
const require = createRequire(import.meta.url)

/** The secret of tokens of the development issuer. */
export const TOKEN_SECRET = 'a-secret-of-the-bench-that-is-long-enough-for-HS256'
/** The host of the tenant. */
export const HOST = 'bench-client.bench.test'
/** The host that names no tenant. */
export const API_HOST = 'bench.test'

export const freePort = () =>
  new Promise<number>((free) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number }
      server.close(() => free(port))
    })
  })

/** The tenant bench_client three levels down with 20 keys, and the variables of a Worker that serves it. */
export async function startDatabase(directory: string) {
  const postgres = await startPostgres({ directory: join(directory, 'postgres'), password: 'admin' })
  const neon = await startNeonEndpoint({ postgresPort: postgres.port })
  const passwords = { owner: generatePassword(), control: generatePassword(), app: generatePassword() }
  const admin = new pg.Client(postgres.url())
  await admin.connect()
  await ensureRoles(overPostgres(admin), passwords)
  await migrate(overPostgres(admin), { owner: 'stratum_owner' })
  await admin.end()
  const url = (role: 'owner' | 'control') => `postgresql://stratum_${role}:${passwords[role]}@localhost:${postgres.port}/postgres`
  const rings = { masterKeys: generateRingKey('bench'), apiKeySecrets: generateRingKey('bench') }
  const stratum = new Stratum({ databaseUrl: url('control'), neonEndpoint: neon.url, ...rings })
  let tenant = ''
  for (const slug of ['bench_root', 'bench_reseller', 'bench_client']) {
    const { id }: { id: string } = await stratum.createTenant({ slug, name: slug, parent_id: tenant || null })
    tenant = id
  }
  const entries = Array.from({ length: 20 }, (_, index) => ({ key: `key_${index}`, value: `value ${index}` }))
  await stratum.batchSetConfig(tenant, entries)
  const issuer = {
    issuer: DEV_ISSUER,
    audience: DEV_AUDIENCE,
    algorithms: ['HS256'],
    keys: [{ kty: 'oct', k: Buffer.from(TOKEN_SECRET).toString('base64url') }],
  }
  const environment = {
    DATABASE_URL: url('control'),
    NEON_ENDPOINT: neon.url,
    STRATUM_MASTER_KEYS: rings.masterKeys,
    STRATUM_API_KEY_SECRETS: rings.apiKeySecrets,
    STRATUM_BASE_DOMAINS: 'bench.test',
    STRATUM_ISSUERS: JSON.stringify([issuer]),
  }
  return { stratum, tenant, url, environment, postgres, neon, stop: async () => Promise.all([neon.close(), postgres.stop()]) }
}

const capnp = (text: string) => JSON.stringify(text)

export interface Workerd {
  port: number
  pid: number
  /** Milliseconds from the start of the process to the first answer. */
  startedIn: number
  stop(): void
}

/** Bundle a Worker as it is deployed. @returns the path of the script */
export async function bundle(directory: string, worker: string): Promise<string> {
  const script = join(directory, `${worker.replaceAll(/\W/g, '_')}.js`)
  const esbuild = join(dirname(require.resolve('esbuild/package.json')), 'bin/esbuild')
  const flags = ['--bundle', '--minify', '--format=esm', '--conditions=workerd,worker,browser', '--external:node:*', '--external:cloudflare:*']
  await promisify(execFile)(esbuild, [join(PROJECT, worker), ...flags, `--outfile=${script}`])
  return script
}

/** workerd with a bundled Worker, on a port of its own. It is up when `first`, a request as it goes over the wire, is answered 200. */
export async function startWorkerd(script: string, environment: Record<string, string>, first: string): Promise<Workerd> {
  const port = await freePort()
  const bindings = Object.entries(environment).map(([name, text]) => `(name = ${capnp(name)}, text = ${capnp(text)})`)
  const config = `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "main", worker = (modules = [(name = "worker.js", esModule = embed ${capnp(basename(script))})], compatibilityDate = "2026-11-09", bindings = [${bindings.join(', ')}])),
    (name = "internet", network = (allow = ["public", "private"])),
  ],
  sockets = [(name = "http", address = "127.0.0.1:${port}", http = (), service = "main")]
);`
  await writeFile(`${script}.${port}.capnp`, config)
  const began = performance.now()
  const child = spawn(join(dirname(require.resolve('workerd/package.json')), 'bin/workerd'), ['serve', `${script}.${port}.capnp`], {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  child.once('exit', onceWeAreGone(`kill -KILL ${child.pid}`))
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said += text
  })
  for (let attempt = 1; ; attempt++) {
    try {
      await send(port, first, 1, 1)
      return { port, pid: child.pid ?? 0, startedIn: performance.now() - began, stop: () => child.kill('SIGKILL') }
    } catch (error) {
      if (attempt === 2_000 || child.exitCode !== null) {
        child.kill('SIGKILL')
        throw new Error(`workerd does not answer: ${said.slice(-2000)}`, { cause: error })
      }
      await new Promise((next) => setTimeout(next, 2))
    }
  }
}

export const median = (values: number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN

export interface Comparison {
  name: string
  /** Requests as they go over the wire. */
  ours: string
  bare: string
  requests: number
  target: string
}

/**
 * Send both kinds of request, and print the CPU that each costs: medians over the rounds. Within a round they take turns in
 * short runs, each kind first as often as last, so that what comes in waves (garbage, another process) hits both.
 */
export async function compare({ port, pid }: Workerd, { name, ours, bare, requests, target }: Comparison) {
  const ratios = { cpu: [] as number[], rate: [] as number[] }
  const costs = { ours: [] as number[], bare: [] as number[] }
  const turns = [ours, bare, bare, ours, ours, bare, bare, ours]
  const perTurn = Math.ceil((requests * 2) / turns.length)
  for (const request of [ours, bare]) await send(port, request, requests, CONNECTIONS)
  for (let round = 0; round < ROUNDS; round++) {
    const spent = { ours: { cpu: 0, time: 0 }, bare: { cpu: 0, time: 0 } }
    for (const request of turns) {
      const of = spent[request === ours ? 'ours' : 'bare']
      const before = await cpuOf(pid)
      of.time += await send(port, request, perTurn, CONNECTIONS)
      of.cpu += (await cpuOf(pid)) - before
    }
    ratios.cpu.push(spent.ours.cpu / spent.bare.cpu)
    ratios.rate.push(spent.bare.time / spent.ours.time)
    for (const which of ['ours', 'bare'] as const) costs[which].push((spent[which].cpu * 2) / (perTurn * turns.length))
  }
  const microseconds = (values: number[]) => `${(median(values) * 1000).toFixed(0)} µs`
  const [cpu, rate] = [median(ratios.cpu).toFixed(2), median(ratios.rate).toFixed(2)]
  console.log(`${name}: ${microseconds(costs.ours)} against ${microseconds(costs.bare)} of CPU a request, ${cpu}×; ${rate}× the requests/s (target ${target})`)
}
