/** The class as a process embeds it: how it starts, what it refuses, whom it names in the audit trail. */
import { Pool } from 'pg'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, it, type MockInstance, vi } from 'vitest'
import { ConfigurationInvalidError, Stratum, StratumError, TenantNotFoundError, ValidationFailedError } from '../../src/index.ts'
import { getTenantContext, runWithTenant } from '../../src/sdk/index.ts'
import { createEmptyDatabase, createInstallation, type Installation } from '../support/installation.ts'
import { openPool } from './pools.ts'

const code = (error: unknown) => (error instanceof StratumError ? error.code : error)
const tables = `select count(*)::int as tables from pg_class where relnamespace = to_regnamespace('stratum') and relkind = 'r'`

describe('starting', () => {
  let database: Awaited<ReturnType<typeof createEmptyDatabase>>
  let pool: Pool
  let warn: MockInstance<typeof console.warn>
  beforeEach(async () => {
    database = await createEmptyDatabase()
    pool = openPool({ connectionString: database.adminUrl })
    warn = vi.spyOn(console, 'warn').mockImplementation(() => {})
  })
  afterEach(async () => {
    vi.restoreAllMocks()
    await pool.end()
    await database.drop()
  })

  it('migrates once however often and however concurrently initialize() is called, and warns once of a privileged role', async () => {
    const stratum = new Stratum({ pool, autoMigrate: true })
    expect(stratum.initialize()).toBe(stratum.initialize())
    await Promise.all([stratum.initialize(), stratum.initialize(), stratum.listTenants()])
    await stratum.initialize()
    expect(warn.mock.calls).toEqual([['stratum: the role postgres bypasses row security. That is fine for the control plane; tenant data needs another role.']])
  })

  it('lets several processes migrate at once', async () => {
    const starts = [{ pool }, { databaseUrl: database.adminUrl, neonEndpoint: inject('server').neonEndpoint }, { pool }]
    await Promise.all(starts.map((options) => new Stratum({ ...options, autoMigrate: true }).initialize()))
    expect((await new Stratum({ pool }).listTenants()).data).toEqual([])
  })

  it('succeeds at a later try when the database was not there at the first', async () => {
    const later = openPool({ connectionString: `${database.adminUrl}_later` })
    const stratum = new Stratum({ pool: later, autoMigrate: true })
    expect(await stratum.initialize().catch(code)).toBe('DATABASE_UNAVAILABLE')
    expect(await stratum.listTenants().catch(code)).toBe('DATABASE_UNAVAILABLE')

    await pool.query(`create database ${database.name}_later`)

    await stratum.initialize()
    expect((await stratum.listTenants()).data).toEqual([])
    await later.end()
    await pool.query(`drop database ${database.name}_later with (force)`)
  })

  it('does not migrate unless asked to, and says what is missing', async () => {
    const stratum = new Stratum({ pool })
    expect(await stratum.initialize().catch(code)).toBe('DATABASE_OUTDATED')
    expect(await stratum.listTenants().catch(code)).toBe('DATABASE_OUTDATED')
    expect((await pool.query(tables)).rows).toEqual([{ tables: 0 }])
  })

  it('says in one sentence why it cannot migrate', async () => {
    await pool.query('create extension ltree')
    await expect(new Stratum({ pool, autoMigrate: true }).initialize()).rejects.toThrow(ConfigurationInvalidError)
    await expect(new Stratum({ pool, autoMigrate: true }).initialize()).rejects.toThrow(/^The extension ltree is installed in schema public; .*\.$/)
    await pool.query('drop extension ltree')
    await pool.query(`create role reader_${database.name} login password 'reader'`)
    const reader = openPool({ connectionString: database.adminUrl.replace('postgres:admin', `reader_${database.name}:reader`) })
    const refused = await new Stratum({ pool: reader, autoMigrate: true }).initialize().catch((error: unknown) => error)
    await reader.end()
    expect(refused).toBeInstanceOf(ConfigurationInvalidError)
    expect(refused).toMatchObject({ message: `The database refused the migration: permission denied for database ${database.name}.` })
  })
})

it.each([[{}], [{ pool: new Pool(), databaseUrl: 'postgresql://a:b@localhost/c' }]])('takes a pool or a databaseUrl: neither nor both', (options) => {
  expect(() => new Stratum(options)).toThrow('Give new Stratum() either a pool or a databaseUrl.')
})

describe('in a migrated database', () => {
  let installation: Installation
  let pool: Pool
  let stratum: Stratum
  beforeAll(async () => {
    installation = await createInstallation()
    pool = openPool({ connectionString: installation.urls.control })
    stratum = new Stratum({ pool })
  })
  afterAll(async () => {
    await pool.end()
    await installation.close()
  })

  it('has every method of the foundation', () => {
    const methods = `createTenant getTenant getTenantBySlug listTenants updateTenant deleteTenant suspendTenant resumeTenant archiveTenant moveTenant
      getAncestors getRoot getDescendants getChildren getTenantContext createOrganization listOrganizations getOrganization
      setConfig deleteConfig resolveConfig getConfigWithInheritance createPermission updatePermission deletePermission resolvePermissions
      createApiKey validateApiKey revokeApiKey listApiKeys getApiKey initialize`.split(/\s+/)
    expect(methods.filter((name) => typeof Reflect.get(stratum, name) !== 'function')).toEqual([])
  })

  it('works as the role of the edge, and has nothing to warn of', async () => {
    const warn = vi.spyOn(console, 'warn')
    await stratum.initialize()
    expect(warn).not.toHaveBeenCalled()
    warn.mockRestore()
  })

  it('refuses what an operation does not know, and names it', async () => {
    const misspelt = { slug: 'misspelt', name: 'Misspelt', parentId: null }
    const error = await stratum.createTenant(misspelt).catch((thrown: unknown) => thrown)
    expect(error).toBeInstanceOf(ValidationFailedError)
    expect(error).toMatchObject({ status: 422, details: { issues: [{ path: 'parentId' }] } })
    await expect(stratum.getTenantBySlug('misspelt')).rejects.toThrow(TenantNotFoundError)
    await expect(stratum.getTenant('not-an-id')).rejects.toMatchObject({ code: 'VALIDATION_FAILED' })
    const tenant = await stratum.createOrganization({ slug: 'spelt', name: 'Spelt' })
    await expect(stratum.setConfig(tenant.id, 'k', { value: 1, ...{ lock: true } })).rejects.toMatchObject({ code: 'VALIDATION_FAILED' })
  })

  it('writes into the audit trail who the process says it was, and itself where it says nothing', async () => {
    const audit = { actor_id: 'user-7', actor_type: 'user', source_ip: '192.0.2.7', request_id: 'request-7' }
    const tenant = await stratum.createOrganization({ slug: 'audited', name: 'Audited' }, audit)
    await stratum.setConfig(tenant.id, 'k', { value: 1 }, audit)
    await stratum.createPermission(tenant.id, { key: 'p' })

    const { rows } = await installation.owner.query<{ payload: string }>('select payload from stratum.audit_entries where tenant_id = $1 order by seq', [
      tenant.id,
    ])
    const [created, set, permitted] = rows.map((row) => JSON.parse(row.payload))
    for (const entry of [created, set]) {
      expect(entry).toMatchObject({ actor: { type: 'user', id: 'user-7' }, source_ip: '192.0.2.7', request_id: 'request-7' })
    }
    expect(permitted).toMatchObject({ actor: { type: 'system', id: 'embedded' }, source_ip: null, request_id: null })
  })

  it('starts without keys, and says which one is missing when an operation needs it', async () => {
    const tenant = await stratum.createOrganization({ slug: 'keyless', name: 'Keyless' })
    await expect(stratum.setConfig(tenant.id, 'secret', { value: 's', sensitive: true })).rejects.toMatchObject({ code: 'MASTER_KEY_MISSING' })
    await expect(stratum.createApiKey(tenant.id)).rejects.toMatchObject({ code: 'API_KEY_SECRET_MISSING' })
    expect(() => new Stratum({ pool, masterKeys: 'k:weak' })).toThrow(ConfigurationInvalidError)
  })

  it('decrypts unless told not to', async () => {
    const tenant = await installation.stratum.createOrganization({ slug: 'secretive', name: 'Secretive' })
    await installation.stratum.setConfig(tenant.id, 'secret', { value: 'hidden', sensitive: true })
    expect((await installation.stratum.resolveConfig(tenant.id))['secret']).toMatchObject({ value: 'hidden', sensitive: true })
    expect((await installation.stratum.resolveConfig(tenant.id, { reveal: false }))['secret']).toMatchObject({ value: null, sensitive: true })
  })

  it('makes, validates and revokes keys with the arguments in their order', async () => {
    const tenant = await installation.stratum.createOrganization({ slug: 'keyed', name: 'Keyed' })
    const named = await installation.stratum.createApiKey(tenant.id, 'ci')
    const global = await installation.stratum.createApiKey(null, { name: 'ops', scopes: ['admin'] })
    expect(named).toMatchObject({ name: 'ci', tenant_id: tenant.id })
    expect(await installation.stratum.validateApiKey(named.key)).toMatchObject({ type: 'api_key', id: named.id, tenant_id: tenant.id })
    expect(await installation.stratum.validateApiKey(global.key)).toMatchObject({ tenant_id: null, scopes: ['admin'] })
    await installation.stratum.revokeApiKey(named.id)
    expect(await installation.stratum.validateApiKey(named.key)).toBeNull()
    expect(await installation.stratum.validateApiKey('sk_test_unknown')).toBeNull()
  })

  it('keeps its connections however often it is refused, and loses only those that break', async () => {
    const pool = openPool({ connectionString: installation.urls.owner, max: 1 })
    let opened = 0
    pool.on('connect', () => opened++)
    const embedded = new Stratum({ pool })
    for (let time = 0; time < 10; time++) await expect(embedded.getTenantBySlug('nobody')).rejects.toBeInstanceOf(TenantNotFoundError)
    expect(opened).toBe(1)

    const { rows } = await pool.query<{ pid: number }>('select pg_backend_pid() as pid')
    await installation.owner.query('select pg_terminate_backend($1, 5000)', [rows[0]?.pid])
    await embedded.getTenantBySlug('nobody').catch(() => {})
    await expect(embedded.getTenantBySlug('nobody')).rejects.toBeInstanceOf(TenantNotFoundError)
    expect(opened).toBe(2)
    await pool.end()
  })

  it('answers a database that is away with the error of the catalogue', async () => {
    const away = new Pool({ host: 'localhost', port: 1 })
    await expect(new Stratum({ pool: away }).listTenants()).rejects.toMatchObject({ code: 'DATABASE_UNAVAILABLE', status: 503, retryAfter: 1 })
    await away.end()
    const neon = new Stratum({ databaseUrl: 'postgresql://a:b@db.localtest.me:1/x', neonEndpoint: 'http://localhost:1/sql' })
    await expect(neon.listTenants()).rejects.toMatchObject({ code: 'DATABASE_UNAVAILABLE' })
  })
})

describe('the tenant of the current request', () => {
  it('is the one of the enclosing scope, through all that is awaited', async () => {
    const context = { tenant_id: 'a', extra: 1 }
    const seen = await Stratum.runWithTenant(context, async () => {
      await new Promise((resolve) => setImmediate(resolve))
      return [Stratum.currentTenantId(), Stratum.currentTenantContext(), getTenantContext()]
    })
    expect(seen).toEqual(['a', context, context])
    expect(seen[1]).toBe(context)
  })

  it('is none outside of a scope, and asking for it is refused', () => {
    expect(Stratum.currentTenantContext()).toBeUndefined()
    expect(() => Stratum.currentTenantId()).toThrow(expect.objectContaining({ code: 'TENANT_REQUIRED' }))
    expect(() => getTenantContext()).toThrow(expect.objectContaining({ code: 'TENANT_REQUIRED' }))
  })

  it('is never the one of a scope beside it, and the inner of two nested ones', async () => {
    const ids = Array.from({ length: 50 }, (_, i) => `tenant-${i}`)
    const gates: Array<() => void> = []
    const seen = Promise.all(
      ids.map((tenant_id) =>
        Stratum.runWithTenant({ tenant_id }, async () => {
          await new Promise<void>((open) => gates.push(open))
          const inner = await runWithTenant({ tenant_id: `${tenant_id}/inner` }, async () => Stratum.currentTenantId())
          return [inner, Stratum.currentTenantId()]
        }),
      ),
    )
    for (const open of gates.reverse()) open()
    expect(await seen).toEqual(ids.map((id) => [`${id}/inner`, id]))
  })

  it('leaves with an exception too', () => {
    const fail = () => {
      throw new Error('of the application')
    }
    expect(() => Stratum.runWithTenant({ tenant_id: 'a' }, fail)).toThrow('of the application')
    expect(Stratum.currentTenantContext()).toBeUndefined()
  })
})
