import { afterAll, beforeAll, expect, it } from 'vitest'
import { createInstallation, type Installation } from '../support/installation.ts'
import { fuzz } from './fuzz.ts'

let installation: Installation
beforeAll(async () => {
  installation = await createInstallation()
})
afterAll(() => installation.close())

it('answers 1,000 random requests without a 5xx, each refusal with a code and a request id', async () => {
  await fuzz(installation, 1_000)
  const statuses = new Set(installation.log.map(({ status }) => status))
  for (const status of [200, 400, 401, 404, 422]) expect(statuses).toContain(status)
}, 60_000)
