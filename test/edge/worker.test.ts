/** What only workerd can show: the bundle as it is deployed, its environment, its connections. */
import { once } from 'node:events'
import { createServer, request as httpRequest, type Server } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { generateRingKey } from '../../src/crypto/key-ring.ts'
import { createClient, type StratumClient } from '../../src/sdk/client.ts'
import { Stratum } from '../../src/stratum.ts'
import { AUDIENCE, createInstallation, type Installation, ISSUER, JWT_SECRET, signToken } from '../support/installation.ts'
import { ownIssuer } from '../support/issuers.ts'
import { startWorkers, type Workerd } from './workerd.ts'

const MISCONFIGURED = {
  'no-master-key.test': [{ STRATUM_MASTER_KEYS: undefined }, /^The variable STRATUM_MASTER_KEYS is missing; set it with: wrangler secret put, .*\.$/],
  'weak-master-key.test': [{ STRATUM_MASTER_KEYS: '1:c2VjcmV0' }, /^STRATUM_MASTER_KEYS entry 1 holds 6 bytes and needs exactly 32; .*\.$/],
  'typed-master-key.test': [
    { STRATUM_MASTER_KEYS: `1:${Buffer.from('a-master-key-that-someone-typed!').toString('base64')}` },
    /^STRATUM_MASTER_KEYS entry 1 repeats too few different bytes to be random; .*\.$/,
  ],
  'no-key-secret.test': [{ STRATUM_API_KEY_SECRETS: undefined }, /^The variable STRATUM_API_KEY_SECRETS is missing; .*\.$/],
  'no-database.test': [{ DATABASE_URL: undefined }, /^The variable DATABASE_URL is missing; .*\.$/],
  'bad-database.test': [{ DATABASE_URL: 'mysql://root:hunter2@db/x' }, /^The variable DATABASE_URL is not a PostgreSQL connection string .*\.$/],
  'bad-issuers.test': [{ STRATUM_ISSUERS: '[{"issuer": "https://idp.test"}]' }, /^STRATUM_ISSUERS.*\.$/],
  'bad-dns.test': [{ STRATUM_DNS_URL: 'http://dns.example/dns-query' }, /^The variable STRATUM_DNS_URL must be an https:\/\/ URL .*\.$/],
  'no-cookie.test': [{ STRATUM_SOURCES: 'token,cookie' }, /^The variable STRATUM_SOURCES lists cookie; say which in STRATUM_COOKIE\.$/],
  'not-json-issuers.test': [{ STRATUM_ISSUERS: 'hunter2' }, /^STRATUM_ISSUERS.*\.$/],
} as const

let installation: Installation
let stratum: Stratum
let workerd: Workerd
let admin: StratumClient
let adminKey: string
/** The endpoint of the database, which holds back what it is asked while it is told to, and tells `/held` once it holds so many. */
let endpoint: Server
const held: Array<() => void> = []
let holding = 0

/** Calls the service, leaves when it is told to, and answers that it did. */
const LEAVING = `export default {
  async fetch(request, env) {
    const leaving = new AbortController()
    env.STRATUM.fetch('http://left.test/api/v1/tenants', { headers: request.headers, signal: leaving.signal }).catch(() => {})
    await fetch(request.headers.get('x-leave-when'))
    leaving.abort()
    return new Response('left')
  },
}`

function startEndpoint(): Server {
  const target = new URL(installation.neonEndpoint)
  return createServer((incoming, outgoing) => {
    const { url, method, headers } = incoming
    const pass = () => {
      const passed = httpRequest({ host: target.hostname, port: target.port, path: url, method, headers }, (answer) => {
        outgoing.writeHead(answer.statusCode ?? 0, answer.headers)
        answer.pipe(outgoing)
      })
      incoming.pipe(passed)
    }
    if (url === '/held') return void untilHeld(holding).then(() => outgoing.end())
    if (holding === 0) return pass()
    held.push(pass)
  })
}

async function untilHeld(count: number): Promise<void> {
  await vi.waitUntil(() => held.length >= count, { timeout: 20_000 })
}

/** Answers DNS over HTTPS with `txt`, by name; a name that begins with `_stratum.redirect` with a redirect. */
let dns: Server
const txt = new Map<string, string>()

beforeAll(async () => {
  installation = await createInstallation()
  dns = createServer((request, response) => {
    const name = new URL(request.url ?? '', 'http://dns').searchParams.get('name') ?? ''
    if (name.startsWith('_stratum.redirect')) return response.writeHead(302, { location: '/?name=_stratum.shop.customer.example' }).end()
    const value = txt.get(name)
    response.end(JSON.stringify({ Status: value ? 0 : 3, Answer: value ? [{ name, type: 16, data: `"${value}"` }] : [] }))
  })
  await new Promise<void>((listening) => dns.listen(0, '127.0.0.1', listening))
  const rings = { masterKeys: generateRingKey('edge'), apiKeySecrets: generateRingKey('edge') }
  const environment = {
    DATABASE_URL: installation.urls.control,
    NEON_ENDPOINT: installation.neonEndpoint,
    STRATUM_MASTER_KEYS: rings.masterKeys,
    STRATUM_API_KEY_SECRETS: rings.apiKeySecrets,
    STRATUM_BASE_DOMAINS: 'stratum.test',
    STRATUM_DNS_URL: `http://127.0.0.1:${(dns.address() as AddressInfo).port}/`,
    STRATUM_ISSUERS: JSON.stringify([
      {
        issuer: ISSUER,
        audience: AUDIENCE,
        algorithms: ['HS256'],
        keys: [{ kty: 'oct', k: Buffer.from(JWT_SECRET).toString('base64url') }],
        max_scopes: ['admin'],
      },
    ]),
  }
  const wrong = Object.entries(MISCONFIGURED).map(([host, [change]]) => {
    const changed = Object.entries({ ...environment, ...change }).filter((entry): entry is [string, string] => entry[1] !== undefined)
    return [host, Object.fromEntries(changed)]
  })
  const privileged = { ...environment, DATABASE_URL: installation.urls.admin, STRATUM_BASE_DOMAINS: 'privileged.test' }
  endpoint = startEndpoint()
  await new Promise<void>((listening) => endpoint.listen(0, '127.0.0.1', listening))
  const left = { ...environment, NEON_ENDPOINT: `http://127.0.0.1:${(endpoint.address() as AddressInfo).port}/sql`, STRATUM_BASE_DOMAINS: 'left.test' }
  workerd = await startWorkers(
    { 'stratum.test': environment, 'privileged.test': privileged, 'left.test': left, ...Object.fromEntries(wrong) },
    {},
    { 'left.test': { host: 'leaving.test', script: LEAVING } },
  )
  stratum = new Stratum({ databaseUrl: installation.urls.control, neonEndpoint: installation.neonEndpoint, ...rings })
  adminKey = (await stratum.createApiKey(null, { scopes: ['admin'] })).key
  admin = client('http://stratum.test', { apiKey: adminKey })
})
afterAll(async () => {
  await workerd.stop()
  endpoint.closeAllConnections()
  await new Promise((closed) => endpoint.close(closed))
  await new Promise((closed) => dns.close(closed))
  await installation.close()
})

const client = (baseUrl: string, credential: { apiKey: string } | { token: string }) => createClient({ baseUrl, fetch: workerd.fetch, ...credential })
const get = (url: string, headers: Record<string, string> = {}) => workerd.fetch(new Request(url, { headers }))

it('answers fifty requests at once as the very first of its isolate, and the next fifty', async () => {
  for (const round of ['first', 'second']) {
    const answers = await Promise.all(Array.from({ length: 50 }, () => get('http://stratum.test/api/v1/tenants', { 'x-api-key': adminKey })))
    expect(
      answers.map((answer) => answer.status),
      round,
    ).toEqual(Array.from({ length: 50 }, () => 200))
  }
})

it('answers fifty requests at once for the context of a tenant that it has not met', async () => {
  const { id } = await stratum.createTenant({ slug: 'cold_tenant', name: 'Cold' })
  const { key } = await stratum.createApiKey(id, { scopes: ['read'] })
  for (const round of ['first', 'second']) {
    const answers = await Promise.all(Array.from({ length: 50 }, () => get('http://stratum.test/api/v1/context', { 'x-api-key': key })))
    expect(
      answers.map((answer) => answer.status),
      round,
    ).toEqual(Array.from({ length: 50 }, () => 200))
  }
})

it('answers fifty tokens at once of a stored issuer that it has not met, and none once it is deleted', async () => {
  const own = ownIssuer()
  const { id: tenantId } = await stratum.createTenant({ slug: 'with_issuer', name: 'With an issuer' })
  const { id } = await stratum.createIssuer(own.fields({ tenant_id: tenantId }))
  const ask = async (token: string) => (await get('http://stratum.test/api/v1/tenants', { authorization: `Bearer ${token}` })).status
  const tokens = await Promise.all(Array.from({ length: 50 }, (_, index) => own.token({ index })))
  expect(new Set(await Promise.all(tokens.map(ask)))).toEqual(new Set([200]))
  await stratum.deleteIssuer(id)
  expect(new Set(await Promise.all(tokens.map(ask)))).toEqual(new Set([401]))
})

it('runs the whole thread: a tree, config with a secret, and a tenant resolved by host and by token', async () => {
  const root = await admin.createTenant({ slug: 'acme', name: 'Acme' })
  const child = await admin.createTenant({ slug: 'north_star', name: 'North Star', parent_id: root.id })
  await admin.setConfig({ id: root.id, key: 'max_users', value: 1000 })
  await admin.setConfig({ id: root.id, key: 'smtp_password', value: 'hunter2', sensitive: true })

  expect((await admin.resolveConfig({ id: child.id })).config['smtp_password']).toMatchObject({ value: null, sensitive: true })
  expect((await admin.resolveConfig({ id: child.id, reveal: true })).config['smtp_password']).toMatchObject({ value: 'hunter2', inherited: true })
  // what the edge encrypted, the embedded class reads, and the other way round
  expect((await stratum.resolveConfig(child.id))['smtp_password']).toMatchObject({ value: 'hunter2' })

  const byHost = await client('http://north-star.stratum.test', { apiKey: adminKey }).getContext()
  const token = await signToken({ tenant: 'north_star', scope: 'read' })
  const byToken = await client('http://stratum.test', { token }).getContext()
  for (const context of [byHost, byToken]) {
    expect(context.tenant.id).toBe(child.id)
    expect(context.config['max_users']).toMatchObject({ value: 1000, source_tenant_id: root.id })
  }
  await expect(client('http://acme.stratum.test', { token }).getContext()).rejects.toMatchObject({ status: 404, code: 'TENANT_NOT_FOUND' })
  await expect(client('http://elsewhere.stratum.test', { apiKey: adminKey }).getContext()).rejects.toMatchObject({ code: 'TENANT_NOT_FOUND' })
})

it('verifies a custom domain over DNS over HTTPS, by the record that the embedded class asks for too', async () => {
  const { id } = await admin.createTenant({ slug: 'shop', name: 'Shop' })
  const { domain, txt_name, txt_value } = await admin.createDomain({ id, domain: 'Shop.customer.example' })
  expect((await stratum.listDomains(id)).data).toMatchObject([{ domain, txt_value }])
  await expect(admin.verifyDomain({ id, domain })).rejects.toMatchObject({ code: 'DOMAIN_NOT_VERIFIED', details: { found: 0, dns_status: 'NXDOMAIN' } })
  txt.set(txt_name, txt_value)
  expect((await admin.verifyDomain({ id, domain })).verified).toBe(true)
  expect((await admin.resolve({ host: domain })).tenant_id).toBe(id)
  await admin.createDomain({ id, domain: 'redirect.customer.example' })
  await expect(admin.verifyDomain({ id, domain: 'redirect.customer.example' })).rejects.toMatchObject({ code: 'DNS_UNAVAILABLE', status: 503 })
})

it('serves its own description, open to anybody', async () => {
  const document = await get('http://stratum.test/api/v1/openapi.json')
  expect(document.headers.get('content-type')).toContain('application/json')
  expect(await document.json()).toMatchObject({ openapi: '3.1.0', paths: { '/tenants/{id}/config/{key}': { put: { operationId: 'setConfig' } } } })
  const docs = await get('http://stratum.test/docs')
  expect(docs.headers.get('content-type')).toContain('text/html')
  expect(await docs.text()).toContain('href="#op-moveTenant"')
  expect(await (await get('http://stratum.test/api/v1/health')).json()).toEqual({ status: 'ok' })
})

const ISO = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/

it('writes one line a request, without what the request carried', async () => {
  const before = workerd.logs.length
  const answer = await get('http://stratum.test/api/v1/tenants?limit=7', { 'x-api-key': adminKey, 'x-request-id': 'the-request-logged' })
  expect(answer.headers.get('x-request-id')).toBe('the-request-logged')
  await expect
    .poll(() =>
      workerd.logs
        .slice(before)
        .map((line) => JSON.parse(line.message))
        .filter((line) => line.request_id === 'the-request-logged'),
    )
    .toEqual([
      {
        ...{ level: 'info', request_id: 'the-request-logged', method: 'GET', route: '/api/v1/tenants', status: 200, principal: 'api_key' },
        ...{
          time: expect.stringMatching(ISO),
          trace_id: expect.stringMatching(/^[0-9a-f]{32}$/),
          duration_ms: expect.any(Number),
          database_ms: expect.any(Number),
        },
      },
    ])
  expect(workerd.logs.filter((line) => line.message.includes(adminKey))).toEqual([])
})

describe('misconfigured, it refuses to serve: the log says why, the caller learns nothing', () => {
  it.each(Object.entries(MISCONFIGURED))('%s', async (host, [, sentence]) => {
    const before = workerd.logs.length
    const answer = await get(`http://${host}/api/v1/tenants`, { 'x-api-key': adminKey })

    expect(answer.status).toBe(500)
    expect(await answer.json()).toEqual({
      error: { code: 'CONFIGURATION_INVALID', message: 'The service is not configured; its log says what is missing.', request_id: expect.any(String) },
    })
    const logged = () => workerd.logs.slice(before).map((line) => JSON.parse(line.message))
    const refusals = () => logged().filter((line) => line.code === 'CONFIGURATION_INVALID')
    await expect
      .poll(refusals)
      .toEqual([{ time: expect.stringMatching(ISO), level: 'error', code: 'CONFIGURATION_INVALID', message: expect.stringMatching(sentence) }])
    expect(JSON.stringify(logged())).not.toContain('hunter2')
  })
})

it('does not serve over a role that bypasses row security', async () => {
  const answer = await get('http://privileged.test/api/v1/tenants', { 'x-api-key': adminKey })
  expect(answer.status).toBe(500)
  expect(await answer.json()).toMatchObject({ error: { code: 'DATABASE_ROLE_REFUSED' } })
})

describe('a client that goes away early', () => {
  it('while the database is asked gives its place back when the database has answered', async () => {
    const ask = () => get('http://left.test/api/v1/tenants', { 'x-api-key': adminKey })
    expect((await ask()).status).toBe(200)
    holding = 200
    const when = `http://127.0.0.1:${(endpoint.address() as AddressInfo).port}/held`
    const headers = { 'x-api-key': adminKey, 'x-leave-when': when }
    const left = await Promise.all(Array.from({ length: 200 }, () => get('http://leaving.test/', headers)))
    expect(new Set(await Promise.all(left.map((answer) => answer.text())))).toEqual(new Set(['left']))
    expect(await (await ask()).json()).toMatchObject({ error: { code: 'DATABASE_BUSY' } })
    holding = 0
    for (const pass of held.splice(0)) pass()
    await expect.poll(async () => (await ask()).status).toBe(200)
  })

  const head = (path: string, length: number) =>
    `POST ${path} HTTP/1.1\r\nhost: stratum.test\r\nx-api-key: ${adminKey}\r\ncontent-type: application/json\r\ncontent-length: ${length}\r\n\r\n`
  const body = JSON.stringify({ slug: 'left_early', name: 'Left early' })

  it.each([
    ['in the middle of its headers', () => head('/api/v1/tenants', 10).slice(0, 60)],
    ['in the middle of its body', () => head('/api/v1/tenants', body.length) + body.slice(0, 10)],
    ['before the answer', () => head('/api/v1/tenants', body.length) + body],
  ])('%s leaves the next requests as they are', async (_, sent) => {
    for (let client = 0; client < 5; client++) {
      const socket = connect(workerd.port, '127.0.0.1')
      await once(socket, 'connect')
      await new Promise<void>((written) => socket.write(sent(), () => written()))
      socket.destroy()
    }
    const answers = await Promise.all(Array.from({ length: 10 }, () => get('http://stratum.test/api/v1/tenants', { 'x-api-key': adminKey })))
    expect(answers.map((answer) => answer.status)).toEqual(Array.from({ length: 10 }, () => 200))
  })
})
