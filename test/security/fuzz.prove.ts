/** The long form: npx vitest run --config vitest.prove.config.ts test/security */
import { afterAll, beforeAll, expect, it } from 'vitest'
import { createInstallation, type Installation } from '../support/installation.ts'
import { fuzz } from './fuzz.ts'

let installation: Installation
beforeAll(async () => {
  installation = await createInstallation()
})
afterAll(() => installation.close())

it('answers 100,000 random requests without a 5xx, each refusal with a code and a request id', async () => {
  await fuzz(installation, 100_000)
  const counts: Record<string, number> = {}
  for (const { status } of installation.log) counts[status] = (counts[status] ?? 0) + 1
  console.log('answers by status', counts)
  expect(installation.log.length).toBeGreaterThanOrEqual(100_000)
  expect(Object.keys(counts).filter((status) => Number(status) >= 500)).toEqual([])
})
