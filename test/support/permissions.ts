/** Product §4 said once more, in TypeScript: what the database answers is held against it. */
import type { PermissionPolicy, ResolvedPermission } from '../../src/features/permissions/contract.ts'

type Mode = PermissionPolicy['mode']
type Policy = Pick<PermissionPolicy, 'value' | 'mode'>

/** The policies of one key from the root down to a tenant; undefined where a level has none. */
export type Line<P extends Policy = Policy> = ReadonlyArray<P | undefined>

/** What holds at the end of a line: which policy, at which level, in which effective mode. */
export const fold = <P extends Policy>(line: Line<P>) =>
  line.reduce<{ policy: P; level: number; mode: Mode } | null>((held, policy, level) => {
    if (policy === undefined || held?.mode === 'LOCKED') return held
    return { policy, level, mode: held?.mode === 'INHERITED' ? 'INHERITED' : policy.mode }
  }, null)

/** What writing a policy of this mode below the line answers. */
export function writeAnswer(above: Line, mode: Mode): 'PERMISSION_LOCKED' | 'PERMISSION_NOT_DELEGATED' | 'written' {
  const held = fold(above)
  if (held?.mode === 'LOCKED') return 'PERMISSION_LOCKED'
  return held?.mode === 'INHERITED' && mode !== 'INHERITED' ? 'PERMISSION_NOT_DELEGATED' : 'written'
}

/** A resolution as the API answers it. */
export const resolution = (policy: PermissionPolicy, mode: Mode): ResolvedPermission => ({
  policy_id: policy.id,
  key: policy.key,
  value: policy.value,
  mode,
  source_tenant_id: policy.tenant_id,
  locked: mode === 'LOCKED',
  delegated: mode === 'DELEGATED',
})
