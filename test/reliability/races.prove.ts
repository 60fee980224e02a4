/** 200 rounds of every race, at the SQL operations and through the front door. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createInstallation, type Installation } from '../support/installation.ts'
import { Arena, type Race, type Tally } from './arena.ts'
import { expectConsistent } from './invariants.ts'
import { policyRaces } from './policy-races.ts'
import { treeRaces } from './races.ts'

const ROUNDS = 200

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

/** The figures go to the console: a race that always ends the same way has not raced. */
const print = (name: string, { rounds, outcomes, retried }: Tally) =>
  console.info(`${name}: ${rounds} rounds, ${JSON.stringify(outcomes)}, retried by the port ${JSON.stringify(retried)}`)

function prove(race: Race) {
  it(`ends in one order or the other: ${race.name}`, async () => {
    const tally = await arena.play(race, ROUNDS)
    print(race.name, tally)
    expect(tally.blemishes).toEqual([])
    expect(tally.retried).toEqual({})
  })
}

describe('races at the SQL operations', () => {
  for (const race of treeRaces) prove(race)
  for (const race of policyRaces) prove(race)
  it('leaves every tenant, chain and event of all rounds consistent', () => expectConsistent(installation.owner))
})
