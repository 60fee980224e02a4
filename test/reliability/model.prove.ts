/** Ten thousand random operations on several trees, compared with the model after each. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { createInstallation, type Installation } from '../support/installation.ts'
import { playModel } from './model-run.ts'
import { Stage } from './stage.ts'
import type { Step } from './steps.ts'

/** Give STRATUM_SEED to play the same histories again. */
const seed = Number(process.env['STRATUM_SEED'] ?? Math.floor(Math.random() * 2 ** 31))

describe('ten thousand random operations', () => {
  let installation: Installation
  beforeAll(async () => {
    installation = await createInstallation()
  })
  afterAll(() => installation.close())

  it(`do what they do to the model, seed ${seed}`, async () => {
    const { played, runs, levels, ended } = await playModel(installation, { seed, steps: 10_000, longest: 600 })
    console.info(`model: ${played} operations in ${runs} runs, seed ${seed}, ${levels} levels, ${JSON.stringify(ended)}`)
    expect(played).toBeGreaterThanOrEqual(10_000)
  })
})

/** A change of a routine's text, and the steps that meet it, where the usual mix would take long. */
interface Fault {
  fault: string
  name: string
  from: string | RegExp
  to: string
  focus?: Array<Step['op']>
}

describe('a small fault in SQL is found', () => {
  let stage: Stage
  beforeEach(async () => {
    stage = await Stage.open()
  })
  afterEach(() => stage.close())

  it.each<Fault>([
    { fault: 'the nearest lock wins, not the topmost', name: 'resolved_config', from: 'then l.depth else -l.depth', to: 'then -l.depth else -l.depth' },
    { fault: 'a mode below INHERITED counts', name: 'resolved_permissions', from: "p.mode <> 'DELEGATED'", to: "p.mode = 'LOCKED'" },
    { fault: 'CASCADE takes PERMANENT policies too', name: 'revoke_below', from: "and p.revocation_mode <> 'PERMANENT'", to: '' },
    {
      fault: 'SOFT replaces PERMANENT policies',
      name: 'hand_down',
      from: /(where|and) existing.revocation_mode <> 'PERMANENT'/,
      to: '',
      focus: ['createPermission', 'deletePermission'],
    },
    {
      fault: 'SOFT hands down to active children only',
      name: 'hand_down',
      from: 'child.parent_id = t.id',
      to: "child.parent_id = t.id and child.status = 'active'",
      focus: ['createPermission', 'deletePermission', 'suspend'],
    },
    { fault: 'a parent with active children is suspended', name: 'change_status', from: "child.status = 'active'", to: 'false' },
    { fault: 'a move counts one level too few', name: 'move_tenant', from: 'nlevel(old.path) + 1 +', to: 'nlevel(old.path) +', focus: ['create', 'move'] },
    { fault: 'an override below a lock is accepted', name: 'require_config_unlocked', from: 'and e.locked', to: 'and false' },
    {
      fault: 'resuming takes along what was inactive before',
      name: 'reactivate',
      from: 'c.archived_with = t.id)',
      to: "c.archived_with = t.id or c.parent_id = t.id and c.status <> 'active')",
    },
    { fault: 'a cascade is not remembered', name: 'deactivate', from: "target = 'suspended' then t.id", to: "target = 'suspended' then null::uuid" },
    {
      fault: 'a place is counted from 1',
      name: 'reorder_tenant',
      from: 'siblings[:place] || t.id || siblings[place + 1:]',
      to: 'siblings[:place - 1] || t.id || siblings[place:]',
    },
    { fault: 'a tenant that moves keeps its place', name: 'move_tenant', from: 'then stratum.last_place(parent.id)', to: 'then t.sort_order' },
    {
      fault: 'a slug is given up for another',
      name: 'update_tenant',
      from: "if input ->> 'slug' is not null then",
      to: "delete from tenant_slugs s where s.slug = old.slug and s.slug <> input ->> 'slug';\n  if input ->> 'slug' is not null then",
    },
    { fault: 'a batch of all or none keeps some', name: 'batch_set_config', from: "if (input ->> 'atomic')::boolean then raise; end if;", to: '' },
    {
      fault: 'a batch leaves out whose parent is nowhere',
      name: 'batch_create_tenants',
      from: /perform stratum\.fail\('TENANT_PARENT_NOT_IN_BATCH'.*?\);/s,
      to: 'null;',
    },
    { fault: 'a count takes archived tenants for suspended', name: 'get_tenant_counts', from: "d.status = 'suspended'", to: "d.status <> 'active'" },
    {
      fault: 'an update passes on what was not delegated',
      name: 'update_permission',
      from: "coalesce(input ->> 'mode', old.mode))",
      to: 'old.mode)',
      focus: ['createPermission', 'updatePermission'],
    },
  ])('$fault', async ({ name, from, to, focus = [] }) => {
    await stage.edit(name, from, to)
    await expect(playModel(stage.installation, { seed: 1, steps: 5_000, longest: 600, sample: 0, focus, unshortened: true })).rejects.toThrow(/Property failed/)
  })
})
