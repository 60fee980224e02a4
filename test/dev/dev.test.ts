/** `npm run dev` as a person runs it: a process of its own, a port, a directory, signals. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, readFile, rm, watch } from 'node:fs/promises'
import { createServer as createHttpServer, request } from 'node:http'
import { type AddressInfo, connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { neon } from '@neondatabase/serverless'
import { createRemoteJWKSet, jwtVerify } from 'jose'
import pg from 'pg'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { sendToEndpoint } from '../../src/db/neon.ts'
import type { DevStack } from '../../src/local/dev.ts'
import { DEV_AUDIENCE, DEV_ISSUER, OWN, WORKER_OPTIONS } from '../../src/local/worker-variables.ts'
import { createClient } from '../../src/sdk/client.ts'
import { Variables } from '../../workers/env.ts'

const CLI = new URL('../../src/cli/main.ts', import.meta.url).pathname

interface Run {
  child: ChildProcess
  /** All it has written so far. */
  output(): string
  /** Its exit code, or the signal that ended it. */
  ended: Promise<number | NodeJS.Signals | null>
}

const runs: Run[] = []

function dev(port: number, data: string, variables: Record<string, string> = {}): Run {
  const env = { ...process.env, ...variables }
  const child = spawn(process.execPath, [CLI, 'dev', '--port', String(port), '--data', data], { stdio: ['ignore', 'pipe', 'pipe'], env })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text: string) => (output += text))
  const ended = new Promise<number | NodeJS.Signals | null>((resolve) => child.once('close', (code, signal) => resolve(code ?? signal)))
  const run = { child, output: () => output, ended }
  runs.push(run)
  return run
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, 'localhost')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  return typeof address === 'object' && address ? address.port : 0
}

/** What `dev.json` says, at the moment it appears. */
async function stackIn(directory: string, run: Run): Promise<DevStack> {
  const stop = new AbortController()
  const events = watch(directory, { signal: stop.signal })
  const early = run.ended.then((code) => Promise.reject(new Error(`dev ended with ${code}:\n${run.output()}`)))
  const appeared = (async () => {
    for await (const { filename } of events) {
      // What a killed run left behind goes first, and that is an event too.
      if (filename !== 'dev.json' || !(await readdir(directory)).includes('dev.json')) continue
      return JSON.parse(await readFile(join(directory, 'dev.json'), 'utf8'))
    }
  })()
  try {
    return await Promise.race([appeared, early])
  } finally {
    early.catch(() => {})
    stop.abort()
  }
}

const isOpen = (port: number | string) =>
  new Promise<boolean>((resolve) => {
    const socket = connect({ port: Number(port), host: 'localhost' })
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
    socket.once('connect', () => socket.destroy())
  })
const portsOf = ({ url, database_url, neon_url, provisioner_url }: DevStack) => [url, database_url, neon_url, provisioner_url].map((each) => new URL(each).port)
const sentence = (run: Run) => run.output().trim().split('\n')

const first = { directory: '', port: 0 }
const second = { directory: '', port: 0 }
let stack: DevStack
let beside: DevStack
let firstRun: Run
let secondRun: Run

/** The app behind the second stack's gateway, and the resolver of custom domains: each tells what it was asked. */
const tellHeaders = createHttpServer((request, response) => response.end(JSON.stringify(request.headers)))
const lookedUp: string[] = []
const dns = createHttpServer((request, response) => {
  const name = new URL(request.url ?? '', 'http://dns').searchParams.get('name') ?? ''
  lookedUp.push(name)
  response.end(JSON.stringify({ Status: 0, Answer: [{ name, type: 16, data: 'not the value' }] }))
})
const urlOf = (server: typeof dns) => `http://127.0.0.1:${(server.address() as AddressInfo).port}`
/** What the shell of the second stack has set. */
const variables = () => ({
  STRATUM_ORIGIN: urlOf(tellHeaders),
  STRATUM_DNS_URL: `${urlOf(dns)}/dns-query`,
  STRATUM_CONTEXT_CONFIG: 'max_users',
  STRATUM_COOKIE: "it's$HOME",
  STRATUM_MASTER_KEYS: 'not-ours',
  STRATUM_TENANT_ROLES: 'on',
  STRATUM_DATABASE_LIMIT: '7',
  STRATUM_ROLLBACK_WINDOW: '2d',
  STRATUM_COOKY: 'tenant',
  DATABASE_URL: 'postgresql://nobody@nowhere.invalid/none',
})

beforeAll(async () => {
  for (const server of [tellHeaders, dns]) await once(server.listen(0, '127.0.0.1'), 'listening')
  for (const each of [first, second]) Object.assign(each, { directory: await mkdtemp(join(tmpdir(), 'stratum-dev-')), port: await freePort() })
  firstRun = dev(first.port, first.directory)
  secondRun = dev(second.port, second.directory, variables())
  ;[stack, beside] = await Promise.all([stackIn(first.directory, firstRun), stackIn(second.directory, secondRun)])
})
afterAll(async () => {
  for (const run of runs) run.child.kill('SIGTERM')
  await Promise.all(runs.map((run) => run.ended))
  for (const server of [tellHeaders, dns]) server.close()
  for (const { directory } of [first, second]) await rm(directory, { recursive: true, force: true })
})

it('writes dev.json when all answers, and everything in it works', async () => {
  expect(Object.keys(stack)).toEqual([
    'url',
    'api_key',
    'jwt_secret',
    'jwt',
    'database_url',
    'app_database_url',
    'neon_url',
    'provisioner_url',
    'gateway',
    'tenants',
  ])
  expect(stack.url).toBe(`http://localhost:${first.port}`)
  const admin = createClient({ baseUrl: stack.url, apiKey: stack.api_key })
  expect((await admin.getHealth()).database).toMatchObject({ role: 'stratum_control', role_bypasses_row_security: false })

  const slugs = ['acmesec', 'northstar_msp', 'client_alpha', 'client_beta', 'apex_partners', 'client_gamma']
  expect(Object.keys(stack.tenants).sort()).toEqual(slugs.sort())
  for (const [slug, id] of Object.entries(stack.tenants)) expect(await admin.getTenantBySlug({ slug })).toMatchObject({ id })

  const context = await createClient({ baseUrl: stack.url, token: stack.jwt }).getContext()
  expect(context).toMatchObject({ tenant_id: stack.tenants.northstar_msp, principal: { scopes: ['read', 'write'] } })
  expect(context.config['max_users']).toMatchObject({ value: 1000, inherited: true, source_tenant_id: stack.tenants.acmesec })
  await jwtVerify(stack.jwt, new TextEncoder().encode(stack.jwt_secret), { issuer: DEV_ISSUER, audience: DEV_AUDIENCE, algorithms: ['HS256'] })

  const owner = new pg.Client(stack.database_url)
  await owner.connect()
  const roles = 'select current_user::text as role, pg_get_userbyid(nspowner)::text as owner from pg_namespace where nspname = $1'
  expect((await owner.query(roles, ['stratum'])).rows).toEqual([{ role: 'stratum_owner', owner: 'stratum_owner' }])
  await owner.end()
  sendToEndpoint(stack.database_url, stack.neon_url)
  expect(await neon(stack.database_url).query(roles, ['stratum'])).toEqual([{ role: 'stratum_owner', owner: 'stratum_owner' }])
})

it('answers by the demo tree: a locked key, a permission, a secret for who may read it', async () => {
  const admin = createClient({ baseUrl: stack.url, apiKey: stack.api_key })
  const id = stack.tenants.client_alpha ?? ''
  await expect(admin.setConfig({ id, key: 'data_region', value: 'us' })).rejects.toMatchObject({ code: 'CONFIG_LOCKED' })
  expect((await admin.resolvePermissions({ id })).permissions['audit:view']).toMatchObject({ mode: 'LOCKED', source_tenant_id: stack.tenants.acmesec })
  expect((await admin.resolveConfig({ id, reveal: true })).config['smtp_password']).toMatchObject({ value: 'demo-smtp-password' })
  const member = createClient({ baseUrl: stack.url, token: stack.jwt })
  await expect(member.resolveConfig({ id, reveal: true })).rejects.toMatchObject({ code: 'SCOPE_REQUIRED' })
  expect((await member.resolveConfig({ id })).config['smtp_password']).toMatchObject({ value: null, sensitive: true })
})

it.each(['SHARED_RLS', 'SCHEMA_PER_TENANT', 'DB_PER_TENANT'] as const)('makes a tenant with %s ready', async (isolation_strategy) => {
  const admin = createClient({ baseUrl: stack.url, apiKey: stack.api_key })
  const { id } = await admin.createTenant({ slug: `dev_${isolation_strategy.toLowerCase()}`, name: 'Isolated', isolation_strategy })
  await expect.poll(async () => (await admin.getTenant({ id })).provisioning_status, { interval: 20, timeout: 10_000 }).toBe('ready')
  const health = await fetch(`${stack.provisioner_url}/health`)
  expect([health.status, await health.json()]).toMatchObject([200, { status: 'ok' }])
  const app = new pg.Client(stack.app_database_url)
  await app.connect()
  expect((await app.query(`select stratum_guard.role_problem() as problem`)).rows).toEqual([{ problem: null }])
  await app.end()
})

it('prints what a person needs, with the key and the commands to try', async () => {
  await expect.poll(firstRun.output).toContain('Ctrl-C stops it')
  for (const part of ['Stratum is up.', stack.url, stack.api_key, stack.jwt, `${first.directory}/dev.json`, 'http://northstar-msp.localhost:']) {
    expect(firstRun.output()).toContain(part)
  }
})

it('runs beside another with its own data and keys', async () => {
  expect(portsOf(stack).filter((port) => portsOf(beside).includes(port))).toEqual([])
  await expect(createClient({ baseUrl: beside.url, apiKey: stack.api_key }).listTenants()).rejects.toMatchObject({ code: 'API_KEY_INVALID' })
  await expect(createClient({ baseUrl: beside.url, token: stack.jwt }).getContext()).rejects.toMatchObject({ code: 'TOKEN_INVALID' })
})

/** The second stack's gateway, asked as a tenant's host: `*.localhost` is not known to every machine. */
const askTenant = (headers: Record<string, string> = {}) =>
  new Promise<{ status: number; body: string }>((resolve, reject) => {
    const asked = request({ port: second.port, host: 'localhost', path: '/any', headers: { host: `northstar-msp.localhost:${second.port}`, ...headers } })
    asked.once('error', reject).once('response', async (response) => resolve({ status: response.statusCode ?? 0, body: await text(response) }))
    asked.end()
  })

it('forwards tenants to STRATUM_ORIGIN, with contexts that the app can verify', async () => {
  const { status, body } = await askTenant({ authorization: `Bearer ${beside.jwt}` })
  expect(status).toBe(200)
  const keys = createRemoteJWKSet(new URL(`${beside.url}/.well-known/stratum-jwks.json`))
  const { issuer = '', audience = '' } = beside.gateway ?? {}
  expect({ issuer, audience }).toEqual({ issuer: 'https://localhost', audience: urlOf(tellHeaders) })
  const { payload } = await jwtVerify(JSON.parse(body)['stratum-context'], keys, { issuer, audience, typ: 'stratum-context+jwt' })
  expect(payload).toMatchObject({ slug: 'northstar_msp', principal: { id: 'dev@northstar' }, config: { max_users: 1000 } })
  await expect.poll(secondRun.output).toContain(`Gateway      tenants' hosts → ${urlOf(tellHeaders)}, contexts signed as ${issuer} for ${audience}`)
  expect(stack.gateway).toBeNull()
})

it('gives the Worker what the environment sets, and keeps what is its own', async () => {
  const written = await readFile(join(second.directory, 'worker.env'), 'utf8')
  expect(written).toContain("STRATUM_COOKIE=`it's\\$HOME`")
  expect(secondRun.output()).toContain('ignored   STRATUM_MASTER_KEYS: the local stack has its own')
  const admin = createClient({ baseUrl: beside.url, apiKey: beside.api_key })
  const id = beside.tenants.client_alpha ?? ''
  const { txt_name } = await admin.createDomain({ id, domain: 'shop.example.com' })
  await expect(admin.verifyDomain({ id, domain: 'shop.example.com' })).rejects.toMatchObject({ code: 'DOMAIN_NOT_VERIFIED' })
  expect(lookedUp).toEqual([txt_name])
  expect(await readFile(join(second.directory, '.gitignore'), 'utf8')).toBe('*\n')
})

it('gives the provisioner what the environment sets', async () => {
  expect(secondRun.output()).toMatch(/^environment .*STRATUM_TENANT_ROLES, STRATUM_DATABASE_LIMIT, STRATUM_ROLLBACK_WINDOW$/m)
  const admin = createClient({ baseUrl: beside.url, apiKey: beside.api_key })
  const { id } = await admin.createTenant({ slug: 'moved', name: 'Moved' })
  await admin.migrateIsolation({ id, isolation_strategy: 'SCHEMA_PER_TENANT' })
  const changed = async () => (await admin.listIsolationChanges({ id })).data[0]
  await expect.poll(async () => (await changed())?.phase, { timeout: 15_000 }).toBe('done')
  const { finished_at, source_kept_until } = (await changed()) ?? {}
  expect(Date.parse(source_kept_until ?? '') - Date.parse(finished_at ?? '')).toBeCloseTo(2 * 86_400_000, -5)
  const owner = new pg.Client(beside.database_url)
  await owner.connect()
  expect((await owner.query('select database_limit from stratum.installation')).rows).toEqual([{ database_limit: 7 }])
  expect((await owner.query('select from pg_roles where rolname = stratum_guard.tenant_role($1)', [id])).rows).toHaveLength(1)
  await owner.end()
})

it.each([
  ['STRATUM_DATABASE_LIMIT', 'x', 'is not a number.'],
  ['STRATUM_PROVISIONER_CONCURRENCY', 'zero', 'is not a number.'],
  ['STRATUM_TENANT_ROLES', 'yes', 'must be on or off.'],
  ['STRATUM_ROLLBACK_WINDOW', 'banana', 'must be a number with a unit, such as 24h, 30m or 7d.'],
  ['STRATUM_DNS_URL', 'http://dns.example.com', 'must be an https:// URL of a resolver that answers application/dns-json.'],
])('refuses %s=%s before it makes anything', async (name, value, sentencePart) => {
  const directory = await mkdtemp(join(tmpdir(), 'stratum-dev-'))
  const run = dev(await freePort(), directory, { [name]: value })
  expect(await run.ended).toBe(1)
  expect(sentence(run).at(-1)).toBe(`stratum: The variable ${name} ${sentencePart}`)
  expect(await readdir(directory)).toEqual([])
  await rm(directory, { recursive: true })
})

it('names the variables that nothing reads', () => {
  expect(secondRun.output()).toContain('ignored   STRATUM_COOKY: the local stack reads no such variable')
  const read = Object.keys(Variables.shape).filter((name) => name.startsWith('STRATUM_'))
  expect([...WORKER_OPTIONS, ...OWN].toSorted()).toEqual(read.toSorted())
})

it('says at once which variable the Worker cannot use', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'stratum-dev-'))
  const run = dev(await freePort(), directory, { STRATUM_ORIGIN: 'http://127.0.0.1:4100/path' })
  expect(await run.ended).toBe(1)
  expect(sentence(run).at(-1)).toMatch(/^stratum: The variable STRATUM_ORIGIN cannot be used: it must be scheme, host and port alone/)
  await rm(directory, { recursive: true })
}, 60_000)

it('says in one sentence that its port is taken, or its data in use, and leaves the one that runs alone', async () => {
  const elsewhere = await mkdtemp(join(tmpdir(), 'stratum-dev-'))
  const samePort = dev(first.port, elsewhere)
  const sameData = dev(await freePort(), first.directory)

  expect(await Promise.all([samePort.ended, sameData.ended])).toEqual([1, 1])

  expect(sentence(samePort)).toEqual([`stratum: Port ${first.port} is in use; choose another with --port.`])
  expect(sentence(sameData)).toEqual([
    expect.stringMatching(/^stratum: A PostgreSQL server \(process \d+\) already runs on .*: stop it, or choose another directory with --data\.$/),
  ])
  expect(await readdir(elsewhere)).toEqual([])
  await rm(elsewhere, { recursive: true })
  expect(JSON.parse(await readFile(join(first.directory, 'dev.json'), 'utf8'))).toEqual(stack)
  expect((await createClient({ baseUrl: stack.url, apiKey: stack.api_key }).getHealth()).database).toBeDefined()
})

it('stops everything on SIGINT and takes dev.json away', async () => {
  expect(await Promise.all(portsOf(stack).map(isOpen))).toEqual([true, true, true, true])
  firstRun.child.kill('SIGINT')
  expect(await firstRun.ended).toBe(0)
  expect(await Promise.all(portsOf(stack).map(isOpen))).toEqual([false, false, false, false])
  expect(await readdir(first.directory)).not.toContain('dev.json')
})

it('finds its data and its key again, even after it was killed', async () => {
  const admin = createClient({ baseUrl: beside.url, apiKey: beside.api_key })
  const kept = await admin.createTenant({ slug: 'kept', name: 'Kept' })
  const keySet = async (url: string) => (await fetch(`${url}/.well-known/stratum-jwks.json`)).json()
  const published = await keySet(beside.url)
  secondRun.child.kill('SIGKILL')
  expect(await secondRun.ended).toBe('SIGKILL')
  // What it started notices by itself, and there is no event of theirs to wait for.
  for (const port of portsOf(beside)) await expect.poll(() => isOpen(port), { timeout: 10_000 }).toBe(false)

  const again = await stackIn(second.directory, dev(second.port, second.directory, variables()))

  expect(again).toMatchObject({ url: beside.url, api_key: beside.api_key, jwt_secret: beside.jwt_secret, tenants: beside.tenants })
  expect(await createClient({ baseUrl: again.url, apiKey: again.api_key }).getTenantBySlug({ slug: 'kept' })).toMatchObject({ id: kept.id })
  expect(await keySet(again.url)).toEqual(published)
}, 60_000)
