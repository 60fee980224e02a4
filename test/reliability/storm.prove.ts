/** Eight connections, twenty seconds, every operation on few tenants: whatever meets, it ends consistent. */
import { afterAll, beforeAll, expect, it } from 'vitest'
import { createInstallation, type Installation } from '../support/installation.ts'
import { tenantInput } from './arena.ts'
import { expectConsistent, faults } from './invariants.ts'
import { BackendClient, boundTo, type Call, type Outcome, outcomeOf, RACER, run } from './operations.ts'

const CONNECTIONS = 8
const SECONDS = 20
const TENANTS = 40
const KEYS = ['edit', 'export']

let installation: Installation
beforeAll(async () => {
  installation = await createInstallation()
})
afterAll(() => installation.close())

const any = <T>(list: readonly T[]): T => list[Math.floor(Math.random() * list.length)] as T
const chance = (probability: number) => Math.random() < probability

/** What the storm knows of the database: enough to name what is there. */
interface Sky {
  tenants: string[]
  policies: Array<{ tenant: string; id: string }>
  slug: number
}

const slugOf = (sky: Sky) => `s${chance(0.5) ? Math.floor(Math.random() * 60) : ++sky.slug}`

const weather: Array<(sky: Sky) => Call> = [
  (sky) => ({ operation: 'create_tenant', input: tenantInput(chance(0.9) ? any(sky.tenants) : null, slugOf(sky)) }),
  (sky) => ({ operation: 'move_tenant', input: { id: any(sky.tenants), new_parent_id: chance(0.8) ? any(sky.tenants) : null } }),
  (sky) => ({ operation: 'suspend_tenant', input: { id: any(sky.tenants) } }),
  (sky) => ({ operation: 'archive_tenant', input: { id: any(sky.tenants) } }),
  (sky) => ({ operation: 'resume_tenant', input: { id: any(sky.tenants) } }),
  (sky) => ({ operation: 'resume_tenant', input: { id: any(sky.tenants) } }),
  (sky) => ({ operation: 'update_tenant', input: { id: any(sky.tenants), slug: slugOf(sky) } }),
  (sky) => ({ operation: 'set_config', input: { id: any(sky.tenants), key: any(KEYS), value: Math.random(), locked: chance(0.2) } }),
  (sky) => ({ operation: 'delete_config', input: { id: any(sky.tenants), key: any(KEYS) } }),
  (sky) => ({
    operation: 'create_permission',
    input: {
      id: any(sky.tenants),
      key: any(KEYS),
      value: true,
      mode: any(['DELEGATED', 'DELEGATED', 'INHERITED', 'LOCKED']),
      revocation_mode: any(['CASCADE', 'SOFT']),
    },
  }),
  (sky) => policyCall(sky, 'update_permission', { value: Math.random() }),
  (sky) => policyCall(sky, 'delete_permission', {}),
  (sky) => ({ operation: 'get_tenant_context', input: { id: any(sky.tenants) } }),
  (sky) => ({ operation: 'get_descendants', input: { id: any(sky.tenants), limit: 100, include_archived: true } }),
  (sky) => ({ operation: 'create_api_key', input: { tenant_id: any(sky.tenants), name: '', scopes: ['read'], key_hash: `${Math.random()}`, hint: '' } }),
]

function policyCall(sky: Sky, operation: string, more: object): Call {
  const policy = any(sky.policies) ?? { tenant: any(sky.tenants), id: '00000000-0000-7000-8000-000000000000' }
  return { operation, input: { id: policy.tenant, policy_id: policy.id, ...more } }
}

function learn(sky: Sky, { operation, input }: Call, { code, answer }: Outcome) {
  if (code !== 'ok') return
  const { id } = answer as { id: string }
  if (operation === 'create_tenant' && sky.tenants.length < TENANTS) sky.tenants.push(id)
  if (operation === 'create_permission') sky.policies = [...sky.policies.slice(-50), { tenant: String(input['id']), id }]
}

it(`ends consistent after ${SECONDS} seconds of everything at once`, async () => {
  const { control } = installation.urls
  const clients = await Promise.all(Array.from({ length: CONNECTIONS }, () => BackendClient.open(control)))
  const roots = await Promise.all([1, 2, 3].map((n) => run(installation.owner, { operation: 'create_tenant', input: tenantInput(null, `root_${n}`) })))
  const sky: Sky = { tenants: roots.map((root) => (root as { id: string }).id), policies: [], slug: 0 }
  const codes: Record<string, number> = {}
  const retried: Record<string, number> = {}
  const end = performance.now() + SECONDS * 1_000
  const blow = async (client: BackendClient) => {
    while (performance.now() < end) {
      const call = any(weather)(sky)
      const actor = chance(0.3) ? boundTo(any(sky.tenants)) : RACER
      const outcome = await outcomeOf(() => run(client, { ...call, actor }))
      codes[outcome.code] = (codes[outcome.code] ?? 0) + 1
      for (const state of outcome.retried) retried[state] = (retried[state] ?? 0) + 1
      learn(sky, call, outcome)
    }
  }
  const found: unknown[] = []
  const watch = async () => {
    while (performance.now() < end) found.push(...(await faults(installation.owner)))
  }
  await Promise.all([...clients.map(blow), watch()])
  await Promise.all(clients.map((client) => client.end()))
  const total = Object.values(codes).reduce((sum, count) => sum + count, 0)
  console.info(`storm: ${total} operations, ${JSON.stringify(codes)}, retried by the port ${JSON.stringify(retried)}`)
  expect(found).toEqual([])
  await expectConsistent(installation.owner)
  expect(Object.keys(codes).filter((code) => code.includes(':') || ['INTERNAL_ERROR', 'DATABASE_BUSY', 'DATABASE_UNAVAILABLE'].includes(code))).toEqual([])
  // No two operations take locks in each other's order, nor rely on a snapshot. A lock that was not had in time may be a machine that stood still.
  const { '55P03': _, ...others } = retried
  expect(others).toEqual({})
})
