import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { PermissionPolicy } from '../../src/features/permissions/contract.ts'
import type { StratumClient } from '../../src/sdk/client.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { fold, resolution, writeAnswer } from '../support/permissions.ts'
import { plantTree, refusal } from '../support/tree.ts'

let installation: Installation
let admin: StratumClient
beforeAll(async () => {
  installation = await createInstallation()
  admin = await installation.clientFor(null)
})
afterAll(() => installation.close())

type Mode = PermissionPolicy['mode']
type Revocation = PermissionPolicy['revocation_mode']
const grant = (id: string, revocation_mode: Revocation, mode: Mode = 'DELEGATED', value = 'v', key = 'k') =>
  admin.createPermission({ id, key, mode, value, revocation_mode })
const revoke = (policy: PermissionPolicy) => admin.deletePermission({ id: policy.tenant_id, policy_id: policy.id })
const resolved = async (id: string, key = 'k') => (await admin.resolvePermissions({ id })).permissions[key]
/** The policies stored for a key, by tenant. */
async function stored(key: string): Promise<Map<string, Pick<PermissionPolicy, 'id' | 'value' | 'mode' | 'revocation_mode'>>> {
  const { rows } = await installation.owner.query('select tenant_id, id, value, mode, revocation_mode from stratum.permission_policies where key = $1', [key])
  return new Map(rows.map(({ tenant_id, ...policy }) => [tenant_id, policy]))
}

const family = { top: null, root: 'top', a: 'root', a1: 'a', a2: 'a', b: 'root', b1: 'b', beside: 'top' } as const

describe('CASCADE', () => {
  it('takes every policy of the key below along, PERMANENT ones excepted, and makes no copies', async () => {
    const { top, root, a, a1, a2, b, beside } = await plantTree(admin, family)
    const policy = await grant(root.id, 'CASCADE')
    for (const { id } of [a, a1]) await grant(id, 'CASCADE')
    await grant(b.id, 'SOFT')
    const permanent = await grant(a2.id, 'PERMANENT', 'LOCKED', 'kept')
    const others = [await grant(top.id, 'CASCADE'), await grant(beside.id, 'CASCADE'), await grant(a.id, 'CASCADE', 'DELEGATED', 'v', 'other')]

    expect(await revoke(policy)).toEqual(policy)
    const left = await admin.resolvePermissions({ id: a2.id })
    expect(left.permissions).toMatchObject({ k: resolution(permanent, 'LOCKED'), other: { value: 'v' } })
    const kept = [...others.filter(({ key }) => key === 'k'), permanent].map(({ id }) => id)
    const ofFamily = [top, root, a, a1, a2, b, beside].map(({ id }) => id)
    expect([...(await stored('k'))].filter(([id]) => ofFamily.includes(id)).map(([, { id }]) => id)).toEqual(expect.arrayContaining(kept))
    for (const { id } of [root, a, a1, b]) expect(await resolved(id)).toEqual(resolution(others[0] ?? policy, 'DELEGATED'))
  })

  it('reaches shadowed policies and tenants that are not active', async () => {
    const { root, a, b, b1 } = await plantTree(admin, family)
    const below = [await grant(a.id, 'CASCADE'), await grant(b1.id, 'CASCADE', 'LOCKED')]
    const policy = await grant(root.id, 'CASCADE', 'LOCKED')
    await admin.archiveTenant({ id: b1.id })
    await admin.suspendTenant({ id: b.id })

    await revoke(policy)
    const left = [...(await stored('k')).values()].map(({ id }) => id)
    for (const { id } of [policy, ...below]) expect(left).not.toContain(id)
  })
})

describe('SOFT', () => {
  it('leaves each direct child a copy, of any status, and takes nothing else', async () => {
    const { root, a, a1, b, b1 } = await plantTree(admin, family)
    const policy = await grant(root.id, 'SOFT', 'LOCKED', 'handed down')
    await admin.suspendTenant({ id: b1.id })
    await admin.archiveTenant({ id: b.id })

    await revoke(policy)
    const policies = await stored('k')
    expect(policies.has(root.id)).toBe(false)
    expect(await resolved(root.id)).toBeUndefined()
    for (const [child, grandchild] of [[a, a1] as const, [b, b1] as const]) {
      expect(policies.get(child.id)).toMatchObject({ value: 'handed down', mode: 'LOCKED', revocation_mode: 'SOFT' })
      expect(policies.get(child.id)?.id).not.toBe(policy.id)
      expect(policies.has(grandchild.id)).toBe(false)
      expect(await resolved(grandchild.id)).toMatchObject({ value: 'handed down', mode: 'LOCKED', source_tenant_id: child.id })
    }
  })

  it('replaces what it shadowed in a child, unless that is PERMANENT', async () => {
    const { root, a, a1, b } = await plantTree(admin, family)
    const shadowed = await grant(a.id, 'CASCADE', 'DELEGATED', 'shadowed')
    const deeper = await grant(a1.id, 'CASCADE', 'LOCKED', 'deeper')
    const permanent = await grant(b.id, 'PERMANENT', 'DELEGATED', 'permanent')
    const policy = await grant(root.id, 'SOFT', 'LOCKED', 'handed down')

    await revoke(policy)
    const policies = await stored('k')
    expect(policies.get(a.id)).toMatchObject({ value: 'handed down', mode: 'LOCKED', revocation_mode: 'SOFT' })
    expect(policies.get(a.id)?.id).not.toBe(shadowed.id)
    expect(policies.get(a1.id)?.id).toBe(deeper.id)
    expect(await resolved(a1.id)).toMatchObject({ value: 'handed down', source_tenant_id: a.id })
    expect(await resolved(b.id)).toEqual(resolution(permanent, 'DELEGATED'))
  })

  it('a copy that replaced a policy is a new one, made now', async () => {
    const { root, a } = await plantTree(admin, family)
    await grant(a.id, 'CASCADE', 'INHERITED', 'shadowed')
    const policy = await grant(root.id, 'SOFT', 'LOCKED', 'handed down')
    // in the database's own words: the API tells no microseconds, so that a time would seem later than itself
    const made = async () =>
      (await installation.owner.query(`select created_at::text as at from stratum.permission_policies where tenant_id = $1`, [a.id])).rows[0].at

    const before = await made()
    await revoke(policy)
    expect(Date.parse(await made())).toBeGreaterThan(Date.parse(before))
  })

  it('copies nothing where it was not in effect: below a nearer policy, or itself under a lock', async () => {
    const { top, root, a, b } = await plantTree(admin, family)
    const nearer = await grant(a.id, 'CASCADE', 'INHERITED', 'nearer')
    const policy = await grant(root.id, 'SOFT', 'INHERITED', 'handed down')
    await revoke(policy)
    expect(await resolved(a.id)).toEqual(resolution(nearer, 'INHERITED'))
    expect(await resolved(b.id)).toMatchObject({ value: 'handed down', source_tenant_id: b.id })

    const shadowed = await grant(root.id, 'SOFT', 'DELEGATED', 'x', 'locked')
    const lock = await grant(top.id, 'CASCADE', 'LOCKED', 'y', 'locked')
    await revoke(shadowed)
    expect(await stored('locked')).toEqual(new Map([[top.id, expect.objectContaining({ id: lock.id })]]))
  })

  it('of a copy hands it further down, until it leaves a tenant without children', async () => {
    const { root, a, a1, a2 } = await plantTree(admin, family)
    await revoke(await grant(root.id, 'SOFT', 'DELEGATED', 'v', 'further'))
    const copy = await resolved(a.id, 'further')
    await admin.deletePermission({ id: a.id, policy_id: copy?.policy_id ?? '' })

    expect(await resolved(a.id, 'further')).toBeUndefined()
    for (const { id } of [a1, a2]) {
      const last = await resolved(id, 'further')
      expect(last).toMatchObject({ source_tenant_id: id, value: 'v' })
      await admin.deletePermission({ id, policy_id: last?.policy_id ?? '' })
      expect(await resolved(id, 'further')).toBeUndefined()
    }
  })
})

describe('PERMANENT', () => {
  it('is frozen: value, mode and revocation mode stay, and it cannot be deleted', async () => {
    const { top, root, a } = await plantTree(admin, family)
    const policy = await grant(root.id, 'PERMANENT', 'DELEGATED', 'for ever')

    for (const patch of [{ value: 'x' }, { mode: 'LOCKED' as const }, { revocation_mode: 'CASCADE' as const }, { value: 'for ever' }]) {
      await refusal(admin.updatePermission({ id: root.id, policy_id: policy.id, ...patch }), 'PERMISSION_REVOCATION_DENIED')
    }
    expect((await refusal(revoke(policy), 'PERMISSION_REVOCATION_DENIED')).details).toMatchObject({ policy_id: policy.id })
    expect(await resolved(a.id)).toEqual(resolution(policy, 'DELEGATED'))
    // a lock above may shadow it, and it is there again when the lock goes
    const lock = await grant(top.id, 'CASCADE', 'LOCKED', 'lock')
    expect(await resolved(a.id)).toEqual(resolution(lock, 'LOCKED'))
    await revoke(lock)
    expect(await resolved(a.id)).toEqual(resolution(policy, 'DELEGATED'))
  })

  it('is what a policy may become, and then stays', async () => {
    const { root } = await plantTree(admin, family)
    const policy = await grant(root.id, 'CASCADE')
    await admin.updatePermission({ id: root.id, policy_id: policy.id, revocation_mode: 'PERMANENT' })

    await refusal(admin.updatePermission({ id: root.id, policy_id: policy.id, revocation_mode: 'CASCADE' }), 'PERMISSION_REVOCATION_DENIED')
    await refusal(revoke(policy), 'PERMISSION_REVOCATION_DENIED')
  })
})

describe('whatever policies a tree holds', () => {
  const names = ['top', 'root', 'a', 'a1', 'a2', 'b', 'b1'] as const
  type Name = (typeof names)[number]
  interface Planned {
    value: number
    mode: Mode
    revocation_mode: Revocation
  }
  type Plan = { readonly [N in Name]?: Planned | undefined }

  const lineage = (name: Name): Name[] => {
    const parent = family[name]
    return parent === null ? [name] : [...lineage(parent), name]
  }
  const holds = (plan: Plan, name: Name) => fold(lineage(name).map((each) => plan[each]))
  const below = names.filter((name) => lineage(name).includes('root') && name !== 'root')

  /** Product §4: what is left when root's policy is deleted. */
  function deleted(plan: Plan, policy: Planned): Plan {
    const without = { ...plan, root: undefined }
    if (policy.revocation_mode === 'CASCADE') {
      return Object.fromEntries(Object.entries(without).filter(([name, each]) => each && (name === 'top' || each.revocation_mode === 'PERMANENT')))
    }
    const children = (['a', 'b'] as const).filter((child) => holds(plan, child)?.policy === policy && plan[child]?.revocation_mode !== 'PERMANENT')
    return { ...without, ...Object.fromEntries(children.map((child) => [child, policy])) }
  }

  const planned = fc.record({
    value: fc.nat(),
    mode: fc.constantFrom<Mode>('LOCKED', 'INHERITED', 'DELEGATED'),
    revocation_mode: fc.constantFrom<Revocation>('CASCADE', 'SOFT', 'PERMANENT'),
  })
  const maybe = fc.option(planned, { nil: undefined })
  const plans = fc.record({ top: maybe, root: planned, a: maybe, a1: maybe, a2: maybe, b: maybe, b1: maybe })

  let tree: Record<Name, { id: string }>
  beforeAll(async () => {
    tree = await plantTree(admin, family)
    // a grandchild and a child that are not active: they count as any other
    await admin.suspendTenant({ id: tree.b1.id })
    await admin.archiveTenant({ id: tree.b.id })
  })

  let run = 0
  /** Store a plan as it is, delete root's policy, and answer what is left. */
  async function carryOut(plan: Plan): Promise<{ key: string; deletion: () => Promise<unknown> }> {
    const key = `plan_${run++}`
    const given = names.flatMap((name) => (plan[name] ? [{ tenant_id: tree[name].id, ...plan[name] }] : []))
    const { rows } = await installation.owner.query<{ id: string; tenant_id: string }>(
      `insert into stratum.permission_policies (id, tenant_id, key, value, mode, revocation_mode)
       select gen_random_uuid(), tenant_id, $1, value, mode, revocation_mode
       from jsonb_to_recordset($2) as given (tenant_id uuid, value jsonb, mode text, revocation_mode text) returning id, tenant_id`,
      [key, JSON.stringify(given)],
    )
    const policy_id = rows.find((row) => row.tenant_id === tree.root.id)?.id ?? ''
    return { key, deletion: () => admin.deletePermission({ id: tree.root.id, policy_id }) }
  }

  it('deleting one leaves exactly what its revocation mode says', async () => {
    await fc.assert(
      fc.asyncProperty(plans, async (plan) => {
        const { key, deletion } = await carryOut(plan)
        const frozen = plan.root.revocation_mode === 'PERMANENT'
        if (frozen) await refusal(deletion(), 'PERMISSION_REVOCATION_DENIED')
        else await deletion()

        const expected: Plan = frozen ? plan : deleted(plan, plan.root)
        const left = await stored(key)
        const found = await Promise.all(names.map((name) => resolved(tree[name].id, key)))
        for (const [at, name] of names.entries()) {
          const { id: _, ...policy } = left.get(tree[name].id) ?? { id: null }
          expect(policy, name).toEqual(expected[name] ?? {})
          const held = holds(expected, name)
          expect(found[at] && [found[at].value, found[at].mode], name).toEqual(held ? [held.policy.value, held.mode] : undefined)
        }
      }),
      { numRuns: 30 },
    )
  })

  /** Only what could be written from the root down, so that every stored mode counts; then perhaps a lock on root's policy. */
  const written = fc.tuple(plans, fc.boolean()).map(([plan, locked]) => {
    const kept: { [N in Name]?: Planned } = {}
    for (const name of names) {
      const policy = plan[name]
      const above = lineage(name).slice(0, -1)
      const answer =
        policy &&
        writeAnswer(
          above.map((each) => kept[each]),
          policy.mode,
        )
      if (policy && answer === 'written' && policy.revocation_mode !== 'PERMANENT') kept[name] = policy
    }
    const root = kept.root && { ...kept.root, revocation_mode: 'SOFT' as const }
    const lockable = root && writeAnswer([kept.top], 'LOCKED') === 'written'
    return { ...kept, root: root && (locked && lockable ? { ...root, mode: 'LOCKED' as const } : root) }
  })

  it('what a subtree effectively had survives a SOFT deletion above it', async () => {
    await fc.assert(
      fc.asyncProperty(
        written.filter(({ root }) => root !== undefined),
        async (plan) => {
          const { key, deletion } = await carryOut(plan)
          const effective = async () => {
            const found = await Promise.all(below.map((name) => resolved(tree[name].id, key)))
            return found.map((permission) => permission && { value: permission.value, mode: permission.mode })
          }
          const before = await effective()
          await deletion()
          expect(await effective()).toEqual(before)
        },
      ),
      { numRuns: 20 },
    )
  })
})
