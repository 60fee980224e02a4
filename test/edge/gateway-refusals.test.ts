/** The gateway in workerd where it does not forward, or where the origin fails: whose error it is, and in which form. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { signToken } from '../support/installation.ts'
import { type Answer, type Setting, startSetting } from './gateway-setting.ts'

const BROWSER = { accept: 'text/html,application/xhtml+xml,*/*;q=0.8' }
const PROGRAM = { accept: 'application/json' }

let setting: Setting
let acme: { id: string }
let north: { id: string }

beforeAll(async () => {
  setting = await startSetting()
  acme = await setting.admin.createTenant({ slug: 'acme', name: 'Acme' })
  north = await setting.admin.createTenant({ slug: 'north', name: 'North', parent_id: acme.id })
})
afterAll(() => setting?.stop())

/** What an answer of the gateway's own says; the origin's has no such mark. */
const refusal = ({ status, headers, body }: Answer) => {
  expect(headers).toMatchObject({ 'stratum-error': '1', 'cache-control': 'no-store', 'content-type': 'application/json' })
  const { code, message, request_id } = JSON.parse(body).error
  expect([message, request_id]).toEqual([expect.any(String), headers['x-request-id']])
  return [status, code]
}
const refused = async (host: string, path: string, headers: Record<string, string> = PROGRAM) => refusal(await setting.send(host, path, { headers }))

/** Run `work` while a tenant has a config entry. */
async function withConfig<T>(id: string, key: string, value: unknown, work: () => Promise<T>): Promise<T> {
  await setting.admin.setConfig({ id, key, value: value as string })
  try {
    return await work()
  } finally {
    await setting.admin.deleteConfig({ id, key })
  }
}

describe('an origin that fails', () => {
  it.each([
    ['never answers', '/hang', 504, 'ORIGIN_TIMEOUT'],
    ['breaks the connection off', '/reset', 502, 'ORIGIN_UNREACHABLE'],
    ['speaks no HTTP', '/garbage', 502, 'ORIGIN_UNREACHABLE'],
    ['says two lengths', '/contradiction', 502, 'ORIGIN_UNREACHABLE'],
    ['sends the request back', '/loop', 502, 'ORIGIN_LOOP'],
  ])('that %s is told apart from an error of its own', async (_, path, status, code) => {
    expect(await refused('acme.stratum.test', path)).toEqual([status, code])
  })

  it('is the gateway itself', async () => {
    const itself = `http://127.0.0.1:${await setting.workerd.directPort('tenants.test')}`
    await withConfig(acme.id, 'stratum.origin', itself, async () => {
      expect(await refused('acme.tenants.test', '/')).toEqual([502, 'ORIGIN_LOOP'])
    })
  })

  it('is not waited for longer than its headers take, though its body may', async () => {
    const sent = performance.now()
    const before = setting.origin.givenUp
    expect(await refused('acme.stratum.test', '/hang')).toEqual([504, 'ORIGIN_TIMEOUT'])
    expect(performance.now() - sent).toBeGreaterThan(1_400)
    await expect.poll(() => setting.origin.givenUp).toBe(before + 1)
    const answer = setting.send('acme.stratum.test', '/stream')
    await refused('acme.stratum.test', '/hang')
    setting.origin.release()
    expect((await answer).body).toBe('first last')
  })

  it('is waited for from the end of an upload, however long that takes', async () => {
    const upload = setting.upload('acme.stratum.test', '/upload')
    upload.write('first')
    await refused('acme.stratum.test', '/hang')
    upload.write(' second')
    await refused('acme.stratum.test', '/hang')
    expect(await upload.end(' last')).toMatchObject({ status: 200 })
    expect(setting.origin.parts.join('')).toBe('first second last')
  })

  it('breaks the body off for the client too, which must not take it for whole', async () => {
    for (const path of ['/broken', '/chunks']) await expect(setting.send('acme.stratum.test', path), path).rejects.toThrow()
    expect((await setting.send('acme.stratum.test', '/')).status).toBe(200)
  })

  it('is logged by kind, without what the request carried', async () => {
    await refused('acme.stratum.test', '/reset?secret=hunter2', { ...PROGRAM, 'x-request-id': 'the-one-logged', cookie: 'hunter2' })
    const line = {
      time: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
      level: 'error',
      method: 'GET',
      route: 'gateway',
      status: 502,
      code: 'ORIGIN_UNREACHABLE',
      tenant: acme.id,
      cause: expect.any(String),
    }
    expect(await setting.logged('the-one-logged')).toMatchObject(line)
    expect(JSON.stringify(setting.workerd.logs)).not.toContain('hunter2')
  })
})

describe('a tenant that is not served', () => {
  it('is unknown, suspended or closed, in JSON for programs and in words for browsers', async () => {
    const { admin } = setting
    const [paused, gone] = [await admin.createTenant({ slug: 'paused', name: 'P' }), await admin.createTenant({ slug: 'gone', name: 'G' })]
    await admin.suspendTenant({ id: paused.id })
    await admin.archiveTenant({ id: gone.id })
    for (const [host, status, code, words] of [
      ['nobody', 404, 'TENANT_NOT_FOUND', 'There is no site at this address.'],
      ['paused', 403, 'TENANT_SUSPENDED', 'This site is suspended.'],
      ['gone', 410, 'TENANT_ARCHIVED', 'This site is closed.'],
    ] as const) {
      expect(await refused(`${host}.stratum.test`, '/'), host).toEqual([status, code])
      const page = await setting.send(`${host}.stratum.test`, '/', { headers: BROWSER })
      expect([page.status, page.headers['content-type']], host).toEqual([status, 'text/html; charset=utf-8'])
      expect(page.body).toContain(`<h1>${words}</h1>`)
      expect(page.headers['content-security-policy']).toMatch(/^default-src 'none'; style-src 'sha256-[A-Za-z0-9+/]{43}='; .*frame-ancestors 'none'$/)
    }
  })

  it('is under maintenance as its config says, and so are those below it', async () => {
    const maintenance = { message: 'Back at <noon>', retry_after: 90 }
    await withConfig(acme.id, 'stratum.maintenance', maintenance, async () => {
      for (const host of ['acme', 'north']) {
        const answer = await setting.send(`${host}.stratum.test`, '/', { headers: PROGRAM })
        expect(refusal(answer)).toEqual([503, 'TENANT_MAINTENANCE'])
        expect([JSON.parse(answer.body).error.message, answer.headers['retry-after']]).toEqual(['Back at <noon>', '90'])
      }
      const page = await setting.send('acme.stratum.test', '/', { headers: BROWSER })
      expect([page.status, page.headers['retry-after']]).toEqual([503, '90'])
      expect(page.body).toContain('Back at &#60;noon&#62;')
    })
    expect((await setting.send('north.stratum.test', '/')).status).toBe(200)
  })

  it("shows a maintenance page of the tenant's own, in which nothing runs", async () => {
    const html = '<h1>Soon</h1><script>alert(1)</script>'
    await withConfig(acme.id, 'stratum.maintenance', { html }, async () => {
      const page = await setting.send('acme.stratum.test', '/', { headers: BROWSER })
      expect([page.status, page.body, page.headers['retry-after']]).toEqual([503, html, '300'])
      expect(page.headers['content-security-policy']).toMatch(/^default-src 'none';.* sandbox;/)
    })
  })
})

describe('the canonical host', () => {
  it('is where pages are moved to, and nothing else, and no tenant below', async () => {
    await withConfig(acme.id, 'stratum.canonical_host', 'WWW.Acme.example', async () => {
      const moved = await setting.send('acme.stratum.test', '/orders?page=2')
      expect([moved.status, moved.headers.location]).toEqual([308, 'http://www.acme.example/orders?page=2'])
      expect((await setting.send('acme.stratum.test', '/', { method: 'POST', body: 'x' })).status).toBe(200)
      expect((await setting.send('north.stratum.test', '/orders')).status).toBe(200)
    })
    await withConfig(acme.id, 'stratum.canonical_host', 'acme.stratum.test', async () => {
      expect((await setting.send('ACME.stratum.test.', '/')).status).toBe(200)
    })
    await withConfig(acme.id, 'stratum.canonical_host', 'https://evil.example/#', async () => {
      expect((await setting.send('acme.stratum.test', '/')).status).toBe(200)
    })
  })
})

describe("an origin of a tenant's config", () => {
  it('is where its requests go, and those of the tenants below, with a context for it alone', async () => {
    expect((await setting.send('north.tenants.test', '/api/v1/health')).body).toBe('{"status":"ok"}')
    await withConfig(acme.id, 'stratum.origin', setting.origin.url, async () => {
      const { headers } = await setting.seen('north.tenants.test', '/api/v1/health')
      const claims = JSON.parse(Buffer.from(headers['stratum-context']?.split('.')[1] ?? '', 'base64url').toString())
      expect(claims).toMatchObject({ iss: 'https://tenants.test', aud: setting.origin.url, slug: 'north' })
    })
  })

  it('gets no token that could be used here, as whoever writes the config would; the app’s own credentials it gets', async () => {
    const ours = `Bearer ${await signToken({ tenant: 'acme', scope: 'admin' })}`
    expect((await setting.seen('north.stratum.test', '/', { headers: { authorization: ours } })).headers['authorization']).toBe(ours)
    await withConfig(north.id, 'stratum.origin', setting.origin.url, async () => {
      const withOurs = (await setting.seen('north.tenants.test', '/', { headers: { authorization: ours } })).headers
      expect(withOurs).not.toHaveProperty('authorization')
      const claims = JSON.parse(Buffer.from(withOurs['stratum-context']?.split('.')[1] ?? '', 'base64url').toString())
      expect(claims.principal).toMatchObject({ type: 'token', scopes: expect.arrayContaining(['admin']) })
      const { headers } = await setting.seen('north.tenants.test', '/', { headers: { authorization: 'Bearer opaque' } })
      expect(headers['authorization']).toBe('Bearer opaque')
    })
  })

  it('may be a Worker that is bound for it, whose own host is the one asked for, and no other binding', async () => {
    await withConfig(acme.id, 'stratum.origin', 'service:ORIGIN_SHOP', async () => {
      const options = { method: 'POST', body: 'order', headers: { 'stratum-context': 'forged' } }
      const seen = await setting.seen('acme.tenants.test', '/orders?a=1', options)
      expect(seen).toMatchObject({ bound: true, method: 'POST', url: 'http://acme.tenants.test/orders?a=1', body: 'order' })
      expect(seen.headers['stratum-context']).not.toBe('forged')
    })
    await withConfig(acme.id, 'stratum.origin', 'service:INTERNAL', async () => {
      expect(await refused('acme.tenants.test', '/', { ...PROGRAM, 'x-request-id': 'origin-refused' })).toEqual([502, 'ORIGIN_INVALID'])
      expect(await setting.logged('origin-refused')).toMatchObject({
        code: 'ORIGIN_INVALID',
        cause: expect.stringContaining('there is no such service binding'),
      })
    })
    expect(await setting.seen('acme.bound.test', '/orders')).toMatchObject({ bound: true, url: 'http://acme.bound.test/orders' })
  })

  it.each([
    'http://127.0.0.1:9',
    'http://localhost',
    'http://[::1]/',
    'http://[::ffff:10.0.0.1]/',
    'https://169.254.169.254/',
    'https://2130706433/',
    'https://10.1.2.3',
    'https://ann:secret@app.example',
    'https://app.example/path',
    'ftp://app.example',
    'javascript:alert(1)',
    'app.example',
    'service:',
    'service:__proto__',
    17,
    {},
  ])('%j is refused', async (value) => {
    const answer = await withConfig(acme.id, 'stratum.origin', value, () => setting.send('acme.stratum.test', '/', { headers: PROGRAM }))
    expect(refusal(answer)).toEqual([502, 'ORIGIN_INVALID'])
    const { message, details } = JSON.parse(answer.body).error
    expect([message, details]).toEqual([expect.stringMatching(/^The origin configured for this tenant cannot be used; the log says why\./), undefined])
  })
})

describe('hosts', () => {
  it.each([
    ['a port', 'north.stratum.test:8443'],
    ['capitals', 'NORTH.Stratum.TEST'],
    ['a dot at the end', 'north.stratum.test.'],
  ])('with %s name the same tenant', async (_, host) => {
    const { headers } = await setting.seen(host, '/')
    expect(headers['x-forwarded-host']).toMatch(/^north\.stratum\.test(:8443)?$/)
    expect(JSON.parse(Buffer.from(headers['stratum-context']?.split('.')[1] ?? '', 'base64url').toString())).toMatchObject({ tenant_id: north.id })
  })

  const answerTo = async (head: string) => {
    const [, status, body = ''] = /^HTTP\/1\.1 (\d+).*?\r\n\r\n(.*)$/s.exec(await setting.raw(`${head}\r\nConnection: close\r\n\r\n`)) ?? []
    return { status: Number(status), body }
  }

  it.each([
    ['two of them', 'GET / HTTP/1.1\r\nHost: acme.stratum.test\r\nHost: north.stratum.test', 'REQUEST_NOT_FORWARDABLE'],
    ['two in one', 'GET / HTTP/1.1\r\nHost: acme.stratum.test, north.stratum.test', 'REQUEST_NOT_FORWARDABLE'],
    ['a user name', 'GET / HTTP/1.1\r\nHost: acme@north.stratum.test', 'REQUEST_NOT_FORWARDABLE'],
    ['a path', 'GET / HTTP/1.1\r\nHost: acme.stratum.test/north', 'REQUEST_NOT_FORWARDABLE'],
    ['a wildcard', 'GET / HTTP/1.1\r\nHost: *.stratum.test', 'REQUEST_NOT_FORWARDABLE'],
    ['an address', 'GET / HTTP/1.1\r\nHost: 127.0.0.1', 'TENANT_NOT_FOUND'],
    ['an IPv6 address', 'GET / HTTP/1.1\r\nHost: [::1]', 'TENANT_NOT_FOUND'],
    ['an IPv6 address and a port', 'GET / HTTP/1.1\r\nHost: [::1]:8080', 'TENANT_NOT_FOUND'],
    ['an address in one number', 'GET / HTTP/1.1\r\nHost: 2130706433', 'TENANT_NOT_FOUND'],
    ['a port that is none', 'GET / HTTP/1.1\r\nHost: acme.stratum.test:north', 'REQUEST_NOT_FORWARDABLE'],
    ['a port that is too high', 'GET / HTTP/1.1\r\nHost: acme.stratum.test:99999', 'REQUEST_NOT_FORWARDABLE'],
    ['two dots at the end', 'GET / HTTP/1.1\r\nHost: acme.stratum.test..', 'REQUEST_NOT_FORWARDABLE'],
    ['an escaped dot', 'GET / HTTP/1.1\r\nHost: acme%2estratum.test', 'REQUEST_NOT_FORWARDABLE'],
    ['nothing before the dot', 'GET / HTTP/1.1\r\nHost: .stratum.test', 'REQUEST_NOT_FORWARDABLE'],
    ['another script', 'GET / HTTP/1.1\r\nHost: xn--nrth-5qa.stratum.test', 'TENANT_NOT_FOUND'],
    ['a name that only begins alike', 'GET / HTTP/1.1\r\nHost: north.stratum.test.evil.example', 'TENANT_NOT_FOUND'],
    ['two labels', 'GET / HTTP/1.1\r\nHost: a.north.stratum.test', 'TENANT_NOT_FOUND'],
  ])('with %s are refused, and are never another tenant', async (_, head, code) => {
    const { status, body } = await answerTo(head)
    expect([status, body]).toEqual([code === 'TENANT_NOT_FOUND' ? 404 : 400, expect.stringContaining(`"code":"${code}"`)])
  })

  it.each([
    ['no Host', 'GET / HTTP/1.1\r\nAccept: */*'],
    ['an empty Host', 'GET / HTTP/1.1\r\nHost: '],
  ])('with %s are refused', async (_, head) => {
    expect((await answerTo(head)).status).toBe(400)
  })

  it('are what Host says, whatever a target says that names another', async () => {
    const { status, body } = await answerTo('GET http://north.stratum.test/ HTTP/1.1\r\nHost: acme.stratum.test')
    expect([status, body]).toEqual([200, expect.stringContaining('"x-forwarded-host":"acme.stratum.test"')])
  })
})

describe('requests that are hard to pass on', () => {
  it('with a cookie of 100 KB are passed on whole', async () => {
    const cookie = `big=${'x'.repeat(100_000)}`
    expect((await setting.seen('acme.stratum.test', '/', { headers: { cookie } })).headers['cookie']).toBe(cookie)
  })

  it('with a body where there is none to be, or of a method that is not passed on, are refused by 4xx', async () => {
    const body = await setting.send('acme.stratum.test', '/', { method: 'GET', headers: { 'content-length': '4' }, body: 'body' })
    expect(refusal(body)).toEqual([400, 'REQUEST_NOT_FORWARDABLE'])
    expect(refusal(await setting.send('acme.stratum.test', '/', { method: 'TRACE' }))).toEqual([400, 'REQUEST_NOT_FORWARDABLE'])
  })
})

it('without keys to sign with, the gateway does not serve and the log says why', async () => {
  const before = setting.workerd.logs.length
  const answer = await setting.send('acme.keyless.test', '/')
  expect([answer.status, JSON.parse(answer.body).error.code]).toEqual([500, 'CONFIGURATION_INVALID'])
  await expect.poll(() => setting.workerd.logs.slice(before).some(({ message }) => message.includes('STRATUM_CONTEXT_KEYS is missing'))).toBe(true)
})
