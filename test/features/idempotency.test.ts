/** Idempotency-Key: a request that is sent again is done once, and answered alike. */
import { randomUUID } from 'node:crypto'
import { SignJWT } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { CallOf } from '../../src/core/endpoint.ts'
import { sqlName } from '../../src/core/endpoint.ts'
import { endpointList, type endpoints } from '../../src/features/endpoints.ts'
import type { StratumClient } from '../../src/sdk/client.ts'
import { type Answer, ask, errorOf, expectRefusal } from '../support/answers.ts'
import { AUDIENCE, createInstallation, type Installation, ISSUER, JWT_SECRET } from '../support/installation.ts'
import { contents, tablesOf } from '../support/record.ts'
import { plantTree, refusal, uniqueSlug } from '../support/tree.ts'
import { untilWaiting, whileOpen } from '../support/waiting.ts'

let installation: Installation
let admin: StratumClient
let apiKey: string
beforeAll(async () => {
  installation = await createInstallation()
  apiKey = await installation.apiKey(null)
  admin = installation.client({ apiKey })
})
afterAll(() => installation.close())

const once = (idempotencyKey: string = randomUUID()) => ({ idempotencyKey })
const tenant = (more: Partial<CallOf<typeof endpoints.createTenant>> = {}) => ({ slug: uniqueSlug(), name: 'Once', ...more })
const post = (path: string, json: unknown, headers: Record<string, string>): Promise<Answer> =>
  ask(installation.fetch, `/api/v1${path}`, { method: 'POST', apiKey, json, headers })
const sql = async (text: string, values: unknown[] = []) => (await installation.owner.query<Record<string, unknown>>(text, values)).rows
const keptOf = (key: string) => sql('select operation, answer from stratum.idempotency_keys where key = $1', [key])

describe('a request sent again with its key', () => {
  it('is answered as it was at first, status included, and writes nothing', async () => {
    const { root, mid } = await plantTree(admin, { root: null, mid: 'root' })
    const calls: Array<[path: string, body: unknown]> = [
      ['/tenants', tenant({ parent_id: root.id, metadata: { a: [1, null] } })],
      ['/tenants/batch', { tenants: [{ ...tenant(), parent_id: root.id }] }],
      [`/tenants/${mid.id}/permissions`, { key: 'p', value: { max: 1 } }],
      [`/tenants/${mid.id}/reorder`, { position: 0 }],
      [`/tenants/${mid.id}/suspend`, {}],
      [`/tenants/${mid.id}/resume`, {}],
      [`/tenants/${mid.id}/move`, { new_parent_id: null }],
      [`/tenants/${mid.id}/archive`, { cascade: true }],
    ]
    for (const [path, body] of calls) {
      const headers = { 'idempotency-key': randomUUID() }
      const first = await post(path, body, headers)
      expect([200, 201], `${path} ${first.text}`).toContain(first.status)
      const before = await contents(installation.owner)
      for (const again of [await post(path, body, headers), await post(path, body, headers)]) {
        expect([again.status, again.body], path).toEqual([first.status, first.body])
      }
      expect(await contents(installation.owner), path).toEqual(before)
    }
  })

  it('says at which version its change is read, as who lost the first answer has no other', async () => {
    const { root } = await plantTree(admin, { root: null })
    const send = () =>
      installation.fetch(
        new Request(`http://stratum.test/api/v1/tenants/${root.id}/suspend`, {
          method: 'POST',
          headers: { 'x-api-key': apiKey, 'idempotency-key': 'version' },
        }),
      )
    const [first, again] = [await send(), await send()].map((answer) => BigInt(answer.headers.get('stratum-version') ?? -1))
    expect(first).toBeGreaterThan(0n)
    expect(again).toBeGreaterThan(first ?? 0n)
  })

  it('is answered so even where it could not be done any more', async () => {
    const { root } = await plantTree(admin, { root: null })
    const key = once()
    const suspended = await admin.suspendTenant({ id: root.id }, key)
    await admin.resumeTenant({ id: root.id })
    expect(await admin.suspendTenant({ id: root.id }, key)).toEqual(suspended)
    expect((await admin.getTenant({ id: root.id })).status).toBe('active')
  })

  it('but with another body is refused, wherever that lies', async () => {
    const { root, mid } = await plantTree(admin, { root: null, mid: 'root' })
    const [key, body] = [once(), tenant()]
    await admin.createTenant(body, key)
    const before = await contents(installation.owner)
    for (const other of [
      { ...body, name: 'Twice' },
      { ...body, slug: uniqueSlug() },
      { ...body, parent_id: root.id },
      { ...body, metadata: { a: 1 } },
    ]) {
      await refusal(admin.createTenant(other, key), 'IDEMPOTENCY_KEY_REUSED')
    }
    expect(await contents(installation.owner)).toEqual(before)
    // the path is part of what is asked
    await admin.suspendTenant({ id: mid.id }, key)
    await refusal(admin.suspendTenant({ id: root.id }, key), 'IDEMPOTENCY_KEY_REUSED')
    // what says the same in other words is no other body
    expect(await admin.createTenant({ ...body, parent_id: null, metadata: {} }, key)).toMatchObject({ slug: body.slug })
  })

  it('from a host of a tenant is another request than without', async () => {
    const { root } = await plantTree(admin, { root: null })
    const [key, body] = [once(), tenant({ parent_id: root.id })]
    const acting = installation.client({ apiKey, headers: { 'x-tenant-id': root.id } })
    const created = await acting.createTenant(body, key)
    expect(await acting.createTenant(body, key)).toEqual(created)
    await refusal(admin.createTenant(body, key), 'IDEMPOTENCY_KEY_REUSED')
  })

  it('by another principal, or of another operation, is a request of its own', async () => {
    const { root } = await plantTree(admin, { root: null })
    const key = once()
    const first = await admin.createTenant(tenant({ parent_id: root.id }), key)
    const others = [await installation.clientFor(null), await installation.clientFor(root.id)]
    for (const subject of ['user-1', 'user-2']) {
      others.push(installation.client({ token: await installation.token({ tenant: root.slug, scope: 'write' }, { subject }) }))
    }
    const ids = [first.id]
    for (const client of others) ids.push((await client.createTenant(tenant({ parent_id: root.id }), key)).id)
    expect(new Set(ids).size).toBe(5)
    expect(await admin.createPermission({ id: root.id, key: 'p' }, key)).toMatchObject({ key: 'p' })
    expect(await keptOf(key.idempotencyKey)).toHaveLength(6)
    // a principal is who it is, not the token it shows
    const renewed = installation.client({ token: await installation.token({ tenant: root.slug, scope: 'write' }, { subject: 'user-1', expires: '9m' }) })
    await refusal(renewed.createTenant(tenant({ parent_id: root.id }), key), 'IDEMPOTENCY_KEY_REUSED')
  })

  it('is not answered to who may no longer ask', async () => {
    const { root, mid } = await plantTree(admin, { root: null, mid: 'root' })
    const client = async (scope: string) => installation.client({ token: await installation.token({ tenant: root.slug, scope }) })
    const [key, body] = [once(), tenant({ parent_id: mid.id })]
    await (await client('write')).createTenant(body, key)
    await refusal((await client('read')).createTenant(body, key), 'SCOPE_REQUIRED')
    await admin.moveTenant({ id: mid.id, new_parent_id: null })
    await refusal((await client('write')).createTenant(body, key), 'TENANT_NOT_FOUND')
    const revoked = await installation.stratum.createApiKey(null, { scopes: ['admin'] })
    const late = installation.client({ apiKey: revoked.key })
    await late.createTenant(tenant(), key)
    await admin.revokeApiKey({ id: revoked.id })
    await refusal(late.createTenant(tenant(), key), 'API_KEY_INVALID')
  })

  it('is done anew after 24 hours, and what is older is not kept', async () => {
    const [key, forgotten, body] = [once(), once(), tenant()]
    await admin.createTenant(body, key)
    await admin.createTenant(tenant(), forgotten)
    const age = (idempotencyKey: string, by: string) =>
      sql('update stratum.idempotency_keys set created_at = now() - $2::interval where key = $1', [idempotencyKey, by])
    await age(key.idempotencyKey, '23 hours 59 minutes')
    await age(forgotten.idempotencyKey, '24 hours 1 minute')
    expect(await admin.createTenant(body, key)).toMatchObject({ slug: body.slug })

    await age(key.idempotencyKey, '24 hours 1 minute')
    await refusal(admin.createTenant(body, key), 'TENANT_SLUG_TAKEN')
    const renewed = await admin.createTenant(tenant(), key)
    expect(await keptOf(key.idempotencyKey)).toMatchObject([{ answer: { id: renewed.id } }])
    expect(await keptOf(forgotten.idempotencyKey)).toEqual([])
  })
})

describe('a token without a subject', () => {
  const nameless = (claims: Record<string, unknown>) =>
    new SignJWT(claims)
      .setProtectedHeader({ alg: 'HS256' })
      .setIssuer(ISSUER)
      .setAudience(AUDIENCE)
      .setExpirationTime('5m')
      .sign(new TextEncoder().encode(JWT_SECRET))

  it('has no answers remembered, as its bearer is told from no other, and is refused before anything is written', async () => {
    const { root } = await plantTree(admin, { root: null })
    const client = async (scope: string, more = {}) => installation.client({ token: await nameless({ tenant: root.slug, scope, ...more }) })
    const body = tenant({ parent_id: root.id })
    const before = await contents(installation.owner)
    const [one, other] = [await client('write', { user: 'one' }), await client('write', { user: 'other' })]
    for (const asker of [one, other, await client('read')]) {
      const { details, message } = await refusal(asker.createTenant(body, once('shared')), 'INVALID_REQUEST')
      const issue = { path: 'Idempotency-Key', message: expect.stringContaining('sub') }
      expect(details).toMatchObject({ issues: [issue] })
      expect(message).toContain('Idempotency-Key: ')
    }
    expect(await contents(installation.owner)).toEqual(before)
    // who asks is judged first, and without the header all is as it was
    await refusal((await client('write', { tenant: 'nowhere' })).createTenant(body, once('shared')), 'TOKEN_INVALID')
    expect(await one.createTenant(body)).toMatchObject({ slug: body.slug })
  })
})

describe('a request that fails', () => {
  it('is not remembered: sent again it is judged again, and may come with another body', async () => {
    const { root } = await plantTree(admin, { root: null })
    const key = once()
    const before = await contents(installation.owner)
    await refusal(admin.createTenant(tenant({ slug: root.slug }), key), 'TENANT_SLUG_TAKEN')
    await refusal(admin.createTenant(tenant({ slug: 'Not A Slug' }), key), 'VALIDATION_FAILED')
    await refusal(admin.createTenant(tenant({ parent_id: randomUUID() }), key), 'TENANT_NOT_FOUND')
    const reader = await installation.clientFor(null, ['read'])
    await refusal(reader.createTenant(tenant(), key), 'SCOPE_REQUIRED')
    const { api_keys, audit_entries, audit_heads, changes, outbox, ...after } = await contents(installation.owner)
    expect(before).toMatchObject(after)
    expect(Object.keys({ api_keys, audit_entries, audit_heads, changes, outbox })).toHaveLength(5)
    expect(await keptOf(key.idempotencyKey)).toEqual([])
    const body = tenant()
    const created = await admin.createTenant(body, key)
    expect(await admin.createTenant(body, key)).toEqual(created)
  })
})

describe('requests sent at once', () => {
  it('are done by one, and answered alike to all', async () => {
    for (const make of [
      () => {
        const [key, body] = [once(), tenant()]
        return () => admin.createTenant(body, key)
      },
      () => {
        const key = once()
        return () => admin.createApiKey({ name: 'raced' }, key)
      },
    ]) {
      const send = make()
      const before = await contents(installation.owner)
      const answers = await Promise.all(Array.from({ length: 8 }, (): Promise<{ id: string }> => send()))
      expect(new Set(answers.map(({ id }) => id)).size).toBe(1)
      const shownOnce = answers.filter((answer) => 'key' in answer)
      expect(shownOnce.length).toBeLessThanOrEqual(1)
      const after = await contents(installation.owner)
      const more = (table: string) => Number((after[table] as { rows: string }).rows) - Number((before[table] as { rows: string }).rows)
      expect([more('idempotency_keys'), more('audit_entries'), more('outbox'), more('tenants') + more('api_keys')]).toEqual([1, 1, 1, 1])
    }
  })

  it('wait for the first, and one of them is done when that one comes to nothing', async () => {
    const { root } = await plantTree(admin, { root: null })
    const [key, body] = [once(), tenant({ parent_id: root.id })]
    // the first waits for the row of the parent, the others for the first
    const answers = await whileOpen(
      installation.owner,
      (held) => held.query('select from stratum.tenants where id = $1 for update', [root.id]),
      async (commit) => {
        const sent = Array.from({ length: 4 }, () => admin.createTenant(body, key))
        const settled = Promise.allSettled(sent)
        await untilWaiting(installation.owner, 4)
        await commit()
        return settled
      },
    )
    expect(new Set(answers.map((answer) => (answer.status === 'fulfilled' ? answer.value.id : String(answer.reason)))).size).toBe(1)

    const failing = { ...body, slug: body.slug, name: 'Again' }
    const refused = await Promise.allSettled(Array.from({ length: 4 }, () => admin.createTenant(failing, once())))
    expect(refused.map((answer) => (answer.status === 'rejected' ? (answer.reason as { code?: string }).code : 'done'))).toEqual(
      Array(4).fill('TENANT_SLUG_TAKEN'),
    )
  })
})

describe('a key that is shown once', () => {
  it('is stored nowhere, and the replay says that it has none to show', async () => {
    const key = once()
    const first = await admin.createApiKey({ name: 'shown once' }, key)
    const secret = first.key ?? ''
    expect(secret).toMatch(/^sk_test_/)
    expect(first.idempotent_replay).toBeUndefined()

    const { key: _, ...rest } = first
    expect(await admin.createApiKey({ name: 'shown once' }, key)).toEqual({ ...rest, idempotent_replay: true })
    const bare = secret.slice('sk_test_'.length)
    for (const table of await tablesOf(installation.owner)) {
      expect(await sql(`select from stratum.${table} t where strpos(t::text, $1) > 0 or strpos(t::text, $2) > 0`, [secret, bare]), table).toEqual([])
    }
    // the key that was shown is the one there is
    const owner = installation.client({ apiKey: secret })
    expect((await owner.listTenants({ limit: 1 })).data).toHaveLength(1)
  })
})

describe('the header', () => {
  it('is 1 to 255 visible ASCII characters', async () => {
    const before = await contents(installation.owner)
    for (const key of ['', 'two words', 'tab\there', 'ümlaut', 'x'.repeat(256), 'a, b']) {
      const answer = await post('/tenants', tenant(), { 'idempotency-key': key })
      const issue = { path: 'Idempotency-Key', message: 'must be 1 to 255 visible ASCII characters' }
      expect(expectRefusal(answer, 'INVALID_REQUEST')).toEqual({ reason: `${issue.path}: ${issue.message}`, issues: [issue] })
      expect(errorOf(answer).message).toBe(`The path, query or headers of this request are not valid: ${issue.path}: ${issue.message}. See details.issues.`)
    }
    expect(await contents(installation.owner)).toEqual(before)
    for (const key of ['x', '"quoted"', `~${'x'.repeat(254)}`, `'; drop table tenants; --`.replaceAll(' ', '')]) {
      const body = tenant()
      const [first, again] = [await post('/tenants', body, { 'idempotency-key': key }), await post('/tenants', body, { 'idempotency-key': key })]
      expect([first.status, again.body]).toEqual([201, first.body])
    }
  })

  it('together with If-Match is refused', async () => {
    const { root } = await plantTree(admin, { root: null })
    const { version } = await admin.dryRun.suspendTenant({ id: root.id })
    expectRefusal(await post(`/tenants/${root.id}/suspend`, {}, { 'idempotency-key': 'both', 'if-match': version }), 'INVALID_REQUEST')
    expect((await admin.getTenant({ id: root.id })).status).toBe('active')
  })

  it('is judged after who asks', async () => {
    const headers = { 'idempotency-key': 'two words' }
    expectRefusal(await ask(installation.fetch, '/api/v1/tenants', { method: 'POST', json: tenant(), headers }), 'AUTHENTICATION_REQUIRED')
    const unknown = `sk_test_${'A'.repeat(43)}`
    expectRefusal(await ask(installation.fetch, '/api/v1/tenants', { method: 'POST', apiKey: unknown, json: tenant(), headers }), 'API_KEY_INVALID')
  })

  it('means nothing to reads and to what is no POST, which can be sent again as they are', async () => {
    const { root } = await plantTree(admin, { root: null })
    const key = once()
    await admin.setConfig({ id: root.id, key: 'k', value: 1 }, key)
    expect(await admin.setConfig({ id: root.id, key: 'k', value: 2 }, key)).toMatchObject({ value: 2 })
    expect((await admin.updateTenant({ id: root.id, name: 'One' }, key)).name).toBe('One')
    expect((await admin.updateTenant({ id: root.id, name: 'Two' }, key)).name).toBe('Two')
    expect((await admin.getTenant({ id: root.id }, key)).name).toBe('Two')
    await admin.deleteConfig({ id: root.id, key: 'k' }, key)
    await refusal(admin.deleteConfig({ id: root.id, key: 'k' }, key), 'CONFIG_NOT_FOUND')
    const answer = await ask(installation.fetch, `/api/v1/tenants/${root.id}`, { apiKey, headers: { 'idempotency-key': 'two words' } })
    expect(answer.status).toBe(200)
    expect(await keptOf(key.idempotencyKey)).toEqual([])
  })

  it('means nothing to a POST that only reads: it is answered as things are now, and nothing of it is stored', async () => {
    const { north, south, alpha } = await plantTree(admin, { root: null, north: 'root', south: 'root', alpha: 'north' })
    const reader = await installation.clientFor(north.id, ['read'])
    const resolve = (key = once()) => reader.resolve({ path: `/t/${alpha.slug}` }, key)
    const key = once()
    expect((await resolve(key)).tenant.name).toBe('alpha')
    await admin.updateTenant({ id: alpha.id, name: 'Renamed' })
    expect((await resolve(key)).tenant.name).toBe('Renamed')
    await admin.suspendTenant({ id: alpha.id })
    await refusal(resolve(key), 'TENANT_SUSPENDED')
    await admin.resumeTenant({ id: alpha.id })
    await admin.moveTenant({ id: alpha.id, new_parent_id: south.id })
    await refusal(resolve(key), 'TENANT_NOT_FOUND')
    expect((await reader.resolve({ path: `/t/${north.slug}` }, key)).tenant_id).toBe(north.id)
    expect(await keptOf(key.idempotencyKey)).toEqual([])
  })

  it('stands for no answer of a read in the database either, as a Worker of the previous release asks there', async () => {
    const { root } = await plantTree(admin, { root: null })
    const actor = { credential: { type: 'embedded', actor_type: 'test', actor_id: 'reader' }, named: [], exposed: false }
    const named = [{ source: 'path', tenant: root.slug }]
    const read = (key: string) =>
      sql('select stratum.run_once($1, $2) as context', [
        JSON.stringify(actor),
        JSON.stringify({ operation: 'resolve', input: { named }, key, input_hash: 'the same' }),
      ])
    const key = randomUUID()
    expect(await read(key)).toMatchObject([{ context: { tenant: { status: 'active' } } }])
    await admin.suspendTenant({ id: root.id })
    await expect(read(key)).rejects.toThrow('TENANT_SUSPENDED')
    expect(await keptOf(key)).toEqual([])
  })

  it('is remembered under the name of its operation, which is a POST', async () => {
    const posts = endpointList.filter(({ method }) => method === 'POST').map(({ id }) => sqlName(id))
    const rows = await sql('select distinct operation from stratum.idempotency_keys')
    expect(rows.length).toBeGreaterThan(5)
    for (const { operation } of rows) expect(posts).toContain(operation)
  })
})
