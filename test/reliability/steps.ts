/** Random steps: what there is to do, and how often it is done. */
import fc from 'fast-check'
import type { Json } from '../../src/core/json.ts'
import type { KeyedEntry, Mode, Policy, Revocation } from '../support/model.ts'

/**
 * Which tenant a step is about, whatever there are. A holder has an entry or policy of the step's key, one near
 * is its parent or child, and one above is a holder with a holder directly below. One inactive has no inactive one
 * above, one cascaded remembers the top of its cascade, and a parent is active and has children.
 */
export type Choice = { of: 'any' | 'last' | 'lowest' | 'holder' | 'near' | 'above' | 'inactive' | 'cascaded' | 'parent'; n: number }

/** What an entry of a batch names as its parent: a tenant, the top, or an entry's slug: its own and one beyond the last too. */
export type BatchParent = Choice | null | { entry: number }

export type Step =
  | { op: 'create'; under: Choice | null; slug: number }
  | { op: 'batchCreate'; entries: Array<{ under: BatchParent; slug: number }> }
  | { op: 'reorder'; at: Choice; position: number }
  | { op: 'update'; at: Choice; slug?: number; name?: string }
  | { op: 'move'; at: Choice; to: Choice | null }
  | { op: 'suspend' | 'archive'; at: Choice; cascade: boolean }
  | { op: 'resume'; at: Choice }
  | { op: 'setConfig'; at: Choice; key: string; value: Json; locked: boolean }
  | { op: 'batchSetConfig'; at: Choice; key: string; entries: KeyedEntry[]; atomic: boolean }
  | { op: 'deleteConfig'; at: Choice; key: string }
  | ({ op: 'createPermission'; at: Choice; key: string } & Policy)
  | { op: 'updatePermission'; at: Choice; key: string; patch: Partial<Policy> }
  | { op: 'deletePermission'; at: Choice; key: string }

const n = fc.nat(10_000)
const pick: fc.Arbitrary<Choice> = fc.record({ of: fc.constantFrom('any', 'any', 'last', 'lowest'), n })
/** Where something comes to stand: mostly far down, so that the last level is met. */
const place: fc.Arbitrary<Choice> = fc.record({ of: fc.constantFrom('any', 'last', 'lowest', 'lowest', 'lowest', 'lowest'), n })
const moving: fc.Arbitrary<Choice> = fc.record({ of: fc.constantFrom('any', 'any', 'any', 'last', 'last', 'lowest', 'lowest', 'cascaded'), n })
const target: fc.Arbitrary<Choice> = fc.oneof({ weight: 9, arbitrary: place }, { weight: 1, arbitrary: fc.record({ of: fc.constant('inactive' as const), n }) })
const holder: fc.Arbitrary<Choice> = fc.record({ of: fc.constantFrom('holder', 'above', 'above', 'any'), n })
const near: fc.Arbitrary<Choice> = fc.record({ of: fc.constantFrom('near', 'near', 'any', 'last'), n })
// Mostly small subtrees that end and mostly whole ones that come back, or nearly all would be inactive before long.
const toEnd: fc.Arbitrary<Choice> = fc.record({ of: fc.constantFrom('any', 'last', 'lowest', 'lowest', 'lowest', 'lowest', 'parent'), n })
const toResume: fc.Arbitrary<Choice> = fc.record({ of: fc.constantFrom('any', 'inactive', 'inactive', 'inactive', 'inactive'), n })
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
const slug = fc.nat(300)
const locked = fc.integer({ min: 0, max: 3 }).map((roll) => roll === 0)
const batchParent: fc.Arbitrary<BatchParent> = fc.oneof(
  { weight: 8, arbitrary: place },
  { weight: 6, arbitrary: fc.record({ entry: fc.nat(4) }) },
  { weight: 1, arbitrary: fc.constant(null) },
)
const batchEntries = fc.uniqueArray(fc.record({ under: batchParent, slug }), { minLength: 1, maxLength: 4, selector: (entry) => entry.slug })
const configEntries = fc.uniqueArray(fc.record({ key: configKey, value, locked }), { minLength: 1, maxLength: 3, selector: ({ key }) => key })

/** How often a step comes, `op` being one of those it may be. */
const weighted: Array<fc.WeightedArbitrary<Step> & { op: Step['op'] }> = [
  { op: 'create', weight: 10, arbitrary: fc.record({ op: fc.constant('create' as const), under: fc.option(place, { freq: 8, nil: null }), slug }) },
  { op: 'batchCreate', weight: 3, arbitrary: fc.record({ op: fc.constant('batchCreate' as const), entries: batchEntries }) },
  { op: 'reorder', weight: 5, arbitrary: fc.record({ op: fc.constant('reorder' as const), at: pick, position: fc.nat(6) }) },
  {
    op: 'update',
    weight: 4,
    arbitrary: fc.record(
      { op: fc.constant('update' as const), at: pick, slug, name: fc.string({ minLength: 1, maxLength: 9, unit: 'grapheme-ascii' }) },
      { requiredKeys: ['op', 'at'] },
    ),
  },
  { op: 'move', weight: 10, arbitrary: fc.record({ op: fc.constant('move' as const), at: moving, to: fc.option(target, { freq: 10, nil: null }) }) },
  { op: 'suspend', weight: 5, arbitrary: fc.record({ op: fc.constantFrom('suspend' as const, 'archive' as const), at: toEnd, cascade: fc.boolean() }) },
  { op: 'resume', weight: 9, arbitrary: fc.record({ op: fc.constant('resume' as const), at: toResume }) },
  {
    op: 'setConfig',
    weight: 9,
    arbitrary: fc.record({
      op: fc.constant('setConfig' as const),
      at: near,
      key: configKey,
      value,
      locked,
    }),
  },
  {
    op: 'batchSetConfig',
    weight: 4,
    arbitrary: fc.record({ op: fc.constant('batchSetConfig' as const), at: near, key: configKey, entries: configEntries, atomic: fc.boolean() }),
  },
  { op: 'deleteConfig', weight: 5, arbitrary: fc.record({ op: fc.constant('deleteConfig' as const), at: holder, key: configKey }) },
  { op: 'createPermission', weight: 12, arbitrary: fc.record({ op: fc.constant('createPermission' as const), at: near, key: permissionKey, ...policy }) },
  {
    op: 'updatePermission',
    weight: 6,
    arbitrary: fc.record({ op: fc.constant('updatePermission' as const), at: holder, key: permissionKey, patch: fc.record(policy, { requiredKeys: [] }) }),
  },
  { op: 'deletePermission', weight: 9, arbitrary: fc.record({ op: fc.constant('deletePermission' as const), at: holder, key: permissionKey }) },
]

/** Any step; those of `focus` come eight times as often as else. */
export const stepArbitrary = (focus: ReadonlyArray<Step['op']> = []): fc.Arbitrary<Step> =>
  fc.oneof(...weighted.map(({ op, weight, arbitrary }) => ({ weight: focus.includes(op) ? weight * 8 : weight, arbitrary })))
