/**
 * Every endpoint against every kind of caller that must not pass. Expectations are derived from the
 * contracts: scope, reach, and where an id stands. What was denied has written nothing.
 */
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Endpoint, Reach } from '../../src/core/endpoint.ts'
import type { ErrorCode } from '../../src/core/errors.ts'
import { holdsScope, SCOPES } from '../../src/core/scopes.ts'
import { endpointList } from '../../src/features/endpoints.ts'
import { errorOf, expectRefusal } from '../support/answers.ts'
import { callEndpoint, createTarget, createWorld, ghostOf, type Outcome, SAMPLES, type Sample, type Target, type World } from '../support/cells.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { uniqueSlug } from '../support/tree.ts'

let installation: Installation
let world: World
let active: Target
let suspended: Target
/** Keys of the target itself and of a tenant below it. */
let own: string
let below: string
beforeAll(async () => {
  installation = await createInstallation()
  world = await createWorld(installation)
  active = await createTarget(installation, world)
  suspended = await createTarget(installation, world, SAMPLES.resumeTenant)
  own = await installation.apiKey(active.id)
  below = await installation.apiKey(active.child.id)
  // once, so that no cell below is the first config write of this process, which asks for the definitions too
  await installation.client({ apiKey: world.keys.parent }).setConfig({ id: active.id, key: 'first', value: 1 })
})
afterAll(() => installation.close())

const sampleOf = (endpoint: Endpoint): Sample => {
  const sample = (SAMPLES as Record<string, Sample | undefined>)[endpoint.id]
  if (!sample) throw new Error(`${endpoint.id} has no sample input: add one to SAMPLES, so that the matrix covers it`)
  return sample
}
/** Denied callers leave it as it is, so one target serves them all. */
const targetOf = (sample: Sample) => (sample.state === 'suspended' ? suspended : active)
const call = (endpoint: Endpoint, options: { apiKey?: string; token?: string }, input?: Record<string, unknown>): Promise<Outcome> =>
  callEndpoint(installation, endpoint, input ?? sampleOf(endpoint).input(targetOf(sampleOf(endpoint)), world), options)

/** The parts of an input that name what must be reached. */
const reachedFields = (endpoint: Endpoint): string[] => endpoint.reach.flatMap(({ field }) => field ?? [])
const namesTarget = (endpoint: Endpoint) => reachedFields(endpoint).length > 0 || sampleOf(endpoint).names === true
const has = (endpoint: Endpoint, wanted: Reach['kind']) => endpoint.reach.some(({ kind }) => kind === wanted)
/** What a caller is told of a target that it does not reach. */
const notFound = (endpoint: Endpoint): ErrorCode => {
  if (has(endpoint, 'issuer')) return 'ISSUER_NOT_FOUND'
  if (has(endpoint, 'job')) return 'JOB_NOT_FOUND'
  return has(endpoint, 'api_key') ? 'API_KEY_NOT_FOUND' : 'TENANT_NOT_FOUND'
}

/** Every row of every table, as one line for each table. */
async function everything(): Promise<string[]> {
  const { rows } = await installation.owner.query<{ name: string }>(
    `select quote_ident(tablename) as name from pg_tables where schemaname = 'stratum' order by 1`,
  )
  const digests = rows.map(
    ({ name }) => `select '${name} ' || count(*) || ' ' || coalesce(md5(string_agg(t::text, '|' order by t::text)), '') as line from stratum.${name} t`,
  )
  // sorted, as a parallel plan answers them in any order
  return (await installation.owner.query<{ line: string }>(digests.join(' union all '))).rows.map(({ line }) => line).sort()
}

/** All of an error but the id of its request. */
const withoutRequestId = (outcome: Outcome) => {
  const { request_id: _, ...error } = errorOf(outcome)
  return { status: outcome.status, error }
}

function expectDenied(endpoint: Endpoint, outcome: Outcome, code: ErrorCode, requests = 1) {
  // an open endpoint answers who lacks a scope, a reach or a credential, and tells nothing
  if (endpoint.open && ['SCOPE_REQUIRED', 'GLOBAL_ADMIN_REQUIRED', 'AUTHENTICATION_REQUIRED'].includes(code)) {
    expect(outcome).toMatchObject({ status: 200, body: { status: 'ok' } })
    expect(Object.keys(outcome.body as object)).toEqual(['status'])
  } else {
    expectRefusal(outcome, code)
  }
  expect(outcome.requests, 'HTTP requests to the database').toBe(requests)
}

/** Outside its reach a caller is told what it would be told of nothing; where none is named it sees only its own. */
function expectOutside(endpoint: Endpoint, outcome: Outcome, target: Target) {
  if (has(endpoint, 'global')) return expectDenied(endpoint, outcome, 'GLOBAL_ADMIN_REQUIRED')
  if (namesTarget(endpoint)) return expectDenied(endpoint, outcome, notFound(endpoint))
  expect(outcome.status, outcome.text.slice(0, 200)).toBe(endpoint.status)
  expect(outcome.text).not.toContain(target.id)
  expect(outcome.requests).toBe(1)
}

it('has a valid sample input for every endpoint, and for nothing else', () => {
  expect(Object.keys(SAMPLES).sort()).toEqual(endpointList.map(({ id }) => id).sort())
})

describe.each(endpointList.map((endpoint) => [endpoint.id, endpoint] as const))('%s', (_, endpoint) => {
  const reaching = namesTarget(endpoint)
  let before: string[]
  beforeAll(async () => {
    before = await everything()
  })

  it('refuses who shows no credential, without asking the database', async () => {
    expectDenied(endpoint, await call(endpoint, {}), 'AUTHENTICATION_REQUIRED', 0)
  })
  it.each(['unknown', 'revoked', 'expired'] as const)('refuses an API key that is %s', async (kind) => {
    expectDenied(endpoint, await call(endpoint, { apiKey: world.keys[kind] }), 'API_KEY_INVALID')
  })
  it('refuses text that is no API key, and an expired token, without asking the database', async () => {
    expectDenied(endpoint, await call(endpoint, { apiKey: 'sk_test_short' }), 'API_KEY_INVALID', 0)
    const expired = await installation.token({ tenant: world.parent.slug, scope: 'admin' }, { expires: '-1m' })
    expectDenied(endpoint, await call(endpoint, { token: expired }), 'TOKEN_INVALID', 0)
  })
  it.each(SCOPES.filter((scope) => !holdsScope([scope], endpoint.scope)))(`refuses the scope %s where ${endpoint.scope} is needed`, async (scope) => {
    const outcome = await call(endpoint, { apiKey: world.keys.scoped[scope] })
    expectDenied(endpoint, outcome, 'SCOPE_REQUIRED')
    if (!endpoint.open) expect(errorOf(outcome).details).toEqual({ scope: endpoint.scope })
  })
  it('refuses keys of a suspended and of an archived tenant', async () => {
    expectDenied(endpoint, await call(endpoint, { apiKey: world.keys.suspended }), 'TENANT_SUSPENDED')
    expectDenied(endpoint, await call(endpoint, { apiKey: world.keys.archived }), 'TENANT_ARCHIVED')
  })
  it.each(['sibling', 'stranger'] as const)('shows a key of a %s nothing', async (who) => {
    const target = targetOf(sampleOf(endpoint))
    expectOutside(endpoint, await call(endpoint, { apiKey: world.keys[who] }), target)
    const token = await installation.token({ tenant: world[who].slug, scope: 'admin' })
    expectOutside(endpoint, await call(endpoint, { token }), target)
  })
  it('shows a key of a tenant below nothing', async () => {
    const outcome = await call(endpoint, { apiKey: below }, sampleOf(endpoint).input(active, world))
    if (has(endpoint, 'global')) return expectDenied(endpoint, outcome, 'GLOBAL_ADMIN_REQUIRED')
    if (reaching) return expectDenied(endpoint, outcome, notFound(endpoint))
    // its own context and lists name the tenants above by their ids, and by nothing else
    expect(outcome.status).toBe(endpoint.status)
    expect(outcome.text).not.toContain(active.slug)
  })
  if (reaching)
    it('answers what is outside exactly as what does not exist', async () => {
      const { input } = sampleOf(endpoint)
      const target = targetOf(sampleOf(endpoint))
      const outside = await call(endpoint, { apiKey: world.keys.stranger }, input(target, world))
      const nowhere = await call(endpoint, { apiKey: world.keys.stranger }, input(ghostOf(target), world))
      expect(withoutRequestId(outside)).toEqual(withoutRequestId(nowhere))
      expectDenied(endpoint, await call(endpoint, { apiKey: world.keys.global }, input(ghostOf(target), world)), notFound(endpoint))
    })
  if (has(endpoint, 'global'))
    it('is for global admins: whoever is bound to a tenant is refused', async () => {
      expectDenied(endpoint, await call(endpoint, { apiKey: world.keys.parent }), 'GLOBAL_ADMIN_REQUIRED')
      expectDenied(endpoint, await call(endpoint, { apiKey: own }), 'GLOBAL_ADMIN_REQUIRED')
    })
  const named = [...new Set(reachedFields(endpoint))]
  if (named.length > 1)
    it.each(named)('needs reach of each tenant that it names: %s', async (field) => {
      const input = sampleOf(endpoint).input(active, world)
      for (const id of [world.stranger.id, randomUUID()]) {
        expectDenied(endpoint, await call(endpoint, { apiKey: world.keys.parent }, { ...input, [field]: id }), 'TENANT_NOT_FOUND')
      }
    })
  if (has(endpoint, 'under_each'))
    it('needs reach of the parent of each entry, and global admin for a root', async () => {
      const { tenants } = sampleOf(endpoint).input(active, world) as { tenants: object[] }
      const withOne = (parent_id: string | null) => ({ tenants: [...tenants, { slug: uniqueSlug('one'), name: 'One', parent_id }] })
      for (const id of [world.stranger.id, randomUUID()]) {
        expectDenied(endpoint, await call(endpoint, { apiKey: world.keys.parent }, withOne(id)), 'TENANT_NOT_FOUND')
      }
      expectDenied(endpoint, await call(endpoint, { apiKey: world.keys.parent }, withOne(null)), 'GLOBAL_ADMIN_REQUIRED')
    })
  if (has(endpoint, 'parent'))
    it('is beyond the tenant itself, as it takes reach of the parent', async () => {
      expectDenied(endpoint, await call(endpoint, { apiKey: own }, sampleOf(endpoint).input(active, world)), 'TENANT_NOT_FOUND')
    })
  const malformed = [...Object.keys(endpoint.params.shape), ...reachedFields(endpoint)]
  if (malformed.length > 0)
    it('refuses ids and keys that are none', async () => {
      for (const field of new Set(malformed)) {
        const input = { ...sampleOf(endpoint).input(active, world), [field]: "0' or 1=1 --" }
        expectDenied(
          endpoint,
          await call(endpoint, { apiKey: world.keys.parent }, input),
          field in endpoint.body.shape ? 'VALIDATION_FAILED' : 'INVALID_REQUEST',
        )
      }
    })
  it('has written nothing for any of them', async () => {
    expect(await everything()).toEqual(before)
  })
})
