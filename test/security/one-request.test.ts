/** Every operation is one HTTP request to the database, authorization included, whether it succeeds or is refused. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Endpoint, Reach } from '../../src/core/endpoint.ts'
import { endpointList, endpoints } from '../../src/features/endpoints.ts'
import { ask } from '../support/answers.ts'
import { callEndpoint, createTarget, createWorld, SAMPLES, type Sample, type Target, type World } from '../support/cells.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { ownIssuer } from '../support/issuers.ts'

let installation: Installation
let world: World
let target: Target
beforeAll(async () => {
  installation = await createInstallation()
  world = await createWorld(installation)
  target = await createTarget(installation, world)
  // what a process asks once, at its first config write, is counted in a test of its own
  await installation.client({ apiKey: world.keys.parent }).setConfig({ id: target.id, key: 'first', value: 1 })
})
afterAll(() => installation.close())

/** The only ways through an endpoint that ask the database nothing: nobody was named who could be judged. */
const WITHOUT_A_REQUEST = {
  'no credential': {},
  'two credentials': { authorization: 'Bearer a.b.c', 'x-api-key': `sk_test_${'A'.repeat(43)}` },
  'text that is no API key': { 'x-api-key': 'sk_test_short' },
  'a scheme that is not Bearer': { authorization: 'Basic dXNlcjpwYXNz' },
  'a token that is not signed': { authorization: 'Bearer eyJhbGciOiJub25lIn0.e30.' },
}

/** The operations that take more: new definitions are checked, here, against what tenants hold, one request for each 8 MiB of it. */
const MORE_REQUESTS: Partial<Record<keyof typeof SAMPLES, number>> = { putConfigDefinitions: 2 }

const sampleOf = (endpoint: Endpoint): Sample => SAMPLES[endpoint.id as keyof typeof SAMPLES]
const cells = endpointList.map((endpoint) => [endpoint.id, endpoint] as const)

async function expectSuccess(endpoint: Endpoint, apiKeyOf: (tenantId: string) => Promise<string> | string) {
  const fresh = await createTarget(installation, world, sampleOf(endpoint))
  const apiKey = await apiKeyOf(fresh.id)
  const outcome = await callEndpoint(installation, endpoint, sampleOf(endpoint).input(fresh, world), { apiKey })
  expect(`${outcome.status} ${outcome.text.slice(0, 300)}`).toMatch(new RegExp(`^${endpoint.status} `))
  expect(outcome.requests).toBe(MORE_REQUESTS[endpoint.id as keyof typeof SAMPLES] ?? 1)
}

describe.each(cells)('%s', (_, endpoint) => {
  const of = (wanted: Reach['kind']) => endpoint.reach.some(({ kind }) => kind === wanted)
  if (of('global')) {
    it('succeeds in as few requests as are listed for a global admin', () => expectSuccess(endpoint, () => world.keys.global))
  } else {
    it("succeeds in one request for an admin of the tenant's parent", () => expectSuccess(endpoint, () => world.keys.parent))
  }
  if (!of('global') && !of('parent')) {
    it('succeeds in one request for an admin of the tenant itself', () => expectSuccess(endpoint, (tenantId) => installation.apiKey(tenantId)))
  }

  it('is refused in one request for a body or query that cannot be read', async () => {
    const path = `/api/v1${endpoint.path.replace(/:\w+/g, '0')}?nonsense=1`
    const hasBody = endpoint.method !== 'GET' && endpoint.method !== 'DELETE'
    const before = installation.databaseRequests()
    const answer = await ask(installation.fetch, path, { method: endpoint.method, apiKey: world.keys.parent, ...(hasBody ? { body: '{' } : {}) })
    expect(answer.status).toBe(400)
    expect(installation.databaseRequests() - before).toBe(1)
  })

  it.each(Object.entries(WITHOUT_A_REQUEST))('asks the database nothing for %s', async (_name, headers) => {
    const outcome = await callEndpoint(installation, endpoint, sampleOf(endpoint).input(target, world), { headers })
    expect([200, 400, 401]).toContain(outcome.status)
    expect(outcome.status === 200).toBe(endpoint.open === true && Object.keys(headers).length === 0)
    expect(outcome.requests).toBe(0)
  })
})

describe('config definitions', () => {
  const write = async (operation: 'setConfig' | 'batchSetConfig') => {
    const outcome = await callEndpoint(installation, endpoints[operation], SAMPLES[operation].input(target, world), { apiKey: world.keys.parent })
    expect(outcome.status).toBe(200)
    return outcome.requests
  }
  it.each(['setConfig', 'batchSetConfig'] as const)('cost one request more on the first %s of a process, and none after', async (operation) => {
    installation.services.definitions.forget()
    expect(await write(operation)).toBe(2)
    expect(await write(operation)).toBe(1)
  })
  it.each(['setConfig', 'batchSetConfig'] as const)('that changed elsewhere cost %s two requests more, once', async (operation) => {
    await installation.owner.query('update stratum.installation set definitions_version = definitions_version + 1')
    expect(await write(operation)).toBe(3)
    expect(await write(operation)).toBe(1)
  })
})

describe('a token of a stored issuer', () => {
  it('costs one request more where a process first meets its issuer, and none after', async () => {
    const own = ownIssuer()
    await installation.stratum.createIssuer(own.fields({ tenant_id: target.id }))
    const costs: number[] = []
    for (const index of [0, 1]) {
      const outcome = await callEndpoint(installation, endpoints.listTenants, {}, { token: await own.token({ index }) })
      expect(outcome.status).toBe(200)
      costs.push(outcome.requests)
    }
    expect(costs).toEqual([2, 1])
  })
})

it('reads documents and meets unknown routes without asking the database', async () => {
  const before = installation.databaseRequests()
  for (const path of ['/docs', '/api/v1/openapi.json', '/api/v1/nothing', '/']) await ask(installation.fetch, path, { apiKey: world.keys.global })
  expect(installation.databaseRequests()).toBe(before)
})
