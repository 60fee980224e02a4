/** What every answer of the app carries, whatever it is about; and what no log line does. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Tenant } from '../../src/features/tenants/contract.ts'
import { createApp } from '../../src/http/app.ts'
import { type Answer, type Asked, ask, errorOf, expectRefusal, readAnswer } from '../support/answers.ts'
import { createInstallation, type Installation } from '../support/installation.ts'

let installation: Installation
let tenant: Tenant
let apiKey: string
beforeAll(async () => {
  installation = await createInstallation()
  tenant = await installation.stratum.createTenant({ slug: 'acme', name: 'Acme' })
  apiKey = await installation.apiKey(tenant.id)
})
afterAll(() => installation.close())

const send = (path: string, asked: Asked = {}) => ask(installation.fetch, path, asked)
const TENANTS = '/api/v1/tenants'

/** One request of each kind of outcome. */
const outcomes: Array<[what: string, path: string, asked: () => Asked, status: number]> = [
  ['an answer', TENANTS, () => ({ apiKey }), 200],
  ['a missing credential', TENANTS, () => ({}), 401],
  ['a malformed body', TENANTS, () => ({ apiKey, method: 'POST', body: '{' }), 400],
  ['an invalid body', TENANTS, () => ({ apiKey, method: 'POST', json: {} }), 422],
  ['something that is not there', `${TENANTS}/00000000-0000-4000-8000-000000000000`, () => ({ apiKey }), 404],
  ['a route that is not there', '/api/v1/nothing', () => ({ apiKey }), 404],
  ['the open health check', '/api/v1/health', () => ({}), 200],
  ['the document', '/api/v1/openapi.json', () => ({}), 200],
]

describe.each(outcomes)('%s', (_, path, asked, status) => {
  it('carries a request id, and is not to be stored or sniffed', async () => {
    const answer = await send(path, asked())
    expect(answer.status).toBe(status)
    expect(answer.headers.get('x-request-id')).toMatch(/^[0-9a-f-]{36}$/)
    expect(answer.headers.get('cache-control')).toBe('no-store')
    expect(answer.headers.get('x-content-type-options')).toBe('nosniff')
    expect(answer.headers.get('content-type')).toMatch(/^application\/json/)
    if (status >= 400) errorOf(answer)
  })
  it('can be read by the origins that are allowed, and by no others', async () => {
    const allowed = await send(path, { ...asked(), headers: { origin: 'https://console.test' } })
    expect(allowed.headers.get('access-control-allow-origin')).toBe('https://console.test')
    expect(allowed.headers.get('access-control-expose-headers')?.split(',')).toEqual(expect.arrayContaining(['x-request-id', 'traceresponse']))
    expect(allowed.headers.get('vary')).toMatch(/origin/i)
    for (const origin of ['https://evil.test', 'https://console.test.evil.test', 'http://console.test', 'null', 'https://console.test:444']) {
      expect((await send(path, { ...asked(), headers: { origin } })).headers.has('access-control-allow-origin')).toBe(false)
    }
  })
})

describe('a preflight', () => {
  const preflight = (origin: string) =>
    send(TENANTS, { method: 'OPTIONS', headers: { origin, 'access-control-request-method': 'PATCH', 'access-control-request-headers': 'authorization' } })
  it('allows the configured origins what the API needs, without a credential', async () => {
    const { status, headers } = await preflight('https://console.test')
    expect(status).toBe(204)
    expect(headers.get('access-control-allow-origin')).toBe('https://console.test')
    for (const method of ['GET', 'POST', 'PUT', 'PATCH', 'DELETE']) expect(headers.get('access-control-allow-methods')).toContain(method)
    for (const name of ['authorization', 'x-api-key', 'content-type', 'x-tenant-id', 'traceparent', 'tracestate']) {
      expect(headers.get('access-control-allow-headers')?.split(',')).toContain(name)
    }
    expect(headers.has('access-control-allow-credentials')).toBe(false)
  })
  it('allows other origins nothing', async () => {
    expect((await preflight('https://evil.test')).headers.has('access-control-allow-origin')).toBe(false)
  })
  it('allows nobody where no origin is configured', async () => {
    const app = createApp({ services: installation.services, version: 'test' })
    const answer = await ask((request) => app.fetch(request), TENANTS, { method: 'OPTIONS', headers: { origin: 'https://console.test' } })
    expect(answer.headers.has('access-control-allow-origin')).toBe(false)
  })
})

describe('a request id', () => {
  it.each(['trace-1', 'a:b.c-d_e', 'x'.repeat(128)])('of the caller is taken up: %s', async (id) => {
    const good = await send(TENANTS, { apiKey, headers: { 'x-request-id': id } })
    const bad = await send(TENANTS, { headers: { 'x-request-id': id } })
    expect([good.headers.get('x-request-id'), errorOf(bad).request_id]).toEqual([id, id])
    expect(installation.log.slice(-2).map((line) => line.request_id)).toEqual([id, id])
  })
  it.each(['', 'x'.repeat(129), '<script>', 'a b', '{"a":1}', 'é', 'a;b'])('that is no plain one is replaced: %j', async (id) => {
    expect((await send(TENANTS, { headers: { 'x-request-id': id } })).headers.get('x-request-id')).toMatch(/^[0-9a-f-]{36}$/)
  })
  it('stands in the audit trail of what the request changed', async () => {
    await send(`${TENANTS}/${tenant.id}`, { apiKey, method: 'PATCH', json: { name: 'Renamed' }, headers: { 'x-request-id': 'trace-of-change' } })
    const { rows } = await installation.owner.query(
      `select payload::jsonb ->> 'action' as action from stratum.audit_entries where payload like '%trace-of-change%'`,
    )
    expect(rows).toEqual([{ action: 'tenant.updated' }])
  })
})

describe('methods and routes', () => {
  it.each([
    ['PUT', TENANTS],
    ['DELETE', TENANTS],
    ['POST', `${TENANTS}/by-slug/acme`],
    ['GET', '/api/v1'],
    ['GET', '/api/v2/tenants'],
    ['GET', `${TENANTS}/`],
    ['GET', '//api/v1/tenants'],
    ['GET', '/api/v1/Tenants'],
    ['GET', '/t/acme/docs'],
    ['GET', '/t/api/v1/tenants'],
    ['GET', '/t/a/b/api/v1/tenants'],
    ['GET', '/.env'],
  ])('%s %s is no route', async (method, path) => {
    expectRefusal(await send(path, { method, apiKey }), 'ROUTE_NOT_FOUND')
  })
  it('HEAD is GET without the body', async () => {
    for (const [key, status] of [
      [apiKey, 200],
      [undefined, 401],
    ] as const) {
      const answer = await send(TENANTS, { method: 'HEAD', ...(key === undefined ? {} : { apiKey: key }) })
      expect([answer.status, answer.text]).toEqual([status, ''])
      expect(answer.headers.get('x-request-id')).toMatch(/^[0-9a-f-]{36}$/)
    }
  })
  it('OPTIONS answers without a credential and without a body', async () => {
    const answer = await send(TENANTS, { method: 'OPTIONS' })
    expect([answer.status, answer.text]).toEqual([204, ''])
  })
  it('a slug that is also the name of a route is still a slug', async () => {
    for (const slug of ['children', 'config', 'move']) expectRefusal(await send(`${TENANTS}/by-slug/${slug}`, { apiKey }), 'TENANT_NOT_FOUND')
  })
  it('serves the page and leads there', async () => {
    const docs = await send('/docs')
    expect(docs.headers.get('content-type')).toMatch(/^text\/html/)
    expect(docs.text).toContain('createTenant')
    const home = await send('/')
    expect([home.status, home.headers.get('location')]).toEqual([302, '/docs'])
  })
})

describe('health', () => {
  it('tells everybody that the service is up and global admins alone what the database is', async () => {
    const [nobody, reader, admin] = [{}, { apiKey: await installation.apiKey(tenant.id, ['read', 'write']) }, { apiKey }].map((asked) =>
      send('/api/v1/health', asked),
    )
    for (const answer of [await nobody, await reader]) expect(answer?.body).toEqual({ status: 'ok' })
    expect((await admin)?.body).toEqual({ status: 'ok' })
    const globally = await send('/api/v1/health', { apiKey: await installation.apiKey(null) })
    expect(globally.body).toMatchObject({ status: 'ok', database: { role: 'stratum_control', role_bypasses_row_security: false } })
  })
})

describe('a refusal for want of a credential', () => {
  it('says how to send one', async () => {
    for (const headers of [{}, { authorization: 'Bearer nonsense' }, { 'x-api-key': 'nonsense' }]) {
      const answer = await send(TENANTS, { headers })
      expect([answer.status, answer.headers.get('www-authenticate')]).toEqual([401, 'Bearer'])
    }
    expect((await send(TENANTS, { apiKey })).headers.has('www-authenticate')).toBe(false)
  })
})

describe('the log', () => {
  const MARK = 'planted-marker-91c4'
  it('holds one line for each request: route, status, code, time, and nothing that was sent', async () => {
    const before = installation.log.length
    const token = await installation.token({ tenant: 'acme', scope: 'admin', [MARK]: true })
    const requests: Array<Promise<Answer>> = [
      send(`${TENANTS}?${MARK}=1`, { apiKey }),
      send(`${TENANTS}/${MARK}`, { apiKey }),
      send(`/${MARK}`, { apiKey }),
      send(`/t/${MARK.replaceAll('-', '_')}${TENANTS}`, { token }),
      send(TENANTS, { token, headers: { 'x-tenant-id': MARK, cookie: MARK, 'user-agent': MARK, 'cf-connecting-ip': MARK } }),
      send(TENANTS, { token: `${token}${MARK}` }),
      send(TENANTS, { apiKey: `sk_test_${MARK}` }),
      send(TENANTS, { apiKey, method: 'POST', json: { [MARK]: MARK } }),
      send(`${TENANTS}/${tenant.id}/config/${MARK}`, { apiKey, method: 'PUT', json: { value: MARK, sensitive: true } }),
      send(`${TENANTS}/${tenant.id}/config?reveal=true`, { apiKey }),
    ]
    await Promise.all(requests)
    const lines = installation.log.slice(before)
    expect(lines).toHaveLength(requests.length)
    const allowed = [
      'level',
      'request_id',
      'method',
      'route',
      'status',
      'duration_ms',
      'trace_id',
      'principal',
      'sources',
      'tenant',
      'database_ms',
      'code',
      'cause',
    ]
    for (const line of lines) for (const key of Object.keys(line)) expect(allowed).toContain(key)
    // the tenant that was named is told, which is no secret; nothing else of what was sent
    expect(lines.map(({ tenant }) => tenant)).toContain(MARK.replaceAll('-', '_'))
    const text = JSON.stringify(lines.map(({ tenant: _, ...line }) => line))
    for (const secret of [MARK, MARK.replaceAll('-', '_'), apiKey, token, tenant.id]) expect(text).not.toContain(secret)
    expect(lines.map((line) => line.route)).toContain('/api/v1/tenants/:id/config/:key')
  })
  it('tells the kind of a failure on our side, and the caller nothing of it', async () => {
    const lines: unknown[] = []
    const db = { call: () => Promise.reject(new RangeError(`select * from stratum.tenants: ${MARK}`)) }
    const app = createApp({ services: { ...installation.services, db }, log: (line) => lines.push(line), version: 'test' })
    const answer = await readAnswer(await app.fetch(new Request(`http://stratum.test${TENANTS}`, { headers: { 'x-api-key': apiKey } })))
    expect(expectRefusal(answer, 'INTERNAL_ERROR')).toEqual({})
    expect(answer.text).not.toMatch(/select|RangeError|\.ts|at /)
    expect(lines).toMatchObject([{ level: 'error', status: 500, cause: 'RangeError: select * from stratum.tenants' }])
  })
})
