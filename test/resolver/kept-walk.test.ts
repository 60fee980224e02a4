/** The walk of test/reliability/kept-contexts.prove.ts, a short way: about one step of each kind. */
import { afterAll, beforeAll, expect, it } from 'vitest'
import { createInstallation, type Installation } from '../support/installation.ts'
import { FAULTS } from './kept-walk/faults.ts'
import { OPERATIONS } from './kept-walk/steps.ts'
import { changingOperations, walk } from './kept-walk/walk.ts'
import { summaryOf } from './kept-walk/walked.ts'

let installation: Installation
beforeAll(async () => {
  installation = await createInstallation()
})
afterAll(() => installation.close())

it('knows every operation that changes something', () => {
  expect(Object.keys(OPERATIONS).toSorted()).toEqual(changingOperations().toSorted())
})

const seed = Number(process.env['STRATUM_SEED'] ?? 1)

it(`leaves every kept context as SQL answers it, after each of many changes, seed ${seed}`, async () => {
  const walked = await walk(installation, { seed, steps: 36, questions: 24, evenly: true })
  console.info(`kept contexts, seed ${seed}: ${summaryOf(walked)}`)
  expect(walked.differences).toEqual([])
  expect(Object.keys(walked.done).length).toBeGreaterThan(25)
  expect(walked.contexts / walked.comparisons).toBeGreaterThan(0.4)
})

it('would notice rows of the feed that are lost', async () => {
  const own = await createInstallation()
  const faults = FAULTS.filter(({ name }) => /kind (subtree|principal) are dropped/.test(name))
  const { noticed } = await walk(own, { seed: 2, steps: 40, questions: 24, faults }).finally(() => own.close())
  expect(Object.keys(noticed).toSorted()).toEqual(faults.map(({ name }) => name).toSorted())
})
