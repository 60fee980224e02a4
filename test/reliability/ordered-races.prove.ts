/** 200 rounds of each race that the model judges, and that the judge finds what fits no order. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { Arena } from './arena.ts'
import { expectConsistent } from './invariants.ts'
import { orderedRaces } from './ordered-races.ts'
import { Stage } from './stage.ts'

let stage: Stage
let arena: Arena
beforeEach(async () => {
  stage = await Stage.open()
  arena = await Arena.open(stage.installation)
})
afterEach(async () => {
  await arena.close()
  await stage.close()
})

describe('races of locks, overrides, revokes, delegates and moves', () => {
  it.each(orderedRaces)('end as some order of the calls does in the model: $name', async (race) => {
    const { rounds, outcomes, retried, blemishes } = await arena.play(race, 200)
    // A race that always ends the same way has not raced.
    console.info(`${race.name}: ${rounds} rounds, ${JSON.stringify(outcomes)}, retried by the port ${JSON.stringify(retried)}`)
    expect({ blemishes, retried }).toEqual({ blemishes: [], retried: {} })
    await expectConsistent(stage.installation.owner)
  })
})

describe('the judge finds', () => {
  /** What is wrong with the first rounds in which something is. */
  const found = async (passes: number) => {
    for (let pass = 0; pass < passes; pass++) {
      for (const race of orderedRaces) {
        const { blemishes } = await arena.play(race, 4)
        if (blemishes.length > 0) return blemishes
      }
    }
    return []
  }

  it('nothing as things are', async () => {
    expect(await found(2)).toEqual([])
  })

  it.each([
    { fault: 'a write below what does not delegate', name: 'require_permission_writable', from: "deciding.mode = 'INHERITED'", to: 'false' },
    { fault: 'a nearest lock that wins', name: 'resolved_config', from: 'then l.depth else -l.depth', to: 'then -l.depth else -l.depth' },
    { fault: 'a SOFT revoke without copies', name: 'hand_down', from: /if effective.*?end if;/s, to: "return '{}';" },
    { fault: 'a CASCADE revoke that leaves what is below', name: 'revoke_below', from: 'delete from permission_policies where id = any (revoked);', to: '' },
  ])('$fault', async ({ name, from, to }) => {
    await stage.edit(name, from, to)
    expect((await found(25)).join('\n')).toMatch(/no order of these calls|a plain query/)
  })
})
