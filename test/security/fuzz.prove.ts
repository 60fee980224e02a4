/** The long form: npx vitest run --config vitest.prove.config.ts test/security */
import { expect, it } from 'vitest'
import { createInstallation } from '../support/installation.ts'
import { fuzz } from './fuzz.ts'

/** Sooner or later a request purges the tenants that the others are about, and all after it end at the door: so many begin anew. */
const INSTALLATIONS = 20
const REQUESTS = 5_000

it('answers 100,000 random requests without a 5xx, each refusal with a code and a request id', async () => {
  const counts: Record<string, number> = {}
  let answers = 0
  for (let made = 0; made < INSTALLATIONS; made++) {
    const installation = await createInstallation()
    try {
      await fuzz(installation, REQUESTS)
      for (const { status } of installation.log) counts[status] = (counts[status] ?? 0) + 1
      answers += installation.log.length
    } finally {
      await installation.close()
    }
  }
  console.log('answers by status', counts)
  expect(answers).toBeGreaterThanOrEqual(100_000)
  expect(Object.keys(counts).filter((status) => Number(status) >= 500)).toEqual([])
})
