/** Creating up to a hundred tenants at once, all or none of them. */
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Tenant } from '../../src/features/tenants/contract.ts'
import type { StratumClient } from '../../src/sdk/client.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { contents, recordedBy } from '../support/record.ts'
import { idsOf, plantLine, plantTree, refusal, uniqueSlug } from '../support/tree.ts'

let installation: Installation
let admin: StratumClient
beforeAll(async () => {
  installation = await createInstallation()
  admin = await installation.clientFor(null)
})
afterAll(() => installation.close())

type Spec = Parameters<StratumClient['batchCreateTenants']>[0]['tenants'][number]
const spec = (place: Partial<Spec> = {}, slug = uniqueSlug('made')): Spec => ({ slug, name: slug, ...place })
const create = async (...tenants: Spec[]): Promise<Tenant[]> => (await admin.batchCreateTenants({ tenants })).tenants

/** Assert that a batch is refused with this code and leaves nothing behind. */
async function expectNothing(tenants: Spec[], code: Parameters<typeof refusal>[1], client = admin) {
  const before = await contents(installation.owner)
  const error = await refusal(client.batchCreateTenants({ tenants }), code)
  expect(await contents(installation.owner)).toEqual(before)
  return error
}
/** A line of specs, each under the one before by its slug. */
const lineOf = (length: number, place: Partial<Spec> = {}): Spec[] => {
  const slugs = Array.from({ length }, () => uniqueSlug('line'))
  return slugs.map((slug, level) => spec(level === 0 ? place : { parent_slug: slugs[level - 1] ?? '' }, slug))
}

describe('a batch', () => {
  it('answers the tenants in the order asked, whole, as they can be got', async () => {
    const { root } = await plantTree(admin, { root: null })
    const asked = [spec({ parent_id: root.id, metadata: { a: [1] } }), spec(), spec({ parent_id: null }), spec({ parent_id: root.id })]
    const made = await create(...asked)
    expect(made.map(({ slug, name, parent_id, depth }) => ({ slug, name, parent_id, depth }))).toEqual(
      asked.map(({ slug, name, parent_id = null }) => ({ slug, name, parent_id, depth: parent_id === null ? 0 : 1 })),
    )
    expect(made[0]?.metadata).toEqual({ a: [1] })
    for (const tenant of made) expect(await admin.getTenant({ id: tenant.id })).toEqual(tenant)
  })

  it('takes parents by the slug of another entry, wherever that stands', async () => {
    const { root } = await plantTree(admin, { root: null })
    const [a, b, c, x] = [spec({ parent_id: root.id }), spec(), spec(), spec()]
    b.parent_slug = a.slug
    c.parent_slug = b.slug
    x.parent_slug = a.slug
    const orders = [
      [a, b, c, x],
      [c, b, a, x],
      [x, c, b, a],
      [b, x, a, c],
    ]
    for (const order of orders) {
      const renamed = new Map(order.map(({ slug }) => [slug, uniqueSlug('again')]))
      const fresh = order.map(({ parent_slug, ...rest }) => {
        const above = parent_slug === undefined ? undefined : renamed.get(parent_slug)
        return { ...rest, slug: renamed.get(rest.slug) ?? '', ...(above === undefined ? {} : { parent_slug: above }) }
      })
      const made = await create(...fresh)
      const of = ({ slug }: Spec) => made.find((tenant) => tenant.slug === renamed.get(slug))
      expect(of(a)?.ancestor_ids).toEqual([root.id])
      expect(of(b)?.ancestor_ids).toEqual([root.id, of(a)?.id])
      expect(of(c)?.ancestor_ids).toEqual([root.id, of(a)?.id, of(b)?.id])
      expect(of(x)?.parent_id).toBe(of(a)?.id)
    }
  })

  it('holds a hundred, and not one more', async () => {
    const { root } = await plantTree(admin, { root: null })
    const hundred = Array.from({ length: 100 }, () => spec({ parent_id: root.id }))
    expect(idsOf(await create(...hundred)).length).toBe(100)
    expect(await admin.getTenantCounts({ id: root.id })).toMatchObject({ children: 100, descendants: 100 })
    await expectNothing([...hundred.map(({ parent_id }) => spec({ parent_id: parent_id ?? null })), spec()], 'VALIDATION_FAILED')
    await expectNothing([], 'VALIDATION_FAILED')
  })

  it('records each tenant as creating it alone would', async () => {
    const { root } = await plantTree(admin, { root: null })
    const [above, below] = [spec({ parent_id: root.id }), spec()]
    let made: Tenant[] = []
    const recorded = await recordedBy(installation.owner, async () => {
      made = await create({ ...below, parent_slug: above.slug }, above)
    })
    expect(recorded.audit.map(({ chain }) => chain).sort()).toEqual(idsOf(made).sort())
    expect(recorded.outbox.map(({ type }) => type)).toEqual(['tenant.created', 'tenant.created'])
    expect(recorded.feed.toSorted()).toEqual(
      [
        ['host', above.slug],
        ['host', below.slug],
      ].toSorted(),
    )
    expect(recorded.transactions.size).toBe(1)
  })
})

describe('all or nothing', () => {
  const good = () => spec()

  it('a parent slug that the batch does not make, though a tenant has it', async () => {
    const { there } = await plantTree(admin, { there: null })
    for (const parent_slug of [there.slug, uniqueSlug('nowhere')]) {
      const lost = spec({ parent_slug })
      const error = await expectNothing([good(), lost], 'TENANT_PARENT_NOT_IN_BATCH')
      expect(error.details).toMatchObject({ slug: lost.slug, parent_slug })
    }
  })

  it('names the entry whose parent is missing, not those that hang on it', async () => {
    const [lost, below] = [spec({ parent_slug: uniqueSlug('nowhere') }), spec()]
    const error = await expectNothing([{ ...below, parent_slug: lost.slug }, lost, good()], 'TENANT_PARENT_NOT_IN_BATCH')
    expect(error.details).toMatchObject({ slug: lost.slug, parent_slug: lost.parent_slug })
  })

  it('a batch that contradicts itself is told so before scope, reach and state, but only to who is known', async () => {
    const { mine, other } = await plantTree(admin, { mine: null, other: null })
    const specs = [spec({ parent_id: other.id }), spec({ parent_id: other.id }, other.slug), spec({ parent_slug: uniqueSlug('nowhere') })]
    for (const scope of ['read', 'admin'] as const) {
      await expectNothing(specs, 'TENANT_PARENT_NOT_IN_BATCH', await installation.clientFor(mine.id, [scope]))
    }
    await expectNothing(specs, 'API_KEY_INVALID', installation.client({ apiKey: `sk_test_${'A'.repeat(43)}` }))
    const requests = installation.databaseRequests()
    await refusal(admin.batchCreateTenants({ tenants: specs }), 'TENANT_PARENT_NOT_IN_BATCH')
    expect(installation.databaseRequests() - requests).toBe(1)
  })

  it('parents in a circle, be it of one, two or three', async () => {
    for (const size of [1, 2, 3]) {
      const slugs = Array.from({ length: size }, () => uniqueSlug('circle'))
      const circle = slugs.map((slug, at) => spec({ parent_slug: slugs[(at + 1) % size] ?? '' }, slug))
      const hanging = spec({ parent_slug: slugs[0] ?? '' })
      const error = await expectNothing([good(), hanging, ...circle], 'VALIDATION_FAILED')
      // all are named that cannot be made, as each has its parent in the batch
      for (const slug of [hanging.slug, ...slugs]) expect(error.message).toContain(slug)
      expect(error.details).toMatchObject({ issues: [{ path: 'tenants', message: expect.stringContaining('under each other') }] })
      const lost = spec({ parent_slug: uniqueSlug('nowhere') })
      await expectNothing([...circle, lost], 'TENANT_PARENT_NOT_IN_BATCH')
    }
  })

  it('the same slug twice, or one that is taken, were it by a former name', async () => {
    const { taken } = await plantTree(admin, { taken: null })
    const once = good()
    await expectNothing([once, good(), { ...once, name: 'Twice' }], 'VALIDATION_FAILED')
    const error = await expectNothing([good(), spec({}, taken.slug), good()], 'TENANT_SLUG_TAKEN')
    expect(error.details).toMatchObject({ slug: taken.slug })
    await admin.updateTenant({ id: taken.id, slug: uniqueSlug('renamed') })
    await expectNothing([good(), spec({}, taken.slug)], 'TENANT_SLUG_TAKEN')
  })

  it('a level beyond the twentieth, counted across the batch', async () => {
    expect((await create(...lineOf(20))).at(-1)?.depth).toBe(19)
    await expectNothing(lineOf(21).reverse(), 'TENANT_DEPTH_EXCEEDED')
    const deep = (await plantLine(admin, 18)).at(-1)?.id ?? ''
    expect((await create(...lineOf(2, { parent_id: deep }))).at(-1)?.depth).toBe(19)
    await expectNothing(lineOf(3, { parent_id: deep }), 'TENANT_DEPTH_EXCEEDED')
  })

  it('a parent that is not active, or does not exist', async () => {
    const { root, off } = await plantTree(admin, { root: null, off: 'root' })
    await admin.suspendTenant({ id: off.id })
    await expectNothing([good(), spec({ parent_id: off.id })], 'TENANT_INVALID_STATE')
    await admin.archiveTenant({ id: off.id })
    await expectNothing([spec({ parent_id: root.id }), spec({ parent_id: off.id })], 'TENANT_INVALID_STATE')
    await expectNothing([good(), spec({ parent_id: randomUUID() })], 'TENANT_NOT_FOUND')
  })

  it('an entry that is no tenant', async () => {
    const { root } = await plantTree(admin, { root: null })
    const entries: object[] = [
      spec({}, 'Not A Slug'),
      { slug: uniqueSlug() },
      spec({ parent_id: root.id, parent_slug: root.slug }),
      { ...spec(), sort_order: 3 },
      spec({ parent_id: 'root' }),
      spec({ metadata: { text: '\u0000' } }),
    ]
    for (const entry of entries) await expectNothing([good(), entry as Spec], 'VALIDATION_FAILED')
  })
})

describe('reach', () => {
  it('of the parent of every entry is needed, and a global admin for a root', async () => {
    const { org, mine, other } = await plantTree(admin, { org: null, mine: 'org', other: 'org' })
    const bound = await installation.clientFor(mine.id)
    const own = spec({ parent_id: mine.id })
    for (const { id } of [org, other]) await expectNothing([own, spec({ parent_id: id })], 'TENANT_NOT_FOUND', bound)
    await expectNothing([own, spec()], 'GLOBAL_ADMIN_REQUIRED', bound)
    await expectNothing([own, spec()], 'GLOBAL_ADMIN_REQUIRED', await installation.clientFor(null, ['write']))
    await expectNothing([own], 'SCOPE_REQUIRED', await installation.clientFor(mine.id, ['read']))

    const { tenants } = await bound.batchCreateTenants({ tenants: [spec({ parent_slug: own.slug }), own] })
    expect(tenants.map(({ ancestor_ids }) => ancestor_ids.length)).toEqual([3, 2])
  })

  it('is not widened by naming a tenant outside as parent_slug', async () => {
    const { mine, other } = await plantTree(admin, { mine: null, other: null })
    const bound = await installation.clientFor(mine.id)
    await expectNothing([spec({ parent_id: mine.id }), spec({ parent_slug: other.slug })], 'TENANT_PARENT_NOT_IN_BATCH', bound)
  })
})

describe('at once', () => {
  it('batches that want the same slugs in opposite order: one wins, the other is told so, neither waits in vain', async () => {
    const { root } = await plantTree(admin, { root: null })
    for (let round = 0; round < 8; round++) {
      const specs = Array.from({ length: 60 }, () => spec({ parent_id: root.id }))
      const requests = installation.databaseRequests()
      const outcomes = await Promise.allSettled([create(...specs), create(...specs.toReversed())])
      expect(outcomes.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
      expect(outcomes.find(({ status }) => status === 'rejected')).toMatchObject({ reason: { code: 'TENANT_SLUG_TAKEN' } })
      // a deadlock would have been tried again
      expect(installation.databaseRequests() - requests).toBe(2)
    }
  })

  it('a batch and the suspension of its parent: either may come first, and no active tenant is left under a suspended one', async () => {
    for (let round = 0; round < 8; round++) {
      const { root } = await plantTree(admin, { root: null })
      const [made] = await Promise.allSettled([create(...lineOf(5, { parent_id: root.id })), admin.suspendTenant({ id: root.id, cascade: true })])
      const { by_status } = await admin.getTenantCounts({ id: root.id })
      expect(by_status).toEqual({ active: 0, archived: 0, suspended: made.status === 'fulfilled' ? 5 : 0 })
      if (made.status === 'rejected') expect(made.reason).toMatchObject({ code: 'TENANT_INVALID_STATE' })
    }
  })
})
