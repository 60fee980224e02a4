/** A database of the previous release, filled by its Worker, upgraded: what became of it, and who can work with it. */
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import { describeSchema } from '../../scripts/schema-snapshot.ts'
import { generateRingKey } from '../../src/crypto/key-ring.ts'
import { migrate, overPostgres } from '../../src/db/migrate.ts'
import { createClient, type StratumClient } from '../../src/sdk/client.ts'
import worker from '../../workers/edge.ts'
import { type EmptyDatabase, emptyDatabase } from '../db/databases.ts'
import { faults } from '../reliability/invariants.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { PASSWORDS } from '../support/names.ts'
import { type Release, serve, unpackRelease } from './release.ts'
import { type Filled, fill, see, useAll, watched } from './usage.ts'

const BASE = 'http://stratum.test'
const host = (slug: string) => `${slug.replaceAll('_', '-')}.stratum.test`

let release: Release
let database: EmptyDatabase
let adminKey: string
let filled: Filled
let before: unknown
let applied: string[]
/** The previous release's SDK and Worker; its SDK on today's Worker; today's on today's. */
let clients: Record<'previous' | 'mixed' | 'today', (apiKey?: string) => StratumClient>

/** The previous release as it was installed: its own runner, then its embedded class for the first key. */
async function install(env: Record<string, string>) {
  const connection = release.runner.overPostgres(await database.client())
  await release.roles.ensureRoles(connection, PASSWORDS)
  await release.runner.migrate(connection, { owner: 'stratum_owner' })
  const { DATABASE_URL: databaseUrl = '', NEON_ENDPOINT: neonEndpoint = '', STRATUM_MASTER_KEYS: masterKeys = '' } = env
  const options = { databaseUrl, neonEndpoint, masterKeys, apiKeySecrets: env['STRATUM_API_KEY_SECRETS'] ?? '' }
  adminKey = (await new release.embedded.Stratum(options).createApiKey(null, { scopes: ['admin', 'secrets:read'] })).key
}

beforeAll(async () => {
  release = await unpackRelease()
  database = await emptyDatabase()
  const env = {
    DATABASE_URL: database.urlOf('stratum_control', PASSWORDS.control),
    NEON_ENDPOINT: inject('server').neonEndpoint,
    STRATUM_MASTER_KEYS: generateRingKey('test'),
    STRATUM_API_KEY_SECRETS: generateRingKey('test'),
    STRATUM_BASE_DOMAINS: 'stratum.test',
    STRATUM_LOG: 'errors',
  }
  const [previous, today] = [serve(release.worker, env), serve({ default: worker }, env)]
  clients = {
    previous: (apiKey = adminKey) => release.sdk.createClient({ baseUrl: BASE, apiKey, fetch: previous }),
    mixed: (apiKey = adminKey) => release.sdk.createClient({ baseUrl: BASE, apiKey, fetch: today }),
    today: (apiKey = adminKey) => createClient({ baseUrl: BASE, apiKey, fetch: today }),
  }
  await install(env)
  filled = await fill(clients.previous())
  before = await see(clients.previous(), filled)
  applied = await migrate(overPostgres(await database.client()), { owner: 'stratum_owner' })
})
afterAll(async () => {
  await database.drop()
  await release.remove()
})

/** How many tenants each table with a `tenant_id` knows. */
async function tenantsByTable(client: pg.Client): Promise<Record<string, number>> {
  const { rows: tables } = await client.query<{ name: string }>(`
    select format('%I.%I', table_schema, table_name) as name from information_schema.columns where column_name = 'tenant_id' and table_schema like 'stratum%'`)
  const counts: Record<string, number> = {}
  for (const { name } of tables) counts[name] = Number((await client.query(`select count(distinct tenant_id) as tenants from ${name}`)).rows[0]?.tenants)
  return counts
}

describe('a database of the previous release, upgraded', () => {
  let fresh: Installation
  let ofFresh: pg.Client
  let upgraded: pg.Client
  beforeAll(async () => {
    fresh = await createInstallation()
    ofFresh = new pg.Client(fresh.urls.admin)
    await ofFresh.connect()
    upgraded = await database.client()
  })
  afterAll(async () => {
    await ofFresh.end()
    await fresh.close()
  })

  it('has the schema of a fresh one', async () => {
    expect(await describeSchema(upgraded)).toBe(await describeSchema(ofFresh))
    const rules = 'select name, scope, reach, also_scope from stratum.operations order by name'
    expect((await upgraded.query(rules)).rows).toEqual((await ofFresh.query(rules)).rows)
  })

  it('holds something of as many tenants, in each table, as one that is filled today', async () => {
    await fill(await fresh.clientFor(null, ['admin', 'secrets:read']))
    const expected = await tenantsByTable(ofFresh)
    expect(expected['stratum.config_entries']).toBe(2)
    expect(await tenantsByTable(upgraded)).toEqual(expected)
  })

  it('is not touched by a second upgrade', async () => {
    expect(applied.length).toBeGreaterThan(0)
    expect(await migrate(overPostgres(upgraded), { owner: 'stratum_owner' })).toEqual([])
  })

  it("says through today's API what it said before, secrets included", async () => {
    expect(await see(clients.today(), filled)).toMatchObject(before as object)
    const { config } = await clients.today().resolveConfig({ id: filled.ids[4] ?? '', reveal: true })
    expect(config['key']).toMatchObject({ value: { private: [1] } })
  })

  it('still lets in who had a key, and nobody more', async () => {
    const [acme = '', , , south = ''] = filled.ids
    const bound = clients.today(filled.key)
    expect((await bound.getTenant({ id: south })).name).toBe('South')
    await expect(bound.getTenant({ id: acme })).rejects.toMatchObject({ code: 'TENANT_NOT_FOUND' })
    await expect(bound.createApiKey({ tenant_id: south, name: 'more' })).rejects.toMatchObject({ status: 403 })
  })

  it('resumes exactly what a cascade of the previous release suspended', async () => {
    const [, north = '', oslo = ''] = filled.ids
    await clients.today().resumeTenant({ id: north })
    expect((await clients.today().getTenant({ id: oslo })).status).toBe('active')
  })

  it('knows a default of the previous release once it is another', async () => {
    const [, , oslo = ''] = filled.ids
    const { rows } = await upgraded.query<{ at: Date }>('select max(updated_at) as at from stratum.config_definitions')
    const at = rows[0]?.at.toISOString() ?? ''
    await clients.today().putConfigDefinitions({ definitions: [{ key: 'max_users', schema: { type: 'integer', minimum: 1 }, default: 20 }] })
    const maximumOf = async (options: { at?: string }) => (await clients.today().resolveConfig({ id: oslo, ...options })).config['max_users']?.value
    expect([await maximumOf({ at }), await maximumOf({})]).toEqual([10, 20])
  })
})

describe('the previous release', () => {
  const users = [
    ["SDK finds every operation at today's Worker, with answers that fit its own contracts", 'mixed'],
    ['SDK and Worker find every operation in the upgraded database', 'previous'],
  ] as const

  it.each(users)('%s', async (_, which) => {
    const { endpointList } = release.endpoints
    const called = new Set<string>()
    const client = watched(clients[which](), endpointList, called)
    await useAll(client, which, host)
    const [, , , south = ''] = filled.ids
    expect((await watched(clients[which](filled.key), endpointList, called).getContext()).tenant_id).toBe(south)
    expect(endpointList.map(({ id }) => id).filter((id) => !called.has(id))).toEqual([])
  })
})

it('leaves every tenant, chain and event consistent', async () => {
  expect(await faults(await database.client())).toEqual([])
})
