/** Races through the front door: SDK, app, the real driver, and a connection of the endpoint's for each request. */
import { afterAll, beforeAll, expect, it } from 'vitest'
import { StratumError } from '../../src/core/errors.ts'
import type { StratumClient } from '../../src/sdk/client.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { expectConsistent } from './invariants.ts'

const ROUNDS = 200

let installation: Installation
let admin: StratumClient
beforeAll(async () => {
  installation = await createInstallation()
  admin = await installation.clientFor(null)
})
afterAll(() => installation.close())

let slugs = 0
const tenant = async (parent_id: string | null = null) => (await admin.createTenant({ slug: `f${++slugs}`, name: 'F', parent_id })).id

/** How each of these requests ended. */
const race = (...requests: Array<Promise<unknown>>): Promise<string> =>
  Promise.all(
    requests.map((request) =>
      request.then(
        () => 'ok',
        (error: unknown) => (error instanceof StratumError ? error.code : String(error)),
      ),
    ),
  ).then((codes) => codes.join(' + '))

async function tally(round: () => Promise<string>): Promise<Record<string, number>> {
  const outcomes: Record<string, number> = {}
  for (let count = 0; count < ROUNDS; count++) {
    const outcome = await round()
    outcomes[outcome] = (outcomes[outcome] ?? 0) + 1
  }
  console.info(`${expect.getState().currentTestName}: ${ROUNDS} rounds, ${JSON.stringify(outcomes)}`)
  await expectConsistent(installation.owner)
  return outcomes
}

it('cross moves: one wins, the other is told of the cycle', async () => {
  const outcomes = await tally(async () => {
    const [a, b] = [await tenant(), await tenant()]
    const [underA, underB] = [await tenant(a), await tenant(b)]
    return race(admin.moveTenant({ id: a, new_parent_id: underB }), admin.moveTenant({ id: b, new_parent_id: underA }))
  })
  expect(Object.keys(outcomes).every((outcome) => ['ok + TENANT_CYCLE_DETECTED', 'TENANT_CYCLE_DETECTED + ok'].includes(outcome))).toBe(true)
})

it('creates under a moving subtree all succeed', async () => {
  const target = await tenant()
  const outcomes = await tally(async () => {
    const top = await tenant()
    const middle = await tenant(top)
    return race(tenant(middle), admin.moveTenant({ id: top, new_parent_id: target }), tenant(middle), tenant(top))
  })
  expect(outcomes).toEqual({ 'ok + ok + ok + ok': ROUNDS })
})

it('create with suspend of the parent: one order or the other', async () => {
  const outcomes = await tally(async () => {
    const parent = await tenant()
    return race(tenant(parent), admin.suspendTenant({ id: parent }))
  })
  expect(Object.keys(outcomes).every((outcome) => ['ok + TENANT_HAS_CHILDREN', 'TENANT_INVALID_STATE + ok'].includes(outcome))).toBe(true)
})

it('a key that is revoked while it is used works or is refused, and then is refused', async () => {
  const parent = await tenant()
  const outcomes = await tally(async () => {
    const { id, key } = await admin.createApiKey({ tenant_id: parent, scopes: ['write'] })
    const user = installation.client({ apiKey: key })
    const write = () => user.setConfig({ id: parent, key: 'limit', value: 1 })
    const during = await race(admin.revokeApiKey({ id }), write())
    return `${during}, then ${await race(write())}`
  })
  expect(Object.keys(outcomes).every((outcome) => /^ok \+ (ok|API_KEY_INVALID), then API_KEY_INVALID$/.test(outcome))).toBe(true)
})
