/** The order of checks: who asks (401), is it readable (400, 413, 422), with which scope (403), within which reach (404), in which state (409). */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ErrorCode } from '../../src/core/errors.ts'
import type { Tenant } from '../../src/features/tenants/contract.ts'
import { type Asked, ask, expectRefusal } from '../support/answers.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { plantTree } from '../support/tree.ts'

let installation: Installation
let tenants: Record<'acme' | 'north' | 'paused' | 'stranger' | 'strange_paused', Tenant>
let keys: Record<'unknown' | 'read' | 'admin' | 'paused', string>
beforeAll(async () => {
  installation = await createInstallation()
  const admin = await installation.clientFor(null)
  tenants = await plantTree(admin, { acme: null, north: 'acme', paused: 'acme', stranger: null, strange_paused: 'stranger' })
  keys = {
    unknown: `sk_test_${'B'.repeat(43)}`,
    read: await installation.apiKey(tenants.north.id, ['read']),
    admin: await installation.apiKey(tenants.acme.id),
    paused: await installation.apiKey(tenants.paused.id),
  }
  await admin.suspendTenant({ id: tenants.paused.id })
  await admin.suspendTenant({ id: tenants.strange_paused.id })
})
afterAll(() => installation.close())

const NOWHERE = 'http://nowhere.example'
const CREATE: Asked = { method: 'POST', json: { slug: 'never', name: 'Never' } }

/** Requests that cannot be read, or name what nobody could know, with what a known caller is told of them. */
const unreadable: Array<[what: string, path: string, asked: Asked, code: ErrorCode]> = [
  ['a body that is not JSON', '/tenants', { method: 'POST', body: '{"slug":' }, 'INVALID_JSON'],
  ['a body that does not fit', '/tenants', { method: 'POST', json: { slug: 'UPPER', name: '' } }, 'VALIDATION_FAILED'],
  ['a body that is too large', '/tenants', { method: 'POST', body: 'x'.repeat(1_048_577) }, 'BODY_TOO_LARGE'],
  ['a malformed id', '/tenants/not-an-id', {}, 'INVALID_REQUEST'],
  ['an unknown query key', '/tenants?colour=red', {}, 'INVALID_REQUEST'],
  ['a cursor that is none', '/tenants?cursor=zzz', {}, 'INVALID_CURSOR'],
  ['a host that is no tenant', '/tenants', { base: NOWHERE }, 'TENANT_NOT_FOUND'],
  ['an x-tenant-id that can be no tenant', '/tenants', { headers: { 'x-tenant-id': 'No Such!' } }, 'TENANT_NOT_FOUND'],
  ['a question about a host that is no tenant', '/resolve', { method: 'POST', json: { host: 'nowhere.example' } }, 'TENANT_NOT_FOUND'],
  ['a question about a path that names no tenant', '/resolve', { method: 'POST', json: { path: '/t/No%20Such' } }, 'TENANT_NOT_FOUND'],
]

describe.each(unreadable)('%s', (_, path, asked, code) => {
  it('is refused to an unknown key because it is unknown', async () => {
    expectRefusal(await ask(installation.fetch, `/api/v1${path}`, { ...asked, apiKey: keys.unknown }), 'API_KEY_INVALID')
  })
  it('is refused to a key of a suspended tenant because it is suspended', async () => {
    expectRefusal(await ask(installation.fetch, `/api/v1${path}`, { ...asked, apiKey: keys.paused }), 'TENANT_SUSPENDED')
  })
  it('is refused to a known key for what it is', async () => {
    expectRefusal(await ask(installation.fetch, `/api/v1${path}`, { ...asked, apiKey: keys.admin }), code)
  })
})

describe('what cannot be read', () => {
  const writes = unreadable.filter(([, path, { method }]) => method === 'POST' && path === '/tenants')
  it.each(writes)('%s is told before the missing scope', async (_, path, asked, code) => {
    expectRefusal(await ask(installation.fetch, `/api/v1${path}`, { ...asked, apiKey: keys.read }), code)
  })
})

describe('a missing scope', () => {
  it('is told before the tenant that is out of reach', async () => {
    for (const parent_id of [tenants.stranger.id, tenants.acme.id, '00000000-0000-4000-8000-000000000000']) {
      const answer = await ask(installation.fetch, '/api/v1/tenants', { method: 'POST', json: { slug: 'never', name: 'Never', parent_id }, apiKey: keys.read })
      expect(expectRefusal(answer, 'SCOPE_REQUIRED')).toEqual({ scope: 'write' })
    }
  })
  it('is told before the host that is unknown or out of reach', async () => {
    for (const base of [NOWHERE, `http://${tenants.stranger.subdomain}.stratum.test`, 'http://no-such-tenant.stratum.test']) {
      expectRefusal(await ask(installation.fetch, '/api/v1/tenants', { ...CREATE, base, apiKey: keys.read }), 'SCOPE_REQUIRED')
    }
  })
})

describe('what is out of reach', () => {
  it('is told before the state it is in', async () => {
    const under = { method: 'POST', json: { slug: 'never', name: 'Never', parent_id: tenants.strange_paused.id } }
    expectRefusal(await ask(installation.fetch, '/api/v1/tenants', { ...under, apiKey: keys.admin }), 'TENANT_NOT_FOUND')
    const again = await ask(installation.fetch, `/api/v1/tenants/${tenants.strange_paused.id}/suspend`, { method: 'POST', apiKey: keys.admin })
    expectRefusal(again, 'TENANT_NOT_FOUND')
  })
  it('hides a taken slug no more than a free one', async () => {
    const taken = { method: 'POST', json: { slug: tenants.stranger.slug, name: 'Taken', parent_id: tenants.stranger.id } }
    expectRefusal(await ask(installation.fetch, '/api/v1/tenants', { ...taken, apiKey: keys.admin }), 'TENANT_NOT_FOUND')
  })
})

it('tells the state to who reaches it', async () => {
  const answer = await ask(installation.fetch, `/api/v1/tenants/${tenants.paused.id}/suspend`, { method: 'POST', apiKey: keys.admin })
  expect(expectRefusal(answer, 'TENANT_INVALID_STATE')).toEqual({ tenant_id: tenants.paused.id, status: 'suspended', required: 'active' })
})
