/** The gateway in workerd, with a real application behind it: what reaches that, and what comes back. */
import { request as httpRequest } from 'node:http'
import { createLocalJWKSet, decodeProtectedHeader, type JSONWebKeySet, jwtVerify } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import WebSocket from 'ws'
import { signToken } from '../support/installation.ts'
import { type Setting, startSetting } from './gateway-setting.ts'

let setting: Setting
let acme: { id: string }
let north: { id: string }

beforeAll(async () => {
  setting = await startSetting()
  const { admin } = setting
  acme = await admin.createTenant({ slug: 'acme', name: 'Acme' })
  north = await admin.createTenant({ slug: 'north', name: 'North', parent_id: acme.id })
  await admin.setConfig({ id: acme.id, key: 'theme', value: { dark: true } })
  await admin.setConfig({ id: acme.id, key: 'smtp_password', value: 'hunter2', sensitive: true })
  await admin.setConfig({ id: acme.id, key: 'unlisted', value: 'stays behind' })
  await admin.createPermission({ id: acme.id, key: 'reports', value: true, mode: 'INHERITED' })
})
afterAll(() => setting?.stop())

const keySet = async (host: string) => {
  const answer = await setting.send(host, '/.well-known/stratum-jwks.json')
  expect(answer.headers['content-type']).toBe('application/jwk-set+json')
  return JSON.parse(answer.body) as JSONWebKeySet
}
const contextOf = async (headers: Record<string, string>, { keysOf = 'stratum.test', audience = 'the-app', issuer = 'https://stratum.test' } = {}) => {
  const verified = await jwtVerify(headers['stratum-context'] ?? '', createLocalJWKSet(await keySet(keysOf)), { issuer, audience, typ: 'stratum-context+jwt' })
  return verified.payload
}

describe('the signed context', () => {
  it('says whose the host is, what holds there and that nobody known asks, and verifies offline', async () => {
    const { headers } = await setting.seen('north.stratum.test', '/orders')
    const context = await contextOf(headers)
    expect(context).toMatchObject({
      tenant_id: north.id,
      slug: 'north',
      ancestor_ids: [acme.id],
      isolation: { strategy: 'SHARED_RLS' },
      region: null,
      principal: null,
      permissions: { reports: true },
      version: expect.any(String),
    })
    expect(context).not.toHaveProperty('acting_as')
    // Listed keys alone, and no secret even among them.
    expect(context['config']).toEqual({ theme: { dark: true } })
    expect((context.exp ?? 0) - (context.iat ?? 0)).toBeLessThanOrEqual(60)
    expect(headers['stratum-context']).not.toContain('hunter2')
  })

  it('says who asks by a token of a trusted issuer, and as whom', async () => {
    const token = await signToken({ tenant: 'acme', scope: 'read write' }, { subject: 'ann' })
    const { headers } = await setting.seen('north.stratum.test', '/', { headers: { authorization: `Bearer ${token}` } })
    expect(await contextOf(headers)).toMatchObject({
      tenant_id: north.id,
      acting_as: north.id,
      principal: { type: 'token', id: 'ann', issuer: 'https://issuer.test', scopes: ['read', 'write'] },
    })
    // The app's own business as well, if it knows the issuer.
    expect(headers['authorization']).toBe(`Bearer ${token}`)
    const other = await signToken({ tenant: 'acme', scope: 'read' }, { subject: 'bob' })
    expect(
      (await contextOf((await setting.seen('north.stratum.test', '/', { headers: { authorization: `Bearer ${other}` } })).headers))['principal'],
    ).toMatchObject({ id: 'bob', scopes: ['read'] })
  })

  it('is refused once it has expired, by its audience, or with another key set', async () => {
    const { headers } = await setting.seen('acme.stratum.test', '/')
    const keys = createLocalJWKSet(await keySet('acme.stratum.test'))
    const verify = (options: object) => jwtVerify(headers['stratum-context'] ?? '', keys, { audience: 'the-app', ...options })
    await expect(verify({})).resolves.toBeDefined()
    await expect(verify({ currentDate: new Date(Date.now() + 61_000) })).rejects.toMatchObject({ code: 'ERR_JWT_EXPIRED' })
    await expect(verify({ audience: 'another-app' })).rejects.toMatchObject({ code: 'ERR_JWT_CLAIM_VALIDATION_FAILED' })
    const onlyOlder = createLocalJWKSet(await keySet('before.test'))
    await expect(jwtVerify(headers['stratum-context'] ?? '', onlyOlder)).rejects.toMatchObject({ code: 'ERR_JWKS_NO_MATCHING_KEY' })
  })

  it('survives a rotation: the newest key signs, and what the older one signed still verifies', async () => {
    const before = (await setting.seen('acme.before.test', '/')).headers
    const after = (await setting.seen('acme.stratum.test', '/')).headers
    expect([before, after].map((headers) => decodeProtectedHeader(headers['stratum-context'] ?? '').kid)).toEqual(['older', 'newer'])
    const options = { keysOf: 'stratum.test', issuer: 'https://before.test', audience: setting.origin.url }
    expect(await contextOf(before, options)).toMatchObject({ slug: 'acme' })
  })

  it('has its keys published on every host, and nothing private among them', async () => {
    for (const host of ['stratum.test', 'acme.stratum.test', 'nobody.stratum.test', 'acme.tenants.test']) {
      const { keys } = await keySet(host)
      expect(
        keys.map(({ kid, alg, use }) => ({ kid, alg, use })),
        host,
      ).toEqual(['newer', 'older'].map((kid) => ({ kid, alg: 'EdDSA', use: 'sig' })))
      expect(keys.some((key) => 'd' in key)).toBe(false)
    }
  })
})

describe('headers on their way in', () => {
  it('lose what only the gateway may say, however the name is spelled', async () => {
    const forged = {
      'stratum-context': 'forged',
      Stratum_Context: 'forged',
      'Stratum-Version': '1',
      'x-tenant-id': acme.id,
      X_Tenant_Id: acme.id,
      'x-tenant-slug': 'acme',
      'x-forwarded-for': '10.0.0.1',
      'x-forwarded-host': 'evil.example',
      X_Forwarded_Host: 'evil.example',
      'x-forwarded-proto': 'gopher',
      'x-forwarded-prefix': '/evil',
      'x-real-ip': '10.0.0.1',
      'true-client-ip': '10.0.0.1',
      'x-client-ip': '10.0.0.1',
      'x-cluster-client-ip': '10.0.0.1',
      'fastly-client-ip': '10.0.0.1',
      'x-original-url': '/evil',
      'x-rewrite-url': '/evil',
      'x-forwarded': 'for=10.0.0.1',
      'x-tenant': acme.id,
      forwarded: 'for=10.0.0.1;host=evil.example',
      'cf-worker': 'evil.example',
    }
    const { headers } = await setting.seen('north.stratum.test', '/', { headers: forged })
    expect(await contextOf(headers)).toMatchObject({ tenant_id: north.id })
    const { 'stratum-context': context, 'stratum-gateway': mark, ...others } = headers
    expect(mark).toBe('newer')
    expect(Object.values(others).filter((value) => /forged|evil|10\.0\.0\.1|gopher/.test(value) || value.includes(acme.id))).toEqual([])
    expect(Object.keys(others).filter((name) => /^(stratum|x.tenant|forwarded|x.real)/.test(name))).toEqual([])
    expect(others).toMatchObject({
      'x-forwarded-host': 'north.stratum.test',
      'x-forwarded-proto': 'http',
      host: new URL(setting.origin.url).host,
      'x-forwarded-for': '127.0.0.1',
    })
    expect(context).not.toBe('forged')
  })

  it('lose what is of one connection, and what Connection names', async () => {
    const { headers } = await setting.seen('acme.stratum.test', '/', {
      headers: {
        connection: 'close, x-only-here',
        'x-only-here': '1',
        te: 'trailers',
        'keep-alive': 'timeout=5',
        'proxy-authorization': 'Basic eDp5',
        'x-kept': '1',
      },
    })
    expect(headers).toMatchObject({ 'x-kept': '1' })
    for (const name of ['x-only-here', 'te', 'proxy-authorization']) expect(headers, name).not.toHaveProperty(name)
  })

  it('pass with what is of the app: cookies, its own credentials, traces, the request id', async () => {
    const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'
    const given = {
      cookie: 'session=1; theme=dark',
      'x-api-key': 'the-apps-own',
      traceparent,
      tracestate: 'a=b',
      'x-request-id': 'the-request',
      'x-custom': 'ü'.normalize(),
    }
    const { headers } = await setting.seen('acme.stratum.test', '/', { headers: given })
    expect(headers).toMatchObject(given)
    expect((await setting.seen('acme.stratum.test', '/')).headers['x-request-id']).toMatch(/^[0-9a-f-]{36}$/)
  })

  it.each([
    ['an opaque token', 'Bearer gho_16C7e42F292c6912E7710c838347Ae178B4a'],
    [
      "another issuer's token",
      `Bearer ${['{"alg":"none"}', '{"iss":"https://elsewhere.test","sub":"eve","tenant":"acme"}', ''].map((part) => Buffer.from(part).toString('base64url')).join('.')}`,
    ],
    ['three parts that are no token', 'Bearer v2.local.QAxIpVe'],
    ['Basic', `Basic ${Buffer.from('ann:secret').toString('base64')}`],
  ])('pass with %s, which is nobody to us', async (_, authorization) => {
    const { headers } = await setting.seen('acme.stratum.test', '/', { headers: { authorization } })
    expect(headers['authorization']).toBe(authorization)
    expect((await contextOf(headers))['principal']).toBeNull()
  })

  it('never hold an API key of ours, which still says who asks', async () => {
    const { adminKey } = setting
    for (const given of [{ 'x-api-key': adminKey }, { authorization: `Bearer ${adminKey}` }]) {
      const seen = await setting.seen('acme.stratum.test', '/', { headers: given })
      expect(JSON.stringify(seen)).not.toContain(adminKey)
      expect(await contextOf(seen.headers)).toMatchObject({ principal: { type: 'api_key', scopes: ['admin'] }, acting_as: acme.id })
    }
    const strays = { authorization: `Basic ${Buffer.from(`${adminKey}:`).toString('base64')}`, 'x-my-key': adminKey, cookie: `key=${adminKey}` }
    const { headers } = await setting.seen('acme.stratum.test', '/', { headers: strays })
    for (const name of Object.keys(strays)) expect(headers, name).not.toHaveProperty(name)
    const unknown = await setting.send('acme.stratum.test', '/', { headers: { 'x-api-key': `sk_live_${'A'.repeat(43)}` } })
    expect([unknown.status, JSON.parse(unknown.body).error.code, unknown.headers['stratum-error']]).toEqual([401, 'API_KEY_INVALID', '1'])
  })

  it('refuse who shows a token of ours that does not hold', async () => {
    const expired = await signToken({ tenant: 'acme', scope: 'read' }, { expires: '-1m' })
    const elsewhere = await signToken({ tenant: 'north', scope: 'read' })
    const valid = await signToken({ tenant: 'acme', scope: 'read' })
    const refusal = async (authorization: string) => {
      const { status, body } = await setting.send('acme.stratum.test', '/', { headers: { authorization } })
      return [status, JSON.parse(body).error.code]
    }
    expect(await refusal(`Bearer ${expired}`)).toEqual([401, 'TOKEN_INVALID'])
    expect(await refusal(`Bearer ${valid.slice(0, -3)}xyz`)).toEqual([401, 'TOKEN_INVALID'])
    expect(await refusal(`Bearer ${elsewhere}`)).toEqual([404, 'TENANT_NOT_FOUND'])
  })
})

describe('what passes', () => {
  it('method, path, query and body as they are, and the answer as it is, but for what is ours to say', async () => {
    const seen = await setting.seen('acme.stratum.test', '/a%20b/../c//d?x=1&x=2&y=%2F', {
      method: 'PUT',
      headers: { 'content-type': 'text/plain' },
      body: 'größe',
    })
    expect(seen).toMatchObject({ method: 'PUT', url: '/c//d?x=1&x=2&y=%2F', body: 'größe', headers: { 'content-type': 'text/plain', 'content-length': '7' } })
    const { headers } = await setting.send('acme.stratum.test', '/')
    expect(headers).not.toHaveProperty('stratum-version')
    expect(headers).not.toHaveProperty('stratum-error')
    expect(headers).not.toHaveProperty('stratum_error')
    expect(headers).toMatchObject({ 'set-cookie': ['a=1', 'b=2'] })
    const busy = await setting.send('acme.stratum.test', '/error')
    expect([busy.status, busy.body, busy.headers['stratum-error']]).toEqual([503, 'the app is busy', undefined])
    expect((await setting.send('acme.stratum.test', '/gzip', { headers: { 'accept-encoding': 'gzip' } })).headers['content-encoding']).toBe('gzip')
    expect((await setting.send('acme.stratum.test', '/', { method: 'HEAD' })).status).toBe(200)
  })

  it('that a page need not be sent again', async () => {
    const page = (headers: Record<string, string | undefined>) => setting.send('north.stratum.test', '/page', { headers })
    const { status, headers } = await page({})
    expect(status).toBe(200)
    expect((await page({ 'if-none-match': headers['etag'] })).status).toBe(304)
    expect((await page({ 'if-none-match': headers['etag'], 'cache-control': 'no-cache' })).status).toBe(200)
  })

  it('the first part of an answer before the last is there', async () => {
    const first = await new Promise<{ part: string; rest: Promise<string> }>((resolve, reject) => {
      const request = httpRequest({ host: '127.0.0.1', port: setting.workerd.port, path: '/stream', headers: { host: 'acme.stratum.test' } }, (answer) => {
        answer.setEncoding('utf8')
        let rest = ''
        const ended = new Promise<string>((end) => answer.once('end', () => end(rest)))
        answer.once('data', (part: string) => {
          answer.on('data', (more: string) => {
            rest += more
          })
          resolve({ part, rest: ended })
        })
      })
      request.once('error', reject).end()
    })
    expect(first.part).toBe('first ')
    setting.origin.release()
    expect(await first.rest).toBe('last')
  })

  it.each([
    ['of a length that was not said', {}, 'transfer-encoding'],
    ['of a known length', { 'content-length': '10' }, 'content-length'],
  ])('the first part of an upload %s before the last is sent', async (_, headers, framing) => {
    setting.origin.parts.length = 0
    const options = { host: '127.0.0.1', port: setting.workerd.port, path: '/upload', method: 'POST', headers: { host: 'acme.stratum.test', ...headers } }
    const request = httpRequest(options)
    const answered = new Promise<string>((resolve, reject) => {
      request.once('response', async (answer) => resolve((await answer.toArray()).join('')))
      request.once('error', reject)
    })
    request.write('first')
    await expect.poll(() => setting.origin.parts).toEqual(['first'])
    request.end(' last')
    expect(JSON.parse(await answered)).toHaveProperty(framing)
    expect(setting.origin.parts.join('')).toBe('first last')
  })

  it('a WebSocket, both ways, with the context beside it', async () => {
    const socket = new WebSocket(`ws://127.0.0.1:${setting.workerd.port}/socket`, { headers: { host: 'north.stratum.test', 'stratum-context': 'forged' } })
    const messages: string[] = []
    socket.on('message', (message) => messages.push(String(message)))
    await expect.poll(() => messages.length).toBe(1)
    expect(await contextOf(JSON.parse(messages[0] ?? ''))).toMatchObject({ slug: 'north' })
    socket.send('hello')
    await expect.poll(() => messages[1]).toBe('echo hello')
    socket.close()
  })

  it("redirects; those to the origin's own host as ones to the host that was asked", async () => {
    const location = async (to: string) => (await setting.send('acme.stratum.test', `/redirect?to=${encodeURIComponent(to)}`)).headers.location
    expect(await location('/next')).toBe('/next')
    expect(await location('https://idp.example/login?a=1')).toBe('https://idp.example/login?a=1')
    expect(await location(`${setting.origin.url}/next?a=1`)).toBe('http://acme.stratum.test/next?a=1')
  })

  it('nothing on the hosts of the API, which stay as they are', async () => {
    expect(await setting.admin.getHealth()).toMatchObject({ status: 'ok' })
    expect((await setting.send('stratum.test', '/orders')).status).toBe(404)
    expect(JSON.parse((await setting.send('stratum.test', '/orders')).body).error.code).toBe('ROUTE_NOT_FOUND')
  })
})
