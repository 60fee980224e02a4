/** Suspending or archiving a whole subtree as one, and resuming exactly what that changed. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Tenant } from '../../src/features/tenants/contract.ts'
import type { StratumClient } from '../../src/sdk/client.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { type Recorded, recordedBy, verifyChain } from '../support/record.ts'
import { idsOf, plantTree, refusal } from '../support/tree.ts'

let installation: Installation
let admin: StratumClient
beforeAll(async () => {
  installation = await createInstallation()
  admin = await installation.clientFor(null)
})
afterAll(() => installation.close())

const cascade = true
const suspend = ({ id }: Tenant, all = false) => admin.suspendTenant({ id, cascade: all })
const archive = ({ id }: Tenant, all = false) => admin.archiveTenant({ id, cascade: all })
const resume = ({ id }: Tenant) => admin.resumeTenant({ id })
const move = ({ id }: Tenant, to: Tenant) => admin.moveTenant({ id, new_parent_id: to.id })

/** The status of each tenant of a tree by its name. */
async function statuses<Name extends string>(tree: Record<Name, Tenant>): Promise<Record<Name, string>> {
  const now = await Promise.all(Object.entries<Tenant>(tree).map(async ([name, { id }]) => [name, (await admin.getTenant({ id })).status] as const))
  return Object.fromEntries(now) as Record<Name, string>
}

/** top — left (leaf), right, early (under); beside it elsewhere. */
const plant = () =>
  plantTree(admin, { org: null, top: 'org', left: 'top', leaf: 'left', right: 'top', early: 'top', under: 'early', beside: 'org', elsewhere: 'org' })
type Tree = Awaited<ReturnType<typeof plant>>

const around = { org: 'active', beside: 'active', elsewhere: 'active' }
const allActive = { ...around, top: 'active', left: 'active', leaf: 'active', right: 'active', early: 'active', under: 'active' }

const kinds = [
  ['suspend', 'suspended', suspend],
  ['archive', 'archived', archive],
] as const

describe.each(kinds)('to %s a tenant', (_, state, deactivate) => {
  it('with active children is refused unless it cascades', async () => {
    const tree = await plant()
    await refusal(deactivate(tree.top), 'TENANT_HAS_CHILDREN')
    await refusal(deactivate(tree.left, false), 'TENANT_HAS_CHILDREN')
    expect(await statuses(tree)).toEqual(allActive)
  })

  it('with cascade changes it and all that is active below, and nothing beside or above', async () => {
    const tree = await plant()
    const answered = await deactivate(tree.top, cascade)

    expect(answered).toMatchObject({ id: tree.top.id, status: state })
    const down = { top: state, left: state, leaf: state, right: state, early: state, under: state }
    expect(await statuses(tree)).toEqual({ ...around, ...down })
    const { deleted_at } = await admin.getTenant({ id: tree.leaf.id })
    expect(deleted_at === null).toBe(state === 'suspended')
  })

  it('leaves those that were suspended or archived earlier as they are, now and when it is resumed', async () => {
    const tree = await plant()
    await suspend(tree.right)
    await suspend(tree.under)
    await archive(tree.early)
    await deactivate(tree.top, cascade)
    const earlier = { right: 'suspended', under: 'suspended', early: 'archived' }
    expect(await statuses(tree)).toEqual({ ...around, ...earlier, top: state, left: state, leaf: state })

    expect(await resume(tree.top)).toMatchObject({ status: 'active', deleted_at: null })
    expect(await statuses(tree)).toEqual({ ...allActive, ...earlier })
    expect(await admin.getTenant({ id: tree.leaf.id })).toMatchObject({ deleted_at: null })
  })

  it('is one audit entry in the chain of the top with the ids inside, one event and one line of the feed', async () => {
    const tree = await plant()
    await suspend(tree.right)
    const subtree = ['subtree', await pathOf(tree.top)]
    const changed = { count: 5, ids: idsOf([tree.top, tree.left, tree.leaf, tree.early, tree.under]).sort() }
    const resource = { type: 'tenant', id: tree.top.id }

    const down = await recordedBy(installation.owner, () => deactivate(tree.top, cascade))
    const up = await recordedBy(installation.owner, () => resume(tree.top))

    const sides = [
      { recorded: down, action: `tenant.${state}`, before: { status: 'active' }, after: { status: state, changed } },
      { recorded: up, action: 'tenant.resumed', before: { status: state }, after: { status: 'active', changed: { count: 5, ids: expect.any(Array) } } },
    ]
    for (const { recorded, action, before, after } of sides) {
      expect(recorded.audit).toEqual([{ chain: tree.top.id, payload: expect.objectContaining({ action, resource, before, after }) }])
      expect(recorded.outbox).toMatchObject([{ tenant_id: tree.top.id, type: action, payload: { resource, before, after } }])
      expect(recorded.feed).toEqual([subtree])
      expect(recorded.transactions.size).toBe(1)
    }
    expect(idsInside(up).toSorted()).toEqual(changed.ids)
    expect(await verifyChain(installation.owner, tree.top.id)).toBeNull()
  })

  it('blocks the keys of all of them, and lets them back in when it is resumed', async () => {
    const tree = await plant()
    const ofLeaf = await installation.clientFor(tree.leaf.id)
    await deactivate(tree.top, cascade)
    await refusal(ofLeaf.getContext(), state === 'suspended' ? 'TENANT_SUSPENDED' : 'TENANT_ARCHIVED')
    await resume(tree.top)
    expect((await ofLeaf.getContext()).tenant_id).toBe(tree.leaf.id)
  })
})

const pathOf = async ({ id }: Tenant): Promise<string> =>
  (await installation.owner.query<{ path: string }>('select path::text from stratum.tenants where id = $1', [id])).rows[0]?.path ?? ''
interface Changed {
  changed?: { ids: string[] }
}
const idsInside = ({ audit }: Recorded): string[] => (audit[0]?.payload['after'] as Changed | undefined)?.changed?.ids ?? []

describe('one cascade inside another', () => {
  it.each(kinds)('to %s: each resume brings back its own', async (_, state, deactivate) => {
    const tree = await plant()
    await deactivate(tree.left, cascade)
    await deactivate(tree.top, cascade)
    await resume(tree.top)
    expect(await statuses(tree)).toEqual({ ...allActive, left: state, leaf: state })
    await resume(tree.left)
    expect(await statuses(tree)).toEqual(allActive)
  })

  it('cannot be resumed before the one around it', async () => {
    const tree = await plant()
    await suspend(tree.left, cascade)
    await suspend(tree.top, cascade)
    await refusal(resume(tree.left), 'TENANT_INVALID_STATE')
    await refusal(resume(tree.leaf), 'TENANT_INVALID_STATE')
    expect(await statuses(tree)).toMatchObject({ left: 'suspended', leaf: 'suspended' })
  })

  it('of another kind stays apart: archived below, suspended above', async () => {
    const tree = await plant()
    await archive(tree.left, cascade)
    await suspend(tree.top, cascade)
    await resume(tree.top)
    expect(await statuses(tree)).toEqual({ ...allActive, left: 'archived', leaf: 'archived' })
    await resume(tree.left)
    expect(await statuses(tree)).toEqual(allActive)
  })
})

describe('a top that is suspended', () => {
  it('can be archived with what it took along, and resumed with exactly that', async () => {
    const tree = await plant()
    await suspend(tree.right)
    await suspend(tree.top, cascade)
    await archive(tree.top)
    expect(await statuses(tree)).toMatchObject({ top: 'archived', left: 'suspended', leaf: 'suspended', right: 'suspended' })
    await resume(tree.top)
    expect(await statuses(tree)).toEqual({ ...allActive, right: 'suspended' })
  })

  it('is neither suspended nor resumed twice', async () => {
    const tree = await plant()
    await suspend(tree.top, cascade)
    await refusal(suspend(tree.top, cascade), 'TENANT_INVALID_STATE')
    await resume(tree.top)
    await refusal(resume(tree.top), 'TENANT_INVALID_STATE')
  })
})

describe('what happened to one of them meanwhile', () => {
  const moveAndResume = async (tree: Tree, to: Tenant) => {
    await suspend(tree.top, cascade)
    await move(tree.left, to)
    return recordedBy(installation.owner, () => resume(tree.top))
  }

  it('moved under an active tenant, it comes back there, and caches of that place hear of it', async () => {
    const tree = await plant()
    const recorded = await moveAndResume(tree, tree.elsewhere)
    expect(await statuses(tree)).toEqual(allActive)
    expect(recorded.feed.toSorted()).toEqual([['subtree', await pathOf(tree.top)], ...(await feedOf(tree.left, tree.leaf))].toSorted())
    expect(idsInside(recorded).toSorted()).toEqual(idsOf([tree.top, tree.left, tree.leaf, tree.right, tree.early, tree.under]).sort())
  })
  const feedOf = async (...moved: Tenant[]) => Promise.all(moved.map(async (tenant): Promise<[string, string]> => ['subtree', await pathOf(tenant)]))

  it('moved under a suspended tenant, it stays as that is, and no later resume of its old top brings it back', async () => {
    const tree = await plant()
    await suspend(tree.elsewhere)
    const recorded = await moveAndResume(tree, tree.elsewhere)
    const away = { left: 'suspended', leaf: 'suspended' }
    expect(await statuses(tree)).toEqual({ ...allActive, ...away, elsewhere: 'suspended' })
    expect(idsInside(recorded)).not.toContain(tree.left.id)

    await resume(tree.elsewhere)
    await suspend(tree.top, cascade)
    await resume(tree.top)
    expect(await statuses(tree)).toEqual({ ...allActive, ...away })
    await resume(tree.left)
    await resume(tree.leaf)
    expect(await statuses(tree)).toEqual(allActive)
  })

  it('moved out of the reach of who resumes, it stays as it is and is not named', async () => {
    const tree = await plant()
    const { other } = await plantTree(admin, { other: null })
    const ofOrg = await installation.clientFor(tree.org.id)
    await ofOrg.suspendTenant({ id: tree.top.id, cascade })
    await move(tree.left, other)
    const recorded = await recordedBy(installation.owner, () => ofOrg.resumeTenant({ id: tree.top.id }))

    expect(await statuses(tree)).toEqual({ ...allActive, left: 'suspended', leaf: 'suspended' })
    expect(JSON.stringify(recorded.audit)).not.toContain(tree.left.id)
    expect(recorded.feed).toEqual([['subtree', await pathOf(tree.top)]])
  })

  it('resumed by hand, it is no longer of the cascade: suspended again it stays so', async () => {
    const tree = await plant()
    await suspend(tree.top, cascade)
    await move(tree.left, tree.elsewhere)
    await resume(tree.left)
    expect(await statuses(tree)).toMatchObject({ left: 'active', leaf: 'suspended' })
    await suspend(tree.left)

    await resume(tree.top)
    expect(await statuses(tree)).toEqual({ ...allActive, left: 'suspended', leaf: 'suspended' })
  })

  it('resumed by hand elsewhere, what lies below it still comes back with the top', async () => {
    const tree = await plant()
    await suspend(tree.top, cascade)
    await move(tree.left, tree.elsewhere)
    await resume(tree.left)
    await resume(tree.top)
    expect(await statuses(tree)).toEqual(allActive)
  })

  it('archived by hand, it stays archived, with what lies below it', async () => {
    const tree = await plant()
    await suspend(tree.top, cascade)
    await archive(tree.left)
    await resume(tree.top)
    expect(await statuses(tree)).toEqual({ ...allActive, left: 'archived', leaf: 'suspended' })
  })

  it('taken by the cascade of its new place, it comes back with neither: it was not active when that began', async () => {
    const tree = await plant()
    await suspend(tree.top, cascade)
    await move(tree.right, tree.elsewhere)
    await suspend(tree.elsewhere, cascade)
    await resume(tree.top)
    await resume(tree.elsewhere)
    expect(await statuses(tree)).toEqual({ ...allActive, right: 'suspended' })
  })

  it('added below by a move while the top was down, an inactive one is none of those it resumes', async () => {
    const tree = await plant()
    await suspend(tree.beside)
    await suspend(tree.top, cascade)
    await move(tree.beside, tree.top)
    await resume(tree.top)
    expect(await statuses(tree)).toEqual({ ...allActive, beside: 'suspended' })
  })
})

it('by DELETE, which archives, takes the same flag', async () => {
  const tree = await plant()
  await refusal(admin.deleteTenant({ id: tree.top.id }), 'TENANT_HAS_CHILDREN')
  await admin.deleteTenant({ id: tree.top.id, cascade })
  expect(await statuses(tree)).toMatchObject({ ...around, top: 'archived', leaf: 'archived', under: 'archived' })
})

it('takes reach of the parent of the top, as without cascade', async () => {
  const tree = await plant()
  const ofTop = await installation.clientFor(tree.top.id)
  await refusal(ofTop.suspendTenant({ id: tree.top.id, cascade }), 'TENANT_NOT_FOUND')
  await ofTop.suspendTenant({ id: tree.left.id, cascade })
  await refusal(ofTop.suspendTenant({ id: tree.org.id, cascade }), 'TENANT_NOT_FOUND')
  expect(await statuses(tree)).toEqual({ ...allActive, left: 'suspended', leaf: 'suspended' })
})

it('races of a cascade with creates, resumes and moves below end in a tree whose active tenants have active parents', async () => {
  for (let round = 0; round < 10; round++) {
    const tree = await plant()
    await suspend(tree.right)
    const outcomes = await Promise.allSettled([
      suspend(tree.top, cascade),
      admin.createTenant({ slug: `raced_${round}`, name: 'Raced', parent_id: tree.leaf.id }),
      resume(tree.right),
      move(tree.left, tree.beside),
      suspend(tree.org, cascade),
    ])
    for (const outcome of outcomes) if (outcome.status === 'rejected') expect(outcome.reason).toMatchObject({ status: 409 })
    const { rows } = await installation.owner.query(
      `select t.slug from stratum.tenants t join stratum.tenants p on p.id = t.parent_id where t.status = 'active' and p.status <> 'active'`,
    )
    expect(rows).toEqual([])
  }
})
