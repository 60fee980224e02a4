/** Finding tenants: by text, depth and status, page by page; and counting them. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Tenant } from '../../src/features/tenants/contract.ts'
import type { StratumClient } from '../../src/sdk/client.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { idsOf, plantLine, plantTree, refusal, uniqueSlug, walk } from '../support/tree.ts'

let installation: Installation
let admin: StratumClient
/** All that the searches are for lies below it. */
let org: Tenant
beforeAll(async () => {
  installation = await createInstallation()
  admin = await installation.clientFor(null)
  org = await admin.createTenant({ slug: 'org', name: 'Org' })
})
afterAll(() => installation.close())

const add = (name: string, slug = uniqueSlug('t'), parent_id = org.id) => admin.createTenant({ slug, name, parent_id })
const namesOf = (tenants: readonly Tenant[]) => tenants.map(({ name }) => name)

describe('search', () => {
  /** The names found below the organization; both lists must find the same, whatever the page. */
  async function found(q: string): Promise<string[]> {
    const names = namesOf((await admin.getDescendants({ id: org.id, q, limit: 100 })).data)
    expect(namesOf((await admin.listTenants({ q, limit: 100 })).data)).toEqual(names)
    expect(namesOf(await walk((page) => admin.getDescendants({ id: org.id, q, limit: 1, ...page })))).toEqual(names)
    expect(namesOf(await walk((page) => admin.listTenants({ q, limit: 2, ...page })))).toEqual(names)
    return names
  }
  beforeAll(async () => {
    const tree: Array<[name: string, slug?: string]> = [
      ['Blue Whale'],
      ['100% Wool'],
      ['100 Woods'],
      ['Back\\slash'],
      ['snake_case'],
      ['snakeXcase'],
      ['École Zürich'],
      ['Ελληνικά'],
      ['日本語の会社'],
      ['Rocket 🚀 Inc'],
      ['By slug', 'whaling_station'],
      [`O'Neill "quoted" *.+?[a-z]$`],
    ]
    for (const [name, slug] of tree) await add(name, slug)
  })

  it.each([
    ['the middle of a name', 'ue Wha', ['Blue Whale']],
    ['another case', 'BLUE wHALE', ['Blue Whale']],
    ['name or slug', 'whal', ['Blue Whale', 'By slug']],
    ['a slug in capitals', 'WHALING_', ['By slug']],
    ['a per cent sign, literally', '100%', ['100% Wool']],
    ['a per cent sign in the middle, literally', '1%l', []],
    ['an underscore, literally', 'snake_c', ['snake_case']],
    ['a backslash, literally', 'k\\s', ['Back\\slash']],
    ['a backslash before a wildcard, literally', '\\%', []],
    ['letters with accents, whatever their case', 'éCOLE zÜ', ['École Zürich']],
    ['Greek, whatever its case', 'ΕΛΛΗΝ', ['Ελληνικά']],
    ['Japanese', '本語', ['日本語の会社']],
    ['an emoji', '🚀', ['Rocket 🚀 Inc']],
    ['signs of regular expressions and quotes, literally', `'Neill "quoted" *.+?[a-z]$`, [`O'Neill "quoted" *.+?[a-z]$`]],
    ['what matches nothing', 'no such tenant', []],
    ['text that is longer than any name', 'x'.repeat(255), []],
  ])('finds %s', async (_, q, names) => {
    expect((await found(q)).toSorted()).toEqual(names.toSorted())
  })

  it('leaves archived tenants out unless asked, and combines with status', async () => {
    const [live, paused, gone] = [await add('combined live'), await add('combined paused'), await add('combined gone')]
    await admin.suspendTenant({ id: paused.id })
    await admin.archiveTenant({ id: gone.id })
    const search = async (more: object) => idsOf((await admin.listTenants({ q: 'combined', ...more })).data).sort()
    expect(await search({})).toEqual(idsOf([live, paused]).sort())
    expect(await search({ include_archived: true })).toEqual(idsOf([live, paused, gone]).sort())
    expect(await search({ status: 'suspended' })).toEqual([paused.id])
    expect(await search({ status: 'archived' })).toEqual([gone.id])
    expect(await search({ root: true })).toEqual([])
    expect(idsOf((await admin.listTenants({ q: 'org', root: true })).data)).toEqual([org.id])
  })

  it('finds within reach only', async () => {
    const { outside } = await plantTree(admin, { outside: null })
    const [mine, theirs] = [await add('reach marker'), await add('reach marker', uniqueSlug('t'), outside.id)]
    const bound = await installation.clientFor(org.id, ['read'])
    expect(idsOf((await bound.listTenants({ q: 'reach marker' })).data)).toEqual([mine.id])
    expect(idsOf((await admin.listTenants({ q: 'reach marker' })).data).sort()).toEqual([mine.id, theirs.id].sort())
    await refusal(bound.getDescendants({ id: outside.id, q: 'reach' }), 'TENANT_NOT_FOUND')
  })

  it('refuses a text that is empty, too long or not to be stored', async () => {
    for (const q of ['', 'x'.repeat(256), '\u0000']) await refusal(admin.listTenants({ q }), 'INVALID_REQUEST')
  })

  it('goes on only with the search that gave the cursor', async () => {
    const { data, next_cursor } = await admin.listTenants({ q: 'snake', limit: 1 })
    expect(next_cursor).not.toBeNull()
    const cursor = String(next_cursor)
    const rest = (await admin.listTenants({ q: 'snake', limit: 1, cursor })).data
    expect(namesOf([...data, ...rest]).sort()).toEqual(['snakeXcase', 'snake_case'])
    for (const q of ['snak', undefined]) await refusal(admin.listTenants({ ...(q ? { q } : {}), limit: 1, cursor }), 'INVALID_CURSOR')
  })
})

describe('max_depth', () => {
  const below = async (id: string, filter: object = {}) => idsOf(await walk((page) => admin.getDescendants({ id, limit: 2, ...filter, ...page })))

  it('shows so many levels below the tenant, wherever that stands', async () => {
    const line = await plantLine(admin, 6, org.id)
    const [first, second] = line as [Tenant, Tenant]
    for (const max_depth of [1, 2, 3, 4, 5, 20]) {
      expect(await below(first.id, { max_depth })).toEqual(idsOf(line.slice(1, 1 + max_depth)))
      expect(await below(second.id, { max_depth })).toEqual(idsOf(line.slice(2, 2 + max_depth)))
    }
    expect(await below(first.id)).toEqual(idsOf(line.slice(1)))
  })

  it('leaves out what is deeper, each parent before its children, and combines with status and text', async () => {
    const t = await plantTree(admin, { top: null, a: 'top', a1: 'a', a2: 'a1', b: 'top', b1: 'b', c: 'top' })
    await admin.suspendTenant({ id: t.b.id, cascade: true })
    await admin.archiveTenant({ id: t.c.id })
    const shown = async (filter: object) => {
      const ids = await below(t.top.id, filter)
      for (const [parent, child] of [
        [t.a, t.a1],
        [t.a1, t.a2],
        [t.b, t.b1],
      ] as const) {
        if (ids.includes(child.id) && ids.includes(parent.id)) expect(ids.indexOf(parent.id)).toBeLessThan(ids.indexOf(child.id))
      }
      return ids.sort()
    }
    expect(await shown({ max_depth: 1 })).toEqual(idsOf([t.a, t.b]).sort())
    expect(await shown({ max_depth: 1, include_archived: true })).toEqual(idsOf([t.a, t.b, t.c]).sort())
    expect(await shown({ max_depth: 2 })).toEqual(idsOf([t.a, t.a1, t.b, t.b1]).sort())
    expect(await shown({ max_depth: 2, status: 'suspended' })).toEqual(idsOf([t.b, t.b1]).sort())
    expect(await shown({ max_depth: 2, status: 'active', q: 'A' })).toEqual(idsOf([t.a, t.a1]).sort())
    expect(await shown({ max_depth: 1, q: 'b1' })).toEqual([])
  })

  it.each([0, 21, 1.5, -1, 'all'])('of %s is refused', async (max_depth) => {
    await refusal(admin.getDescendants({ id: org.id, max_depth: max_depth as number }), 'INVALID_REQUEST')
  })
})

describe('counts', () => {
  const zero = { active: 0, suspended: 0, archived: 0 }

  it('are of what lies below, by status, the tenant itself left out', async () => {
    const t = await plantTree(admin, { top: null, a: 'top', a1: 'a', a2: 'a', b: 'top', c: 'top', side: null })
    expect(await admin.getTenantCounts({ id: t.top.id })).toEqual({ children: 3, descendants: 5, by_status: { ...zero, active: 5 } })
    expect(await admin.getTenantCounts({ id: t.a1.id })).toEqual({ children: 0, descendants: 0, by_status: zero })

    await admin.suspendTenant({ id: t.a.id, cascade: true })
    await admin.archiveTenant({ id: t.c.id })
    expect(await admin.getTenantCounts({ id: t.top.id })).toEqual({ children: 3, descendants: 5, by_status: { active: 1, suspended: 3, archived: 1 } })
    expect(await admin.getTenantCounts({ id: t.a.id })).toEqual({ children: 2, descendants: 2, by_status: { ...zero, suspended: 2 } })

    await admin.moveTenant({ id: t.a.id, new_parent_id: t.side.id })
    expect(await admin.getTenantCounts({ id: t.top.id })).toEqual({ children: 2, descendants: 2, by_status: { active: 1, suspended: 0, archived: 1 } })
    expect(await admin.getTenantCounts({ id: t.side.id })).toMatchObject({ children: 1, descendants: 3 })
  })

  it('need reach of the tenant, and no more than reading', async () => {
    const t = await plantTree(admin, { top: null, mine: 'top', leaf: 'mine' })
    const reader = await installation.clientFor(t.mine.id, ['read'])
    expect(await reader.getTenantCounts({ id: t.mine.id })).toMatchObject({ children: 1, descendants: 1 })
    await refusal(reader.getTenantCounts({ id: t.top.id }), 'TENANT_NOT_FOUND')
  })
})
