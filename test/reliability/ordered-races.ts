/**
 * Races judged by the model: how the calls ended and what holds afterwards must be what the model comes to when
 * it plays them one after the other, in some order.
 */
import { type Mode, Model, type Policy, type Revocation } from '../support/model.ts'
import { type Arena, type Race, race } from './arena.ts'
import { alongParents, byOperations, inTheModel } from './four-ways.ts'
import type { Call, Outcome } from './operations.ts'

const KEY = 'edit'
const LIMIT = 'limit'

/** The tenants of a race by number, each with its parent's, and what they have from the beginning. */
interface Scene {
  parents: Array<number | null>
  policies?: Record<number, Policy>
  config?: Record<number, { value: string; locked: boolean }>
}

/** A call, said of tenants by number, and the same of the model. */
interface Deed {
  call(at: { ids: string[]; policyIds: Record<number, string> }): Call
  play(model: Model): string[]
}

const policy = (mode: Mode, revocation_mode: Revocation, value: string): Policy => ({ mode, revocation_mode, value })

const setConfig = (at: number, value: string, locked: boolean): Deed => ({
  call: ({ ids }) => ({ operation: 'set_config', input: { id: ids[at], key: LIMIT, value, locked } }),
  play: (model) => model.setConfig(at, LIMIT, { value, locked }),
})
const deleteConfig = (at: number): Deed => ({
  call: ({ ids }) => ({ operation: 'delete_config', input: { id: ids[at], key: LIMIT } }),
  play: (model) => model.deleteConfig(at, LIMIT),
})
const move = (at: number, to: number): Deed => ({
  call: ({ ids }) => ({ operation: 'move_tenant', input: { id: ids[at], new_parent_id: ids[to] } }),
  play: (model) => model.move(at, to),
})
const give = (at: number, given: Policy): Deed => ({
  call: ({ ids }) => ({ operation: 'create_permission', input: { id: ids[at], key: KEY, ...given } }),
  play: (model) => model.createPermission(at, KEY, given),
})
const change = (at: number, patch: Partial<Policy>): Deed => ({
  call: ({ ids, policyIds }) => ({ operation: 'update_permission', input: { id: ids[at], policy_id: policyIds[at], ...patch } }),
  play: (model) => model.updatePermission(at, KEY, patch),
})
const revoke = (at: number): Deed => ({
  call: ({ ids, policyIds }) => ({ operation: 'delete_permission', input: { id: ids[at], policy_id: policyIds[at] } }),
  play: (model) => model.deletePermission(at, KEY),
})

function modelOf({ parents, policies = {}, config = {} }: Scene): Model {
  const model = new Model()
  for (const [number, parent] of parents.entries()) model.create(parent, `t${number}`)
  // Put there and not written, as what is above may not allow it any more.
  for (const [at, given] of Object.entries(policies)) model.at(Number(at)).policies.set(KEY, given)
  for (const [at, entry] of Object.entries(config)) model.at(Number(at)).config.set(LIMIT, entry)
  return model
}

async function build(arena: Arena, { parents, policies = {}, config = {} }: Scene) {
  const ids: string[] = []
  for (const parent of parents) ids.push(await arena.tenant(parent === null ? null : (ids[parent] ?? null)))
  const policyIds: Record<number, string> = {}
  // From the bottom up: above there is nothing yet that could refuse them.
  for (const at of Object.keys(policies).map(Number).toReversed()) {
    policyIds[at] = (await arena.call('create_permission', { id: ids[at], key: KEY, ...policies[at] })).id
  }
  for (const at of Object.keys(config).map(Number).toReversed()) await arena.call('set_config', { id: ids[at], key: LIMIT, ...config[at] })
  return { ids, policyIds }
}

const ordersOf = <T>(all: T[]): T[][] =>
  all.length === 0 ? [[]] : all.flatMap((first, index) => ordersOf(all.toSpliced(index, 1)).map((rest) => [first, ...rest]))

/** Does playing the deeds in this order end as they did, and leave what is there? */
function fits(scene: Scene, order: Array<[Deed, Outcome]>, held: string[]): boolean {
  const model = modelOf(scene)
  const codesFit = order.every(([deed, { code }]) => {
    const faults = deed.play(model)
    return faults.length === 0 ? code === 'ok' : faults.includes(code)
  })
  return codesFit && inTheModel(model).toSorted().join('\n') === held.join('\n')
}

const ordered = (name: string, scene: Scene, deeds: Deed[], codes: string[]): Race =>
  race({
    name,
    prepare: (arena) => build(arena, scene),
    calls: (at) => deeds.map((deed) => deed.call(at)),
    judge: async ({ ids }, outcomes, arena) => {
      const held = (await byOperations({ ids, control: arena.control })).toSorted()
      const plain = (await alongParents({ ids, owner: arena.owner })).toSorted()
      if (held.join('\n') !== plain.join('\n')) return 'a plain query finds that something else holds'
      const ended = deeds.map((deed, index): [Deed, Outcome] => [deed, outcomes[index] as Outcome])
      return ordersOf(ended).some((order) => fits(scene, order, held)) ? null : `no order of these calls leaves ${held.join(', ')}`
    },
    codes,
  })

const line = [null, 0, 1]
/** A line of two that may go under either of two roots, which hold something and differ in how. */
const betweenTwo = [null, null, null, 2]

export const orderedRaces: Race[] = [
  ordered(
    'config lock, override two levels below, and a move under another lock that is being taken away',
    { parents: [null, 0, 1, null], config: { 3: { value: 'other lock', locked: true } } },
    [setConfig(0, 'lock', true), setConfig(2, 'override', false), move(1, 3), deleteConfig(3)],
    ['CONFIG_LOCKED'],
  ),
  ordered(
    'config lock taken away, put back and overridden below',
    { parents: line, config: { 0: { value: 'lock', locked: true } } },
    [setConfig(0, 'open', false), setConfig(1, 'lock below', true), setConfig(2, 'override', false), setConfig(0, 'lock again', true)],
    ['CONFIG_LOCKED'],
  ),
  ordered(
    'permission lock with create and update below',
    { parents: line, policies: { 0: policy('DELEGATED', 'CASCADE', 'top'), 2: policy('DELEGATED', 'CASCADE', 'bottom') } },
    [change(0, { mode: 'LOCKED' }), give(1, policy('INHERITED', 'CASCADE', 'between')), change(2, { value: 'changed' })],
    ['PERMISSION_LOCKED', 'PERMISSION_NOT_DELEGATED'],
  ),
  ...(['CASCADE', 'SOFT'] as const).map((revocation) =>
    ordered(
      `${revocation} revoke with delegate of the same policy, and creates below that need one or the other`,
      { parents: line, policies: { 0: policy('INHERITED', revocation, 'top') } },
      [revoke(0), change(0, { mode: 'DELEGATED' }), give(1, policy('DELEGATED', 'CASCADE', 'between')), give(2, policy('LOCKED', 'CASCADE', 'bottom'))],
      ['PERMISSION_NOT_FOUND', 'PERMISSION_NOT_DELEGATED', 'PERMISSION_EXISTS', 'PERMISSION_LOCKED'],
    ),
  ),
  ordered(
    'policy and config written below while moved under a locking and a non-delegating tenant',
    {
      parents: betweenTwo,
      policies: { 0: policy('LOCKED', 'CASCADE', 'locking'), 1: policy('INHERITED', 'CASCADE', 'not delegating'), 3: policy('DELEGATED', 'CASCADE', 'own') },
      config: { 0: { value: 'locking', locked: true }, 1: { value: 'open', locked: false } },
    },
    [move(2, 0), move(2, 1), change(3, { mode: 'LOCKED' }), setConfig(3, 'own', true)],
    ['PERMISSION_LOCKED', 'PERMISSION_NOT_DELEGATED', 'CONFIG_LOCKED'],
  ),
  ordered(
    'SOFT revoke with a move of a child under a lock, and a create in it',
    { parents: [null, 0, 0, null], policies: { 0: policy('DELEGATED', 'SOFT', 'top'), 3: policy('LOCKED', 'CASCADE', 'locking') } },
    [revoke(0), move(1, 3), give(1, policy('DELEGATED', 'CASCADE', 'own')), change(3, { mode: 'INHERITED' })],
    ['PERMISSION_EXISTS', 'PERMISSION_LOCKED', 'PERMISSION_NOT_DELEGATED'],
  ),
  ordered(
    'CASCADE revoke with a move out of its reach and a move into it',
    {
      parents: [null, 0, null, null, 0],
      policies: {
        0: policy('DELEGATED', 'CASCADE', 'top'),
        1: policy('DELEGATED', 'CASCADE', 'leaves'),
        2: policy('DELEGATED', 'CASCADE', 'enters'),
        4: policy('DELEGATED', 'CASCADE', 'stays'),
      },
    },
    [revoke(0), move(1, 3), move(2, 0)],
    [],
  ),
]
