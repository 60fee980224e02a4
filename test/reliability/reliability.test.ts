/** A short version of what the .prove.ts files here do at length: the same races and the same model. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createInstallation, type Installation } from '../support/installation.ts'
import { Arena } from './arena.ts'
import { expectConsistent } from './invariants.ts'
import { playModel } from './model-run.ts'
import { orderedRaces } from './ordered-races.ts'
import { policyRaces } from './policy-races.ts'
import { treeRaces } from './races.ts'

let installation: Installation
let arena: Arena
beforeAll(async () => {
  installation = await createInstallation()
  arena = await Arena.open(installation)
})
afterAll(async () => {
  await arena.close()
  await installation.close()
})

describe('races', () => {
  it.each([...treeRaces, ...policyRaces, ...orderedRaces])('end in one order or the other: $name', async (race) => {
    const { blemishes, retried } = await arena.play(race, 4)
    expect(blemishes).toEqual([])
    expect(retried).toEqual({})
  })

  it('leave every tenant, chain and event consistent', () => expectConsistent(installation.owner))
})

it('does what the model does in 300 operations', async () => {
  const { played } = await playModel(installation, { seed: 1, steps: 300, longest: 150 })
  expect(played).toBeGreaterThanOrEqual(300)
})
