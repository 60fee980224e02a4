import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { StratumClient } from '../../src/sdk/client.ts'
import { Stratum } from '../../src/stratum.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { plantTree, refusal } from '../support/tree.ts'

let installation: Installation
let admin: StratumClient
beforeAll(async () => {
  installation = await createInstallation()
  admin = await installation.clientFor(null)
})
afterAll(() => installation.close())

const line = { root: null, mid: 'root', leaf: 'mid' } as const
const SECRET = { host: 'db.internal', password: 'pässword' }
const masked = { value: null, sensitive: true }

const revealed = async (id: string, client = admin) => (await client.resolveConfig({ id, reveal: true })).config
const sql = async (text: string, values: unknown[] = []) => (await installation.owner.query<Record<string, unknown>>(text, values)).rows
const audited = (id: string) =>
  sql(`select payload::jsonb ->> 'action' as action, payload::jsonb as payload from stratum.audit_entries where tenant_id = $1 order by seq`, [id])

describe('a secret', () => {
  it('shows as one everywhere, and its value nowhere', async () => {
    const { root, mid, leaf } = await plantTree(admin, line)
    const set = await admin.setConfig({ id: root.id, key: 'dsn', value: SECRET, sensitive: true })
    const entry = { key: 'dsn', source_tenant_id: root.id, locked: false, ...masked }

    expect(set).toEqual({ ...entry, inherited: false })
    expect((await admin.resolveConfig({ id: leaf.id })).config['dsn']).toEqual({ ...entry, inherited: true })
    expect((await admin.resolveConfig({ id: leaf.id, reveal: false })).config['dsn']).toEqual({ ...entry, inherited: true })
    const { levels, ...inherited } = (await admin.getConfigInheritance({ id: leaf.id })).config['dsn'] ?? { levels: [] }
    expect([inherited, levels]).toEqual([
      { ...entry, inherited: true },
      [{ tenant_id: root.id, depth: 0, effective: true, reason: 'nearest', locked: false, ...masked }],
    ])
    expect((await admin.getTenantContext({ id: leaf.id })).config['dsn']).toEqual({ ...entry, inherited: true })
    expect((await (await installation.clientFor(mid.id)).getContext()).config['dsn']).toEqual({ ...entry, inherited: true })
    expect((await admin.resolve({ host: `${leaf.subdomain}.stratum.test` })).config['dsn']).toEqual({ ...entry, inherited: true })
    expect(await admin.deleteConfig({ id: root.id, key: 'dsn' })).toEqual({ key: 'dsn', locked: false, ...masked })
  })

  it('is revealed to who holds secrets:read, which admin contains, inherited ones too', async () => {
    const { root, mid, leaf } = await plantTree(admin, line)
    await admin.setConfig({ id: root.id, key: 'dsn', value: SECRET, sensitive: true })
    await admin.setConfig({ id: mid.id, key: 'open', value: 'to all' })

    for (const scopes of [['admin'], ['read', 'secrets:read'], ['write', 'secrets:read']] as const) {
      const config = await revealed(leaf.id, await installation.clientFor(leaf.id, [...scopes]))
      expect(config['dsn']).toEqual({ key: 'dsn', value: SECRET, sensitive: true, locked: false, inherited: true, source_tenant_id: root.id })
      expect(config['open']).toMatchObject({ value: 'to all', sensitive: false })
    }
    for (const scope of ['read', 'write'] as const) {
      const error = await refusal(revealed(leaf.id, await installation.clientFor(leaf.id, [scope])), 'SCOPE_REQUIRED')
      expect(error.details).toMatchObject({ scope: 'secrets:read' })
    }
    expect((await refusal(revealed(leaf.id, await installation.clientFor(leaf.id, ['secrets:read'])), 'SCOPE_REQUIRED')).details).toMatchObject({
      scope: 'read',
    })
    const token = await installation.token({ tenant: leaf.slug, scope: 'read secrets:read' })
    expect((await revealed(leaf.id, installation.client({ token })))['dsn']?.value).toEqual(SECRET)
  })

  it('that is revealed stands in the audit trail, what was not does not', async () => {
    const { root, leaf } = await plantTree(admin, line)
    await admin.setConfig({ id: root.id, key: 'dsn', value: SECRET, sensitive: true })
    const key = await installation.stratum.createApiKey(leaf.id, { scopes: ['read', 'secrets:read'] })
    const before = await audited(leaf.id)
    const reader = installation.client({ apiKey: key.key, headers: { 'x-request-id': 'reveal-1', 'cf-connecting-ip': '203.0.113.7' } })

    await reader.resolveConfig({ id: leaf.id })
    expect(await audited(leaf.id)).toEqual(before)
    await revealed(leaf.id, reader)
    const [entry, ...more] = (await audited(leaf.id)).slice(before.length)
    expect(more).toEqual([])
    expect(entry?.['payload']).toMatchObject({
      action: 'config.revealed',
      resource: { type: 'tenant', id: leaf.id },
      after: { secrets: [{ key: 'dsn', source_tenant_id: root.id }] },
      actor: { type: 'api_key', id: key.id, tenant_id: leaf.id },
      request_id: 'reveal-1',
      source_ip: '203.0.113.7',
    })
    // where there is nothing secret, there is nothing to write down
    const { root: bare } = await plantTree(admin, line)
    await admin.setConfig({ id: bare.id, key: 'open', value: 1 })
    await revealed(bare.id)
    expect((await audited(bare.id)).map(({ action }) => action)).toEqual(['tenant.created', 'config.set'])
  })

  it('can be overwritten, opened to all, made secret again and deleted', async () => {
    const { root, leaf } = await plantTree(admin, line)
    const set = (value: string, sensitive: boolean) => admin.setConfig({ id: root.id, key: 'k', value, sensitive })

    await set('one', true)
    await set('two', true)
    expect((await revealed(leaf.id))['k']).toMatchObject({ value: 'two', sensitive: true })
    await set('three', false)
    expect((await admin.resolveConfig({ id: leaf.id })).config['k']).toMatchObject({ value: 'three', sensitive: false })
    await set('four', true)
    expect((await admin.resolveConfig({ id: leaf.id })).config['k']).toMatchObject(masked)
    await admin.setConfig({ id: leaf.id, key: 'k', value: 'nearer', sensitive: true })
    expect((await revealed(leaf.id))['k']).toMatchObject({ value: 'nearer', source_tenant_id: leaf.id })
    await admin.deleteConfig({ id: leaf.id, key: 'k' })
    expect((await revealed(leaf.id))['k']).toMatchObject({ value: 'four', source_tenant_id: root.id })
    await admin.deleteConfig({ id: root.id, key: 'k' })
    expect(await revealed(leaf.id)).toEqual({})
    expect(await sql('select key from stratum.config_entries where tenant_id = any ($1)', [[root.id, leaf.id]])).toEqual([])
  })

  it('is encrypted anew each time, under a data key of its tenant', async () => {
    const { root, mid } = await plantTree(admin, line)
    for (const { id } of [root, mid]) for (const key of ['a', 'b']) await admin.setConfig({ id, key, value: SECRET, sensitive: true })

    const rows = await sql('select tenant_id, data_key_id, ciphertext, value from stratum.config_entries where tenant_id = any ($1)', [[root.id, mid.id]])
    expect(new Set(rows.map(({ ciphertext }) => ciphertext)).size).toBe(4)
    expect(new Set(rows.map(({ tenant_id, data_key_id }) => `${tenant_id} ${data_key_id}`)).size).toBe(2)
    expect(rows.every(({ value }) => value === null)).toBe(true)
  })

  it('refused for a lock leaves nothing behind, and the next one is readable', async () => {
    const { root, mid } = await plantTree(admin, line)
    await admin.setConfig({ id: root.id, key: 'k', value: 1, locked: true })

    await refusal(admin.setConfig({ id: mid.id, key: 'k', value: 'x', sensitive: true }), 'CONFIG_LOCKED')
    expect(await sql('select id from stratum.data_keys where tenant_id = $1', [mid.id])).toEqual([])
    await admin.setConfig({ id: mid.id, key: 'other', value: 'y', sensitive: true })
    expect((await revealed(mid.id))['other']?.value).toBe('y')
  })
})

describe('an unreadable secret', () => {
  const entries = 'stratum.config_entries'
  const cases: Array<[name: string, tamper: (root: string, mid: string) => Promise<unknown>]> = [
    ['whose ciphertext was changed', (root) => sql(`update ${entries} set ciphertext = reverse(ciphertext) where tenant_id = $1 and key = 'bad'`, [root])],
    ['whose ciphertext is not one', (root) => sql(`update ${entries} set ciphertext = '' where tenant_id = $1 and key = 'bad'`, [root])],
    ['whose ciphertext is of bad encoding', (root) => sql(`update ${entries} set ciphertext = '***' where tenant_id = $1 and key = 'bad'`, [root])],
    [
      'whose ciphertext is that of another key',
      (root) =>
        sql(
          `update ${entries} e set ciphertext = o.ciphertext from ${entries} o where e.tenant_id = $1 and o.tenant_id = $1 and e.key = 'bad' and o.key = 'good'`,
          [root],
        ),
    ],
    [
      'that is a copy of another tenant, data key included',
      async (root, mid) => {
        await sql('insert into stratum.data_keys select $1, id, master_key_id, wrapped, created_at from stratum.data_keys where tenant_id = $2', [root, mid])
        await sql(
          `update ${entries} e set ciphertext = o.ciphertext, data_key_id = o.data_key_id from ${entries} o where e.tenant_id = $1 and o.tenant_id = $2 and e.key = 'bad' and o.key = 'bad'`,
          [root, mid],
        )
      },
    ],
    ['whose data key was changed', (root) => reseal(root, 'wrapped = reverse(wrapped)')],
    ['whose master key is gone', (root) => reseal(root, `master_key_id = 'gone'`)],
  ]
  /** Give the bad entry a data key of its own that is broken so. */
  const reseal = async (root: string, change: string) => {
    const id = randomUUID()
    await sql(`insert into stratum.data_keys select tenant_id, $2, master_key_id, wrapped from stratum.data_keys where tenant_id = $1`, [root, id])
    await sql(`update ${entries} set data_key_id = $2 where tenant_id = $1 and key = 'bad'`, [root, id])
    await sql(`update stratum.data_keys set ${change} where tenant_id = $1 and id = $2`, [root, id])
  }

  it.each(cases)('%s says so for itself and does not fail the rest', async (_, tamper) => {
    const { root, mid, leaf } = await plantTree(admin, line)
    for (const key of ['good', 'bad']) await admin.setConfig({ id: root.id, key, value: SECRET, sensitive: true })
    await admin.setConfig({ id: root.id, key: 'open', value: 1 })
    await admin.setConfig({ id: mid.id, key: 'bad', value: 'of mid', sensitive: true })
    await tamper(root.id, mid.id)
    await admin.deleteConfig({ id: mid.id, key: 'bad' })

    const config = await revealed(leaf.id)
    const entry = { source_tenant_id: root.id, inherited: true, locked: false, sensitive: true }
    expect(config['bad']).toEqual({ ...entry, key: 'bad', value: null, error: 'SECRET_UNREADABLE' })
    expect(config['good']).toEqual({ ...entry, key: 'good', value: SECRET })
    expect(config['open']).toMatchObject({ value: 1 })
    expect((await installation.stratum.resolveConfig(leaf.id))['bad']).toEqual(config['bad'])
    expect((await admin.resolveConfig({ id: leaf.id })).config['bad']).toEqual({ ...entry, key: 'bad', value: null })
    // writing it again mends it
    await admin.setConfig({ id: root.id, key: 'bad', value: 'mended', sensitive: true })
    expect((await revealed(leaf.id))['bad']).toEqual({ ...entry, key: 'bad', value: 'mended' })
  })
})

describe('the embedded class', () => {
  it('decrypts unless told not to, and the audit trail shows it', async () => {
    const { root, leaf } = await plantTree(admin, line)
    const actor = { actor_id: 'job-7', actor_type: 'worker', request_id: 'r-1', source_ip: '198.51.100.1' }
    await installation.stratum.setConfig(root.id, 'dsn', { value: SECRET, sensitive: true })

    expect((await installation.stratum.resolveConfig(leaf.id, {}, actor))['dsn']).toMatchObject({ value: SECRET, sensitive: true })
    expect((await audited(leaf.id)).at(-1)?.['payload']).toMatchObject({ action: 'config.revealed', actor: { type: 'worker', id: 'job-7' }, request_id: 'r-1' })
    const before = await audited(leaf.id)
    expect((await installation.stratum.resolveConfig(leaf.id, { reveal: false }))['dsn']).toMatchObject(masked)
    expect(await audited(leaf.id)).toEqual(before)
  })

  it('without a master key starts and works, until the first operation that needs one', async () => {
    const { root } = await plantTree(admin, line)
    const keyless = new Stratum({ databaseUrl: installation.urls.control, neonEndpoint: installation.neonEndpoint })

    await keyless.initialize()
    await keyless.setConfig(root.id, 'open', { value: 1 })
    expect((await keyless.resolveConfig(root.id))['open']?.value).toBe(1)
    await refusal(keyless.setConfig(root.id, 'dsn', { value: SECRET, sensitive: true }), 'MASTER_KEY_MISSING')
    expect(Object.keys(await keyless.resolveConfig(root.id))).toEqual(['open'])
    await installation.stratum.setConfig(root.id, 'dsn', { value: SECRET, sensitive: true })
    await refusal(keyless.resolveConfig(root.id), 'MASTER_KEY_MISSING')
    expect((await keyless.resolveConfig(root.id, { reveal: false }))['dsn']).toMatchObject(masked)
    await keyless.deleteConfig(root.id, 'dsn')
  })
})
