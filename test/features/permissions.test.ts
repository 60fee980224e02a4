import { randomUUID } from 'node:crypto'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { PermissionPolicy } from '../../src/features/permissions/contract.ts'
import type { StratumClient } from '../../src/sdk/client.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { canonical } from '../support/json.ts'
import { fold, resolution, writeAnswer } from '../support/permissions.ts'
import { plantLine, plantTree, refusal } from '../support/tree.ts'

let installation: Installation
let admin: StratumClient
beforeAll(async () => {
  installation = await createInstallation()
  admin = await installation.clientFor(null)
})
afterAll(() => installation.close())

const MODES = ['LOCKED', 'INHERITED', 'DELEGATED'] as const
type Mode = (typeof MODES)[number]
const line = { root: null, mid: 'root', leaf: 'mid' } as const
const grant = (id: string, mode: Mode, value: string | boolean, key = 'export') => admin.createPermission({ id, key, mode, value })
const resolved = async (id: string, key = 'export') => (await admin.resolvePermissions({ id })).permissions[key]

describe('a policy', () => {
  it('is answered with its defaults: true, INHERITED, CASCADE', async () => {
    const { root } = await plantTree(admin, line)
    const policy = await admin.createPermission({ id: root.id, key: 'reports.export' })

    expect(policy).toEqual({
      id: policy.id,
      tenant_id: root.id,
      key: 'reports.export',
      value: true,
      mode: 'INHERITED',
      revocation_mode: 'CASCADE',
      created_at: expect.stringMatching(/Z$/),
      updated_at: policy.created_at,
    })
    expect(await resolved(root.id, 'reports.export')).toEqual(resolution(policy, 'INHERITED'))
  })

  it.each([[null], [false], [0], ['text'], [{ max: 5, of: ['a'] }], [JSON.parse('{"__proto__":{"a":1},"constructor":2}')]])(
    'may have the value %j',
    async (value) => {
      const { root, leaf } = await plantTree(admin, line)
      const policy = await admin.createPermission({ id: root.id, key: 'constructor', value })

      expect(canonical(policy.value)).toBe(canonical(value))
      expect(canonical((await resolved(leaf.id, 'constructor'))?.value)).toBe(canonical(value))
      expect(canonical((await admin.updatePermission({ id: root.id, policy_id: policy.id, value })).value)).toBe(canonical(value))
    },
  )

  it('is unique per tenant and key', async () => {
    const { root, mid } = await plantTree(admin, line)
    const first = await grant(root.id, 'DELEGATED', 'first')

    expect((await refusal(grant(root.id, 'LOCKED', 'second'), 'PERMISSION_EXISTS')).details).toMatchObject({ key: 'export' })
    expect(await resolved(root.id)).toEqual(resolution(first, 'DELEGATED'))
    await grant(root.id, 'LOCKED', 'other key', 'Export')
    await grant(mid.id, 'LOCKED', 'other tenant')
  })

  it('refuses what the contract does not know', async () => {
    const { root } = await plantTree(admin, line)
    for (const key of ['', '1a', '__proto__', 'a b', 'a'.repeat(256)]) await refusal(admin.createPermission({ id: root.id, key }), 'VALIDATION_FAILED')
    await refusal(admin.createPermission({ id: root.id, key: 'k', value: 'a\u0000' }), 'VALIDATION_FAILED')
    const wrong = { id: root.id, key: 'k', mode: 'SHARED', revocation_mode: 'NEVER' }
    await refusal(admin.createPermission(wrong as Parameters<typeof admin.createPermission>[0]), 'VALIDATION_FAILED')
    expect((await admin.resolvePermissions({ id: root.id })).permissions).toEqual({})
  })
})

describe('the table', () => {
  const answers = {
    none: { LOCKED: 'written', INHERITED: 'written', DELEGATED: 'written' },
    LOCKED: { LOCKED: 'PERMISSION_LOCKED', INHERITED: 'PERMISSION_LOCKED', DELEGATED: 'PERMISSION_LOCKED' },
    INHERITED: { LOCKED: 'PERMISSION_NOT_DELEGATED', INHERITED: 'written', DELEGATED: 'PERMISSION_NOT_DELEGATED' },
    DELEGATED: { LOCKED: 'written', INHERITED: 'written', DELEGATED: 'written' },
  } as const
  const rows = Object.entries(answers).flatMap(([above, below]) => MODES.map((mode) => [above as keyof typeof answers, mode, below[mode]] as const))

  it.each(rows)('writing below %s as %s: %s', async (above, mode, answer) => {
    const { root, mid, leaf } = await plantTree(admin, line)
    const held = above === 'none' ? null : await grant(root.id, above, 'root')

    // two levels down it is the same, as nothing lies between
    for (const { id } of [leaf, mid]) {
      if (answer === 'written') {
        const written = await grant(id, mode, 'below')
        expect(written.mode).toBe(mode)
        expect(await resolved(id)).toEqual(resolution(written, above === 'INHERITED' ? 'INHERITED' : mode))
        await admin.deletePermission({ id, policy_id: written.id })
      } else {
        const { details } = await refusal(grant(id, mode, 'below'), answer)
        expect(details).toMatchObject({ key: 'export', source_tenant_id: root.id, source_depth: 0 })
      }
      if (held) expect(await resolved(id)).toEqual(resolution(held, held.mode))
      else expect(await resolved(id)).toBeUndefined()
    }
  })

  it('names the tenant whose policy decides, not the nearest that has one', async () => {
    const { root, mid, leaf } = await plantTree(admin, line)
    await grant(root.id, 'INHERITED', 'root')
    await grant(mid.id, 'INHERITED', 'mid')
    expect((await refusal(grant(leaf.id, 'DELEGATED', 'leaf'), 'PERMISSION_NOT_DELEGATED')).details).toMatchObject({
      source_tenant_id: root.id,
      source_depth: 0,
    })
  })

  // what is above is written last, so that below it stands what could not be written any more
  it.each(MODES.flatMap((above) => MODES.map((below) => [above, below] as const)))('%s above makes of %s below what it says', async (above, below) => {
    const { root, mid, leaf } = await plantTree(admin, line)
    const lower = await grant(mid.id, below, 'mid')
    const upper = await grant(root.id, above, 'root')

    const [policy, mode] = above === 'LOCKED' ? [upper, 'LOCKED' as const] : [lower, above === 'INHERITED' ? 'INHERITED' : below]
    for (const { id } of [mid, leaf]) expect(await resolved(id)).toEqual(resolution(policy, mode))
    expect(await resolved(root.id)).toEqual(resolution(upper, above))
    await admin.updatePermission({ id: root.id, policy_id: upper.id, mode: 'DELEGATED' })
    for (const { id } of [mid, leaf]) expect(await resolved(id)).toEqual(resolution(lower, below))
  })

  it('holds along a whole line, whatever is written where and in which order', async () => {
    const tenants = await plantLine(admin, 5)
    const step = fc.record({ at: fc.nat({ max: 4 }), mode: fc.constantFrom(...MODES), value: fc.nat({ max: 99 }) })
    let run = 0
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 2, maxLength: 7 }), async (steps) => {
        const key = `run_${run++}`
        const policies: Array<PermissionPolicy | undefined> = tenants.map(() => undefined)
        for (const { at, mode, value } of steps) {
          const [id, old] = [tenants[at]?.id ?? '', policies[at]]
          const answer = writeAnswer(policies.slice(0, at), mode)
          const write = old ? admin.updatePermission({ id, policy_id: old.id, mode, value }) : admin.createPermission({ id, key, mode, value })
          if (answer === 'written') policies[at] = await write
          else await refusal(write, answer)
        }
        for (const [at, { id }] of tenants.entries()) {
          const held = fold(policies.slice(0, at + 1))
          expect(await resolved(id, key)).toEqual(held === null ? undefined : resolution(held.policy, held.mode))
        }
      }),
      { numRuns: 8 },
    )
  })
})

describe('after a move', () => {
  it('mode and value are what the new line makes of them, and the stored policy is as it was', async () => {
    const tenants = await plantTree(admin, { inherited: null, locked: null, delegated: null, none: null, x: null, y: 'x' })
    const [own, below] = [await grant(tenants.x.id, 'DELEGATED', 'x'), await grant(tenants.y.id, 'LOCKED', 'y')]
    const above = {
      inherited: await grant(tenants.inherited.id, 'INHERITED', 'i'),
      locked: await grant(tenants.locked.id, 'LOCKED', 'l'),
      delegated: await grant(tenants.delegated.id, 'DELEGATED', 'd'),
    }
    const expected = {
      inherited: [resolution(own, 'INHERITED'), resolution(below, 'INHERITED')],
      locked: [resolution(above.locked, 'LOCKED'), resolution(above.locked, 'LOCKED')],
      delegated: [resolution(own, 'DELEGATED'), resolution(below, 'LOCKED')],
      none: [resolution(own, 'DELEGATED'), resolution(below, 'LOCKED')],
    }
    for (const name of ['inherited', 'locked', 'delegated', 'none'] as const) {
      await admin.moveTenant({ id: tenants.x.id, new_parent_id: tenants[name].id })
      expect([await resolved(tenants.x.id), await resolved(tenants.y.id)], name).toEqual(expected[name])
    }
    await admin.moveTenant({ id: tenants.x.id, new_parent_id: tenants.inherited.id })
    await refusal(admin.updatePermission({ id: tenants.x.id, policy_id: own.id, mode: 'LOCKED' }), 'PERMISSION_NOT_DELEGATED')
    expect((await admin.updatePermission({ id: tenants.x.id, policy_id: own.id, mode: 'INHERITED' })).mode).toBe('INHERITED')
  })
})

describe('updating a policy', () => {
  it('changes what is given and leaves the rest', async () => {
    const { root } = await plantTree(admin, line)
    const policy = await grant(root.id, 'DELEGATED', 'before')
    const update = (patch: object) => admin.updatePermission({ id: root.id, policy_id: policy.id, ...patch })

    const valued = await update({ value: null })
    expect(valued).toEqual({ ...policy, value: null, updated_at: valued.updated_at })
    expect(await update({ mode: 'LOCKED' })).toMatchObject({ value: null, mode: 'LOCKED', revocation_mode: 'CASCADE' })
    expect(await update({ revocation_mode: 'SOFT' })).toMatchObject({ value: null, mode: 'LOCKED', revocation_mode: 'SOFT' })
    expect(await resolved(root.id)).toMatchObject({ policy_id: policy.id, value: null, mode: 'LOCKED' })
  })

  it('under a lock is refused, value and revocation mode included', async () => {
    const { root, mid } = await plantTree(admin, line)
    const policy = await grant(mid.id, 'INHERITED', 'mid')
    await grant(root.id, 'LOCKED', 'root')

    for (const patch of [{ value: 1 }, { mode: 'INHERITED' as const }, { revocation_mode: 'SOFT' as const }]) {
      await refusal(admin.updatePermission({ id: mid.id, policy_id: policy.id, ...patch }), 'PERMISSION_LOCKED')
    }
  })

  it('and deleting find only policies of the tenant they name', async () => {
    const { root, mid } = await plantTree(admin, line)
    const policy = await grant(root.id, 'DELEGATED', 'root')

    for (const policy_id of [policy.id, randomUUID()]) {
      await refusal(admin.updatePermission({ id: mid.id, policy_id, value: 1 }), 'PERMISSION_NOT_FOUND')
      await refusal(admin.deletePermission({ id: mid.id, policy_id }), 'PERMISSION_NOT_FOUND')
    }
    await refusal(admin.updatePermission({ id: root.id, policy_id: 'x', value: 1 }), 'INVALID_REQUEST')
  })

  it('needs reach of the tenant, and tells of a holder above it only id and depth', async () => {
    const { root, mid, leaf } = await plantTree(admin, line)
    const policy = await grant(root.id, 'LOCKED', 'root')
    const bound = await installation.clientFor(mid.id, ['write'])

    await refusal(bound.createPermission({ id: root.id, key: 'k' }), 'TENANT_NOT_FOUND')
    await refusal(bound.updatePermission({ id: root.id, policy_id: policy.id, value: 1 }), 'TENANT_NOT_FOUND')
    await refusal(bound.deletePermission({ id: root.id, policy_id: policy.id }), 'TENANT_NOT_FOUND')
    await refusal(bound.resolvePermissions({ id: root.id }), 'TENANT_NOT_FOUND')
    const { details, message } = await refusal(bound.createPermission({ id: leaf.id, key: 'export' }), 'PERMISSION_LOCKED')
    expect({ ...details, request_id: '' }).toEqual({ key: 'export', source_tenant_id: root.id, source_depth: 0, request_id: '' })
    expect(message).not.toContain(root.slug)
    expect((await bound.resolvePermissions({ id: leaf.id })).permissions['export']).toEqual(resolution(policy, 'LOCKED'))
  })
})
