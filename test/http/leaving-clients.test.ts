/** What is kept alive though the client leaves. */
import { afterAll, beforeAll, expect, it } from 'vitest'
import { keepContexts } from '../../src/features/context/kept.ts'
import { createApp } from '../../src/http/app.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { ownIssuer } from '../support/issuers.ts'

let installation: Installation
let key: string
beforeAll(async () => {
  installation = await createInstallation()
  const { id } = await installation.stratum.createTenant({ slug: 'acme', name: 'Acme' })
  key = await installation.apiKey(id)
})
afterAll(() => installation.close())

/** An isolate whose platform is asked to keep work alive; its clock stands still, so that no poll is due. */
function isolate() {
  const contexts = keepContexts(installation.services.db, { now: () => 1_000_000 })
  const app = createApp({ services: { ...installation.services, contexts }, version: 'test' })
  /** The answer's status, and whether anything was kept alive; that none of it fails is asserted. */
  return async (path: string, { headers = { 'x-api-key': key }, json }: { headers?: Record<string, string>; json?: unknown } = {}) => {
    const kept: Promise<unknown>[] = []
    const waitUntil = (work: Promise<unknown>) => void kept.push(work)
    const sent = json === undefined ? {} : { method: 'POST', body: JSON.stringify(json) }
    const request = new Request(`http://stratum.test/api/v1${path}`, { headers, ...sent })
    const { status } = await app.fetch(request, {}, { waitUntil, passThroughOnException() {}, props: {} })
    await Promise.all(kept)
    return [status, kept.length > 0]
  }
}

it('what waits for the database, however it ends', async () => {
  const ask = isolate()
  expect(await ask('/tenants')).toEqual([200, true])
  expect(await ask('/tenants/00000000-0000-4000-8000-000000000000')).toEqual([404, true])
  expect(await ask('/tenants?limit=many')).toEqual([400, true])
  expect(await ask('/tenants', { headers: { authorization: `Bearer ${await ownIssuer().token()}` } })).toEqual([401, true])
  expect(await ask('/tenants', { headers: {} })).toEqual([401, false])
})

it('but nothing where what is kept is served', async () => {
  const ask = isolate()
  const token = await installation.token({ tenant: 'acme', scope: 'read' })
  for (const path of ['/context', '/resolve']) {
    const asked = path === '/resolve' ? { json: { token } } : {}
    expect(await ask(path, asked)).toEqual([200, true])
    expect(await ask(path, asked)).toEqual([200, false])
  }
})
