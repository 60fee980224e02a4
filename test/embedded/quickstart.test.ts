/** The quickstarts as their documents have them, package names aside, over both transports. */
import { Pool } from 'pg'
import { afterEach, beforeEach, describe, expect, inject, it, vi } from 'vitest'
import { Stratum } from '../../src/index.ts'
import { createEmptyDatabase } from '../support/installation.ts'
import { quiet } from './pools.ts'

let database: Awaited<ReturnType<typeof createEmptyDatabase>>
const pools: Pool[] = []

beforeEach(async () => {
  database = await createEmptyDatabase()
  const { hostname, port, username, password } = new URL(database.adminUrl)
  const variables = { PGHOST: hostname, PGPORT: port, PGUSER: username, PGPASSWORD: password, PGDATABASE: database.name, DATABASE_URL: database.adminUrl }
  for (const [name, value] of Object.entries(variables)) vi.stubEnv(name, value)
  // These connect as the server's superuser, as a first try on one's own machine does; what is said of that is another test's.
  vi.spyOn(console, 'warn').mockImplementation(() => {})
})
afterEach(async () => {
  vi.unstubAllEnvs()
  vi.restoreAllMocks()
  await Promise.all(pools.splice(0).map((pool) => pool.end()))
  await database.drop()
})

const kept = (pool: Pool) => {
  pools.push(pool)
  return quiet(pool)
}

describe('get started in 5 lines', () => {
  it('runs as written', async () => {
    const stratum = new Stratum({ pool: kept(new Pool()), autoMigrate: true })
    await stratum.initialize()

    // Create a tenant and set config
    const org = await stratum.createOrganization({ name: 'Acme Corp', slug: 'acme' })
    await stratum.setConfig(org.id, 'max_users', { value: 100 })
    // That's it. Multi-tenancy with config inheritance, ready to go.

    expect(await stratum.resolveConfig(org.id)).toMatchObject({ max_users: { value: 100, inherited: false, source_tenant_id: org.id } })
  })

  it('runs over Neon HTTP with a connection string in place of the pool', async () => {
    const stratum = new Stratum({ databaseUrl: database.adminUrl, neonEndpoint: inject('server').neonEndpoint, autoMigrate: true })
    await stratum.initialize()

    const org = await stratum.createOrganization({ name: 'Acme Corp', slug: 'acme' })
    await stratum.setConfig(org.id, 'max_users', { value: 100 })

    expect(await stratum.resolveConfig(org.id)).toMatchObject({ max_users: { value: 100 } })
  })
})

describe('the direct library', () => {
  const thread = async (stratum: Stratum) => {
    // Create a root tenant
    const root = await stratum.createTenant({ name: 'AcmeSec', slug: 'acmesec', isolation_strategy: 'SHARED_RLS' })
    // Create a child tenant
    const msp = await stratum.createTenant({ name: 'NorthStar MSP', slug: 'northstar_msp', parent_id: root.id })
    // Config with inheritance
    await stratum.setConfig(root.id, 'max_users', { value: 1000, locked: false })
    const config = await stratum.resolveConfig(msp.id)
    // { max_users: { value: 1000, inherited: true, source_tenant_id: root.id } }
    expect(config).toMatchObject({ max_users: { value: 1000, inherited: true, source_tenant_id: root.id } })
  }

  it('runs as written on a migrated database', async () => {
    await new Stratum({ pool: kept(new Pool()), autoMigrate: true }).initialize()

    const pool = kept(new Pool({ connectionString: process.env['DATABASE_URL'] }))
    const stratum = new Stratum({ pool })
    await thread(stratum)
  })

  it('runs with autoMigrate and without initialize(), over Neon HTTP', async () => {
    await thread(new Stratum({ databaseUrl: database.adminUrl, neonEndpoint: inject('server').neonEndpoint, autoMigrate: true }))
  })
})

it('shows the tree and the config of the second document', async () => {
  const stratum = new Stratum({ pool: kept(new Pool()), autoMigrate: true })
  const root = await stratum.createOrganization({ name: 'AcmeSec', slug: 'acmesec' })
  const a = await stratum.createTenant({ name: 'Child A', slug: 'child_a', parent_id: root.id })
  const b = await stratum.createTenant({ name: 'Child B', slug: 'child_b', parent_id: root.id })
  await stratum.setConfig(root.id, 'max_users', { value: 1000 })
  await stratum.setConfig(root.id, 'region', { value: 'eu', locked: true })
  await stratum.setConfig(b.id, 'max_users', { value: 500 })

  expect(await stratum.resolveConfig(a.id)).toMatchObject({ max_users: { value: 1000, inherited: true } })
  expect(await stratum.resolveConfig(b.id)).toMatchObject({ max_users: { value: 500, inherited: false } })
  await expect(stratum.setConfig(a.id, 'region', { value: 'us' })).rejects.toMatchObject({ code: 'CONFIG_LOCKED', status: 409 })
})
