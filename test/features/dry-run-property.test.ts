/** Random trees and operations: a dry run and the real run never disagree. */
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Preview } from '../../src/core/endpoint.ts'
import type { Tenant } from '../../src/features/tenants/contract.ts'
import type { StratumClient } from '../../src/sdk/client.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { contents } from '../support/record.ts'
import { byPlace, type Call, type Change, difference, dryRun, effective, run } from '../support/showable.ts'
import { plantTree } from '../support/tree.ts'

let installation: Installation
let admin: StratumClient
beforeAll(async () => {
  installation = await createInstallation()
  admin = await installation.clientFor(null)
})
afterAll(() => installation.close())

describe('whatever tree it meets', () => {
  const tenant = fc.nat(5)
  const key = fc.constantFrom('a', 'b', 's')
  const value = fc.nat(3)
  const mode = fc.constantFrom('LOCKED' as const, 'INHERITED' as const, 'DELEGATED' as const)
  const revocation_mode = fc.constantFrom('CASCADE' as const, 'SOFT' as const, 'PERMANENT' as const)
  const step = fc.oneof(
    fc.record({ op: fc.constant('set' as const), tenant, key, value, locked: fc.boolean() }),
    fc.record({ op: fc.constant('unset' as const), tenant, key }),
    fc.record({ op: fc.constant('move' as const), tenant, to: fc.option(tenant, { freq: 6 }) }),
    fc.record({ op: fc.constantFrom('suspendTenant' as const, 'archiveTenant' as const, 'deleteTenant' as const), tenant, cascade: fc.boolean() }),
    { weight: 3, arbitrary: fc.record({ op: fc.constant('resume' as const), tenant }) },
    { weight: 2, arbitrary: fc.record({ op: fc.constant('allow' as const), tenant, value, mode, revocation_mode }) },
    fc.record({ op: fc.constant('change' as const), tenant, value, mode }),
    fc.record({ op: fc.constant('revoke' as const), tenant }),
  )
  type Step = typeof step extends fc.Arbitrary<infer T> ? T : never

  async function callOf(given: Step, tenants: Tenant[]): Promise<Call> {
    const id = tenants[given.tenant]?.id ?? ''
    const { op } = given
    if (op === 'set') return { operation: 'setConfig', input: { id, key: given.key, value: given.value, locked: given.locked, sensitive: given.key === 's' } }
    if (op === 'unset') return { operation: 'deleteConfig', input: { id, key: given.key } }
    if (op === 'move') return { operation: 'moveTenant', input: { id, new_parent_id: given.to === null ? null : (tenants[given.to]?.id ?? null) } }
    if (op === 'resume') return { operation: 'resumeTenant', input: { id } }
    if (op === 'allow') {
      return { operation: 'createPermission', input: { id, key: 'p', value: given.value, mode: given.mode, revocation_mode: given.revocation_mode } }
    }
    if (op === 'change' || op === 'revoke') {
      const own = (await admin.explainPermission({ id, key: 'p' })).levels.find(({ tenant_id }) => tenant_id === id)
      const policy_id = own?.policy_id ?? '00000000-0000-4000-8000-000000000000'
      if (op === 'revoke') return { operation: 'deletePermission', input: { id, policy_id } }
      return { operation: 'updatePermission', input: { id, policy_id, value: given.value, mode: given.mode } }
    }
    return { operation: op, input: { id, cascade: given.cascade } }
  }

  const codeOf = (outcome: unknown) => (outcome as { code?: string }).code ?? 'ok'
  const isSecret = (shown: unknown) => shown !== null && typeof shown === 'object' && 'sensitive' in shown
  // that a secret was replaced by another is not to be seen from outside
  const apart = (changes: Change[]) => byPlace(changes.filter(({ from, to }) => !(isSecret(from) && isSecret(to))))

  it('a dry run is refused as the real run is, else shows the difference that this then makes', async () => {
    const tally = { ok: 0, refused: 0 }
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 14, maxLength: 20 }), async (steps) => {
        const tenants = Object.values(await plantTree(admin, { one: null, two: 'one', three: 'two', four: 'two', five: 'one', six: null }))
        const ids = tenants.map(({ id }) => id)
        for (const each of steps) {
          const call = await callOf(each, tenants)
          const [rows, before] = [await contents(installation.owner), await effective(admin, ids)]
          const shown = await dryRun(admin, call).catch((error: unknown) => error)
          expect(await contents(installation.owner)).toEqual(rows)
          const done = await run(admin, call, codeOf(shown) === 'ok' ? (shown as Preview).version : undefined).catch((error: unknown) => error)
          expect(codeOf(done)).toBe(codeOf(shown))
          tally[codeOf(shown) === 'ok' ? 'ok' : 'refused']++
          if (codeOf(shown) === 'ok') expect(apart((shown as Preview).changes)).toEqual(apart(difference(before, await effective(admin, ids))))
        }
      }),
      { numRuns: 3 },
    )
    expect(tally.ok).toBeGreaterThan(5)
  }, 60_000)
})
