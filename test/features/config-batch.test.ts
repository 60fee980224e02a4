/** Several config entries of one tenant in one request: which are written, what is said of the others. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { CallOf } from '../../src/core/endpoint.ts'
import type { endpoints } from '../../src/features/endpoints.ts'
import type { StratumClient } from '../../src/sdk/client.ts'
import { ask, expectRefusal } from '../support/answers.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { contents, recordedBy, verifyChain } from '../support/record.ts'
import { plantTree, refusal } from '../support/tree.ts'

let installation: Installation
let admin: StratumClient
beforeAll(async () => {
  installation = await createInstallation()
  admin = await installation.clientFor(null)
  await admin.putConfigDefinitions({
    definitions: [
      { key: 'seats', schema: { type: 'integer' } },
      { key: 'token', schema: {}, sensitive: true },
    ],
  })
})
afterAll(() => installation.close())

const line = { root: null, mid: 'root', leaf: 'mid' } as const
const entries = (count: number) => Array.from({ length: count }, (_, index) => ({ key: `key_${index}`, value: index }))

describe('a batch', () => {
  it('writes what it can and says of each other why not, in the order it was asked', async () => {
    const { root, mid } = await plantTree(admin, line)
    await admin.setConfig({ id: root.id, key: 'theme', value: 'dark', locked: true })
    const answer = await admin.batchSetConfig({
      id: mid.id,
      entries: [
        { key: 'zone', value: 'eu' },
        { key: 'theme', value: 'light' },
        { key: 'seats', value: 1.5 },
        { key: 'token', value: 'hush' },
        { key: 'own', value: 'hush too', sensitive: true, locked: true },
        { key: 'seats_more', value: null },
      ],
    })
    const own = { source_tenant_id: mid.id, inherited: false, locked: false, sensitive: false }

    expect(answer).toEqual({
      results: [
        { key: 'zone', entry: { ...own, key: 'zone', value: 'eu' } },
        {
          key: 'theme',
          error: { code: 'CONFIG_LOCKED', message: expect.stringContaining('locked'), details: { key: 'theme', source_tenant_id: root.id, source_depth: 0 } },
        },
        {
          key: 'seats',
          error: { code: 'CONFIG_INVALID', message: expect.stringContaining('seats'), details: { key: 'seats', path: '', reason: expect.any(String) } },
        },
        { key: 'token', entry: { ...own, key: 'token', value: null, sensitive: true } },
        { key: 'own', entry: { ...own, key: 'own', value: null, sensitive: true, locked: true } },
        { key: 'seats_more', entry: { ...own, key: 'seats_more', value: null } },
      ],
      succeeded: 4,
      failed: 2,
    })
    const { config } = await admin.resolveConfig({ id: mid.id, reveal: true })
    const values = Object.fromEntries(Object.entries(config).map(([key, { value }]) => [key, value]))
    expect(values).toEqual({ zone: 'eu', theme: 'dark', token: 'hush', own: 'hush too', seats_more: null })
  })

  it('says in its dry run what the real run then refuses, in the order it was asked', async () => {
    const { root, mid } = await plantTree(admin, line)
    await admin.setConfig({ id: root.id, key: 'theme', value: 'dark', locked: true })
    const input = {
      id: mid.id,
      entries: [
        { key: 'seats', value: 1.5 },
        { key: 'zone', value: 'eu' },
        { key: 'theme', value: 'light' },
        { key: 'token', value: 'hush' },
      ],
    }
    const before = await contents(installation.owner)
    const shown = await admin.dryRun.batchSetConfig(input)
    expect(await contents(installation.owner)).toEqual(before)
    expect(shown.changes.map(({ tenant_id, key }) => [tenant_id === mid.id, key])).toEqual([
      [true, 'token'],
      [true, 'zone'],
      [false, 'token'],
      [false, 'zone'],
    ])
    expect(await installation.stratum.dryRun('batchSetConfig', input)).toEqual(shown)

    const { results } = await admin.batchSetConfig(input, { ifMatch: shown.version })
    expect(shown.refused).toEqual(results.filter(({ error }) => error))
    expect(shown.refused?.map(({ key, error }) => [key, error.code])).toEqual([
      ['seats', 'CONFIG_INVALID'],
      ['theme', 'CONFIG_LOCKED'],
    ])
    expect((await admin.dryRun.batchSetConfig({ id: mid.id, entries: [{ key: 'zone', value: 'us' }] })).refused).toEqual([])
    expect(await admin.dryRun.setConfig({ id: mid.id, key: 'zone', value: 'us' })).not.toHaveProperty('refused')
  })

  it('answers alike of the embedded class', async () => {
    const { root } = await plantTree(admin, line)
    const answer = await installation.stratum.batchSetConfig(root.id, [
      { key: 'a', value: 1 },
      { key: 'seats', value: 'x' },
    ])
    expect(answer).toMatchObject({
      results: [
        { key: 'a', entry: { value: 1 } },
        { key: 'seats', error: { code: 'CONFIG_INVALID' } },
      ],
      succeeded: 1,
      failed: 1,
    })
    const atomic = installation.stratum.batchSetConfig(root.id, [{ key: 'seats', value: 'x' }], { atomic: true })
    await refusal(atomic, 'CONFIG_INVALID')
  })

  it('of which nothing fits is still an answer, and writes nothing', async () => {
    const { root } = await plantTree(admin, line)
    const before = await contents(installation.owner)
    const { succeeded, failed } = await admin.batchSetConfig({ id: root.id, entries: [{ key: 'seats', value: 'x' }] })
    expect([succeeded, failed]).toEqual([0, 1])
    expect(await contents(installation.owner)).toEqual(before)
  })

  it('writes for each entry one audit entry, one event and one line of history, in one transaction', async () => {
    const { root, mid } = await plantTree(admin, line)
    await admin.setConfig({ id: root.id, key: 'b', value: 0, locked: true })
    const recorded = await recordedBy(installation.owner, () =>
      admin.batchSetConfig({
        id: mid.id,
        entries: [
          { key: 'a', value: 1 },
          { key: 'b', value: 2 },
          { key: 'c', value: 'hush', sensitive: true },
        ],
      }),
    )
    expect(recorded.audit.map(({ chain, payload }) => [chain, payload['action'], (payload['resource'] as { key: string }).key])).toEqual([
      [mid.id, 'config.set', 'a'],
      [mid.id, 'config.set', 'c'],
    ])
    expect(recorded.outbox.map(({ type }) => type)).toEqual(['config.set', 'config.set'])
    // One subtree has changed, however many keys were set: readers drop everything where they are told of too much. Two
    // transactions would have said so twice.
    expect(recorded.feed).toEqual([['subtree', expect.any(String)]])
    expect(JSON.stringify(recorded.audit)).not.toContain('hush')
    expect(await verifyChain(installation.owner, mid.id)).toBeNull()
    expect((await admin.getConfigHistory({ id: mid.id, key: 'a' })).data).toHaveLength(1)
    expect((await admin.getConfigHistory({ id: mid.id, key: 'b' })).data).toEqual([])
  })

  it('may lock and be locked by none of its own', async () => {
    const { root, leaf } = await plantTree(admin, line)
    await admin.batchSetConfig({ id: root.id, entries: [{ key: 'k', value: 1, locked: true }] })
    await admin.batchSetConfig({ id: root.id, entries: [{ key: 'k', value: 2, locked: true }] })
    expect((await admin.resolveConfig({ id: leaf.id })).config['k']).toMatchObject({ value: 2, locked: true })
  })
})

describe('an atomic batch', () => {
  const bad: Array<[string, CallOf<typeof endpoints.batchSetConfig>['entries'][number], 'CONFIG_LOCKED' | 'CONFIG_INVALID', Record<string, unknown>]> = [
    ['locked above', { key: 'theme', value: 'light' }, 'CONFIG_LOCKED', { key: 'theme', source_depth: 0 }],
    ['that does not fit', { key: 'seats', value: 'x' }, 'CONFIG_INVALID', { key: 'seats', path: '' }],
    ['locked above and secret', { key: 'theme', value: 'hush', sensitive: true }, 'CONFIG_LOCKED', { key: 'theme' }],
  ]
  it.each(bad)('writes nothing anywhere for one entry %s', async (_name, entry, code, details) => {
    const { root, mid } = await plantTree(admin, line)
    await admin.setConfig({ id: root.id, key: 'theme', value: 'dark', locked: true })
    const before = await contents(installation.owner)
    for (const place of [0, 1, 2]) {
      const others: Array<typeof entry> = [
        { key: 'a', value: 1 },
        { key: 'secret', value: 'hush', sensitive: true },
      ]
      const batch = others.toSpliced(place, 0, entry)
      expect((await refusal(admin.batchSetConfig({ id: mid.id, atomic: true, entries: batch }), code)).details).toMatchObject(details)
    }
    expect(await contents(installation.owner)).toEqual(before)
    // and the secrets that come after are readable
    await admin.batchSetConfig({ id: mid.id, atomic: true, entries: [{ key: 'secret', value: 'hush', sensitive: true }] })
    expect((await admin.resolveConfig({ id: mid.id, reveal: true })).config['secret']?.value).toBe('hush')
  })

  it('writes all where nothing is wrong', async () => {
    const { root } = await plantTree(admin, line)
    const answer = await admin.batchSetConfig({ id: root.id, atomic: true, entries: entries(3) })
    expect(answer).toMatchObject({ succeeded: 3, failed: 0 })
    expect(answer.results.map(({ key, entry }) => [key, entry?.value])).toEqual([
      ['key_0', 0],
      ['key_1', 1],
      ['key_2', 2],
    ])
  })
})

describe('a batch as a request', () => {
  it('holds 1 to 200 entries of different keys', async () => {
    const { root } = await plantTree(admin, line)
    const answer = await admin.batchSetConfig({ id: root.id, entries: entries(200) })
    expect(answer.succeeded).toBe(200)
    expect(answer.results.map(({ key }) => key)).toEqual(entries(200).map(({ key }) => key))
    const before = await contents(installation.owner)
    for (const given of [[], entries(201), [...entries(2), ...entries(1)], [{ key: 'batch', value: 1 }], [{ key: '', value: 1 }]]) {
      await refusal(admin.batchSetConfig({ id: root.id, entries: given }), 'VALIDATION_FAILED')
    }
    expect(await contents(installation.owner)).toEqual(before)
  })

  it('has a route of its own: batch is no key', async () => {
    const { root } = await plantTree(admin, line)
    const apiKey = await installation.apiKey(null)
    const path = `/api/v1/tenants/${root.id}/config/batch`
    const put = (json: unknown) => ask(installation.fetch, path, { method: 'PUT', apiKey, json, headers: { 'content-type': 'application/json' } })

    expect((await put({ entries: [{ key: 'k', value: 1 }] })).body).toMatchObject({ succeeded: 1 })
    expectRefusal(await put({ value: 1 }), 'VALIDATION_FAILED')
    expectRefusal(await ask(installation.fetch, path, { method: 'DELETE', apiKey }), 'INVALID_REQUEST')
    await refusal(admin.explainConfig({ id: root.id, key: 'batch' }), 'INVALID_REQUEST')
    expect(Object.keys((await admin.resolveConfig({ id: root.id })).config)).toEqual(['k'])
  })

  it('needs write, reach and an active tenant like any other write', async () => {
    const { root, mid, leaf } = await plantTree(admin, line)
    const batch = (client: StratumClient, id: string) => client.batchSetConfig({ id, entries: [{ key: 'k', value: 1 }] })
    expect((await refusal(batch(await installation.clientFor(root.id, ['read']), mid.id), 'SCOPE_REQUIRED')).details).toMatchObject({ scope: 'write' })
    await refusal(batch(await installation.clientFor(mid.id), root.id), 'TENANT_NOT_FOUND')
    await admin.suspendTenant({ id: leaf.id })
    await refusal(batch(admin, leaf.id), 'TENANT_INVALID_STATE')
    expect((await batch(await installation.clientFor(mid.id, ['write']), mid.id)).succeeded).toBe(1)
  })
})
