/** Putting definitions: what they may say, what they must not contradict, and who may put them. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { CallOf } from '../../src/core/endpoint.ts'
import type { Json } from '../../src/core/json.ts'
import type { endpoints } from '../../src/features/endpoints.ts'
import type { StratumClient } from '../../src/sdk/client.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { contents, readChain, SYSTEM_CHAIN } from '../support/record.ts'
import { plantTree, refusal } from '../support/tree.ts'

let installation: Installation
let admin: StratumClient
beforeAll(async () => {
  installation = await createInstallation()
  admin = await installation.clientFor(null)
})
afterEach(async () => {
  const { data } = await admin.listConfigDefinitions()
  await admin.putConfigDefinitions({ definitions: [], remove: data.map(({ key }) => key), strict: false })
})
afterAll(() => installation.close())

type Definition = CallOf<typeof endpoints.putConfigDefinitions>['definitions'][number]

const line = { root: null, mid: 'root', leaf: 'mid' } as const
const put = (definitions: Definition[], options: { remove?: string[]; strict?: boolean } = {}) => admin.putConfigDefinitions({ definitions, ...options })
const number = (key: string, more: Partial<Definition> = {}): Definition => ({ key, schema: { type: 'number' }, ...more })

describe('putting definitions', () => {
  it('makes, replaces and removes them, lists them by key, and writes one audit entry for it', async () => {
    await put([number('b'), number('a', { default: 1, description: 'first' })])
    const entries = (await readChain(installation.owner, SYSTEM_CHAIN)).length
    const { data } = await put([{ key: 'a', schema: { type: 'string' }, default: 'x' }, number('c')], { remove: ['b'] })

    expect(data).toEqual([
      { key: 'a', schema: { type: 'string' }, default: 'x', description: '', sensitive: false },
      { key: 'c', schema: { type: 'number' }, default: null, description: '', sensitive: false },
    ])
    expect((await admin.listConfigDefinitions()).data).toEqual(data)
    expect(await installation.stratum.listConfigDefinitions()).toEqual(data)
    const [entry, ...more] = (await readChain(installation.owner, SYSTEM_CHAIN)).slice(entries)
    expect(more).toEqual([])
    expect(JSON.parse(entry?.payload ?? '')).toMatchObject({ action: 'config_definitions.put', after: data })
  })

  it('is refused where a tenant holds what they contradict, named with its key, and nothing is written', async () => {
    const { mid, leaf } = await plantTree(admin, line)
    await admin.setConfig({ id: mid.id, key: 'limit', value: 'many', locked: true })
    // shadowed, but it would hold when the lock goes
    await admin.setConfig({ id: leaf.id, key: 'burst', value: 2 })
    const before = await contents(installation.owner)

    const { details, message } = await refusal(put([number('fine'), number('limit')]), 'CONFIG_DEFINITION_CONFLICT')
    expect(details).toMatchObject({ key: 'limit', tenant_id: mid.id, path: '' })
    expect(message).toContain(mid.id)
    expect(message).toContain('limit')
    expect((await refusal(put([number('burst', { schema: { type: 'number', minimum: 3 } })]), 'CONFIG_DEFINITION_CONFLICT')).details).toMatchObject({
      key: 'burst',
      tenant_id: leaf.id,
    })
    expect(await contents(installation.owner)).toEqual(before)
    await admin.deleteConfig({ id: mid.id, key: 'limit' })
    await put([number('limit')])
    await admin.deleteConfig({ id: leaf.id, key: 'burst' })
  })

  it('that make a key sensitive is refused while a tenant holds it in clear', async () => {
    const { root } = await plantTree(admin, line)
    await admin.setConfig({ id: root.id, key: 'password', value: 'hush' })
    const sensitive = [{ key: 'password', schema: { type: 'string' }, sensitive: true }]
    const { details } = await refusal(put(sensitive), 'CONFIG_DEFINITION_CONFLICT')
    expect(details).toMatchObject({ key: 'password', tenant_id: root.id })
    expect(JSON.stringify(details)).not.toContain('hush')
    await admin.setConfig({ id: root.id, key: 'password', value: 'hush', sensitive: true })
    await put(sensitive)
  })

  const nested = (schema: Json): Json => ({ type: 'object', properties: { a: { type: 'array', items: schema } } })
  it.each<[string, Json, string?]>([
    ['an unknown type', { type: 'money' }, '.type'],
    ['a reference elsewhere', { $ref: 'https://schemas.test/a.json' }, '.$ref'],
    ['a dangling reference', { $ref: '#/$defs/none' }],
    ['a reference to itself and nothing else', { anyOf: [{ $ref: '#' }] }],
    ['a name of its own, which references would have to know', { $id: 'https://schemas.test/b.json' }, '.$id'],
    ['a broken pattern', { type: 'string', pattern: '(' }, '.pattern'],
    ['properties that are none', { type: 'object', properties: 'all' }, '.properties'],
    ['alternatives that are none', { anyOf: 7 }, '.anyOf'],
    ['a bound that is none', nested({ type: 'number', minimum: '3' }), '.properties.a.items.minimum'],
    ['a keyword of an older draft', { type: 'array', additionalItems: false }, '.additionalItems'],
  ])('is refused for a schema with %s, and the ones before stay', async (_name, schema, place = '') => {
    await put([number('kept')])
    const before = await contents(installation.owner)
    const { details } = await refusal(put([{ key: 'broken', schema: schema as Record<string, Json> }]), 'CONFIG_INVALID')
    expect(details).toMatchObject({ key: 'broken', path: `schema${place}` })
    expect(await contents(installation.owner)).toEqual(before)
  })

  it.each<[string, Json, fits: Json, misfits: Json]>([
    ['a conditional', { if: { type: 'string' }, else: { minimum: 1 } }, 'x', 0],
    ['a negation', { not: { type: 'string' } }, 1, 'x'],
    ['a constraint without a type', { minimum: 3 }, 'x', 2],
    ['a constraint beside a reference', { $defs: { name: { type: 'string' } }, $ref: '#/$defs/name', maxLength: 3 }, 'abc', 'abcd'],
    ['two combinations at once', { anyOf: [{ type: 'string' }, { type: 'null' }], allOf: [{ minLength: 2 }] }, 'ab', 'a'],
    ['something required that is no property', { type: 'object', required: ['a'] }, { a: 1 }, {}],
    ['an object among its values', { enum: [{ a: 1 }] }, { a: 1 }, { a: 2 }],
  ])('enforces %s', async (_name, schema, fits, misfits) => {
    const { root } = await plantTree(admin, line)
    await put([{ key: 'judged', schema: schema as Record<string, Json> }])
    await refusal(admin.setConfig({ id: root.id, key: 'judged', value: misfits }), 'CONFIG_INVALID')
    expect(await admin.setConfig({ id: root.id, key: 'judged', value: fits })).toMatchObject({ value: fits })
    await admin.deleteConfig({ id: root.id, key: 'judged' })
  })

  it('is refused for a default that does not fit, a secret with one, or a key named twice', async () => {
    const before = await contents(installation.owner)
    expect((await refusal(put([number('n', { default: 'x' })]), 'CONFIG_INVALID')).details).toMatchObject({ key: 'n', path: '' })
    await refusal(put([number('n', { default: 1, sensitive: true })]), 'VALIDATION_FAILED')
    await refusal(put([number('n'), number('n', { default: 2 })]), 'VALIDATION_FAILED')
    await refusal(put([number('n')], { remove: ['n'] }), 'VALIDATION_FAILED')
    await refusal(put([number('batch')]), 'VALIDATION_FAILED')
    expect(await contents(installation.owner)).toEqual(before)
  })

  it('and listing them is for global admins alone', async () => {
    const { root } = await plantTree(admin, line)
    for (const client of [await installation.clientFor(root.id), await installation.clientFor(root.id, ['admin'])]) {
      await refusal(client.putConfigDefinitions({ definitions: [] }), 'GLOBAL_ADMIN_REQUIRED')
      await refusal(client.listConfigDefinitions(), 'GLOBAL_ADMIN_REQUIRED')
    }
    const writer = await installation.clientFor(null, ['write'])
    expect((await refusal(writer.putConfigDefinitions({ definitions: [] }), 'SCOPE_REQUIRED')).details).toMatchObject({ scope: 'admin' })
    await refusal(writer.listConfigDefinitions(), 'SCOPE_REQUIRED')
  })
})
