import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { StratumClient } from '../../src/sdk/client.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { idsOf, plantLine, plantTree, refusal } from '../support/tree.ts'

let installation: Installation
let admin: StratumClient
beforeAll(async () => {
  installation = await createInstallation()
  admin = await installation.clientFor(null)
})
afterAll(() => installation.close())

const two = { a: null, a1: 'a', a2: 'a1', b: null, b1: 'b' } as const
const place = async (id: string) => {
  const { parent_id, depth, ancestry_path, ancestor_ids } = await admin.getTenant({ id })
  return { parent_id, depth, ancestry_path, ancestor_ids }
}

describe('a move', () => {
  it('takes the whole subtree along: places, lists and ancestors agree afterwards', async () => {
    const { a, a1, a2, b, b1 } = await plantTree(admin, two)
    const moved = await admin.moveTenant({ id: a1.id, new_parent_id: b1.id })

    const path = `/${b.id}/${b1.id}`
    const [depth, ancestor_ids] = [2, [b.id, b1.id]]
    expect(moved).toEqual({ ...a1, parent_id: b1.id, depth, ancestry_path: path, ancestor_ids, updated_at: moved.updated_at })
    expect(await place(a2.id)).toEqual({ parent_id: a1.id, depth: 3, ancestry_path: `${path}/${a1.id}`, ancestor_ids: [b.id, b1.id, a1.id] })
    expect(idsOf((await admin.getAncestors({ id: a2.id })).data)).toEqual([b.id, b1.id, a1.id])
    expect((await admin.getRoot({ id: a2.id })).id).toBe(b.id)
    expect((await admin.getChildren({ id: a.id })).data).toEqual([])
    expect((await admin.getDescendants({ id: a.id })).data).toEqual([])
    expect(idsOf((await admin.getDescendants({ id: b.id })).data)).toEqual([b1.id, a1.id, a2.id])
  })

  it('to the top makes a root, and back again restores every place', async () => {
    const { a, a1, a2 } = await plantTree(admin, two)
    const before = [await place(a1.id), await place(a2.id)]

    expect(await admin.moveTenant({ id: a1.id, new_parent_id: null })).toMatchObject({ parent_id: null, depth: 0, ancestry_path: '/', ancestor_ids: [] })
    expect(await place(a2.id)).toEqual({ parent_id: a1.id, depth: 1, ancestry_path: `/${a1.id}`, ancestor_ids: [a1.id] })
    await admin.moveTenant({ id: a1.id, new_parent_id: a.id })
    expect([await place(a1.id), await place(a2.id)]).toEqual(before)
  })

  it('to where the tenant is changes nothing and records nothing', async () => {
    const { a, a1 } = await plantTree(admin, two)
    const count = async () => (await installation.owner.query('select count(*)::int as n from stratum.audit_entries')).rows[0]?.n
    const recorded = await count()

    expect(await admin.moveTenant({ id: a1.id, new_parent_id: a.id })).toEqual(a1)
    expect(await admin.moveTenant({ id: a.id, new_parent_id: null })).toEqual(a)
    expect(await count()).toBe(recorded)
  })

  it('under itself or its own descendant is a cycle', async () => {
    const { a, a1, a2 } = await plantTree(admin, two)

    for (const new_parent_id of [a1.id, a2.id]) await refusal(admin.moveTenant({ id: a1.id, new_parent_id }), 'TENANT_CYCLE_DETECTED')
    await refusal(admin.moveTenant({ id: a.id, new_parent_id: a2.id }), 'TENANT_CYCLE_DETECTED')
    expect(await admin.getTenant({ id: a2.id })).toEqual(a2)
    // what was a descendant is none any more once it has left
    await admin.moveTenant({ id: a2.id, new_parent_id: null })
    expect(await admin.moveTenant({ id: a1.id, new_parent_id: a2.id })).toMatchObject({ ancestor_ids: [a2.id] })
  })

  it('that would put any of the subtree on level twenty-one is refused, on level twenty not', async () => {
    const tall = await plantLine(admin, 17)
    const short = await plantLine(admin, 4)
    const [top, second] = idsOf(short)
    const [under17, under16] = [tall.at(-1)?.id ?? '', tall.at(-2)?.id ?? '']

    const error = await refusal(admin.moveTenant({ id: top ?? '', new_parent_id: under17 }), 'TENANT_DEPTH_EXCEEDED')
    expect(error.details).toMatchObject({ maximum: 20, levels: 21 })
    expect(await admin.getTenant({ id: top ?? '' })).toEqual(short[0])
    expect((await admin.moveTenant({ id: second ?? '', new_parent_id: under17 })).depth).toBe(17)
    expect((await admin.getTenant({ id: short.at(-1)?.id ?? '' })).depth).toBe(19)
    await admin.moveTenant({ id: second ?? '', new_parent_id: top ?? '' })
    await admin.moveTenant({ id: top ?? '', new_parent_id: under16 })
    expect((await admin.getTenant({ id: short.at(-1)?.id ?? '' })).ancestor_ids).toEqual(idsOf([...tall.slice(0, -1), ...short.slice(0, -1)]))
  })

  it('counts tenants of any status towards the depth', async () => {
    const tall = await plantLine(admin, 19)
    const { a, a1 } = await plantTree(admin, { a: null, a1: 'a' })
    await admin.archiveTenant({ id: a1.id })

    await refusal(admin.moveTenant({ id: a.id, new_parent_id: tall.at(-1)?.id ?? '' }), 'TENANT_DEPTH_EXCEEDED')
  })
})

describe('who may move', () => {
  it('reaches both parents; what is not reached is as if it did not exist', async () => {
    const tree = await plantTree(admin, { root: null, mine: 'root', x: 'mine', y: 'mine', z: 'root', other: null })
    const bound = await installation.clientFor(tree.mine.id)
    const move = (id: string, new_parent_id: string | null) => bound.moveTenant({ id, new_parent_id })

    const unknown = await refusal(move(tree.x.id, randomUUID()), 'TENANT_NOT_FOUND')
    for (const target of [tree.root.id, tree.z.id, tree.other.id])
      expect((await refusal(move(tree.x.id, target), 'TENANT_NOT_FOUND')).message).toBe(unknown.message)
    for (const id of [tree.mine.id, tree.root.id, tree.z.id, randomUUID()]) await refusal(move(id, tree.y.id), 'TENANT_NOT_FOUND')
    await refusal(move(tree.x.id, null), 'GLOBAL_ADMIN_REQUIRED')
    expect((await move(tree.x.id, tree.y.id)).parent_id).toBe(tree.y.id)
    expect((await move(tree.x.id, tree.mine.id)).parent_id).toBe(tree.mine.id)
  })

  it('to or from the top is a global admin, not a global writer', async () => {
    const { a, a1, b } = await plantTree(admin, two)
    const writer = await installation.clientFor(null, ['write'])

    await refusal(writer.moveTenant({ id: a1.id, new_parent_id: null }), 'GLOBAL_ADMIN_REQUIRED')
    await refusal(writer.moveTenant({ id: a.id, new_parent_id: b.id }), 'GLOBAL_ADMIN_REQUIRED')
    expect((await writer.moveTenant({ id: a1.id, new_parent_id: b.id })).parent_id).toBe(b.id)
  })

  it('and the reach of a key follows the tenant it is bound to', async () => {
    const { a, a1, a2, b } = await plantTree(admin, two)
    const ofA = await installation.clientFor(a.id, ['read'])
    const ofA1 = await installation.clientFor(a1.id, ['read'])
    await admin.moveTenant({ id: a1.id, new_parent_id: b.id })

    await refusal(ofA.getTenant({ id: a2.id }), 'TENANT_NOT_FOUND')
    expect((await ofA1.getTenant({ id: a2.id })).id).toBe(a2.id)
    expect((await ofA1.getAncestors({ id: a2.id })).data[0]).toEqual({ id: b.id, depth: 0 })
  })
})

describe('config and permissions', () => {
  it('follow the tenant to its new parent, and its own entries stay', async () => {
    const { a, a1, a2, b } = await plantTree(admin, two)
    for (const [{ id }, value] of [[a, 'A'] as const, [b, 'B'] as const]) {
      await admin.setConfig({ id, key: 'color', value })
      await admin.setConfig({ id, key: `only_${value}`, value })
      await admin.createPermission({ id, key: 'export', value })
    }
    await admin.setConfig({ id: a1.id, key: 'own', value: 1 })
    const resolved = async () => [(await admin.resolveConfig({ id: a2.id })).config, (await admin.resolvePermissions({ id: a2.id })).permissions] as const

    await admin.moveTenant({ id: a1.id, new_parent_id: b.id })
    const [config, permissions] = await resolved()
    expect(Object.keys(config).sort()).toEqual(['color', 'only_B', 'own'])
    expect(config['color']).toMatchObject({ value: 'B', source_tenant_id: b.id, inherited: true })
    expect(config['own']).toMatchObject({ value: 1, source_tenant_id: a1.id })
    expect(permissions).toMatchObject({ export: { value: 'B', source_tenant_id: b.id } })
    await admin.moveTenant({ id: a1.id, new_parent_id: null })
    const [alone, none] = await resolved()
    expect(Object.keys(alone)).toEqual(['own'])
    expect(none).toEqual({})
  })

  it('never refuse a move: what a lock above shadows comes back when the tenant leaves', async () => {
    const { a, a1, a2, b } = await plantTree(admin, two)
    await admin.setConfig({ id: a1.id, key: 'color', value: 'mine', locked: true })
    await admin.createPermission({ id: a1.id, key: 'export', value: 'mine', mode: 'LOCKED' })
    await admin.setConfig({ id: b.id, key: 'color', value: 'theirs', locked: true })
    await admin.createPermission({ id: b.id, key: 'export', value: 'theirs', mode: 'LOCKED' })
    const resolved = async () => [
      (await admin.resolveConfig({ id: a2.id })).config['color']?.value,
      (await admin.resolvePermissions({ id: a2.id })).permissions['export']?.value,
    ]

    await admin.moveTenant({ id: a1.id, new_parent_id: b.id })
    expect(await resolved()).toEqual(['theirs', 'theirs'])
    await admin.moveTenant({ id: a1.id, new_parent_id: a.id })
    expect(await resolved()).toEqual(['mine', 'mine'])
  })
})
