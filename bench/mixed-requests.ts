/** What bench/mixed-load.ts sends: all sorts of requests, each with the answers that are right for it. */
import { signDevToken } from '../src/local/dev.ts'
import { type Answer, rawRequest } from './load.ts'
import { API_HOST, type startDatabase, TOKEN_SECRET } from './workerd.ts'

/** A sort of request. */
export interface Kind {
  name: string
  /** How many of a hundred requests are of this sort. */
  share: number
  /** Statuses that are right; 429 and 503 besides, but for those that are `sure`. */
  expected: readonly number[]
  /** Answered even while the database is away. */
  sure?: boolean
  make(): string
  /** Told of each answer with an expected status. */
  note?(answer: Answer): void
}

const TENANTS = 20
const USERS = 10
/** More hosts that nobody has than refusals are kept. */
const UNKNOWN_HOSTS = 20_000

const any = <T>(list: readonly T[]): T => list[Math.floor(Math.random() * list.length)] as T
const upTo = (count: number) => Math.floor(Math.random() * count)

type Stratum = Awaited<ReturnType<typeof startDatabase>>['stratum']

/** Tenants with users who hold tokens; `settled` ones are never written to. */
async function plantTenants(stratum: Stratum, name: string, parent_id: string) {
  const tenants = Array.from({ length: TENANTS }, (_, index) => ({ slug: `${name}_${index}`, name, parent_id }))
  const planted = await stratum.batchCreateTenants(tenants)
  return Promise.all(
    planted.map(async ({ id, slug }) => {
      const users = Array.from({ length: USERS }, (_, user) => signDevToken(TOKEN_SECRET, { tenant: slug, scope: 'read' }, `user-${user}`))
      return { id, host: `${slug.replaceAll('_', '-')}.bench.test`, tokens: await Promise.all(users) }
    }),
  )
}

type Tenants = Awaited<ReturnType<typeof plantTenants>>

async function plant(stratum: Stratum) {
  const root = async (slug: string) => (await stratum.createTenant({ slug, name: slug })).id
  const [quiet, loud, left, right] = [await root('quiet'), await root('loud'), await root('left'), await root('right')]
  return {
    settled: await plantTenants(stratum, 'settled', quiet),
    busy: await plantTenants(stratum, 'busy', loud),
    movers: await plantTenants(stratum, 'mover', left),
    branches: [left, right],
  }
}

const resolving = (tenants: Tenants, headers: () => Record<string, string> = () => ({})) => {
  const { host, tokens } = any(tenants)
  return rawRequest('/api/v1/context', { host, authorization: `Bearer ${any(tokens)}`, ...headers() })
}

/** Policies come and go, so that there are never too many. */
function permissionWrites(busy: Tenants, admin: Record<string, string>): Kind {
  const policies: Array<{ id: string; tenant_id: string }> = []
  return {
    name: 'permission write',
    share: 5,
    expected: [200, 201, 404, 409],
    make() {
      const policy = Math.random() < 0.5 ? policies.pop() : undefined
      if (policy) return rawRequest(`/api/v1/tenants/${policy.tenant_id}/permissions/${policy.id}`, admin, { method: 'DELETE' })
      const body = { key: `feature_${upTo(50)}`, value: true }
      return rawRequest(`/api/v1/tenants/${any(busy).id}/permissions`, admin, { method: 'POST', body })
    },
    note({ status, body }) {
      if (status === 201) policies.push(JSON.parse(body))
    },
  }
}

/** @param apiKey an admin's */
export async function mixedRequests({ stratum }: { stratum: Stratum }, apiKey: string): Promise<Kind[]> {
  const { settled, busy, movers, branches } = await plant(stratum)
  const admin = { host: API_HOST, 'x-api-key': apiKey }
  const forged = await signDevToken(TOKEN_SECRET.replace('bench', 'other'), { tenant: 'settled_0', scope: 'admin' }, 'forger')
  let version = '0'
  let created = 0
  const post = (path: string, body: object, headers: Record<string, string> = admin) => rawRequest(`/api/v1${path}`, headers, { method: 'POST', body })
  const get = (path: string, headers: Record<string, string>) => rawRequest(`/api/v1${path}`, headers)
  const note = ({ headers }: Answer) => {
    version = headers.get('stratum-version') ?? version
  }
  const put = (path: string, body: object) => rawRequest(`/api/v1${path}`, admin, { method: 'PUT', body })
  return [
    { name: 'resolve, nothing written to it', share: 40, expected: [200], sure: true, make: () => resolving(settled) },
    { name: 'resolve, written to', share: 15, expected: [200], make: () => resolving(busy) },
    { name: 'resolve at the newest version', share: 3, expected: [200], make: () => resolving(busy, () => ({ 'stratum-min-version': version })) },
    {
      ...{ name: 'host that nobody has', share: 6, expected: [404] },
      make: () => get('/context', { ...admin, host: `nobody-${upTo(UNKNOWN_HOSTS)}.bench.test` }),
    },
    {
      ...{ name: 'config write', share: 8, expected: [200], note },
      make: () => put(`/tenants/${any(busy).id}/config/key_${upTo(20)}`, { value: { changed: upTo(1e9), text: 'x'.repeat(upTo(500)) } }),
    },
    {
      ...{ name: 'tenant created', share: 3, expected: [201], note },
      make: () => post('/tenants', { slug: `made_${++created}`, name: 'Made under load', parent_id: any(branches) }),
    },
    {
      ...{ name: 'tenant moved', share: 2, expected: [200], note },
      make: () => post(`/tenants/${any(movers).id}/move`, { new_parent_id: any(branches) }),
    },
    permissionWrites(busy, admin),
    { name: 'bad token', share: 4, expected: [401], make: () => get('/context', { host: any(settled).host, authorization: `Bearer ${forged}` }) },
    {
      ...{ name: 'bad API key', share: 2, expected: [401] },
      make: () =>
        get('/context', {
          host: API_HOST,
          'x-api-key': `${apiKey.slice(0, -8)}${String(upTo(1e8)).padStart(8, '0')}`,
          'cf-connecting-ip': `192.0.2.${upTo(2)}`,
        }),
    },
    { name: 'bad input', share: 3, expected: [400, 422], make: () => post('/tenants', { slug: 'Not A Slug', name: '' }) },
    { name: 'health', share: 8, expected: [200], sure: true, make: () => get('/health', { host: API_HOST }) },
    { name: 'health, for an admin', share: 1, expected: [200], make: () => get('/health', admin) },
  ]
}
