/** Putting a tenant at a place among its siblings. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Tenant } from '../../src/features/tenants/contract.ts'
import type { StratumClient } from '../../src/sdk/client.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { recordedBy, verifyChain } from '../support/record.ts'
import { plantTree, refusal, uniqueSlug, walk } from '../support/tree.ts'

let installation: Installation
let admin: StratumClient
beforeAll(async () => {
  installation = await createInstallation()
  admin = await installation.clientFor(null)
})
afterAll(() => installation.close())

/** A parent with children whose names are these letters. */
const plant = async (letters: string) =>
  plantTree(admin, Object.fromEntries([['parent', null], ...[...letters].map((letter) => [letter, 'parent'])]) as Record<string, string | null>)
const add = (parent: Tenant, name: string) => admin.createTenant({ slug: uniqueSlug(name), name, parent_id: parent.id })

/** The children of a tenant as one word, read in pages of two. */
const orderBelow = async ({ id }: Tenant): Promise<string> =>
  (await walk((page) => admin.getChildren({ id, limit: 2, include_archived: true, ...page }))).map(({ name }) => name).join('')

/** The tree of `plant`, with its names as they were asked for. */
async function family(letters: string): Promise<{ parent: Tenant; order: () => Promise<string>; put: (letter: string, position: number) => Promise<Tenant> }> {
  const tree = await plant(letters)
  const parent = tree['parent'] as Tenant
  return {
    parent,
    order: () => orderBelow(parent),
    put: (letter, position) => admin.reorderTenant({ id: tree[letter]?.id ?? '', position }),
  }
}

describe('a tenant put among its siblings', () => {
  it.each([
    ['first', 'c', 0, 'cabd'],
    ['last', 'b', 3, 'acdb'],
    ['forward', 'a', 2, 'bcad'],
    ['backward', 'd', 1, 'adbc'],
    ['where it is', 'b', 1, 'abcd'],
    ['beyond the end', 'a', 2_147_483_647, 'bcda'],
  ])('%s', async (_, letter, position, expected) => {
    const { order, put } = await family('abcd')
    const moved = await put(letter, position)
    expect(await order()).toBe(expected)
    expect(moved).toMatchObject({ name: letter, sort_order: expected.indexOf(letter) })
    expect(await admin.getTenant({ id: moved.id })).toEqual(moved)
  })

  it('again and again keeps every other in its order', async () => {
    const { order, put } = await family('abcde')
    let model = [...'abcde']
    for (const [letter, position] of [
      ['e', 0],
      ['a', 4],
      ['c', 1],
      ['c', 1],
      ['b', 9],
      ['d', 2],
    ] as const) {
      await put(letter, position)
      model = model.filter((each) => each !== letter)
      model.splice(position, 0, letter)
      expect(await order()).toBe(model.join(''))
    }
  })

  it('alone stays alone', async () => {
    const { order, put } = await family('a')
    await put('a', 7)
    expect(await order()).toBe('a')
  })

  it('counts those that are not active, and may be one', async () => {
    const { parent, order, put } = await family('abc')
    const [a, b] = (await admin.getChildren({ id: parent.id })).data as [Tenant, Tenant, Tenant]
    await admin.archiveTenant({ id: b.id })
    await admin.suspendTenant({ id: a.id })
    await put('c', 1)
    expect(await order()).toBe('acb')
    await put('b', 0)
    expect(await order()).toBe('bac')
  })
})

describe('those that come later', () => {
  it('stand after the siblings that were put in order, by age', async () => {
    const { parent, order, put } = await family('abc')
    await put('c', 0)
    for (const name of ['x', 'y']) await add(parent, name)
    expect(await order()).toBe('cabxy')
    await admin.batchCreateTenants({ tenants: ['p', 'q'].map((name) => ({ slug: uniqueSlug(name), name, parent_id: parent.id })) })
    expect(await order()).toBe('cabxypq')
  })

  it('can be put anywhere, the others keeping their order', async () => {
    const { parent, order, put } = await family('abc')
    await put('c', 0)
    const x = await add(parent, 'x')
    await add(parent, 'y')
    await admin.reorderTenant({ id: x.id, position: 1 })
    expect(await order()).toBe('cxaby')
  })

  it('by a move stand last too, wherever they stood before', async () => {
    const [old, home] = [await family('abcz'), await family('klm')]
    await old.put('z', 0)
    await home.put('m', 0)
    const [z] = (await admin.getChildren({ id: old.parent.id })).data as [Tenant]
    await admin.moveTenant({ id: z.id, new_parent_id: home.parent.id })
    expect([await old.order(), await home.order()]).toEqual(['abc', 'mklz'])
  })
})

describe('roots', () => {
  const rootNames = async () =>
    (await installation.owner.query<{ name: string }>('select name from stratum.tenants where parent_id is null order by sort_order, id')).rows

  it('are put in order among all roots, by a global admin', async () => {
    const { one, two } = await plantTree(admin, { one: null, two: null })
    const before = (await rootNames()).map(({ name }) => name)
    const recorded = await recordedBy(installation.owner, () => admin.reorderTenant({ id: two.id, position: 0 }))
    expect((await rootNames()).map(({ name }) => name)).toEqual(['two', ...before.slice(0, -1)])
    // every root holds another place now
    expect(recorded.feed).toEqual([['installation', '']])

    await plantTree(admin, { three: null })
    expect((await rootNames()).at(-1)?.name).toBe('three')
    for (const client of [await installation.clientFor(one.id), await installation.clientFor(null, ['write'])]) {
      expect((await client.reorderTenant({ id: one.id, position: 0 }).catch((error: { status: number }) => error)) as object).toMatchObject({
        code: expect.stringMatching(/^(TENANT_NOT_FOUND|GLOBAL_ADMIN_REQUIRED)$/),
      })
    }
  })
})

describe('who may', () => {
  it('reaches the parent: the tenant itself and its siblings are not enough', async () => {
    const { parent, a, b } = (await plant('ab')) as Record<'parent' | 'a' | 'b', Tenant>
    for (const { id } of [a, b]) await refusal((await installation.clientFor(id)).reorderTenant({ id: b.id, position: 0 }), 'TENANT_NOT_FOUND')
    await refusal((await installation.clientFor(parent.id, ['read'])).reorderTenant({ id: b.id, position: 0 }), 'SCOPE_REQUIRED')
    await (await installation.clientFor(parent.id, ['write'])).reorderTenant({ id: b.id, position: 0 })
    expect(await orderBelow(parent)).toBe('ba')
  })

  it.each([-1, 1.5, 2_147_483_648, '1', null])('is refused the position %j', async (position) => {
    const { a } = (await plant('a')) as Record<'a', Tenant>
    await refusal(admin.reorderTenant({ id: a.id, position: position as number }), 'VALIDATION_FAILED')
  })
})

it('records one change, with the place before and after', async () => {
  const { parent, c } = (await plant('abc')) as Record<'parent' | 'c', Tenant>
  const recorded = await recordedBy(installation.owner, () => admin.reorderTenant({ id: c.id, position: 0 }))
  const change = { resource: { type: 'tenant', id: c.id }, before: { position: 2 }, after: { position: 0 } }
  expect(recorded.audit).toEqual([{ chain: c.id, payload: expect.objectContaining({ action: 'tenant.reordered', ...change }) }])
  expect(recorded.outbox).toMatchObject([{ tenant_id: c.id, type: 'tenant.reordered', payload: change }])
  const { rows } = await installation.owner.query<{ path: string }>('select path::text from stratum.tenants where id = $1', [parent.id])
  expect(recorded.feed).toEqual([['subtree', rows[0]?.path]])
  expect(await verifyChain(installation.owner, c.id)).toBeNull()
})

it('several at once take turns: every sibling ends with a place of its own', async () => {
  for (let round = 0; round < 20; round++) {
    const { parent, a, d } = (await plant('abcd')) as Record<'parent' | 'a' | 'd', Tenant>
    await Promise.all([
      admin.reorderTenant({ id: a.id, position: 3 }),
      admin.reorderTenant({ id: d.id, position: 0 }),
      add(parent, 'n'),
      admin.reorderTenant({ id: a.id, position: 1 }),
    ])
    const order = await orderBelow(parent)
    expect([...order].sort().join('')).toBe('abcdn')
    expect(order.replace(/[adn]/g, '')).toBe('bc')
    expect((await admin.getChildren({ id: parent.id })).data.map(({ sort_order }) => sort_order)).toEqual([0, 1, 2, 3, 4])
  }
})
