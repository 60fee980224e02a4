/** Ten thousand random operations on several trees, compared with the model after each. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { createInstallation, type Installation } from '../support/installation.ts'
import { playModel } from './model-run.ts'
import { Stage } from './stage.ts'

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

describe('a small fault in SQL is found', () => {
  let stage: Stage
  beforeEach(async () => {
    stage = await Stage.open()
  })
  afterEach(() => stage.close())

  it.each([
    { fault: 'the nearest lock wins, not the topmost', name: 'resolved_config', from: 'then l.depth else -l.depth', to: 'then -l.depth else -l.depth' },
    { fault: 'a mode below INHERITED counts', name: 'resolved_permissions', from: "p.mode <> 'DELEGATED'", to: "p.mode = 'LOCKED'" },
    { fault: 'CASCADE takes PERMANENT policies too', name: 'revoke_below', from: "and p.revocation_mode <> 'PERMANENT'", to: '' },
    { fault: 'SOFT replaces PERMANENT policies', name: 'hand_down', from: /(where|and) existing.revocation_mode <> 'PERMANENT'/, to: '' },
    {
      fault: 'SOFT hands down to active children only',
      name: 'hand_down',
      from: 'child.parent_id = t.id',
      to: "child.parent_id = t.id and child.status = 'active'",
    },
    { fault: 'a parent with active children is suspended', name: 'change_status', from: "child.status = 'active'", to: 'false' },
    { fault: 'a move counts one level too few', name: 'move_tenant', from: 'nlevel(old.path) + 1 +', to: 'nlevel(old.path) +' },
    { fault: 'an override below a lock is accepted', name: 'require_config_unlocked', from: 'and e.locked', to: 'and false' },
  ])('$fault', async ({ name, from, to }) => {
    await stage.edit(name, from, to)
    await expect(playModel(stage.installation, { seed: 1, steps: 5_000, longest: 600, unshortened: true })).rejects.toThrow(/Property failed/)
  })
})
