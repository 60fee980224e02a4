/** Input that nobody should send is a 4xx with a code and a sentence, and changes nothing. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { ErrorCode } from '../../src/core/errors.ts'
import type { Tenant } from '../../src/features/tenants/contract.ts'
import { MAXIMUM_BODY_BYTES } from '../../src/http/request.ts'
import { type Asked, ask, expectRefusal } from '../support/answers.ts'
import { createInstallation, type Installation } from '../support/installation.ts'

let installation: Installation
let tenant: Tenant
let apiKey: string
beforeAll(async () => {
  installation = await createInstallation()
  tenant = await installation.stratum.createTenant({ slug: 'acme', name: 'Acme' })
  apiKey = await installation.apiKey(null)
})
afterAll(() => installation.close())

const send = (path: string, asked: Asked = {}) => ask(installation.fetch, `/api/v1${path}`, { apiKey, ...asked })
const changes = async () => (await installation.owner.query('select count(*)::int as changes from stratum.changes')).rows
let before: unknown
beforeEach(async () => {
  before = await changes()
})
afterEach(async () => {
  expect(await changes()).toEqual(before)
})

const bytes = (text: string) => new TextEncoder().encode(text)
const streamOf = (...chunks: Uint8Array[]) =>
  new ReadableStream<Uint8Array>({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(chunk)
      controller.close()
    },
  })

describe('a body', () => {
  const unreadable: Array<[what: string, body: () => BodyInit]> = [
    ['that ends too soon', () => '{"slug":"a"'],
    ['of another format', () => 'slug=a&name=b'],
    ['of two values', () => '{}{}'],
    ['with a comment', () => '{/* */}'],
    ['with NaN', () => '{"slug":NaN}'],
    ['that is not UTF-8', () => new Uint8Array([0x7b, 0xff, 0x7d])],
    ['cut within a character', () => streamOf(bytes('{"name":"'), new Uint8Array([0xe2, 0x82]))],
    [
      'whose sender broke off',
      () =>
        new ReadableStream({
          start(controller) {
            controller.enqueue(bytes('{'))
            controller.error(new Error('gone'))
          },
        }),
    ],
  ]
  it.each(unreadable)('%s is no JSON', async (_, body) => {
    expectRefusal(await send('/tenants', { method: 'POST', body: body() }), 'INVALID_JSON')
  })
  it.each(['[]', '[{"slug":"a","name":"b"}]', '1', '"text"', 'true', 'null'])('that is %s is no object', async (body) => {
    expectRefusal(await send('/tenants', { method: 'POST', body }), 'VALIDATION_FAILED')
  })
  it('that is empty lacks what is needed, and says what', async () => {
    for (const body of ['', ' \n ', '{}', '\uFEFF']) {
      expect(expectRefusal(await send('/tenants', { method: 'POST', body }), 'VALIDATION_FAILED')).toMatchObject({
        issues: [{ path: 'slug' }, { path: 'name' }],
      })
    }
    expect(expectRefusal(await send(`/tenants/${tenant.id}/move`, { method: 'POST' }), 'VALIDATION_FAILED')['reason']).toContain('new_parent_id')
  })
  it('may come under any content type, being judged by what it says', async () => {
    const headers = { 'content-type': 'application/x-www-form-urlencoded' }
    expectRefusal(await send('/tenants', { method: 'POST', headers, body: 'slug=a&name=b' }), 'INVALID_JSON')
    expectRefusal(await send('/tenants', { method: 'POST', headers, body: '{}' }), 'VALIDATION_FAILED')
  })
  it.each(['__proto__', 'constructor', 'prototype', 'toString', 'parentId', 'cascade', 'id', 'sealed', 'named', 'credential', 'after'])(
    'with the unknown key %s is refused',
    async (key) => {
      const body = `{"slug":"a","name":"b","${key}":{"admin":true}}`
      expect(expectRefusal(await send('/tenants', { method: 'POST', body }), 'VALIDATION_FAILED')['reason']).toContain(key)
      expect(({} as Record<string, unknown>)['admin']).toBeUndefined()
    },
  )
  it('that is refused is not repeated at length', async () => {
    const body = JSON.stringify(Object.fromEntries(Array.from({ length: 50_000 }, (_, index) => [`key${index}`, 1])))
    const answer = await send('/tenants', { method: 'POST', body })
    expectRefusal(answer, 'VALIDATION_FAILED')
    expect(answer.text.length).toBeLessThan(5_000)
  })
})

describe('a body that is too large', () => {
  it('is refused by its content-length, unread', async () => {
    let read = false
    const body = new ReadableStream(
      {
        pull() {
          read = true
        },
      },
      { highWaterMark: 0 },
    )
    const answer = await send('/tenants', { method: 'POST', body, headers: { 'content-length': String(MAXIMUM_BODY_BYTES + 1) } })
    expect(expectRefusal(answer, 'BODY_TOO_LARGE')).toEqual({ maximum_bytes: MAXIMUM_BODY_BYTES })
    expect(read).toBe(false)
  })
  it('is refused as it comes where no length, or a false one, was told; the rest is not read', async () => {
    for (const headers of [{}, { 'content-length': '2' }, { 'content-length': 'many' }]) {
      let sent = 0
      let cancelled = false
      const body = new ReadableStream({
        pull(controller) {
          sent += 65_536
          controller.enqueue(new Uint8Array(65_536).fill(32))
        },
        cancel() {
          cancelled = true
        },
      })
      expectRefusal(await send('/tenants', { method: 'POST', body, headers }), 'BODY_TOO_LARGE')
      expect(sent).toBeLessThan(2 * MAXIMUM_BODY_BYTES)
      expect(cancelled).toBe(true)
    }
  })
  it('begins one byte above the limit', async () => {
    const padded = (length: number) => '{}'.padEnd(length)
    expectRefusal(await send('/tenants', { method: 'POST', body: padded(MAXIMUM_BODY_BYTES) }), 'VALIDATION_FAILED')
    expectRefusal(await send('/tenants', { method: 'POST', body: padded(MAXIMUM_BODY_BYTES + 1) }), 'BODY_TOO_LARGE')
  })
})

describe('values', () => {
  const valid = { slug: 'fresh', name: 'Fresh' }
  const tenants: Array<[what: string, change: object, path: string]> = [
    ['a slug with capitals', { slug: 'Acme' }, 'slug'],
    ['a slug with a hyphen', { slug: 'north-star' }, 'slug'],
    ['a slug of 64 characters', { slug: 'a'.repeat(64) }, 'slug'],
    ['a slug that begins with a digit', { slug: '1st' }, 'slug'],
    ['a slug with a line end', { slug: 'acme\n' }, 'slug'],
    ['a slug that is a number', { slug: 7 }, 'slug'],
    ['an empty name', { name: '' }, 'name'],
    ['a name of 256 characters', { name: 'x'.repeat(256) }, 'name'],
    ['a name with NUL', { name: 'a\0b' }, 'name'],
    ['a name with half a character', { name: '\ud800' }, 'name'],
    ['a parent that is no UUID', { parent_id: 'acme' }, 'parent_id'],
    ['an unknown strategy', { isolation_strategy: 'NONE' }, 'isolation_strategy'],
    ['metadata that is an array', { metadata: [] }, 'metadata'],
    ['metadata with NUL in a key', { metadata: { 'a\0': 1 } }, 'metadata.a\0'],
    ['metadata with half a character in a key', { metadata: { '\udc00': 1 } }, 'metadata.\udc00'],
  ]
  it.each(tenants)('%s is refused and named', async (_, change, path) => {
    const details = expectRefusal(await send('/tenants', { method: 'POST', json: { ...valid, ...change } }), 'VALIDATION_FAILED')
    expect(details['issues']).toEqual(expect.arrayContaining([expect.objectContaining({ path })]))
  })
  it.each([
    ['nested too deep', `${'['.repeat(300_000)}${']'.repeat(300_000)}`],
    ['too large', JSON.stringify('x'.repeat(65_536))],
    ['with NUL', '{"a":["\\u0000"]}'],
    ['with half a character', '"\\ud800"'],
    ['with a number beyond all', '1e999'],
  ])('config %s is refused', async (_, value) => {
    const answer = await send(`/tenants/${tenant.id}/config/key`, { method: 'PUT', body: `{"value":${value}}` })
    expect(expectRefusal(answer, 'VALIDATION_FAILED')['reason']).toMatch(/^value: /)
  })
  it.each(['', '1st', 'a b', 'a/b', 'é', 'a'.repeat(256), '__proto__', '%00'])('config key %j is refused', async (key) => {
    const answer = await send(`/tenants/${tenant.id}/config/${encodeURIComponent(key)}`, { method: 'PUT', json: { value: 1 } })
    expectRefusal(answer, key === '' ? 'ROUTE_NOT_FOUND' : 'INVALID_REQUEST')
  })
  it.each(['yesterday', '2020-01-01T00:00:00Z', '2099-02-30T00:00:00Z', '2099-01-01', '9999-12-31T23:59:59-23:59', '2099-01-01T00:00:00+99:99', 4_102_444_800])(
    'a key that expires at %j is refused',
    async (expires_at) => {
      expectRefusal(await send('/api-keys', { method: 'POST', json: { expires_at } }), 'VALIDATION_FAILED')
    },
  )
  it.each([[[]], [['owner']], ['admin'], [['read', 'read', 'read', 'read', 'read']]])('scopes %j are refused', async (scopes) => {
    expectRefusal(await send('/api-keys', { method: 'POST', json: { scopes } }), 'VALIDATION_FAILED')
  })
})

describe('the path and the query', () => {
  const cases: Array<[path: string, code: ErrorCode]> = [
    ['/tenants/acme', 'INVALID_REQUEST'],
    ['/tenants/0197a000-0000-4000-8000-00000000000', 'INVALID_REQUEST'],
    ['/tenants/%00', 'INVALID_REQUEST'],
    ['/tenants/%ff%zz', 'INVALID_REQUEST'],
    ["/tenants/'%20or%201=1--", 'INVALID_REQUEST'],
    ['/tenants/by-slug/North-Star', 'INVALID_REQUEST'],
    ['/tenants?unknown=1', 'INVALID_REQUEST'],
    ['/tenants?__proto__=1', 'INVALID_REQUEST'],
    ['/tenants?constructor=1', 'INVALID_REQUEST'],
    ['/tenants?limit=1&limit=2', 'INVALID_REQUEST'],
    ['/tenants?limit=0', 'INVALID_REQUEST'],
    ['/tenants?limit=101', 'INVALID_REQUEST'],
    ['/tenants?limit=1.5', 'INVALID_REQUEST'],
    ['/tenants?limit=', 'INVALID_REQUEST'],
    ['/tenants?limit=1e999', 'INVALID_REQUEST'],
    ['/tenants?status=deleted', 'INVALID_REQUEST'],
    ['/tenants?include_archived=yes', 'INVALID_REQUEST'],
    ['/tenants?include_archived=true&include_archived=true', 'INVALID_REQUEST'],
    ['/api-keys?tenant_id=acme', 'INVALID_REQUEST'],
    [`/tenants?cursor=${'x'.repeat(2_049)}`, 'INVALID_REQUEST'],
    ['/tenants?cursor=', 'INVALID_CURSOR'],
    ['/tenants?cursor=%00', 'INVALID_CURSOR'],
  ]
  it.each(cases)('%s is %s', async (path, code) => {
    expectRefusal(await send(path), code)
  })
})

describe('a cursor', () => {
  const forge = (...parts: unknown[]) => Buffer.from(JSON.stringify(parts)).toString('base64url')
  const filters = { include_archived: false, root: false }
  it.each([
    ['of another list', () => forge('getDescendants', filters, [tenant.id])],
    ['of another question', () => forge('listTenants', { ...filters, root: true }, [tenant.id])],
    ['of a place that is none', () => forge('listTenants', filters, ['acme'])],
    ['of a tenant that is not there', () => forge('listTenants', filters, ['00000000-0000-4000-8000-000000000000'])],
    ['of no array', () => Buffer.from('{"id":"listTenants"}').toString('base64url')],
    ['of null', () => Buffer.from('null').toString('base64url')],
    ['cut short', () => forge('listTenants', filters, [tenant.id]).slice(0, -3)],
  ])('%s is refused', async (_, make) => {
    expectRefusal(await send(`/tenants?cursor=${make()}`), 'INVALID_CURSOR')
  })
  it.each([9_007_199_254_740_991, 2_147_483_648, 1.5, '1', null])('of children after place %j is refused', async (place) => {
    const cursor = forge('getChildren', { id: tenant.id, include_archived: false }, [place, tenant.id])
    expectRefusal(await send(`/tenants/${tenant.id}/children?cursor=${cursor}`), 'INVALID_CURSOR')
  })
})
