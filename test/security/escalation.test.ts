/** No sequence of calls by a bound principal widens its reach or scopes, or another's, or touches what is outside. */
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { SCOPES, type Scope } from '../../src/core/scopes.ts'
import type { endpoints } from '../../src/features/endpoints.ts'
import type { Tenant } from '../../src/features/tenants/contract.ts'
import { type Asked, ask } from '../support/answers.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { plantTree, uniqueSlug } from '../support/tree.ts'

type Name = 'acme' | 'north' | 'alpha' | 'beta' | 'leaf' | 'south' | 'apex'
let installation: Installation
let t: Record<Name, Tenant>
let foreignKeys: string[]
let foreignPolicy: string
/** So that nothing is proven by calls that are all refused. */
const succeeded: Partial<Record<Step['operation'], number>> = {}
beforeAll(async () => {
  installation = await createInstallation()
  const { stratum } = installation
  t = await plantTree(await installation.clientFor(null), {
    acme: null,
    north: 'acme',
    alpha: 'north',
    beta: 'north',
    leaf: 'alpha',
    south: 'acme',
    apex: null,
  })
  foreignKeys = [await stratum.createApiKey(null), await stratum.createApiKey(t.acme.id), await stratum.createApiKey(t.south.id)].map(({ id }) => id)
  foreignPolicy = (await stratum.createPermission(t.acme.id, { key: 'shared', mode: 'DELEGATED' })).id
  await stratum.setConfig(t.apex.id, 'secret', { value: 'x', sensitive: true })
})
afterAll(() => installation.close())

/** One random call; numbers pick from what is known by the time it is made. */
interface Step {
  operation: keyof typeof endpoints
  by: number
  first: number
  second: number
  scope: Scope
  via: 'plain' | 'host' | 'header' | 'path'
}
const steps = fc.array(
  fc.record<Step>({
    operation: fc.constantFrom<Step['operation'][]>(
      'createTenant',
      'updateTenant',
      'moveTenant',
      'moveTenant',
      'suspendTenant',
      'resumeTenant',
      'archiveTenant',
      'setConfig',
      'createPermission',
      'deletePermission',
      'createApiKey',
      'createApiKey',
      'revokeApiKey',
      'listApiKeys',
      'getTenant',
    ),
    by: fc.nat(),
    first: fc.nat(),
    second: fc.nat(),
    scope: fc.constantFrom(...SCOPES),
    via: fc.constantFrom<Step['via'][]>('plain', 'plain', 'plain', 'plain', 'host', 'header', 'path'),
  }),
  { minLength: 1, maxLength: 15 },
)

interface Known {
  credentials: string[]
  tenants: Array<{ id: string; slug: string }>
  keys: string[]
  policies: string[]
}
const pick = <T>(from: readonly T[], index: number): T => from[index % from.length] as T

function toRequest({ operation, first, second, scope }: Step, known: Known): [path: string, asked: Asked] {
  const [id, other] = [pick(known.tenants, first).id, pick([...known.tenants.map((tenant) => tenant.id), null], second)]
  const on = `/tenants/${id}`
  const post = (path: string, json: object = {}): [string, Asked] => [path, { method: 'POST', json }]
  switch (operation) {
    case 'createTenant':
      return post('/tenants', { parent_id: other, slug: uniqueSlug('made'), name: 'Made' })
    case 'updateTenant':
      return [on, { method: 'PATCH', json: { name: `Renamed ${second}` } }]
    case 'moveTenant':
      return post(`${on}/move`, { new_parent_id: other })
    case 'suspendTenant':
    case 'resumeTenant':
    case 'archiveTenant':
      return post(`${on}/${operation.replace('Tenant', '')}`)
    case 'setConfig':
      return [`${on}/config/k`, { method: 'PUT', json: { value: second } }]
    case 'createPermission':
      return post(`${on}/permissions`, { key: `key${second % 3}`, revocation_mode: pick(['CASCADE', 'SOFT'], second) })
    case 'deletePermission':
      return [`${on}/permissions/${pick(known.policies, second)}`, { method: 'DELETE' }]
    case 'createApiKey':
      return post('/api-keys', { ...(other === null ? {} : { tenant_id: other }), scopes: [scope] })
    case 'revokeApiKey':
      return [`/api-keys/${pick(known.keys, second)}`, { method: 'DELETE' }]
    case 'listApiKeys':
      return ['/api-keys', {}]
    default:
      return [on, {}]
  }
}

async function take(step: Step, known: Known) {
  const [path, asked] = toRequest(step, known)
  const { slug, id } = pick(known.tenants, step.second)
  const routes = { plain: {}, host: { base: `http://${slug.replaceAll('_', '-')}.stratum.test` }, header: { headers: { 'x-tenant-id': id } }, path: {} }
  const prefix = step.via === 'path' ? `/t/${slug}` : ''
  const answer = await ask(installation.fetch, `${prefix}/api/v1${path}`, { ...routes[step.via], ...asked, apiKey: pick(known.credentials, step.by) })
  expect(answer.status, answer.text.slice(0, 300)).toBeLessThan(500)
  if (answer.status >= 300) return
  succeeded[step.operation] = (succeeded[step.operation] ?? 0) + 1
  const made = answer.body as { id: string; slug: string; key: string }
  if (step.operation === 'createTenant') known.tenants.push(made)
  if (step.operation === 'createPermission') known.policies.push(made.id)
  if (step.operation !== 'createApiKey') return
  known.credentials.push(made.key)
  known.keys.push(made.id)
}

/** All rows of tenants that are neither `north` nor below it, and all keys of nobody or of those. */
async function outside(): Promise<string> {
  const { rows } = await installation.owner.query(
    `with beyond as (select t.* from stratum.tenants t, stratum.tenants top
       where top.id = $1 and not (t.path operator(stratum.>=) top.path and t.path operator(stratum.<) stratum.subtree_end(top.path))),
     rows as (select b::text as row from beyond b
       union all select c::text from stratum.config_entries c join beyond b on b.id = c.tenant_id
       union all select p::text from stratum.permission_policies p join beyond b on b.id = p.tenant_id
       union all select k::text from stratum.api_keys k where k.tenant_id is null or k.tenant_id in (select id from beyond))
     select string_agg(row, E'\\n' order by row) as all_rows, (select row_to_json(t)::text from stratum.tenants t where t.id = $1) as own from rows`,
    [t.north.id],
  )
  // its own status, parent and place are not for it to change either
  const { status, parent_id, path } = JSON.parse(rows[0].own)
  return `${rows[0].all_rows}\n${status} ${parent_id} ${path}`
}
const strongest = async (since: Date) =>
  (await installation.owner.query<{ scopes: Scope[] }>('select scopes from stratum.api_keys where created_at > $1', [since])).rows.flatMap(
    ({ scopes }) => scopes,
  )

async function run(scopes: Scope[], sequence: Step[]): Promise<Scope[]> {
  const apiKey = await installation.stratum.createApiKey(t.north.id, { scopes })
  const before = await outside()
  const { rows } = await installation.owner.query<{ now: Date }>('select clock_timestamp() as now')
  const known: Known = { credentials: [apiKey.key], tenants: Object.values(t), keys: [...foreignKeys, apiKey.id], policies: [foreignPolicy] }
  for (const step of sequence) await take(step, known)
  expect(await outside()).toBe(before)
  return strongest(rows[0]?.now ?? new Date())
}

describe('whatever it calls', () => {
  it('an admin of a tenant changes nothing outside its subtree, nor its own status and place', async () => {
    await fc.assert(
      fc.asyncProperty(steps, async (sequence) => {
        await run(['admin'], sequence)
      }),
      { numRuns: 20 },
    )
    expect(Object.values(succeeded).reduce((sum, count) => sum + count, 0)).toBeGreaterThan(10)
  })
  it.each([[['read']], [['write']], [['write', 'secrets:read']]] as Array<[Scope[]]>)('a holder of %s makes and revokes no key at all', async (scopes) => {
    await fc.assert(
      fc.asyncProperty(steps, async (sequence) => {
        const { rows } = await installation.owner.query('select count(*)::int as revoked from stratum.api_keys where revoked_at is not null')
        expect(await run(scopes, sequence)).toEqual([])
        const after = await installation.owner.query('select count(*)::int as revoked from stratum.api_keys where revoked_at is not null')
        expect(after.rows).toEqual(rows)
      }),
      { numRuns: 4 },
    )
  })
})
