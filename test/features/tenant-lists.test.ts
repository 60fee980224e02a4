import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { StratumClient } from '../../src/sdk/client.ts'
import { BASE, createInstallation, type Installation } from '../support/installation.ts'
import { idsOf, plantLine, plantTree, refusal, uniqueSlug, walk } from '../support/tree.ts'

let installation: Installation
let admin: StratumClient
beforeAll(async () => {
  installation = await createInstallation()
  admin = await installation.clientFor(null)
})
afterAll(() => installation.close())

const plantSiblings = async (parent_id: string, count: number) => {
  const siblings = []
  for (let n = 0; n < count; n++) siblings.push(await admin.createTenant({ slug: uniqueSlug('sibling'), name: `${n}`, parent_id }))
  return siblings
}

describe('ancestors and root', () => {
  it('run from the root down, and a root is its own root without ancestors', async () => {
    const { a, b, c, d } = await plantTree(admin, { a: null, b: 'a', c: 'b', d: 'c' })

    expect(await admin.getAncestors({ id: d.id })).toEqual({ data: [a, b, c], next_cursor: null, has_more: false })
    expect(await admin.getRoot({ id: d.id })).toEqual(a)
    expect(await admin.getAncestors({ id: a.id })).toEqual({ data: [], next_cursor: null, has_more: false })
    expect(await admin.getRoot({ id: a.id })).toEqual(a)
  })

  it('show a bound principal of what is above it id and depth, and what is within its reach whole', async () => {
    const { a, b, c, d } = await plantTree(admin, { a: null, b: 'a', c: 'b', d: 'c' })
    const bound = await installation.clientFor(c.id, ['read'])

    const outlines = [
      { id: a.id, depth: 0 },
      { id: b.id, depth: 1 },
    ]
    expect((await bound.getAncestors({ id: d.id })).data).toEqual([...outlines, c])
    expect((await bound.getAncestors({ id: c.id })).data).toEqual(outlines)
    expect(await bound.getRoot({ id: d.id })).toEqual(outlines[0])
    await refusal(bound.getAncestors({ id: b.id }), 'TENANT_NOT_FOUND')
    await refusal(bound.getRoot({ id: a.id }), 'TENANT_NOT_FOUND')
  })

  it('show a global principal on a host of a tenant no more than that tenant would see', async () => {
    const { a, b, c } = await plantTree(admin, { a: null, b: 'a', c: 'b' })
    const onHost = await installation.clientFor(null, ['read'], { baseUrl: BASE.replace('://', `://${b.subdomain}.`) })

    expect((await onHost.getAncestors({ id: c.id })).data).toEqual([{ id: a.id, depth: 0 }, b])
    expect(await onHost.getRoot({ id: c.id })).toEqual({ id: a.id, depth: 0 })
  })
})

describe('children', () => {
  it('come by sort_order, then age, without grandchildren', async () => {
    const { parent } = await plantTree(admin, { parent: null })
    const [first, second, third] = await plantSiblings(parent.id, 3)
    await plantSiblings(first?.id ?? '', 1)
    await installation.owner.query('update stratum.tenants set sort_order = -1 where id = $1', [third?.id])

    expect(idsOf((await admin.getChildren({ id: parent.id })).data)).toEqual([third?.id, first?.id, second?.id])
    expect((await admin.getChildren({ id: second?.id ?? '' })).data).toEqual([])
  })

  it('walked page by page are the whole, whatever the page size', async () => {
    const { parent } = await plantTree(admin, { parent: null })
    const siblings = await plantSiblings(parent.id, 7)
    await installation.owner.query('update stratum.tenants set sort_order = 5 where id = $1', [siblings[0]?.id])
    const whole = (await admin.getChildren({ id: parent.id })).data

    expect(idsOf(whole)).toEqual([...idsOf(siblings.slice(1)), siblings[0]?.id])
    for (const limit of [1, 2, 3, 6, 7, 8, 100]) {
      expect(await walk((page) => admin.getChildren({ id: parent.id, limit, ...page }))).toEqual(whole)
    }
  })

  it('stay stable while others are made between the pages', async () => {
    const { parent } = await plantTree(admin, { parent: null })
    const siblings = await plantSiblings(parent.id, 4)

    const walked = await walk(
      (page) => admin.getChildren({ id: parent.id, limit: 2, ...page }),
      (page) => (page.data.length === 2 ? plantSiblings(parent.id, 1) : Promise.resolve()),
    )
    expect(idsOf(walked).slice(0, 4)).toEqual(idsOf(siblings))
    expect(new Set(idsOf(walked)).size).toBe(walked.length)
  })
})

describe('descendants', () => {
  it('are all below, each parent before its children, the tenant itself and its neighbours left out', async () => {
    const { parent } = await plantTree(admin, { neighbour: null, parent: null, other: null })
    // enough siblings for labels of differing length, whose textual order is not that of their age
    const siblings = await plantSiblings(parent.id, 18)
    const below = [...(await plantLine(admin, 3, siblings[2]?.id ?? '')), ...(await plantLine(admin, 2, siblings[17]?.id ?? ''))]

    const descendants = (await admin.getDescendants({ id: parent.id })).data
    expect(idsOf(descendants).sort()).toEqual(idsOf([...siblings, ...below]).sort())
    const seen = new Set([parent.id])
    for (const { id, parent_id } of descendants) {
      expect(seen.has(parent_id ?? '')).toBe(true)
      seen.add(id)
    }
    for (const limit of [1, 4, 22, 23, 24]) {
      expect(await walk((page) => admin.getDescendants({ id: parent.id, limit, ...page }))).toEqual(descendants)
    }
  })

  it('stay stable while others are made between the pages', async () => {
    const { parent, left, right } = await plantTree(admin, { parent: null, left: 'parent', right: 'parent' })
    const before = idsOf([...(await plantSiblings(left.id, 3)), ...(await plantSiblings(right.id, 3)), left, right])

    let rounds = 0
    const walked = await walk(
      (page) => admin.getDescendants({ id: parent.id, limit: 2, ...page }),
      async () => {
        if (rounds++ < 3) await Promise.all([plantSiblings(left.id, 1), plantSiblings(right.id, 1)])
      },
    )
    expect(new Set(idsOf(walked)).size).toBe(walked.length)
    expect(idsOf(walked)).toEqual(expect.arrayContaining(before))
  })
})

describe('lists', () => {
  it('show a bound principal its own subtree, itself first', async () => {
    const { mine, child } = await plantTree(admin, { above: null, mine: 'above', beside: 'above', child: 'mine' })
    const bound = await installation.clientFor(mine.id, ['read'])

    expect((await bound.listTenants()).data).toEqual([mine, child])
    expect((await bound.listTenants({ root: true })).data).toEqual([])
    const all = await walk((page) => admin.listTenants({ limit: 100, ...page }))
    expect(idsOf(all)).toEqual(expect.arrayContaining([mine.id, child.id]))
    const roots = await walk((page) => admin.listTenants({ limit: 3, root: true, ...page }))
    expect(roots).toEqual(all.filter((tenant) => tenant.parent_id === null))
  })

  it('leave archived tenants out unless asked, and filter by status', async () => {
    const { top, on, off, gone } = await plantTree(admin, { top: null, on: 'top', off: 'top', gone: 'top' })
    await admin.suspendTenant({ id: off.id })
    await admin.archiveTenant({ id: gone.id })
    const bound = await installation.clientFor(top.id, ['read'])
    const below = { id: top.id }

    for (const list of [bound.getChildren, bound.getDescendants]) {
      const listed = async (filter: object) => idsOf((await list({ ...below, ...filter })).data).sort()
      expect(await listed({})).toEqual(idsOf([on, off]).sort())
      expect(await listed({ include_archived: true })).toEqual(idsOf([on, off, gone]).sort())
      expect(await listed({ status: 'active' })).toEqual([on.id])
      expect(await listed({ status: 'suspended' })).toEqual([off.id])
      expect(await listed({ status: 'archived' })).toEqual([gone.id])
    }
    expect(idsOf((await bound.listTenants()).data).sort()).toEqual(idsOf([top, on, off]).sort())
    expect(idsOf((await bound.listTenants({ include_archived: true })).data).sort()).toEqual(idsOf([top, on, off, gone]).sort())
    expect(idsOf((await bound.listTenants({ status: 'archived' })).data)).toEqual([gone.id])
  })

  it('take a limit of 1 to 100 and give 50 unless asked', async () => {
    for (const limit of [0, 101, -1, 1.5, Number.NaN]) await refusal(admin.listTenants({ limit }), 'INVALID_REQUEST')
    const { parent } = await plantTree(admin, { parent: null })
    await installation.owner.query(
      `with made as (select nextval('stratum.tenants_number_seq') as number, t.path as parent_path from generate_series(1, 51), stratum.tenants t where t.id = $1)
       insert into stratum.tenants (id, number, parent_id, path, slug, name)
       select stratum.uuid_v7(), number, $1, parent_path operator(stratum.||) stratum.text2ltree(to_hex(number)), 'many_' || number, 'Many' from made`,
      [parent.id],
    )
    const page = await admin.getChildren({ id: parent.id })
    expect(page.data).toHaveLength(50)
    expect(page.has_more).toBe(true)
    expect(await walk((next) => admin.getChildren({ id: parent.id, ...next }))).toHaveLength(51)
  })

  it('go on from a tenant that was archived meanwhile', async () => {
    for (const list of [admin.getChildren, admin.getDescendants]) {
      const { parent, a, b } = await plantTree(admin, { parent: null, a: 'parent', b: 'parent' })
      const { data, next_cursor } = await list({ id: parent.id, limit: 1 })
      const first = data[0]?.id ?? ''
      await admin.archiveTenant({ id: first })

      expect(idsOf((await list({ id: parent.id, limit: 1, cursor: next_cursor ?? '' })).data)).toEqual([first === a.id ? b.id : a.id])
    }
  })
})

describe('cursors', () => {
  const cursorOf = async (page: Promise<{ next_cursor: string | null }>) => (await page).next_cursor ?? ''

  it('of another list, tenant or filter are refused', async () => {
    const { one, two } = await plantTree(admin, { one: null, one_a: 'one', one_b: 'one', two: null, two_a: 'two', two_b: 'two' })
    const ofChildren = await cursorOf(admin.getChildren({ id: one.id, limit: 1 }))
    const ofDescendants = await cursorOf(admin.getDescendants({ id: one.id, limit: 1 }))
    const ofTenants = await cursorOf(admin.listTenants({ limit: 1 }))

    for (const cursor of [ofDescendants, ofTenants]) await refusal(admin.getChildren({ id: one.id, cursor }), 'INVALID_CURSOR')
    for (const cursor of [ofChildren, ofTenants]) await refusal(admin.getDescendants({ id: one.id, cursor }), 'INVALID_CURSOR')
    for (const cursor of [ofChildren, ofDescendants]) await refusal(admin.listTenants({ cursor }), 'INVALID_CURSOR')
    await refusal(admin.listApiKeys({ cursor: ofTenants }), 'INVALID_CURSOR')
    await refusal(admin.getChildren({ id: two.id, cursor: ofChildren }), 'INVALID_CURSOR')
    await refusal(admin.getDescendants({ id: two.id, cursor: ofDescendants }), 'INVALID_CURSOR')
    await refusal(admin.getChildren({ id: one.id, cursor: ofChildren, status: 'active' }), 'INVALID_CURSOR')
    await refusal(admin.listTenants({ cursor: ofTenants, root: true }), 'INVALID_CURSOR')
    expect((await admin.getChildren({ id: one.id, cursor: ofChildren, limit: 10 })).data).toHaveLength(1)
  })

  it('of a wider reach lead nowhere a narrower one may not see', async () => {
    const { mine, theirs } = await plantTree(admin, { theirs: null, theirs_a: 'theirs', mine: null, mine_a: 'mine' })
    const bound = await installation.clientFor(mine.id, ['read'])
    const foreign = await cursorOf((await installation.clientFor(theirs.id, ['read'])).listTenants({ limit: 1 }))

    await refusal(bound.listTenants({ cursor: foreign }), 'INVALID_CURSOR')
  })

  it('that nobody was given are refused, never an error of ours', async () => {
    const { parent, outside } = await plantTree(admin, { parent: null, child: 'parent', outside: null })
    const encode = (content: unknown) => Buffer.from(JSON.stringify(content)).toString('base64url')
    const filters = { id: parent.id, include_archived: false }
    const positions = [null, [], [parent.id], [0], [1e12, parent.id], [-1e12, parent.id], [0.5, parent.id], [0, 'x'], [0, parent.id, 1], { 0: 0, 1: parent.id }]
    const forged = positions.map((position) => encode(['getChildren', filters, position]))

    for (const cursor of ['', '!', '%00', 'AAAA', encode(null), encode({}), encode([]), encode('x'), '\u{1F600}', ...forged]) {
      await refusal(admin.getChildren({ id: parent.id, cursor }), 'INVALID_CURSOR')
    }
    for (const position of [[crypto.randomUUID()], [outside.id], ['x'], [null], null]) {
      await refusal(admin.getDescendants({ id: parent.id, cursor: encode(['getDescendants', filters, position]) }), 'INVALID_CURSOR')
    }
    await refusal(admin.getChildren({ id: parent.id, cursor: 'x'.repeat(2_049) }), 'INVALID_REQUEST')
  })
})
