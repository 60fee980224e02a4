/** Steps played on the model and on the database alike, and what is compared after each. */
import fc from 'fast-check'
import { expect } from 'vitest'
import type { Model, Spec } from '../support/model.ts'
import { tenantInput } from './arena.ts'
import type { Call } from './operations.ts'
import { type BatchParent, type Choice, type Step, stepArbitrary } from './steps.ts'
import type { World } from './world.ts'

/** Steps played so far, over all runs: how many, how each kind ended, and how deep a tree became. */
export interface Progress {
  played: number
  ended: Record<string, number>
  levels: number
}

/** A step, and a sample of so many tenants that is looked at after it. */
export const playable = (progress: Progress, sample: number, focus: ReadonlyArray<Step['op']>): fc.Arbitrary<fc.AsyncCommand<Model, World>> =>
  fc.tuple(stepArbitrary(focus), fc.array(fc.nat(10_000), { minLength: sample, maxLength: sample })).map(([step, others]) => new Play(step, others, progress))

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
    case 'inactive':
      return among(every.filter((number) => model.at(number).status !== 'active' && model.mayBeActive(number)))
    case 'cascaded':
      return among(every.filter((number) => model.at(number).remembers !== null))
    case 'parent':
      return among(every.filter((number) => model.at(number).status === 'active' && model.children(number).length > 0))
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
  const before = model.tenants.map(({ parent, status }) => ({ parent, status }))
  const { call, faults, check } = await prepare(step, model, world, at)
  const { code, answer, retried } = await world.call(call)
  expect({ code: faults.length === 0 ? code : 'refused', retried }).toEqual({ code: faults.length === 0 ? 'ok' : 'refused', retried: [] })
  if (faults.length > 0) expect(faults).toContain(code)
  else check?.(answer)
  const changed = model.tenants.flatMap(({ parent, status }, number) => {
    const old = before[number]
    return old?.parent === parent && old.status === status ? [] : [number, parent, old?.parent ?? null]
  })
  const about = at === null ? [] : [model.at(at).parent, ...model.subtree(at).slice(0, 4)]
  return { code, touched: [...about, ...changed.slice(0, 30)].filter((number) => number !== null) }
}

interface Prepared {
  call: Call
  faults: string[]
  /** What the answer must say besides, when the call is no refusal. */
  check?: (answer: unknown) => void
}

const slugOf = (slug: number) => `s${slug}`

/** The call of a step, and what the model makes of it. The call is made up first: it asks for what the step changes. */
async function prepare(step: Step, model: Model, world: World, at: number | null): Promise<Prepared> {
  if (step.op === 'create') return prepareCreate(step, model, world)
  if (step.op === 'batchCreate') return prepareBatch(step, model, world)
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
    case 'reorder': {
      const { position } = step
      return { call: { operation: 'reorder_tenant', input: { id, position } }, faults: model.reorder(at, position) }
    }
    case 'suspend':
    case 'archive': {
      const { op, cascade } = step
      return { call: { operation: `${op}_tenant`, input: { id, cascade } }, faults: model[op](at, cascade) }
    }
    case 'resume':
      return { call: { operation: 'resume_tenant', input: { id } }, faults: model.resume(at) }
    case 'setConfig':
    case 'batchSetConfig':
    case 'deleteConfig':
      return prepareConfig(step, model, id, at)
    default:
      return preparePermission(step, model, world, at)
  }
}

function prepareCreate(step: Extract<Step, { op: 'create' }>, model: Model, world: World): Prepared {
  const under = step.under === null ? null : choose(model, step.under)
  const slug = slugOf(step.slug)
  const input = { ...tenantInput(under === null ? null : world.idOf(under), world.prefix + slug), name: slug }
  const check = (answer: unknown) => world.ids.push((answer as { id: string }).id)
  return { call: { operation: 'create_tenant', input }, faults: model.create(under, slug), check }
}

function prepareBatch({ entries }: Extract<Step, { op: 'batchCreate' }>, model: Model, world: World): Prepared {
  const parentOf = (under: BatchParent): Spec['parent'] => {
    if (under === null || 'of' in under) return under && choose(model, under)
    return { slug: entries[under.entry] === undefined ? 'nobody' : slugOf(entries[under.entry]?.slug ?? 0) }
  }
  const specs: Spec[] = entries.map(({ under, slug }) => ({ parent: parentOf(under), slug: slugOf(slug) }))
  const tenants = specs.map(({ parent, slug }) => ({
    ...{ ...tenantInput(null, world.prefix + slug), name: slug },
    ...(parent !== null && typeof parent === 'object'
      ? { parent_slug: world.prefix + parent.slug }
      : { parent_id: parent === null ? null : world.idOf(parent) }),
  }))
  const check = (answer: unknown) => {
    const made = (answer as { tenants: Array<{ id: string; slug: string }> }).tenants
    expect(made.map(({ slug }) => slug)).toEqual(tenants.map(({ slug }) => slug))
    // Answered in the order given, numbered in the order made.
    const ids = new Map(made.map(({ id, slug }) => [slug, id]))
    for (const { slug } of model.tenants.slice(world.ids.length)) world.ids.push(ids.get(world.prefix + slug) ?? '')
  }
  return { call: { operation: 'batch_create_tenants', input: { tenants } }, faults: model.batchCreate(specs), check }
}

function prepareConfig(step: Extract<Step, { op: `${string}Config` }>, model: Model, id: string, at: number): Prepared {
  const { key } = step
  if (step.op === 'deleteConfig') return { call: { operation: 'delete_config', input: { id, key } }, faults: model.deleteConfig(at, key) }
  if (step.op === 'setConfig') {
    const { value, locked } = step
    return { call: { operation: 'set_config', input: { id, key, value, locked } }, faults: model.setConfig(at, key, { value, locked }) }
  }
  const { entries, atomic } = step
  const { faults, refused } = model.batchSetConfig(at, entries, atomic)
  const check = (answer: unknown) => {
    const { results, succeeded, failed } = answer as { results: Array<{ key: string; error?: { code: string } }>; succeeded: number; failed: number }
    expect(results.map((result) => [result.key, result.error === undefined ? 'ok' : 'refused'])).toEqual(
      entries.map((entry) => [entry.key, refused.has(entry.key) ? 'refused' : 'ok']),
    )
    for (const { key, error } of results) if (error) expect(refused.get(key)).toContain(error.code)
    expect([succeeded, failed]).toEqual([entries.length - refused.size, refused.size])
  }
  return { call: { operation: 'batch_set_config', input: { id, entries, atomic } }, faults, check }
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
