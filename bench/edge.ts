/**
 * What the edge adds to a request: `node bench/edge.ts`. Two things that are compared run in one workerd, driven
 * directly and in turn, and the figure is the CPU that workerd spent on each request: a busy machine slows both and
 * changes little. Figures are medians of the rounds; ratios are to the bare thing.
 */
import { execFile, spawn } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import pg from 'pg'
import { generateRingKey } from '../src/crypto/key-ring.ts'
import { migrate, overPostgres } from '../src/db/migrate.ts'
import { ensureRoles, generatePassword } from '../src/db/roles.ts'
import { DEV_AUDIENCE, DEV_ISSUER, signDevToken } from '../src/local/dev.ts'
import { startNeonEndpoint } from '../src/local/neon-endpoint.ts'
import { startPostgres } from '../src/local/postgres.ts'
import { Stratum } from '../src/stratum.ts'
import { cpuOf, rawRequest, send } from './load.ts'

const ROUNDS = 9
const CONNECTIONS = 8
const PROJECT = fileURLToPath(new URL('../', import.meta.url))
const require = createRequire(import.meta.url)

const freePort = () =>
  new Promise<number>((free) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number }
      server.close(() => free(port))
    })
  })

/** A tenant three levels down with 20 keys, and what a Worker needs to serve it. */
async function startDatabase(directory: string) {
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
  let parent: string | null = null
  for (const slug of ['bench_root', 'bench_reseller', 'bench_client']) {
    const { id }: { id: string } = await stratum.createTenant({ slug, name: slug, parent_id: parent })
    parent = id
  }
  const entries = Array.from({ length: 20 }, (_, index) => ({ key: `key_${index}`, value: `value ${index}` }))
  await stratum.batchSetConfig(parent ?? '', entries)
  return { url, rings, neon, stop: async () => Promise.all([neon.close(), postgres.stop()]) }
}

const capnp = (text: string) => JSON.stringify(text)

/** workerd with the bench's Worker on a port of its own. */
async function startWorkerd(directory: string, environment: Record<string, string>) {
  const script = join(directory, 'worker.js')
  const esbuild = join(dirname(require.resolve('esbuild/package.json')), 'bin/esbuild')
  const flags = ['--bundle', '--minify', '--format=esm', '--conditions=workerd,worker,browser', '--external:node:*', '--external:cloudflare:*']
  await promisify(execFile)(esbuild, [join(PROJECT, 'bench/edge-worker.ts'), ...flags, `--outfile=${script}`])
  const port = await freePort()
  const bindings = Object.entries(environment).map(([name, text]) => `(name = ${capnp(name)}, text = ${capnp(text)})`)
  const config = `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "main", worker = (modules = [(name = "worker.js", esModule = embed "worker.js")], compatibilityDate = "2026-11-09", bindings = [${bindings.join(', ')}])),
    (name = "internet", network = (allow = ["public", "private"])),
  ],
  sockets = [(name = "http", address = "127.0.0.1:${port}", http = (), service = "main")]
);`
  await writeFile(join(directory, 'config.capnp'), config)
  const child = spawn(join(dirname(require.resolve('workerd/package.json')), 'bin/workerd'), ['serve', join(directory, 'config.capnp')], {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    said += text
  })
  for (let attempt = 1; ; attempt++) {
    try {
      await send(port, rawRequest('/bare', { host: 'bench' }), 1, 1)
      return { port, pid: child.pid ?? 0, stop: () => child.kill('SIGKILL') }
    } catch (error) {
      if (attempt === 200 || child.exitCode !== null) {
        child.kill('SIGKILL')
        throw new Error(`workerd does not answer: ${said.slice(-2000)}`, { cause: error })
      }
      await new Promise((next) => setTimeout(next, 25))
    }
  }
}

const median = (values: number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN

interface Comparison {
  name: string
  ours: string
  bare: string
  requests: number
  target: string
}

async function compare({ port, pid }: { port: number; pid: number }, { name, ours, bare, requests, target }: Comparison) {
  const cpu = { ours: [] as number[], bare: [] as number[] }
  const perSecond = { ours: [] as number[], bare: [] as number[] }
  for (const request of [ours, bare]) await send(port, request, requests / 4, CONNECTIONS)
  for (let round = 0; round < ROUNDS; round++) {
    for (const [which, request] of [
      ['bare', bare],
      ['ours', ours],
    ] as const) {
      const before = await cpuOf(pid)
      const took = await send(port, request, requests, CONNECTIONS)
      cpu[which].push(((await cpuOf(pid)) - before) / requests)
      perSecond[which].push((requests / took) * 1000)
    }
  }
  const [mine, theirs] = [median(cpu.ours), median(cpu.bare)]
  const ratio = (mine / theirs).toFixed(2)
  const rate = (median(perSecond.ours) / median(perSecond.bare)).toFixed(2)
  console.log(
    `${name}: ${(mine * 1000).toFixed(0)} µs against ${(theirs * 1000).toFixed(0)} µs of CPU a request, ${ratio}×; ${rate}× the requests/s (target ${target})`,
  )
}

const directory = await mkdtemp(join(tmpdir(), 'stratum-bench-'))
const database = await startDatabase(directory)
const secret = 'a-secret-of-the-bench-that-is-long-enough-for-HS256'
const issuer = { issuer: DEV_ISSUER, audience: DEV_AUDIENCE, algorithms: ['HS256'], keys: [{ kty: 'oct', k: Buffer.from(secret).toString('base64url') }] }
const environment = {
  DATABASE_URL: database.url('control'),
  NEON_ENDPOINT: database.neon.url,
  STRATUM_MASTER_KEYS: database.rings.masterKeys,
  STRATUM_API_KEY_SECRETS: database.rings.apiKeySecrets,
  STRATUM_BASE_DOMAINS: 'bench.test',
  STRATUM_ISSUERS: JSON.stringify([issuer]),
}
let workerd: Awaited<ReturnType<typeof startWorkerd>> | undefined
try {
  workerd = await startWorkerd(directory, environment)
  const authorization = `Bearer ${await signDevToken(secret, { tenant: 'bench_client', scope: 'read' }, 'user')}`
  const host = 'bench-client.bench.test'
  const get = (path: string) => rawRequest(path, { host, authorization })
  await compare(workerd, { name: 'warm resolve', ours: get('/warm'), bare: get('/bare'), requests: 8_000, target: '≥ 0.80× the requests/s' })
  await compare(workerd, { name: 'cold resolve against one bare query', ours: get('/cold'), bare: get('/query'), requests: 800, target: '≤ 1.5× the CPU' })
} finally {
  workerd?.stop()
  await database.stop()
  await rm(directory, { recursive: true, force: true })
}
