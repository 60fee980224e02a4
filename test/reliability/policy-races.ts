/** The races of config locks, permissions and API keys. */
import { type Arena, race, tenantInput } from './arena.ts'
import { type Outcome, withKey } from './operations.ts'

const KEY = 'edit'
type Policy = { id: string; value: unknown; mode: string; revocation_mode: string }
type Effective = { value: unknown; source_tenant_id: string; mode: string } | undefined

const policy = (mode: string, revocation_mode: string, value: unknown) => ({ key: KEY, mode, revocation_mode, value })
const give = (arena: Arena, id: string, mode: string, revocation: string, value: unknown) =>
  arena.call<Policy>('create_permission', { id, ...policy(mode, revocation, value) })
const revoke = (id: string, policyId: string) => ({ operation: 'delete_permission', input: { id, policy_id: policyId } })
const create = (id: string, mode: string, value: unknown) => ({ operation: 'create_permission', input: { id, ...policy(mode, 'CASCADE', value) } })

const effective = async (arena: Arena, id: string | undefined): Promise<Effective> =>
  (await arena.call<{ permissions: Record<string, NonNullable<Effective>> }>('resolve_permissions', { id })).permissions[KEY]

export const lockWithOverride = race({
  name: 'config lock with an override below',
  prepare: (arena) => arena.line(3),
  calls: (line) => [
    { operation: 'set_config', input: { id: line[0], key: 'limit', value: 'locked', locked: true } },
    { operation: 'set_config', input: { id: line[1], key: 'limit', value: 'below', locked: true } },
    { operation: 'set_config', input: { id: line[2], key: 'limit', value: 'far below', locked: false } },
  ],
  judge: async (line, outcomes, arena) => {
    const { config } = await arena.call<{ config: Record<string, { value: unknown; source_tenant_id: string }> }>('resolve_config', {
      id: line[2],
      reveal: false,
    })
    if (config['limit']?.value !== 'locked' || config['limit'].source_tenant_id !== line[0]) return 'the topmost lock does not win'
    return outcomes[0]?.code === 'ok' ? null : 'the lock itself was refused'
  },
  codes: ['CONFIG_LOCKED'],
})

/** A revoke at the top races a create below: the row of outcomes and what is stored must fit one order. */
const revokeWithCreate = (revocation: string, mode: string, allowedCodes: string[]) =>
  race({
    name: `${revocation} revoke of a ${mode} policy with create below`,
    prepare: async (arena) => {
      const line = await arena.line(2)
      return { line, policyId: (await give(arena, line[0] ?? '', mode, revocation, 'above')).id }
    },
    calls: ({ line, policyId }) => [revoke(line[0] ?? '', policyId), create(line[1] ?? '', 'INHERITED', 'below')],
    judge: async ({ line }, outcomes, arena) => {
      const stored = await effective(arena, line[1])
      const created = outcomes[1]?.code === 'ok'
      if (outcomes[0]?.code !== 'ok') return 'the revoke was refused'
      if (revocation === 'SOFT') {
        // Created first it is in effect, so no copy replaces it; revoked first, the copy stands in its way.
        const expected = created ? 'below' : 'above'
        return stored?.value === expected ? null : `${JSON.stringify(stored?.value)} holds below, not ${expected}`
      }
      // Created first it goes with the rest; revoked first it stays.
      if (created) return stored === undefined || stored.value === 'below' ? null : 'a revoked policy still holds'
      return stored === undefined ? null : 'a refused policy holds'
    },
    codes: allowedCodes,
  })

export const cascadeWithCreate = revokeWithCreate('CASCADE', 'DELEGATED', [])
export const cascadeLockWithCreate = revokeWithCreate('CASCADE', 'LOCKED', ['PERMISSION_LOCKED'])
export const softWithCreate = revokeWithCreate('SOFT', 'DELEGATED', ['PERMISSION_EXISTS'])
export const softLockWithCreate = revokeWithCreate('SOFT', 'LOCKED', ['PERMISSION_LOCKED', 'PERMISSION_EXISTS'])

export const softWithUpdate = race({
  name: 'SOFT revoke with update and revoke of policies below',
  prepare: async (arena) => {
    const top = await arena.tenant()
    const children = [await arena.tenant(top), await arena.tenant(top), await arena.tenant(top)]
    const above = await give(arena, top, 'DELEGATED', 'SOFT', 'above')
    const below = await give(arena, children[0] ?? '', 'DELEGATED', 'CASCADE', 'below')
    return { top, children, above, below }
  },
  calls: ({ top, children, above, below }) => [
    revoke(top, above.id),
    { operation: 'update_permission', input: { id: children[0], policy_id: below.id, value: 'changed' } },
    create(children[1] ?? '', 'DELEGATED', 'own'),
    { operation: 'suspend_tenant', input: { id: children[2] } },
  ],
  judge: async ({ children }, outcomes, arena) => {
    const [first, second, third] = await Promise.all(children.map((child) => effective(arena, child)))
    if (first?.value !== 'changed') return 'an update below was lost'
    if (second?.value !== (outcomes[2]?.code === 'ok' ? 'own' : 'above')) return 'a create below was lost'
    return third?.value === 'above' && outcomes[3]?.code === 'ok' ? null : 'what a suspended child had did not survive'
  },
  codes: ['PERMISSION_EXISTS'],
})

export const nestedCascades = race({
  name: 'CASCADE revokes one above the other',
  prepare: async (arena) => {
    const line = await arena.line(4)
    const ids: Record<number, string> = {}
    // The bottom one first: rows then lie against the order of the tree.
    for (const level of [3, 2, 1, 0]) ids[level] = (await give(arena, line[level] ?? '', 'DELEGATED', 'CASCADE', level)).id
    return { line, ids }
  },
  calls: ({ line, ids }) => [0, 1, 2].map((level) => revoke(line[level] ?? '', ids[level] ?? '')),
  judge: async ({ line }, outcomes, arena) => {
    if (outcomes[0]?.code !== 'ok') return 'the topmost revoke was refused'
    return (await effective(arena, line[3])) === undefined ? null : 'a revoked policy still holds'
  },
  codes: ['PERMISSION_NOT_FOUND'],
})

export const softWithMove = race({
  name: 'SOFT revoke with moves of a child and of what stands above',
  prepare: async (arena) => {
    const elsewhere = await arena.tenant()
    const [root = '', top = ''] = await arena.line(2)
    const children = [await arena.tenant(top), await arena.tenant(top), await arena.tenant(top)]
    const above = await give(arena, top, 'DELEGATED', 'SOFT', 'above')
    // Renamed last, the parent's row lies behind its children's.
    await arena.call('update_tenant', { id: top, slug: arena.slug() })
    return { elsewhere, root, top, children, above }
  },
  calls: ({ elsewhere, root, top, children, above }) => [
    revoke(top, above.id),
    { operation: 'move_tenant', input: { id: root, new_parent_id: elsewhere } },
    { operation: 'move_tenant', input: { id: children[1], new_parent_id: elsewhere } },
  ],
  judge: async ({ children }, outcomes, arena) => {
    const stayed = await effective(arena, children[0])
    const left = await effective(arena, children[1])
    if (outcomes.some(({ code }) => code !== 'ok')) return 'one of them was refused'
    if (left !== undefined && left.value !== 'above') return 'the moved child holds something else'
    return stayed?.value === 'above' && stayed.source_tenant_id === children[0] ? null : 'what the subtree had did not survive'
  },
  codes: [],
})

const isAllowed = (outcome: Outcome | undefined) => outcome?.code === 'ok' || outcome?.code === 'API_KEY_INVALID'

export const revokeKeyWithUse = race({
  name: 'API key revoke with use',
  prepare: async (arena, round) => {
    const id = await arena.tenant()
    const hash = `hash-${round}`
    const key = await arena.call('create_api_key', { tenant_id: id, name: '', scopes: ['admin'], key_hash: hash, hint: 'sk_test_' })
    return { id, hash, keyId: key.id, slug: arena.slug() }
  },
  calls: ({ id, hash, keyId, slug }) => [
    { operation: 'revoke_api_key', input: { id: keyId } },
    { operation: 'set_config', input: { id, key: 'limit', value: 1, locked: false }, actor: withKey(hash) },
    { operation: 'revoke_api_key', input: { id: keyId }, actor: withKey(hash) },
    {
      operation: 'create_tenant',
      input: tenantInput(id, slug),
      actor: withKey(hash),
    },
  ],
  judge: async ({ id, hash }, outcomes, arena) => {
    if (outcomes[0]?.code !== 'ok' || !outcomes.every(isAllowed)) return 'revoking failed, or use failed otherwise than as unknown'
    const { rows } = await arena.owner.query(
      `select count(*)::int as n from stratum.audit_entries where tenant_id = $1 and payload::jsonb ->> 'action' = 'api_key.revoked'`,
      [id],
    )
    if (rows[0]?.n !== 1) return `revoked ${rows[0]?.n} times`
    const [after] = await arena.race([{ operation: 'get_tenant', input: { id, include_archived: true }, actor: withKey(hash) }])
    return after?.code === 'API_KEY_INVALID' ? null : `a revoked key still answers ${after?.code}`
  },
  codes: ['API_KEY_INVALID'],
})

export const policyRaces = [
  lockWithOverride,
  cascadeWithCreate,
  cascadeLockWithCreate,
  softWithCreate,
  softLockWithCreate,
  softWithUpdate,
  nestedCascades,
  softWithMove,
  revokeKeyWithUse,
]
