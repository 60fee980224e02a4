import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { StratumClient } from '../../src/sdk/client.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { plantLine, plantTree, refusal } from '../support/tree.ts'

let installation: Installation
let admin: StratumClient
beforeAll(async () => {
  installation = await createInstallation()
  admin = await installation.clientFor(null)
})
afterAll(() => installation.close())

const line = { root: null, mid: 'root', leaf: 'mid' } as const
const resolved = async (id: string, key = 'k') => (await admin.resolveConfig({ id })).config[key]

describe('resolution', () => {
  it('answers the nearest setter, and says where it came from', async () => {
    const { root, mid, leaf } = await plantTree(admin, line)
    await admin.setConfig({ id: root.id, key: 'k', value: 'root' })
    const fromRoot = { key: 'k', value: 'root', source_tenant_id: root.id, inherited: true, locked: false, sensitive: false }

    expect(await resolved(root.id)).toEqual({ ...fromRoot, inherited: false })
    expect(await resolved(leaf.id)).toEqual(fromRoot)
    expect(await admin.setConfig({ id: mid.id, key: 'k', value: 'mid' })).toEqual({ ...fromRoot, value: 'mid', source_tenant_id: mid.id, inherited: false })
    expect(await resolved(root.id)).toMatchObject({ value: 'root' })
    expect(await resolved(leaf.id)).toMatchObject({ value: 'mid', source_tenant_id: mid.id })
    await admin.setConfig({ id: leaf.id, key: 'k', value: 'leaf' })
    expect(await resolved(leaf.id)).toMatchObject({ value: 'leaf', inherited: false })
    await admin.deleteConfig({ id: leaf.id, key: 'k' })
    expect(await resolved(leaf.id)).toMatchObject({ value: 'mid', inherited: true })
  })

  it('keeps siblings, neighbours and other keys apart', async () => {
    const { root, one, two, other } = await plantTree(admin, { root: null, one: 'root', two: 'root', other: null })
    await admin.setConfig({ id: one.id, key: 'k', value: 1 })
    await admin.setConfig({ id: one.id, key: 'K', value: 2 })

    for (const { id } of [root, two, other]) expect((await admin.resolveConfig({ id })).config).toEqual({})
    expect((await admin.resolveConfig({ id: one.id })).config).toMatchObject({ k: { value: 1 }, K: { value: 2 } })
  })

  it('lets a null count as a value', async () => {
    const { root, leaf } = await plantTree(admin, line)
    await admin.setConfig({ id: root.id, key: 'k', value: 1 })
    await admin.setConfig({ id: leaf.id, key: 'k', value: null })

    expect(await resolved(leaf.id)).toMatchObject({ value: null, source_tenant_id: leaf.id })
  })

  it('is a fold from the root: topmost lock first, else the nearest setter, whatever is set, locked and deleted', async () => {
    const tenants = await plantLine(admin, 5)
    const level = fc.nat({ max: tenants.length - 1 })
    const step = fc.record({ level, locked: fc.boolean(), remove: fc.boolean(), value: fc.nat({ max: 99 }) })
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 8 }), async (steps) => {
        const entries: Array<{ value: number; locked: boolean } | undefined> = tenants.map(() => undefined)
        for (const { level: at, locked, remove, value } of steps) {
          const id = tenants[at]?.id ?? ''
          const isLocked = entries.slice(0, at).some((entry) => entry?.locked)
          if (remove && entries[at]) {
            await admin.deleteConfig({ id, key: 'folded' })
            entries[at] = undefined
          } else if (isLocked) {
            await refusal(admin.setConfig({ id, key: 'folded', value, locked }), 'CONFIG_LOCKED')
          } else {
            await admin.setConfig({ id, key: 'folded', value, locked })
            entries[at] = { value, locked }
          }
        }
        for (const [at, { id }] of tenants.entries()) {
          const above = entries.slice(0, at + 1)
          const lock = above.findIndex((entry) => entry?.locked)
          const source = lock >= 0 ? lock : above.findLastIndex((entry) => entry !== undefined)
          const found = await resolved(id, 'folded')
          if (source < 0) expect(found).toBeUndefined()
          else expect(found).toMatchObject({ ...entries[source], source_tenant_id: tenants[source]?.id, inherited: source !== at })
        }
        for (const [at, { id }] of tenants.entries()) if (entries[at]) await admin.deleteConfig({ id, key: 'folded' })
      }),
      { numRuns: 8 },
    )
  })
})

describe('a lock', () => {
  it('shadows what is below, which returns as it was when the lock goes', async () => {
    const { root, mid, leaf } = await plantTree(admin, line)
    await admin.setConfig({ id: mid.id, key: 'k', value: 'mid', locked: true })
    const refused = await refusal(admin.setConfig({ id: leaf.id, key: 'k', value: 'leaf' }), 'CONFIG_LOCKED')
    expect(refused.details).toMatchObject({ key: 'k', source_tenant_id: mid.id, source_depth: 1 })

    await admin.setConfig({ id: root.id, key: 'k', value: 'root', locked: true })
    expect(await resolved(leaf.id)).toMatchObject({ value: 'root', locked: true, inherited: true })
    expect(await resolved(mid.id)).toMatchObject({ value: 'root', source_tenant_id: root.id })
    expect((await refusal(admin.setConfig({ id: leaf.id, key: 'k', value: 'leaf' }), 'CONFIG_LOCKED')).details).toMatchObject({ source_tenant_id: root.id })
    await admin.setConfig({ id: root.id, key: 'k', value: 'root' })
    expect(await resolved(root.id)).toMatchObject({ value: 'root', locked: false })
    expect(await resolved(leaf.id)).toMatchObject({ value: 'mid', locked: true, source_tenant_id: mid.id })
    await admin.setConfig({ id: mid.id, key: 'k', value: 'unlocked' })
    await admin.setConfig({ id: leaf.id, key: 'k', value: 'leaf' })
    expect(await resolved(leaf.id)).toMatchObject({ value: 'leaf', locked: false })
  })

  it('leaves the tenant that set it free to change it, and other keys free below', async () => {
    const { root, leaf } = await plantTree(admin, line)
    await admin.setConfig({ id: root.id, key: 'k', value: 1, locked: true })

    expect(await admin.setConfig({ id: root.id, key: 'k', value: 2, locked: true })).toMatchObject({ value: 2, locked: true })
    expect((await admin.setConfig({ id: leaf.id, key: 'k2', value: 3 })).value).toBe(3)
    expect(await resolved(leaf.id)).toMatchObject({ value: 2 })
  })

  it('above the reach of a caller is named by id and depth only', async () => {
    const { root, mid, leaf } = await plantTree(admin, line)
    await admin.setConfig({ id: root.id, key: 'k', value: 'x', locked: true })
    const bound = await installation.clientFor(mid.id, ['write'])

    const { details, message } = await refusal(bound.setConfig({ id: leaf.id, key: 'k', value: 1 }), 'CONFIG_LOCKED')
    expect({ ...details, request_id: undefined }).toEqual({ key: 'k', source_tenant_id: root.id, source_depth: 0, request_id: undefined })
    expect(message).not.toContain(root.slug)
  })

  it('lets a tenant delete its own shadowed entry', async () => {
    const { root, leaf } = await plantTree(admin, line)
    await admin.setConfig({ id: leaf.id, key: 'k', value: 'leaf' })
    await admin.setConfig({ id: root.id, key: 'k', value: 'root', locked: true })

    expect(await admin.deleteConfig({ id: leaf.id, key: 'k' })).toEqual({ key: 'k', value: 'leaf', locked: false, sensitive: false })
    await admin.deleteConfig({ id: root.id, key: 'k' })
    expect(await resolved(leaf.id)).toBeUndefined()
  })
})

describe('deleting', () => {
  it('an entry the tenant does not set itself is not found, inherited or not', async () => {
    const { root, leaf } = await plantTree(admin, line)
    await admin.setConfig({ id: root.id, key: 'k', value: 1 })

    for (const key of ['k', 'nothing']) expect((await refusal(admin.deleteConfig({ id: leaf.id, key }), 'CONFIG_NOT_FOUND')).details).toMatchObject({ key })
    await admin.deleteConfig({ id: root.id, key: 'k' })
    await refusal(admin.deleteConfig({ id: root.id, key: 'k' }), 'CONFIG_NOT_FOUND')
  })
})

describe('the inheritance view', () => {
  it('shows every level that sets a key, root first, and which one won', async () => {
    const { root, mid, leaf } = await plantTree(admin, line)
    await admin.setConfig({ id: leaf.id, key: 'k', value: 'leaf' })
    await admin.setConfig({ id: mid.id, key: 'k', value: 'mid', locked: true })
    await admin.setConfig({ id: root.id, key: 'k', value: 'root' })
    await admin.setConfig({ id: root.id, key: 'other', value: 1, sensitive: true })

    const level = { locked: false, sensitive: false, effective: false }
    const { config } = await admin.getConfigInheritance({ id: leaf.id })
    expect(config).toEqual({
      k: {
        ...{ key: 'k', value: 'mid', source_tenant_id: mid.id, inherited: true, locked: true, sensitive: false },
        levels: [
          { ...level, tenant_id: root.id, depth: 0, value: 'root', reason: 'overridden' },
          { ...level, tenant_id: mid.id, depth: 1, value: 'mid', locked: true, effective: true, reason: 'topmost_lock' },
          { ...level, tenant_id: leaf.id, depth: 2, value: 'leaf', reason: 'shadowed' },
        ],
      },
      other: {
        ...{ key: 'other', value: null, source_tenant_id: root.id, inherited: true, locked: false, sensitive: true },
        levels: [{ tenant_id: root.id, depth: 0, value: null, locked: false, sensitive: true, effective: true, reason: 'nearest' }],
      },
    })
    expect(await installation.stratum.getConfigWithInheritance(leaf.id)).toEqual(config)
  })

  it('masks what lies above the reach of a caller and did not win', async () => {
    const { top, root, mid, leaf } = await plantTree(admin, { top: null, root: 'top', mid: 'root', leaf: 'mid' })
    for (const tenant of [top, root, mid, leaf]) await admin.setConfig({ id: tenant.id, key: 'nearest', value: `secret of ${tenant.name}` })
    await admin.setConfig({ id: mid.id, key: 'locked', value: 'of mid' })
    await admin.setConfig({ id: root.id, key: 'locked', value: 'of root', locked: true })
    await admin.setConfig({ id: top.id, key: 'locked', value: 'of top' })
    const bound = await installation.clientFor(mid.id, ['read'])

    const { nearest, locked } = (await bound.getConfigInheritance({ id: leaf.id })).config
    const shown = { locked: false, sensitive: false, effective: false }
    expect(nearest?.levels).toEqual([
      { tenant_id: top.id, depth: 0, effective: false, reason: 'overridden' },
      { tenant_id: root.id, depth: 1, effective: false, reason: 'overridden' },
      { ...shown, tenant_id: mid.id, depth: 2, value: 'secret of mid', reason: 'overridden' },
      { ...shown, tenant_id: leaf.id, depth: 3, value: 'secret of leaf', effective: true, reason: 'nearest' },
    ])
    expect(locked?.levels).toEqual([
      { tenant_id: top.id, depth: 0, effective: false, reason: 'overridden' },
      { tenant_id: root.id, depth: 1, effective: true, value: 'of root', locked: true, sensitive: false, reason: 'topmost_lock' },
      { ...shown, tenant_id: mid.id, depth: 2, value: 'of mid', reason: 'shadowed' },
    ])
  })
})
