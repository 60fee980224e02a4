/** Random requests in every place input has: no answer may be a 5xx, and every refusal is of the catalogue. */
import fc from 'fast-check'
import { expect } from 'vitest'
import { endpointList } from '../../src/features/endpoints.ts'
import { type Asked, ask, errorOf } from '../support/answers.ts'
import type { Installation } from '../support/installation.ts'

/** How many requests are sent at once; a failure shrinks to the one that caused it. */
const BATCH = 20

interface Random {
  endpoint: number
  /** Values for the parameters of the path, in turn. */
  params: string[]
  query: Array<[string, string]>
  body: string | null
  host: string | null
  tenantHeader: string | null
  pathTenant: string | null
  credential: number
  token: string
}

const nasty = fc.constantFrom(
  '',
  ' ',
  '\0',
  "'; drop table stratum.tenants; --",
  '../..',
  '%',
  '%00',
  '{{7*7}}',
  '\u202e',
  '🦄',
  '__proto__',
  'constructor',
  'NaN',
  '-1',
  '1e999',
  'null',
)
const text = fc.oneof(nasty, fc.string({ unit: 'binary', maxLength: 40 }), fc.string({ maxLength: 300 }))
const slug = fc.oneof(fc.stringMatching(/^[a-z][a-z0-9_]{0,70}$/), fc.constantFrom('acme', 'north_star', 'paused', 'www', 'odd_'), text)
const base64url = (value: string) => Buffer.from(value).toString('base64url')
const jwt = fc.oneof(
  text,
  fc.tuple(fc.json(), fc.json(), fc.base64String()).map(([header, payload, signature]) => [base64url(header), base64url(payload), signature].join('.')),
  fc
    .record({ alg: fc.constantFrom('none', 'HS256', 'RS256', 'hs256', ''), tenant: slug, exp: fc.oneof(fc.integer(), fc.double()) })
    .map(
      ({ alg, ...claims }) =>
        `${base64url(JSON.stringify({ alg }))}.${base64url(JSON.stringify({ iss: 'https://issuer.test', aud: 'stratum', ...claims }))}.c2ln`,
    ),
)
const host = fc.oneof(
  text,
  fc.domain(),
  fc.ipV6().map((address) => `[${address}]:80`),
  slug.map((label) => `${label}.stratum.test`),
  fc.tuple(slug, fc.constantFrom('.', ':80', '.:8787', ':x', '..')).map(([label, end]) => `${label.replaceAll('_', '-')}.stratum.test${end}`),
)
const position = fc.oneof(fc.uuid(), fc.integer(), fc.maxSafeInteger(), fc.string(), fc.constant(null))
const cursor = (id: string, tenants: readonly string[]) =>
  fc.oneof(
    text,
    fc.json().map(base64url),
    fc
      .tuple(
        fc.constantFrom('listTenants', 'getChildren', 'getDescendants', 'listApiKeys', id),
        fc.array(position, { maxLength: 3 }),
        fc.constantFrom(...tenants),
      )
      .map(([list, place, tenant]) => {
        const filters = { listTenants: { include_archived: false, root: false }, listApiKeys: {} }[list] ?? { id: tenant, include_archived: false }
        return base64url(JSON.stringify([list, filters, place]))
      }),
  )
const json = fc.oneof(fc.json({ maxDepth: 6 }), fc.json({ stringUnit: 'binary', maxDepth: 3 }), text)

/** Values that may well fit, by the name of what they are for. */
const plausible = (tenants: readonly string[]): Record<string, fc.Arbitrary<unknown>> => {
  const tenant = fc.constantFrom(...tenants, null)
  return {
    slug: fc.stringMatching(/^[a-z][a-z0-9_]{0,20}$/),
    name: fc.string({ minLength: 1, maxLength: 40 }),
    key: slug,
    parent_id: tenant,
    new_parent_id: tenant,
    tenant_id: tenant,
    scopes: fc.uniqueArray(fc.constantFrom('read', 'write', 'admin', 'secrets:read')),
    expires_at: fc.constantFrom('2099-01-01T00:00:00+15:59', '2099-01-01T00:00:00-23:59', '2099-01-01T00:00:00.123456789Z'),
    mode: fc.constantFrom('LOCKED', 'INHERITED', 'DELEGATED'),
    revocation_mode: fc.constantFrom('CASCADE', 'SOFT', 'PERMANENT'),
    isolation_strategy: fc.constantFrom('SHARED_RLS', 'DB_PER_TENANT'),
    metadata: fc.dictionary(text, fc.jsonValue({ stringUnit: 'binary' })),
    locked: fc.boolean(),
    sensitive: fc.boolean(),
    host,
    domain: host,
    path: slug.map((name) => `/t/${name}/orders`),
    token: jwt,
  }
}

/** A body with the keys of the endpoint, most of them fitting, sometimes with one of nobody's. */
const bodyFor = (keys: readonly string[], tenants: readonly string[]): fc.Arbitrary<string> => {
  const anything = fc.oneof(fc.constantFrom<unknown>(...tenants, null, true, [], {}), slug, fc.jsonValue({ stringUnit: 'binary', maxDepth: 4 }))
  const fitting = plausible(tenants)
  const model = Object.fromEntries(
    keys.map((key) => [key, fc.oneof({ weight: 6, arbitrary: fitting[key] ?? anything }, { weight: 1, arbitrary: anything })] as const),
  )
  const known = fc.record(model, { requiredKeys: keys.filter((key) => ['slug', 'name', 'value', 'key', 'new_parent_id'].includes(key)) })
  const extra = fc.oneof({ weight: 9, arbitrary: fc.constant({}) }, { weight: 1, arbitrary: fc.dictionary(text, anything, { maxKeys: 2 }) })
  return fc.tuple(known, extra).map(([body, more]) => JSON.stringify({ ...body, ...more }))
}

const requestsFor = (endpoint: number, tenants: readonly string[]): fc.Arbitrary<Random> => {
  const { query, body, id } = endpointList[endpoint] as (typeof endpointList)[number]
  const known = fc.oneof({ weight: 3, arbitrary: fc.constantFrom(...tenants) }, fc.uuid(), slug)
  const queryKeys = fc.oneof({ weight: 9, arbitrary: fc.constantFrom(...Object.keys(query.shape), 'limit') }, { weight: 1, arbitrary: text })
  const queryValue = fc.oneof(text, fc.constantFrom('true', 'false', '1', '100', ...tenants), cursor(id, tenants))
  const rarely = (arbitrary: fc.Arbitrary<string>) => fc.oneof({ weight: 6, arbitrary: fc.constant(null) }, { weight: 1, arbitrary })
  const named = fc.oneof(slug, fc.constantFrom(...tenants))
  return fc.record({
    endpoint: fc.constant(endpoint),
    params: fc.tuple(known, known),
    query: fc.oneof(
      { weight: 2, arbitrary: fc.constant<Array<[string, string]>>([]) },
      { weight: 1, arbitrary: fc.array(fc.tuple(queryKeys, queryValue), { maxLength: 3 }) },
    ),
    body: fc.option(fc.oneof({ weight: 4, arbitrary: bodyFor(Object.keys(body.shape), tenants) }, { weight: 1, arbitrary: json }), { freq: 8 }),
    host: rarely(host),
    tenantHeader: rarely(named),
    pathTenant: rarely(named),
    credential: fc.nat({ max: 7 }),
    token: jwt,
  })
}

/** Header values are bytes: what cannot be sent at all is no input. */
const sendable = (value: string | null): value is string => value !== null && /^[\x20-\x7e\x80-\xff]*$/.test(value)

function toAsked(random: Random, apiKeys: readonly string[]): [path: string, asked: Asked] {
  const { method, path } = endpointList[random.endpoint] as (typeof endpointList)[number]
  const params = [...random.params]
  const filled = path.replace(/:\w+/g, () => encodeURIComponent((params.shift() ?? 'x').toWellFormed()))
  const query = new URLSearchParams(random.query).toString()
  const prefix = random.pathTenant === null ? '' : `/t/${encodeURIComponent(random.pathTenant.toWellFormed())}`
  const headers: Record<string, string> = {}
  if (sendable(random.host)) headers['host'] = random.host
  if (sendable(random.tenantHeader)) headers['x-tenant-id'] = random.tenantHeader
  const apiKey = apiKeys[random.credential]
  if (apiKey !== undefined) headers['x-api-key'] = apiKey
  else if (sendable(random.token)) headers['authorization'] = `Bearer ${random.token}`
  const body = method === 'GET' || method === 'DELETE' || random.body === null ? {} : { body: random.body }
  return [`${prefix}/api/v1${filled}${query === '' ? '' : `?${query}`}`, { method, headers, ...body }]
}

/** Bring back what random calls archived and revoked: most requests must get past the door. */
async function mend({ owner }: Installation) {
  await owner.query(`update stratum.tenants set status = 'active', deleted_at = null where status <> 'active'`)
  await owner.query('update stratum.api_keys set revoked_at = null where revoked_at is not null')
}

/** Send `count` random requests, and fail on the first that is not answered as it should be. */
export async function fuzz(installation: Installation, count: number): Promise<void> {
  const { stratum } = installation
  const acme = await stratum.createTenant({ slug: 'acme', name: 'Acme' })
  const north = await stratum.createTenant({ slug: 'north_star', name: 'North Star', parent_id: acme.id })
  const paused = await stratum.createTenant({ slug: 'paused', name: 'Paused', parent_id: acme.id })
  await stratum.setConfig(acme.id, 'secret', { value: 'planted-marker-e3b0', sensitive: true })
  const keysOf = [null, null, null, acme.id, acme.id, north.id, north.id]
  const apiKeys = await Promise.all(keysOf.map((id, index) => installation.apiKey(id, index % 3 === 2 ? ['read'] : ['admin'])))
  const tenants = [acme.id, north.id, paused.id]
  const requests = fc.oneof(...endpointList.map((_, endpoint) => requestsFor(endpoint, tenants)))
  const batches = fc.array(requests, { minLength: BATCH, maxLength: BATCH })
  await fc.assert(
    fc.asyncProperty(batches, async (batch) => {
      await mend(installation)
      await Promise.all(batch.map((random) => check(installation, ...toAsked(random, apiKeys))))
    }),
    { numRuns: Math.ceil(count / BATCH) },
  )
}

async function check(installation: Installation, path: string, asked: Asked) {
  const answer = await ask(installation.fetch, path, asked)
  expect(
    answer.status,
    `${asked.method} ${path} ${JSON.stringify(asked.headers)} ${String(asked.body).slice(0, 500)} → ${answer.text.slice(0, 300)}`,
  ).toBeLessThan(500)
  if (answer.status >= 300) errorOf(answer)
  else expect(answer.headers.get('x-request-id')).toMatch(/^[0-9a-f-]{36}$/)
  expect(answer.text).not.toMatch(/stratum\.[a-z_]+\(|SQLSTATE|node_modules|\bat file:/)
}
