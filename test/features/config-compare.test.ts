/** Why something holds, and how what holds for two tenants differs. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { StratumClient } from '../../src/sdk/client.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { plantTree, refusal } from '../support/tree.ts'

let installation: Installation
let admin: StratumClient
beforeAll(async () => {
  installation = await createInstallation()
  admin = await installation.clientFor(null)
})
afterAll(() => installation.close())

const tree = { root: null, mid: 'root', leaf: 'mid', other: 'root', stranger: null } as const
const SECRET = 'hush-hush'

describe('explainConfig', () => {
  it('says which level won and why, and of each other why not', async () => {
    const { root, mid, leaf } = await plantTree(admin, tree)
    const reasons = async (id: string) =>
      (await admin.explainConfig({ id, key: 'k' })).levels.map(({ tenant_id, reason, effective }) => [tenant_id, reason, effective])
    expect(await admin.explainConfig({ id: leaf.id, key: 'k' })).toEqual({ key: 'k', effective: null, levels: [] })

    for (const [value, { id }] of [root, mid, leaf].entries()) await admin.setConfig({ id, key: 'k', value })
    expect(await admin.explainConfig({ id: leaf.id, key: 'k' })).toEqual({
      key: 'k',
      effective: { key: 'k', value: 2, source_tenant_id: leaf.id, inherited: false, locked: false, sensitive: false },
      levels: [
        { tenant_id: root.id, depth: 0, effective: false, reason: 'overridden', value: 0, locked: false, sensitive: false },
        { tenant_id: mid.id, depth: 1, effective: false, reason: 'overridden', value: 1, locked: false, sensitive: false },
        { tenant_id: leaf.id, depth: 2, effective: true, reason: 'nearest', value: 2, locked: false, sensitive: false },
      ],
    })
    await admin.setConfig({ id: mid.id, key: 'k', value: 1, locked: true })
    const underLock = [
      [root.id, 'overridden', false],
      [mid.id, 'topmost_lock', true],
      [leaf.id, 'shadowed', false],
    ]
    expect(await reasons(leaf.id)).toEqual(underLock)
    expect(await reasons(mid.id)).toEqual(underLock.slice(0, 2))
    await admin.setConfig({ id: root.id, key: 'k', value: 0, locked: true })
    expect(await reasons(leaf.id)).toEqual([
      [root.id, 'topmost_lock', true],
      [mid.id, 'shadowed', false],
      [leaf.id, 'shadowed', false],
    ])
    expect(await installation.stratum.explainConfig(leaf.id, 'k')).toEqual(await admin.explainConfig({ id: leaf.id, key: 'k' }))
  })

  it('shows of levels above the reach only id and depth, but for the one that won', async () => {
    const { root, mid, leaf } = await plantTree(admin, tree)
    await admin.setConfig({ id: root.id, key: 'k', value: 'of the root' })
    await admin.setConfig({ id: mid.id, key: 'k', value: 'of the middle' })
    const bound = await installation.clientFor(leaf.id, ['read'])
    const hidden = { tenant_id: root.id, depth: 0, effective: false, reason: 'overridden' }

    const { levels } = await bound.explainConfig({ id: leaf.id, key: 'k' })
    expect(levels).toEqual([hidden, expect.objectContaining({ tenant_id: mid.id, reason: 'nearest', value: 'of the middle' })])
    await admin.setConfig({ id: leaf.id, key: 'k', value: 'own' })
    expect((await bound.explainConfig({ id: leaf.id, key: 'k' })).levels).toEqual([
      hidden,
      { tenant_id: mid.id, depth: 1, effective: false, reason: 'overridden' },
      expect.objectContaining({ tenant_id: leaf.id, value: 'own' }),
    ])
    await refusal(bound.explainConfig({ id: mid.id, key: 'k' }), 'TENANT_NOT_FOUND')
  })

  it('shows a secret nowhere', async () => {
    const { root, leaf } = await plantTree(admin, tree)
    for (const { id } of [root, leaf]) await admin.setConfig({ id, key: 'k', value: SECRET, sensitive: true })
    const explained = await admin.explainConfig({ id: leaf.id, key: 'k' })
    expect(explained.levels).toMatchObject([
      { value: null, sensitive: true },
      { value: null, sensitive: true },
    ])
    expect(JSON.stringify(explained)).not.toContain(SECRET)
  })
})

describe('explainPermission', () => {
  const reasons = async (id: string) =>
    (await admin.explainPermission({ id, key: 'p' })).levels.map(({ tenant_id, reason, effective }) => [tenant_id, reason, effective])

  it('says which policy won and why, and of each other why not', async () => {
    const { root, mid, leaf } = await plantTree(admin, tree)
    expect(await admin.explainPermission({ id: leaf.id, key: 'p' })).toEqual({ key: 'p', effective: null, levels: [] })
    const top = await admin.createPermission({ id: root.id, key: 'p', value: 0, mode: 'DELEGATED' })
    const own = await admin.createPermission({ id: leaf.id, key: 'p', value: 2, mode: 'INHERITED', revocation_mode: 'SOFT' })

    const explained = await admin.explainPermission({ id: leaf.id, key: 'p' })
    expect(explained).toEqual({
      key: 'p',
      effective: (await admin.resolvePermissions({ id: leaf.id })).permissions['p'],
      levels: [
        { tenant_id: root.id, depth: 0, effective: false, reason: 'overridden', policy_id: top.id, value: 0, mode: 'DELEGATED', revocation_mode: 'CASCADE' },
        { tenant_id: leaf.id, depth: 2, effective: true, reason: 'nearest', policy_id: own.id, value: 2, mode: 'INHERITED', revocation_mode: 'SOFT' },
      ],
    })
    expect(await installation.stratum.explainPermission(leaf.id, 'p')).toEqual(explained)

    await admin.createPermission({ id: mid.id, key: 'p', value: 1, mode: 'LOCKED' })
    expect(await reasons(leaf.id)).toEqual([
      [root.id, 'overridden', false],
      [mid.id, 'locked', true],
      [leaf.id, 'shadowed', false],
    ])
    await admin.updatePermission({ id: root.id, policy_id: top.id, mode: 'INHERITED' })
    // below INHERITED a mode counts for nothing, so the nearest wins
    expect(await reasons(leaf.id)).toEqual([
      [root.id, 'overridden', false],
      [mid.id, 'overridden', false],
      [leaf.id, 'nearest', true],
    ])
  })

  it('shows of levels above the reach only id and depth, but for the one that won', async () => {
    const { root, mid, leaf } = await plantTree(admin, tree)
    await admin.createPermission({ id: root.id, key: 'p', value: 'of the root', mode: 'DELEGATED' })
    const winner = await admin.createPermission({ id: mid.id, key: 'p', value: 'of the middle', mode: 'LOCKED' })
    const bound = await installation.clientFor(leaf.id, ['read'])
    expect((await bound.explainPermission({ id: leaf.id, key: 'p' })).levels).toEqual([
      { tenant_id: root.id, depth: 0, effective: false, reason: 'overridden' },
      expect.objectContaining({ tenant_id: mid.id, policy_id: winner.id, reason: 'locked', value: 'of the middle' }),
    ])
    await refusal(bound.explainPermission({ id: mid.id, key: 'p' }), 'TENANT_NOT_FOUND')
  })
})

describe('diffConfig', () => {
  it('lists by key what only one holds and what both hold differently', async () => {
    const { root, mid, other } = await plantTree(admin, tree)
    await admin.setConfig({ id: root.id, key: 'shared', value: 1 })
    const sets: Array<[string, string, unknown]> = [
      [mid.id, 'b_same', [1, { x: 2 }]],
      [other.id, 'b_same', [1, { x: 2 }]],
      [mid.id, 'd_differs', 1],
      [other.id, 'd_differs', '1'],
      [mid.id, 'c_left', null],
      [other.id, 'a_right', false],
    ]
    for (const [id, key, value] of sets) await installation.stratum.setConfig(id, key, { value: value as null })
    const entry = (tenant: { id: string }, key: string, value: unknown) => ({
      key,
      value,
      source_tenant_id: tenant.id,
      inherited: false,
      locked: false,
      sensitive: false,
    })
    const expected = [
      { key: 'a_right', a: null, b: entry(other, 'a_right', false), status: 'only_b' },
      { key: 'c_left', a: entry(mid, 'c_left', null), b: null, status: 'only_a' },
      { key: 'd_differs', a: entry(mid, 'd_differs', 1), b: entry(other, 'd_differs', '1'), status: 'different' },
    ]

    expect(await admin.diffConfig({ tenant_a: mid.id, tenant_b: other.id })).toEqual({ data: expected, next_cursor: null, has_more: false })
    expect(await installation.stratum.diffConfig(mid.id, other.id)).toEqual(expected)
    expect(await installation.stratum.diffConfig(mid.id, mid.id)).toEqual([])
  })

  it('counts a secret as different unless both have it from one source, and shows none', async () => {
    const { root, mid, leaf, other } = await plantTree(admin, tree)
    const set = (id: string, key: string, sensitive = true) => admin.setConfig({ id, key, value: SECRET, sensitive })
    await set(root.id, 'one_source')
    for (const { id } of [mid, other]) await set(id, 'two_sources')
    await set(mid.id, 'half_secret')
    await set(other.id, 'half_secret', false)
    const { data } = await admin.diffConfig({ tenant_a: leaf.id, tenant_b: other.id })
    expect(data.map(({ key, status }) => [key, status])).toEqual([
      ['half_secret', 'different'],
      ['two_sources', 'different'],
    ])
    expect(JSON.stringify(data.map(({ a }) => a))).not.toContain(SECRET)
  })

  it('needs both tenants within reach', async () => {
    const { mid, leaf, other } = await plantTree(admin, tree)
    const bound = await installation.clientFor(mid.id, ['read'])
    expect((await bound.diffConfig({ tenant_a: mid.id, tenant_b: leaf.id })).data).toEqual([])
    await refusal(bound.diffConfig({ tenant_a: mid.id, tenant_b: other.id }), 'TENANT_NOT_FOUND')
    await refusal(bound.diffConfig({ tenant_a: other.id, tenant_b: mid.id }), 'TENANT_NOT_FOUND')
  })
})

describe('computeDrift', () => {
  const statuses = (drift: Array<{ key: string; status: string }>) => Object.fromEntries(drift.map(({ key, status }) => [key, status]))

  it('tells of each key whether the child has it as its parent, overrides it, or tries to', async () => {
    const { root, mid, leaf } = await plantTree(admin, tree)
    for (const key of ['inherited', 'overridden', 'locked_over', 'locked_free']) await admin.setConfig({ id: root.id, key, value: 0 })
    await admin.setConfig({ id: leaf.id, key: 'overridden', value: 1 })
    await admin.setConfig({ id: leaf.id, key: 'locked_over', value: 1 })
    await admin.setConfig({ id: leaf.id, key: 'own', value: 1 })
    await admin.setConfig({ id: mid.id, key: 'on_the_way', value: 1 })
    for (const key of ['locked_over', 'locked_free']) await admin.setConfig({ id: root.id, key, value: 0, locked: true })
    await admin.setConfig({ id: leaf.id, key: 'secret', value: SECRET, sensitive: true })

    const drift = await installation.stratum.computeDrift(root.id, leaf.id)
    expect(statuses(drift)).toEqual({
      inherited: 'ok',
      overridden: 'override',
      locked_over: 'conflict',
      locked_free: 'ok',
      own: 'override',
      on_the_way: 'override',
      secret: 'override',
    })
    expect(drift.map(({ key }) => key)).toEqual(drift.map(({ key }) => key).sort())
    expect(drift.find(({ key }) => key === 'locked_over')).toMatchObject({ parent: { value: 0, locked: true }, child: { value: 0, source_tenant_id: root.id } })
    expect(JSON.stringify(drift)).not.toContain(SECRET)
    expect((await admin.computeDrift({ id: root.id, child: leaf.id })).data).toEqual(drift)

    // a lock on the way shadows the child's own for its parent's parent just so
    await admin.setConfig({ id: leaf.id, key: 'on_the_way', value: 2 })
    await admin.setConfig({ id: mid.id, key: 'on_the_way', value: 1, locked: true })
    expect(statuses(await installation.stratum.computeDrift(root.id, leaf.id))['on_the_way']).toBe('conflict')
    // what the parent itself has shadowed is no drift of the child's
    await admin.setConfig({ id: mid.id, key: 'late', value: 1 })
    await admin.setConfig({ id: root.id, key: 'late', value: 0, locked: true })
    expect(statuses(await installation.stratum.computeDrift(mid.id, leaf.id))['late']).toBe('ok')
  })

  it('compares tenants that are not in one line, too', async () => {
    const { root, mid, leaf, other, stranger } = await plantTree(admin, tree)
    await admin.setConfig({ id: root.id, key: 'shared', value: 0 })
    await admin.setConfig({ id: mid.id, key: 'of_mid', value: 1 })
    await admin.setConfig({ id: other.id, key: 'of_other', value: 1 })
    await admin.setConfig({ id: other.id, key: 'contested', value: 1 })
    await admin.setConfig({ id: root.id, key: 'contested', value: 0, locked: true })
    const towards = async (child: string) => statuses((await admin.computeDrift({ id: leaf.id, child })).data)

    expect(await towards(other.id)).toEqual({ shared: 'ok', of_mid: 'missing', of_other: 'override', contested: 'conflict' })
    expect(await towards(stranger.id)).toEqual({ shared: 'missing', of_mid: 'missing', contested: 'missing' })
    expect(statuses((await admin.computeDrift({ id: stranger.id, child: other.id })).data)).toEqual({
      shared: 'override',
      of_other: 'override',
      contested: 'conflict',
    })
    // upwards nothing is on the way down
    expect(statuses((await admin.computeDrift({ id: mid.id, child: root.id })).data)).toEqual({ shared: 'ok', of_mid: 'missing', contested: 'ok' })
  })

  it('is computed for several children at once by the embedded class', async () => {
    const { root, mid, other } = await plantTree(admin, tree)
    await admin.setConfig({ id: root.id, key: 'k', value: 0 })
    await admin.setConfig({ id: mid.id, key: 'k', value: 1 })
    const drifts = await installation.stratum.batchComputeDrift(root.id, [mid.id, other.id])
    expect(drifts).toEqual({
      [mid.id]: await installation.stratum.computeDrift(root.id, mid.id),
      [other.id]: await installation.stratum.computeDrift(root.id, other.id),
    })
    expect([mid.id, other.id].map((id) => drifts[id]?.[0]?.status)).toEqual(['override', 'ok'])
    expect(await installation.stratum.batchComputeDrift(root.id, [])).toEqual({})
  })

  it('needs both tenants within reach', async () => {
    const { root, mid, leaf, other } = await plantTree(admin, tree)
    const bound = await installation.clientFor(mid.id, ['read'])
    expect((await bound.computeDrift({ id: mid.id, child: leaf.id })).data).toEqual([])
    await refusal(bound.computeDrift({ id: root.id, child: leaf.id }), 'TENANT_NOT_FOUND')
    await refusal(bound.computeDrift({ id: mid.id, child: other.id }), 'TENANT_NOT_FOUND')
  })
})
