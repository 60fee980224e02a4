/** The gateway in workerd: whose request it is, how soon a change counts, what a stranger can make it ask, and what its log says. */
import { decodeJwt } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { signToken } from '../support/installation.ts'
import { ownIssuer } from '../support/issuers.ts'
import { type DnsServer, startDns } from './dns-server.ts'
import { type Answer, type Setting, startSetting } from './gateway-setting.ts'

/** Milliseconds that `lasting.test` may serve a kept context. */
const STALENESS = 2_000

let setting: Setting
let dns: DnsServer
let acme: { id: string }
let north: { id: string }

beforeAll(async () => {
  dns = await startDns()
  setting = await startSetting({
    'domains.test': { STRATUM_DNS_URL: dns.url },
    'shared.test': { STRATUM_APP_HOSTS: 'app.shared.test' },
    'lasting.test': { STRATUM_MAXIMUM_STALENESS_MS: String(STALENESS) },
    // windows so long that none ends in the midst of a test
    'guarded.test': { STRATUM_REFUSED_LIMIT: '5/99999' },
  })
  acme = await setting.admin.createTenant({ slug: 'acme', name: 'Acme' })
  north = await setting.admin.createTenant({ slug: 'north', name: 'North', parent_id: acme.id })
})
afterAll(async () => {
  await setting?.stop()
  await dns?.close()
})

const codeOf = ({ body }: Answer) => JSON.parse(body).error.code
const contextOf = ({ headers }: { headers: Record<string, string> }) => decodeJwt(headers['stratum-context'] ?? '')
const bearer = async (claims: Record<string, unknown> = {}) => ({ authorization: `Bearer ${await signToken({ tenant: 'acme', scope: 'read', ...claims })}` })

describe('a host of the app, which all tenants share', () => {
  const at = (headers: Record<string, string> = {}) => setting.send('app.shared.test', '/api/v1/health?a=1', { headers })
  const seenBy = async (headers: Record<string, string>) => {
    const answer = await at(headers)
    expect(answer.status, answer.body).toBe(200)
    return JSON.parse(answer.body) as { url: string; headers: Record<string, string> }
  }

  it('serves each token and key for its own tenant', async () => {
    for (const [tenant, id] of [
      ['acme', acme.id],
      ['north', north.id],
      ['acme', acme.id],
    ] as const) {
      const seen = await seenBy(await bearer({ tenant }))
      expect(contextOf(seen)).toMatchObject({ tenant_id: id, slug: tenant, principal: { type: 'token', id: 'user-1' } })
      expect(seen.url).toBe('/api/v1/health?a=1')
    }
    const { key } = await setting.admin.createApiKey({ name: 'north', tenant_id: north.id, scopes: ['read'] })
    expect(contextOf(await seenBy({ 'x-api-key': key ?? '' }))).toMatchObject({ tenant_id: north.id, principal: { type: 'api_key' } })
  })

  it('lets who has not signed in yet reach the app, for no tenant, whatever they say of one', async () => {
    const forged = { 'stratum-context': 'forged', 'x-tenant-id': acme.id }
    for (const headers of [forged, { ...forged, authorization: 'Bearer opaque' }, { ...forged, authorization: `Bearer ${await ownIssuer().token()}` }]) {
      const seen = await seenBy(headers)
      expect(seen.headers).not.toHaveProperty('stratum-context')
      expect(seen.headers).not.toHaveProperty('x-tenant-id')
    }
  })

  it('refuses a token that is not valid, that is bound to no tenant, or whose tenant is suspended', async () => {
    const codes = async (claims: Record<string, unknown>, spoil = '') => {
      const { authorization } = await bearer(claims)
      return codeOf(await at({ authorization: authorization + spoil }))
    }
    expect(await codes({ tenant: 'acme' }, 'x')).toBe('TOKEN_INVALID')
    expect(await codes({ tenant: 'nobody_has_this' })).toBe('TOKEN_INVALID')
    expect(codeOf(await at({ 'x-api-key': setting.adminKey }))).toBe('TENANT_NOT_FOUND')
    const { id } = await setting.admin.createTenant({ slug: 'resting', name: 'Resting' })
    expect(contextOf(await seenBy(await bearer({ tenant: 'resting' })))).toMatchObject({ tenant_id: id })
    await setting.admin.suspendTenant({ id })
    expect(await codes({ tenant: 'resting' })).toBe('TENANT_SUSPENDED')
  })

  it('is left by nobody for a tenant’s canonical host', async () => {
    await setting.admin.setConfig({ id: acme.id, key: 'stratum.canonical_host', value: 'acme.shared.test' })
    expect((await at(await bearer())).status).toBe(200)
    await setting.admin.deleteConfig({ id: acme.id, key: 'stratum.canonical_host' })
  })
})

describe('a domain of one’s own', () => {
  it('reaches the app as its tenant from the moment it is proven until it is given up, however it is written', async () => {
    const port = await setting.workerd.directPort('domains.test')
    const at = (host: string, headers = {}) => setting.send(host, '/orders', { port, headers })
    const api = async (method: string, path: string, body?: object) => {
      const headers = { 'x-api-key': setting.adminKey, 'content-type': 'application/json' }
      const answer = await setting.send('domains.test', `/api/v1${path}`, { method, headers, ...(body ? { body: JSON.stringify(body) } : {}) })
      return JSON.parse(answer.body)
    }
    const claim = await api('POST', `/tenants/${north.id}/domains`, { domain: 'bücher.example' })
    expect(claim).toMatchObject({ domain: 'xn--bcher-kva.example', verified: false })
    expect([(await at(claim.domain)).status, codeOf(await at(claim.domain))]).toEqual([404, 'TENANT_NOT_FOUND'])
    expect((await api('POST', `/tenants/${north.id}/domains/${claim.domain}/verify`)).error.code).toBe('DOMAIN_NOT_VERIFIED')
    expect((await at(claim.domain)).status).toBe(404)

    dns.records.set(claim.txt_name, [claim.txt_value])
    expect(await api('POST', `/tenants/${north.id}/domains/${claim.domain}/verify`)).toMatchObject({ verified: true })
    const forged = { 'x-tenant-id': acme.id, 'stratum-context': 'forged' }
    for (const host of [claim.domain, 'XN--BCHER-KVA.Example', `${claim.domain}.`, `${claim.domain}:8443`]) {
      const answer = await at(host, forged)
      expect(answer.status, host).toBe(200)
      const seen = JSON.parse(answer.body)
      expect(contextOf(seen), host).toMatchObject({ tenant_id: north.id, slug: 'north', principal: null })
      expect(seen.headers['x-forwarded-host'], host).toMatch(/^xn--bcher-kva\.example(:8443)?$/)
      expect(seen.headers).not.toHaveProperty('x-tenant-id')
    }
    const seen = JSON.parse((await at(claim.domain, await bearer())).body)
    expect(contextOf(seen)).toMatchObject({ tenant_id: north.id, acting_as: north.id, principal: { id: 'user-1' } })
    for (const host of [`www.${claim.domain}`, 'xn--bcher-kva.example.evil.example']) expect((await at(host)).status, host).toBe(404)

    await api('DELETE', `/tenants/${north.id}/domains/${claim.domain}`)
    expect((await at(claim.domain)).status).toBe(404)
  })
})

describe('a header', () => {
  it('moves nobody to another tenant, whatever key it comes with', async () => {
    const { headers } = await setting.seen('north.stratum.test', '/', { headers: { 'x-api-key': setting.adminKey, 'x-tenant-id': acme.id } })
    expect(contextOf({ headers })).toMatchObject({ tenant_id: north.id, acting_as: north.id })
  })
})

describe('a change', () => {
  const suspend = async (id: string) => {
    const answer = await setting.send('stratum.test', `/api/v1/tenants/${id}/suspend`, { method: 'POST', headers: { 'x-api-key': setting.adminKey } })
    expect(answer.status).toBe(200)
    return String(answer.headers['stratum-version'])
  }

  /** A tenant that was visited and then suspended, with its kept context still served: not so where the isolate happened to poll meanwhile. */
  const suspendedUnnoticed = async (slug: string, parent: string | null, visit: (host: string) => Promise<{ status: number }>) => {
    for (let round = 1; round <= 20; round++) {
      const { id } = await setting.admin.createTenant({ slug: `${slug}_${round}`, name: slug, parent_id: parent })
      const host = `${slug}-${round}.lasting.test`
      expect((await visit(host)).status).toBe(200)
      const version = await suspend(id)
      const at = performance.now()
      const { status } = await visit(host)
      if (status === 200) return { host, version, at }
      expect(status).toBe(403)
    }
    throw new Error('Nothing that is kept was ever served.')
  }

  it('that suspends a tenant counts in every isolate within the staleness that is allowed', async () => {
    const visit = (host: string) => setting.send(host, '/')
    const suspended = await suspendedUnnoticed('paused', null, visit)
    let served = suspended.at
    for (;;) {
      const asked = performance.now()
      const { status } = await visit(suspended.host)
      if (status !== 200) {
        expect(status).toBe(403)
        break
      }
      served = asked
    }
    // Judged by when the last that was served had been sent: how long answers take is the machine's affair.
    expect(served - suspended.at).toBeLessThanOrEqual(STALENESS)
  })

  it('counts at once for who is known and says its version, and the app never sees that', async () => {
    const visit = async (host: string, headers = {}) => setting.send(host, '/', { headers: { ...(await bearer()), ...headers } })
    const { host, version } = await suspendedUnnoticed('hurried', acme.id, (at) => visit(at))
    const after = await visit(host, { 'stratum-min-version': version })
    expect([after.status, codeOf(after)]).toEqual([403, 'TENANT_SUSPENDED'])
    expect(codeOf(await visit(host, { 'stratum-min-version': 'latest' }))).toBe('REQUEST_NOT_FORWARDABLE')
    const seen = JSON.parse((await visit('acme.lasting.test', { 'stratum-min-version': '1' })).body)
    expect(seen.headers).not.toHaveProperty('stratum-min-version')
  })
})

describe('tokens of issuers that nobody knows', () => {
  it('are asked about so often from one address; then they wait, and everybody else is served', async () => {
    const visit = async (authorization?: string) =>
      setting.send('acme.guarded.test', '/', { headers: { accept: '*/*', ...(authorization ? { authorization } : {}) } })
    const foreign = async () => `Bearer ${await ownIssuer().token()}`
    const { authorization: known } = await bearer()
    expect((await visit(known)).status).toBe(200)
    for (let n = 0; n < 5; n++) expect((await visit(await foreign())).status).toBe(200)
    const answer = await visit(await foreign())
    expect([answer.status, codeOf(answer), answer.headers['stratum-error'], Number(answer.headers['retry-after']) > 0]).toEqual([
      429,
      'RATE_LIMITED',
      '1',
      true,
    ])
    for (const authorization of [undefined, 'Bearer opaque', known]) expect((await visit(authorization)).status).toBe(200)
  })
})

describe('a trace', () => {
  const TRACEPARENT = /^00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-01$/
  const traced = async (headers: Record<string, string>) => {
    const requestId = crypto.randomUUID()
    const seen = await setting.seen('acme.stratum.test', '/', { headers: { 'x-request-id': requestId, ...headers } })
    return { ...seen.headers, logged: (await setting.logged(requestId))['trace_id'] } as Record<string, string>
  }

  it('of the client goes on as it is', async () => {
    const given = { traceparent: '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00', tracestate: 'a=b' }
    expect(await traced(given)).toMatchObject({ ...given, logged: '4bf92f3577b34da6a3ce929d0e0e4736' })
    const later = { traceparent: '01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more' }
    expect(await traced(later)).toMatchObject({ ...later, logged: '4bf92f3577b34da6a3ce929d0e0e4736' })
  })

  it.each([
    ['is none', {}],
    ['is of no version', { traceparent: 'ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01' }],
    ['has no trace id', { traceparent: '00-00000000000000000000000000000000-00f067aa0ba902b7-01' }],
    ['has no parent id', { traceparent: '00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01' }],
    ['has more than its version', { traceparent: '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more' }],
    ['is in capitals', { traceparent: '00-4BF92F3577B34DA6A3CE929D0E0E4736-00F067AA0BA902B7-01' }],
  ])('begins at the gateway where the client’s %s', async (_, given) => {
    const headers = await traced({ ...given, tracestate: 'a=b' })
    expect(headers['traceparent']).toMatch(TRACEPARENT)
    expect(headers['logged']).toBe(TRACEPARENT.exec(headers['traceparent'] ?? '')?.[1])
    expect(headers).not.toHaveProperty('tracestate')
  })
})

describe('the log', () => {
  it('has one line for each request, by the same names as the line of the API', async () => {
    const line = async (host: string, headers: Record<string, string>) => {
      const requestId = crypto.randomUUID()
      await setting.send(host, '/secret?secret=hunter2', { headers: { 'x-request-id': requestId, ...headers } })
      const lines = setting.workerd.logs.filter(({ message }) => message.includes(requestId))
      expect(lines.length).toBeLessThanOrEqual(1)
      return setting.logged(requestId)
    }
    const common = {
      level: 'info',
      time: expect.any(String),
      method: 'GET',
      route: 'gateway',
      status: 200,
      duration_ms: expect.any(Number),
      trace_id: expect.stringMatching(/^[0-9a-f]{32}$/),
    }
    const request_id = expect.any(String)
    const cold = await line('north.lasting.test', await bearer())
    const facts = { sources: 'subdomain token', principal: 'token', tenant: north.id }
    expect(cold).toEqual({ ...common, request_id, ...facts, context: 'miss', database_ms: expect.any(Number) })
    expect(await line('north.lasting.test', await bearer())).toEqual({ ...common, request_id, ...facts, context: 'hit' })
    expect(await line('north.lasting.test', {})).toMatchObject({ sources: 'subdomain', principal: 'visitor', tenant: north.id })
    expect(await line('nobody.lasting.test', {})).toMatchObject({ level: 'info', status: 404, code: 'TENANT_NOT_FOUND', sources: 'subdomain' })
    expect(JSON.stringify(setting.workerd.logs)).not.toContain('hunter2')
  })
})
