/** Nothing secret is stored or logged in clear: markers are planted, used in every way, and searched for everywhere. */
import { afterAll, beforeAll, expect, it } from 'vitest'
import { createInstallation, type Installation } from '../support/installation.ts'
import { plantTree, refusal } from '../support/tree.ts'

let installation: Installation
beforeAll(async () => {
  installation = await createInstallation()
})
afterAll(() => installation.close())

const MARKER = 'planted-marker-5f1c'

/** Every column of every table of the schema that holds the text, as `table.column`. */
async function columnsHolding(text: string): Promise<string[]> {
  const columns = await installation.owner.query<{ table_name: string; column_name: string }>(
    `select c.table_name, c.column_name from information_schema.columns c join information_schema.tables t using (table_schema, table_name)
     where c.table_schema = 'stratum' and t.table_type = 'BASE TABLE'`,
  )
  expect(columns.rows.length).toBeGreaterThan(50)
  const found: string[] = []
  for (const { table_name, column_name } of columns.rows) {
    const { rows } = await installation.owner.query(`select from stratum.${table_name} where position($1 in "${column_name}"::text) > 0 limit 1`, [text])
    if (rows.length > 0) found.push(`${table_name}.${column_name}`)
  }
  return found
}

it('a secret value is in no column and in no line of the log', async () => {
  const admin = await installation.clientFor(null)
  const { root, leaf } = await plantTree(admin, { root: null, leaf: 'root' })
  const value = { nested: [`${MARKER}-value`] }
  const reveal = async () => (await admin.resolveConfig({ id: leaf.id, reveal: true })).config

  await admin.setConfig({ id: root.id, key: 'dsn', value, sensitive: true })
  expect((await reveal())['dsn']?.value).toEqual(value)
  await admin.setConfig({ id: root.id, key: 'dsn', value: `${MARKER}-overwritten`, sensitive: true, locked: true })
  await refusal(admin.setConfig({ id: leaf.id, key: 'dsn', value: `${MARKER}-locked out`, sensitive: true }), 'CONFIG_LOCKED')
  await refusal(admin.setConfig({ id: leaf.id, key: 'dsn', value: `${MARKER}-\u0000`, sensitive: true }), 'VALIDATION_FAILED')
  await admin.suspendTenant({ id: leaf.id })
  await refusal(admin.setConfig({ id: leaf.id, key: 'other', value: MARKER, sensitive: true }), 'TENANT_INVALID_STATE')
  await admin.moveTenant({ id: leaf.id, new_parent_id: null })
  await admin.setConfig({ id: root.id, key: 'gone', value: MARKER, sensitive: true })
  await admin.deleteConfig({ id: root.id, key: 'gone' })
  await installation.owner.query(`update stratum.config_entries set ciphertext = reverse(ciphertext) where key = 'dsn'`)
  expect((await admin.resolveConfig({ id: root.id, reveal: true })).config['dsn']?.error).toBe('SECRET_UNREADABLE')

  expect(await columnsHolding(MARKER)).toEqual([])
  expect(JSON.stringify(installation.log)).not.toContain(MARKER)
  expect(installation.log.length).toBeGreaterThan(10)
})

it('an API key and a token are in no column and in no line of the log', async () => {
  const admin = await installation.clientFor(null)
  const { root } = await plantTree(admin, { root: null })
  const { key = '' } = await admin.createApiKey({ tenant_id: root.id, name: 'k', scopes: ['admin'] })
  expect(key).toMatch(/^sk_test_.{43}$/)
  const token = await installation.token({ tenant: root.slug, scope: 'admin' })

  for (const client of [installation.client({ apiKey: key }), installation.client({ token })]) {
    expect((await client.getContext()).tenant_id).toBe(root.id)
    await client.setConfig({ id: root.id, key: 'k', value: 1 })
  }
  await refusal(installation.client({ apiKey: `${key}x` }).getContext(), 'API_KEY_INVALID')
  await refusal(installation.client({ token: `${token}x` }).getContext(), 'TOKEN_INVALID')

  for (const secret of [key, key.slice(-20), token, token.split('.')[2] ?? '']) {
    expect(await columnsHolding(secret)).toEqual([])
    expect(JSON.stringify(installation.log)).not.toContain(secret)
  }
})

it('the search finds what is stored in clear', async () => {
  const admin = await installation.clientFor(null)
  const { root } = await plantTree(admin, { root: null })
  await admin.setConfig({ id: root.id, key: 'open', value: 'open-marker' })

  expect(await columnsHolding('open-marker')).toEqual(expect.arrayContaining(['audit_entries.payload', 'config_entries.value', 'outbox.payload']))
})
