/** Random steps, played on the model and on the database alike. */
import fc from 'fast-check'
import { expect } from 'vitest'
import type { Json } from '../../src/core/json.ts'
import type { Mode, Model, Policy, Revocation } from '../support/model.ts'
import { tenantInput } from './arena.ts'
import type { Call } from './operations.ts'
import type { World } from './world.ts'

/**
 * Which tenant a step is about, whatever there are. A holder has an entry or policy of the step's key, one near
 * is its parent or child, and one above is a holder with a holder directly below.
 */
type Choice = { of: 'any' | 'last' | 'lowest' | 'holder' | 'near' | 'above'; n: number }

export type Step =
  | { op: 'create'; under: Choice | null; slug: number }
  | { op: 'update'; at: Choice; slug?: number; name?: string }
  | { op: 'move'; at: Choice; to: Choice | null }
  | { op: 'suspend' | 'resume' | 'archive'; at: Choice }
  | { op: 'setConfig'; at: Choice; key: string; value: Json; locked: boolean }
  | { op: 'deleteConfig'; at: Choice; key: string }
  | ({ op: 'createPermission'; at: Choice; key: string } & Policy)
  | { op: 'updatePermission'; at: Choice; key: string; patch: Partial<Policy> }
  | { op: 'deletePermission'; at: Choice; key: string }

const n = fc.nat(10_000)
const pick: fc.Arbitrary<Choice> = fc.record({ of: fc.constantFrom('any', 'any', 'last', 'lowest'), n })
/** Where something comes to stand: mostly far down, so that the last level is met. */
const place: fc.Arbitrary<Choice> = fc.record({ of: fc.constantFrom('any', 'last', 'lowest', 'lowest', 'lowest', 'lowest'), n })
const holder: fc.Arbitrary<Choice> = fc.record({ of: fc.constantFrom('holder', 'above', 'above', 'any'), n })
const near: fc.Arbitrary<Choice> = fc.record({ of: fc.constantFrom('near', 'near', 'any', 'last'), n })
const value: fc.Arbitrary<Json> = fc.oneof(
  { weight: 5, arbitrary: fc.nat(9) },
  fc.constantFrom<Json>(null, false, '', 'text', [1, 'two', null], { nested: { deep: [] } }),
)
const mode: fc.Arbitrary<Mode> = fc.constantFrom('LOCKED', 'INHERITED', 'INHERITED', 'DELEGATED', 'DELEGATED', 'DELEGATED')
const revocation: fc.Arbitrary<Revocation> = fc.constantFrom('CASCADE', 'CASCADE', 'CASCADE', 'SOFT', 'SOFT', 'SOFT', 'SOFT', 'PERMANENT')
const configKey = fc.constantFrom('limit', 'theme', 'plan')
const permissionKey = fc.constantFrom('edit', 'export')
const policy = { value, mode, revocation_mode: revocation }
// Out of few, so that many are taken.
const slug = fc.nat(400)

const weighted: Array<fc.WeightedArbitrary<Step>> = [
  { weight: 10, arbitrary: fc.record({ op: fc.constant('create' as const), under: fc.option(place, { freq: 8, nil: null }), slug }) },
  {
    weight: 2,
    arbitrary: fc.record(
      { op: fc.constant('update' as const), at: pick, slug, name: fc.string({ minLength: 1, maxLength: 9, unit: 'grapheme-ascii' }) },
      { requiredKeys: ['op', 'at'] },
    ),
  },
  { weight: 10, arbitrary: fc.record({ op: fc.constant('move' as const), at: pick, to: fc.option(place, { freq: 10, nil: null }) }) },
  { weight: 5, arbitrary: fc.record({ op: fc.constantFrom('suspend' as const, 'archive' as const), at: pick }) },
  { weight: 8, arbitrary: fc.record({ op: fc.constant('resume' as const), at: pick }) },
  {
    weight: 9,
    arbitrary: fc.record({
      op: fc.constant('setConfig' as const),
      at: near,
      key: configKey,
      value,
      locked: fc.integer({ min: 0, max: 3 }).map((roll) => roll === 0),
    }),
  },
  { weight: 5, arbitrary: fc.record({ op: fc.constant('deleteConfig' as const), at: holder, key: configKey }) },
  { weight: 12, arbitrary: fc.record({ op: fc.constant('createPermission' as const), at: near, key: permissionKey, ...policy }) },
  {
    weight: 6,
    arbitrary: fc.record({ op: fc.constant('updatePermission' as const), at: holder, key: permissionKey, patch: fc.record(policy, { requiredKeys: [] }) }),
  },
  { weight: 9, arbitrary: fc.record({ op: fc.constant('deletePermission' as const), at: holder, key: permissionKey }) },
]

/** One step with the sample of tenants that is looked at after it. */
class Play implements fc.AsyncCommand<Model, World> {
  readonly #step: Step
  readonly #sample: number[]
  readonly #progress: Progress

  constructor(step: Step, sample: number[], progress: Progress) {
    this.#step = step
    this.#sample = sample
    this.#progress = progress
  }

  check = () => true
  toString = () => JSON.stringify(this.#step)

  async run(model: Model, world: World): Promise<void> {
    const step: Step = model.tenants.length === 0 ? { op: 'create', under: null, slug: 0 } : this.#step
    const { code, touched } = await play(step, model, world)
    this.#note(`${step.op} ${code}`, Math.max(0, ...touched.map((number) => model.depth(number) + 1)))
    await world.compare(model, [...touched, ...this.#sample.map((index) => index % model.tenants.length)])
    if (this.#progress.played % 200 === 0) await world.compareAll(model)
  }

  #note(ending: string, levels: number) {
    const { ended } = this.#progress
    ended[ending] = (ended[ending] ?? 0) + 1
    this.#progress.played++
    this.#progress.levels = Math.max(this.#progress.levels, levels)
  }
}

/** Steps played so far, over all runs: how many, how each kind ended, and how deep a tree became. */
export interface Progress {
  played: number
  ended: Record<string, number>
  levels: number
}

export const stepArbitrary = (progress: Progress): fc.Arbitrary<fc.AsyncCommand<Model, World>> =>
  fc.tuple(fc.oneof(...weighted), fc.array(n, { minLength: 5, maxLength: 5 })).map(([step, sample]) => new Play(step, sample, progress))

function choose(model: Model, { of, n }: Choice, key = ''): number {
  const every = model.tenants.map((_, number) => number)
  const among = (candidates: number[]) => candidates[n % candidates.length] ?? n % every.length
  const holders = () => every.filter((number) => model.at(number).config.has(key) || model.at(number).policies.has(key))
  switch (of) {
    case 'any':
      return among(every)
    case 'last':
      return among(every.slice(-5))
    case 'lowest': {
      const depths = every.map(model.depth)
      const lowest = Math.max(...depths)
      return among(every.filter((number) => (depths[number] ?? 0) >= lowest - 1))
    }
    case 'holder':
      return among(holders())
    case 'above': {
      const all = new Set(holders())
      return among([...all].filter((number) => model.children(number).some((child) => all.has(child))))
    }
    case 'near':
      return among(holders().flatMap((number) => [...model.children(number), model.at(number).parent ?? number]))
  }
}

/** Play on both sides, compare how it ended, and answer who may have changed. */
async function play(step: Step, model: Model, world: World): Promise<{ code: string; touched: number[] }> {
  const at = 'at' in step ? choose(model, step.at, 'key' in step ? step.key : undefined) : null
  const before = at === null ? [] : [model.at(at).parent]
  const { call, faults } = await prepare(step, model, world, at)
  const { code, answer, retried } = await world.call(call)
  expect({ code: faults.length === 0 ? code : 'refused', retried }).toEqual({ code: faults.length === 0 ? 'ok' : 'refused', retried: [] })
  if (faults.length > 0) expect(faults).toContain(code)
  if (step.op === 'create' && code === 'ok') world.ids.push((answer as { id: string }).id)
  const about = at ?? (code === 'ok' ? model.tenants.length - 1 : null)
  if (about === null) return { code, touched: [] }
  const after = code === 'ok' ? [model.at(about).parent] : []
  return { code, touched: [...before, ...after, ...model.subtree(about).slice(0, 4)].filter((number) => number !== null) }
}

interface Prepared {
  call: Call
  faults: string[]
}

/** The call of a step, and what the model makes of it. The call is made up first: it asks for what the step changes. */
async function prepare(step: Step, model: Model, world: World, at: number | null): Promise<Prepared> {
  const slugOf = (slug: number) => `s${slug}`
  if (step.op === 'create') {
    const under = step.under === null ? null : choose(model, step.under)
    const input = tenantInput(under === null ? null : world.idOf(under), world.prefix + slugOf(step.slug))
    return { call: { operation: 'create_tenant', input: { ...input, name: slugOf(step.slug) } }, faults: model.create(under, slugOf(step.slug)) }
  }
  if (at === null) throw new TypeError(`${step.op} is about no tenant`)
  const id = world.idOf(at)
  switch (step.op) {
    case 'update': {
      const patch = { ...(step.slug === undefined ? {} : { slug: slugOf(step.slug) }), ...(step.name === undefined ? {} : { name: step.name }) }
      const input = { id, ...patch, ...(patch.slug === undefined ? {} : { slug: world.prefix + patch.slug }) }
      return { call: { operation: 'update_tenant', input }, faults: model.update(at, patch) }
    }
    case 'move': {
      const to = step.to === null ? null : choose(model, step.to)
      return { call: { operation: 'move_tenant', input: { id, new_parent_id: to === null ? null : world.idOf(to) } }, faults: model.move(at, to) }
    }
    case 'setConfig': {
      const { key, value, locked } = step
      return { call: { operation: 'set_config', input: { id, key, value, locked } }, faults: model.setConfig(at, key, { value, locked }) }
    }
    case 'deleteConfig':
      return { call: { operation: 'delete_config', input: { id, key: step.key } }, faults: model.deleteConfig(at, step.key) }
    case 'suspend':
    case 'resume':
    case 'archive':
      return { call: { operation: `${step.op}_tenant`, input: { id } }, faults: model[step.op](at) }
    default:
      return preparePermission(step, model, world, at)
  }
}

const NOBODYS_POLICY = '00000000-0000-7000-8000-000000000000'

async function preparePermission(step: Extract<Step, { op: `${string}Permission` }>, model: Model, world: World, at: number): Promise<Prepared> {
  const id = world.idOf(at)
  if (step.op === 'createPermission') {
    const { key, value, mode, revocation_mode } = step
    const call = { operation: 'create_permission', input: { id, key, value, mode, revocation_mode } }
    return { call, faults: model.createPermission(at, key, { value, mode, revocation_mode }) }
  }
  const policy_id = (await world.policyId(at, step.key)) ?? NOBODYS_POLICY
  if (step.op === 'deletePermission') {
    return { call: { operation: 'delete_permission', input: { id, policy_id } }, faults: model.deletePermission(at, step.key) }
  }
  return { call: { operation: 'update_permission', input: { id, policy_id, ...step.patch } }, faults: model.updatePermission(at, step.key, step.patch) }
}
