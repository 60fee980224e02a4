/** Typed config keys: what a definition asks of a value, and where its default stands. */
import { afterAll, afterEach, beforeAll, describe, expect, expectTypeOf, it } from 'vitest'
import * as z from 'zod'
import type { CallOf } from '../../src/core/endpoint.ts'
import { compileSchema } from '../../src/features/config/definitions.ts'
import type { endpoints } from '../../src/features/endpoints.ts'
import { defineConfig } from '../../src/index.ts'
import type { StratumClient } from '../../src/sdk/client.ts'
import { CONFIG_EXAMPLES, type Example } from '../support/config-examples.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { contents } from '../support/record.ts'
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

describe('defineConfig', () => {
  const config = defineConfig({
    max_users: z.number().int().min(1).default(10).describe('Seats'),
    smtp_password: z.string().meta({ sensitive: true }),
    theme: z.object({ color: z.enum(['red', 'blue']), tags: z.array(z.string()).default([]) }),
  })

  it('makes definitions of zod types, with default, description and sensitivity beside the schema', () => {
    expect(config.definitions).toEqual([
      { key: 'max_users', schema: { type: 'integer', minimum: 1, maximum: Number.MAX_SAFE_INTEGER }, default: 10, description: 'Seats', sensitive: false },
      { key: 'smtp_password', schema: { type: 'string' }, default: null, description: '', sensitive: true },
      { key: 'theme', schema: expect.objectContaining({ type: 'object', required: ['color'] }), default: null, description: '', sensitive: false },
    ])
  })

  it('gives typed values of what the SDK and the embedded class resolve, and leaves out what nobody set or is hidden', async () => {
    const { root, leaf } = await plantTree(admin, line)
    await put(config.definitions)
    const before = config.values((await admin.resolveConfig({ id: leaf.id })).config)
    expect(before).toEqual({ max_users: 10, smtp_password: undefined, theme: undefined })

    await admin.setConfig({ id: root.id, key: 'smtp_password', value: 'hush' })
    await admin.setConfig({ id: root.id, key: 'theme', value: { color: 'red' } })
    const hidden = config.values((await admin.resolveConfig({ id: leaf.id })).config)
    const shown = config.values(await installation.stratum.resolveConfig(leaf.id))

    expect(hidden).toEqual({ max_users: 10, smtp_password: undefined, theme: { color: 'red', tags: [] } })
    expect(shown).toEqual({ ...hidden, smtp_password: 'hush' })
    expectTypeOf<typeof shown>().toEqualTypeOf<{
      readonly max_users: number | undefined
      readonly smtp_password: string | undefined
      readonly theme: { color: 'red' | 'blue'; tags: string[] } | undefined
    }>()
    expectTypeOf<typeof hidden>().toEqualTypeOf<typeof shown>()
  })

  it('refuses to type a value that does not fit', async () => {
    const { root } = await plantTree(admin, line)
    await admin.setConfig({ id: root.id, key: 'theme', value: { color: 'green' } })
    const resolved = await installation.stratum.resolveConfig(root.id)
    expect(() => config.values(resolved)).toThrow(expect.objectContaining({ code: 'CONFIG_INVALID', details: expect.objectContaining({ path: 'color' }) }))
  })

  it('finds default, description and sensitivity of a type with an id, and of a part', () => {
    const { definitions } = defineConfig({
      shared: z.number().default(3).meta({ id: 'Shared', description: 'of many' }),
      secret: z.string().meta({ id: 'Secret', sensitive: true }).optional(),
      account: z.object({ user: z.string(), password: z.string().meta({ sensitive: true }) }),
      open: z.object({ sensitive: z.boolean() }),
    })
    expect(definitions.map(({ key, default: value, description, sensitive }) => [key, value, description, sensitive])).toEqual([
      ['shared', 3, 'of many', false],
      ['secret', null, '', true],
      ['account', null, '', true],
      ['open', null, '', false],
    ])
    for (const { key, schema } of definitions) expect(compileSchema(key, schema)([])).not.toBeNull()
  })

  it('whose schema refers to itself without end for some values refuses those values, and says so', () => {
    const judge = compileSchema('key', { properties: { tree: { $ref: '#/properties/tree' } } })
    expect(judge({ other: 1 })).toBeNull()
    expect(judge({ tree: 1 })).toEqual({ path: '', reason: 'its schema refers to itself without end' })
  })

  it.each([
    ['that JSON has none for', z.date(), /date/i],
    ['with a check of its own', z.object({ seats: z.array(z.number().refine((seats) => seats % 2 === 0)) }), 'type of limit cannot be a definition'],
    ['with a pattern whose flags would be lost', z.string().regex(/^abc$/i), 'flags of /^abc$/i'],
    ['with a format that nobody judges', z.jwt(), 'format jwt'],
  ])('refuses a type %s', (_, type, reason) => {
    expect(() => defineConfig({ limit: type })).toThrow(reason)
  })
})

describe('a value', () => {
  it.each(CONFIG_EXAMPLES)('of $name is judged as zod judges it', ({ type, fits, misfits }: Example) => {
    const [definition] = defineConfig({ key: type }).definitions
    const judge = compileSchema('key', JSON.parse(JSON.stringify(definition?.schema)))
    for (const value of fits) expect([value, judge(value)]).toEqual([value, null])
    for (const [value, path] of misfits) expect([value, judge(value)?.path]).toEqual([value, path])
  })

  it('that does not fit is refused with the path of the fault, on every way in, and nothing is written', async () => {
    const { root } = await plantTree(admin, line)
    const { definitions } = defineConfig({ mail: z.object({ hosts: z.array(z.object({ name: z.hostname(), port: z.int() })) }) })
    await put(definitions)
    const before = await contents(installation.owner)
    const bad = {
      hosts: [
        { name: 'a.test', port: 25 },
        { name: 'b.test', port: 'smtp' },
      ],
    }
    const entry = { key: 'mail', value: bad }

    for (const write of [
      () => admin.setConfig({ id: root.id, ...entry }),
      () => admin.setConfig({ id: root.id, ...entry, sensitive: true }),
      () => admin.dryRun.setConfig({ id: root.id, ...entry }),
      () => admin.batchSetConfig({ id: root.id, atomic: true, entries: [entry] }),
      () => installation.stratum.setConfig(root.id, 'mail', { value: bad }),
    ]) {
      const { details, message } = await refusal(write(), 'CONFIG_INVALID')
      expect(details).toMatchObject({ key: 'mail', path: 'hosts.1.port' })
      expect(message).toContain('mail')
    }
    expect(await contents(installation.owner)).toEqual(before)
    expect(await admin.setConfig({ id: root.id, key: 'mail', value: { hosts: [] } })).toMatchObject({ value: { hosts: [] } })
  })

  it('of a key that has no definition is free, unless strict refuses such keys', async () => {
    const { root } = await plantTree(admin, line)
    await put([number('known')])
    await admin.setConfig({ id: root.id, key: 'other', value: 'anything' })
    await put([], { strict: true })

    const { details } = await refusal(admin.setConfig({ id: root.id, key: 'other', value: 1 }), 'CONFIG_INVALID')
    expect(details).toMatchObject({ key: 'other', path: '', reason: 'the key is not defined' })
    expect(await admin.setConfig({ id: root.id, key: 'known', value: 1 })).toMatchObject({ value: 1 })
    // what was there before still holds, and can go
    expect((await admin.resolveConfig({ id: root.id })).config['other']?.value).toBe('anything')
    await admin.deleteConfig({ id: root.id, key: 'other' })
    await put([number('more')])
    await refusal(admin.setConfig({ id: root.id, key: 'other', value: 1 }), 'CONFIG_INVALID')
    await put([], { strict: false })
    await admin.setConfig({ id: root.id, key: 'other', value: 1 })
  })

  it('of a sensitive key is encrypted whoever forgets to say so', async () => {
    const { root } = await plantTree(admin, line)
    await put([{ key: 'token', schema: { type: 'string' }, sensitive: true }])
    for (const write of [
      () => admin.setConfig({ id: root.id, key: 'token', value: 'clear-text' }),
      () => admin.setConfig({ id: root.id, key: 'token', value: 'clear-text', sensitive: false }),
      () => admin.batchSetConfig({ id: root.id, entries: [{ key: 'token', value: 'clear-text' }] }),
      () => installation.stratum.setConfig(root.id, 'token', { value: 'clear-text' }),
    ]) {
      await write()
      const { rows } = await installation.owner.query('select value, ciphertext is not null as sealed from stratum.config_entries where tenant_id = $1', [
        root.id,
      ])
      expect(rows).toEqual([{ value: null, sealed: true }])
    }
    await refusal(admin.setConfig({ id: root.id, key: 'token', value: 7 }), 'CONFIG_INVALID')
    const { rows } = await installation.owner.query(`select from stratum.config_history where value::text like '%clear-text%'`)
    expect(rows).toEqual([])
    expect((await admin.resolveConfig({ id: root.id, reveal: true })).config['token']).toMatchObject({ value: 'clear-text', sensitive: true })
  })
})

describe('a default', () => {
  const standing = { key: 'seats', value: 5, source_tenant_id: null, inherited: true, locked: false, sensitive: false }

  it('holds where nobody sets the key: in resolution, inheritance, explanation, context, and at a past moment', async () => {
    const { root, leaf } = await plantTree(admin, line)
    await put([number('seats', { default: 5 })])

    expect((await admin.resolveConfig({ id: leaf.id })).config['seats']).toEqual(standing)
    expect((await admin.resolveConfig({ id: leaf.id, reveal: true })).config['seats']).toEqual(standing)
    expect((await admin.resolveConfig({ id: leaf.id, at: '9999-01-01T00:00:00Z' })).config['seats']).toEqual(standing)
    expect((await admin.resolveConfig({ id: leaf.id, at: leaf.created_at })).config['seats']).toBeUndefined()
    expect((await admin.getConfigInheritance({ id: leaf.id })).config['seats']).toEqual({ ...standing, levels: [] })
    expect(await admin.explainConfig({ id: leaf.id, key: 'seats' })).toEqual({ key: 'seats', effective: standing, levels: [] })
    expect((await admin.getTenantContext({ id: leaf.id })).config['seats']).toEqual(standing)
    expect((await (await installation.clientFor(leaf.id)).getContext()).config['seats']).toEqual(standing)
    await refusal(admin.deleteConfig({ id: root.id, key: 'seats' }), 'CONFIG_NOT_FOUND')
  })

  it('is no difference and no drift between two that both have it, and gives way to who sets the key', async () => {
    const { root, mid, leaf } = await plantTree(admin, line)
    await put([number('seats', { default: 5 })])
    expect((await admin.diffConfig({ tenant_a: root.id, tenant_b: leaf.id })).data).toEqual([])
    expect((await admin.computeDrift({ id: root.id, child: leaf.id })).data).toEqual([{ key: 'seats', parent: standing, child: standing, status: 'ok' }])

    await admin.setConfig({ id: mid.id, key: 'seats', value: 6 })
    const set = { ...standing, value: 6, source_tenant_id: mid.id }
    expect((await admin.resolveConfig({ id: leaf.id })).config['seats']).toEqual(set)
    expect((await admin.explainConfig({ id: leaf.id, key: 'seats' })).levels).toMatchObject([{ tenant_id: mid.id, effective: true, reason: 'nearest' }])
    expect((await admin.diffConfig({ tenant_a: root.id, tenant_b: leaf.id })).data).toEqual([{ key: 'seats', a: standing, b: set, status: 'different' }])
    expect((await admin.computeDrift({ id: root.id, child: leaf.id })).data).toEqual([{ key: 'seats', parent: standing, child: set, status: 'override' }])

    await admin.deleteConfig({ id: mid.id, key: 'seats' })
    expect((await admin.resolveConfig({ id: leaf.id })).config['seats']).toEqual(standing)
  })

  it('goes with its definition', async () => {
    const { leaf } = await plantTree(admin, line)
    await put([number('seats', { default: 5 })])
    await put([], { remove: ['seats', 'never_defined'] })
    expect((await admin.resolveConfig({ id: leaf.id })).config).toEqual({})
    expect((await admin.listConfigDefinitions()).data).toEqual([])
  })
})
