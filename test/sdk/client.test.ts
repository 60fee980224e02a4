/** The client: a typed method for every endpoint, the request it makes, and the errors it rebuilds. */
import { afterAll, beforeAll, describe, expect, expectTypeOf, it } from 'vitest'
import { errorClass, TenantNotFoundError, TenantSlugTakenError } from '../../src/core/error-classes.ts'
import { CATALOGUE, type ErrorCode, StratumError } from '../../src/core/errors.ts'
import { endpointList } from '../../src/features/endpoints.ts'
import type { Tenant } from '../../src/features/tenants/contract.ts'
import { type ClientOptions, createClient, type StratumClient } from '../../src/sdk/client.ts'
import { SAMPLES, type Target, type World } from '../support/cells.ts'
import { createInstallation, type Installation } from '../support/installation.ts'

const ID = '0197a000-0000-4000-8000-00000000000a'

/** A client whose requests are answered here, and kept. */
function fake(answer: (request: Request) => Response | Promise<Response> = () => Response.json({}), options: Partial<ClientOptions> = {}) {
  const requests: Request[] = []
  const client = createClient({
    baseUrl: 'https://stratum.test',
    fetch: (request) => {
      requests.push(request)
      return answer(request)
    },
    ...options,
  })
  return { client, requests }
}
const sent = async (call: (client: StratumClient) => Promise<unknown>, options: Partial<ClientOptions> = {}): Promise<Request> => {
  const { client, requests } = fake(undefined, options)
  await call(client)
  return requests[0] as Request
}
const thrown = async (promise: Promise<unknown>): Promise<StratumError> => {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  expect(error).toBeInstanceOf(StratumError)
  return error as StratumError
}

describe('a request', () => {
  const target: Target = {
    id: ID,
    slug: 'acme',
    child: { id: ID } as Tenant,
    api_key_id: ID,
    policy_id: ID,
    domain: 'shop.example',
    issuer_id: ID,
    issuer: 'https://idp.test',
    external_id: 'org_1',
    job_id: ID,
  }
  it.each(endpointList.map((endpoint) => [endpoint.id, endpoint] as const))(
    'of %s goes where its contract says, each part in its place',
    async (id, endpoint) => {
      const input = SAMPLES[id as keyof typeof SAMPLES].input(target, { sibling: { id: ID } } as World)
      const { client, requests } = fake()
      await (client[id as keyof StratumClient] as (input: object) => Promise<unknown>)(input)
      const [request] = requests
      const url = new URL(request?.url ?? '')
      expect(request?.method).toBe(endpoint.method)
      expect(url.pathname).toBe(`/api/v1${endpoint.path.replace(/:(\w+)/g, (_, name: string) => String(input[name]))}`)
      const only = (shape: object) => Object.fromEntries(Object.entries(input).filter(([key]) => key in shape))
      expect(Object.fromEntries(url.searchParams)).toEqual(only(endpoint.query.shape))
      const body = await request?.text()
      if (endpoint.method === 'GET' || endpoint.method === 'DELETE') expect(body).toBe('')
      else expect(JSON.parse(body ?? '')).toEqual(only(endpoint.body.shape))
    },
  )
  it('encodes what stands in the path and in the query', async () => {
    const config = await sent((client) => client.setConfig({ id: '../../x', key: 'a/b?c#d é%', value: 1 }))
    expect(new URL(config.url).pathname).toBe('/api/v1/tenants/..%2F..%2Fx/config/a%2Fb%3Fc%23d%20%C3%A9%25')
    const list = await sent((client) => client.listTenants({ cursor: 'a&limit=1#?=', limit: 5 }))
    expect(new URL(list.url).searchParams.getAll('limit')).toEqual(['5'])
    expect(new URL(list.url).searchParams.get('cursor')).toBe('a&limit=1#?=')
  })
  it('leaves out what is undefined and keeps null', async () => {
    const list = await sent((client) => client.listTenants(Object.assign({ limit: 1 }, { cursor: undefined })))
    expect(new URL(list.url).search).toBe('?limit=1')
    expect(await (await sent((client) => client.moveTenant({ id: ID, new_parent_id: null }))).json()).toEqual({ new_parent_id: null })
  })
  it('carries the one credential and the headers it was given', async () => {
    const byKey = await sent((client) => client.listTenants(), { apiKey: 'sk_test_x', headers: { 'x-tenant-id': 'acme' } })
    expect([byKey.headers.get('x-api-key'), byKey.headers.get('authorization'), byKey.headers.get('x-tenant-id')]).toEqual(['sk_test_x', null, 'acme'])
    const byToken = await sent((client) => client.listTenants(), { token: 'a.b.c' })
    expect([byToken.headers.get('x-api-key'), byToken.headers.get('authorization')]).toEqual([null, 'Bearer a.b.c'])
  })
  it('asks for a fresh token each time', async () => {
    let made = 0
    const { client, requests } = fake(undefined, { token: async () => `token-${++made}` })
    await client.listTenants()
    await client.listTenants()
    expect(requests.map(({ headers }) => headers.get('authorization'))).toEqual(['Bearer token-1', 'Bearer token-2'])
  })
  it('keeps the prefix of its base URL, with or without a final slash', async () => {
    for (const baseUrl of ['https://stratum.test/t/acme', 'https://stratum.test/t/acme/']) {
      expect((await sent((client) => client.listTenants(), { baseUrl })).url).toBe('https://stratum.test/t/acme/api/v1/tenants')
    }
  })
})

describe('types', () => {
  it('are those of the contracts', () => {
    expectTypeOf<Parameters<StratumClient['createTenant']>[0]>().toExtend<{ slug: string; name: string; parent_id?: string | null | undefined }>()
    expectTypeOf<Awaited<ReturnType<StratumClient['getTenant']>>>().toEqualTypeOf<Tenant>()
    expectTypeOf<StratumClient['listTenants']>().toBeCallableWith()
    expectTypeOf<Parameters<StratumClient['moveTenant']>[0]>().toEqualTypeOf<{ id: string; new_parent_id: string | null }>()
    expect(Object.keys(fake().client.dryRun).sort()).toEqual(endpointList.map((endpoint) => endpoint.id).sort())
    expect(
      Object.keys(fake().client)
        .filter((name) => name !== 'dryRun')
        .sort(),
    ).toEqual(endpointList.map(({ id }) => id).sort())
  })
})

describe('an error of the API', () => {
  it.each(Object.keys(CATALOGUE) as ErrorCode[])('%s is rebuilt as its own class, with its details, sentence and request id', async (code) => {
    const body = { error: { code, message: 'In other words.', details: { reason: 'because' }, request_id: 'trace-1' } }
    const error = await thrown(fake(() => Response.json(body, { status: CATALOGUE[code][0] })).client.getTenant({ id: ID }))
    expect(error).toBeInstanceOf(errorClass(code))
    expect(error).toMatchObject({ code, status: CATALOGUE[code][0], message: 'In other words.', details: { reason: 'because', request_id: 'trace-1' } })
  })
  it('of another class is no instance of it', async () => {
    const body = { error: { code: 'TENANT_NOT_FOUND', message: 'No.', request_id: 'trace-1' } }
    const error = await thrown(fake(() => Response.json(body, { status: 404 })).client.getTenant({ id: ID }))
    expect(error).toBeInstanceOf(TenantNotFoundError)
    expect(error).not.toBeInstanceOf(TenantSlugTakenError)
  })
})

describe('a server that is none', () => {
  it('is SERVER_UNREACHABLE when nothing answers, with the cause for whoever looks', async () => {
    const error = await thrown(fake(() => Promise.reject(new TypeError('fetch failed'))).client.listTenants())
    expect(error).toMatchObject({ code: 'SERVER_UNREACHABLE', retryAfter: 1, cause: { message: 'fetch failed' } })
  })
  const strange: Array<[what: string, response: () => Response]> = [
    ['a page with status 502', () => new Response('<html>Bad gateway', { status: 502 })],
    ['a page with status 200', () => new Response('<html>Please log in', { status: 200 })],
    ['nothing with status 200', () => new Response('', { status: 200 })],
    ['nothing with status 500', () => new Response(null, { status: 500 })],
    ['a code that nobody knows', () => Response.json({ error: { code: 'TEAPOT', message: 'x' } }, { status: 418 })],
    ['a code out of an object', () => Response.json({ error: { code: 'constructor' } }, { status: 400 })],
    ['an error that is a text', () => Response.json({ error: 'no' }, { status: 400 })],
    ['an error without one', () => Response.json({}, { status: 400 })],
    ['null', () => Response.json(null, { status: 400 })],
    ['a list', () => Response.json([], { status: 400 })],
  ]
  it.each(strange)('is SERVER_UNREACHABLE, in a sentence: %s', async (_, response) => {
    const error = await thrown(fake(response).client.listTenants())
    expect(error.code).toBe('SERVER_UNREACHABLE')
    expect(error.message).toMatch(/^The server did not answer: HTTP status \d+ without/)
  })
})

describe('against the service itself', () => {
  let installation: Installation
  beforeAll(async () => {
    installation = await createInstallation()
  })
  afterAll(() => installation.close())

  it('gives back what was written and rebuilds what was raised', async () => {
    const admin = await installation.clientFor(null)
    const tenant = await admin.createTenant({ slug: 'acme', name: 'Acmé ✓', metadata: { deep: [{ a: null }] } })
    expect(await admin.getTenant({ id: tenant.id })).toEqual(tenant)
    const error = await thrown(admin.createTenant({ slug: 'acme', name: 'Again' }))
    expect(error).toBeInstanceOf(TenantSlugTakenError)
    expect(error.message).toBe('The slug acme is taken. Choose another.')
    expect(error.details).toMatchObject({ slug: 'acme', request_id: expect.stringMatching(/^[0-9a-f-]{36}$/) })
  })
})
