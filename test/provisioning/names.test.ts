/** What a new tenant's place is called, and when it is refused. */
import { createHash } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createInstallation, type Installation } from '../support/installation.ts'
import { contents } from '../support/record.ts'
import { refusal, serverSlug as uniqueSlug } from '../support/tree.ts'

let installation: Installation
beforeAll(async () => {
  installation = await createInstallation()
})
afterAll(() => installation.close())

const create = (slug: string, isolation_strategy: 'SHARED_RLS' | 'SCHEMA_PER_TENANT' | 'DB_PER_TENANT', parent_id: string | null = null) =>
  installation.stratum.createTenant({ slug, name: 'Isolated', isolation_strategy, parent_id })
const hashOf = (id: string) => createHash('sha256').update(id).digest('hex').slice(0, 12)

describe('the name of a place', () => {
  it('is the plain one, and null for the shared tables', async () => {
    const slug = uniqueSlug('named')
    expect(await create(slug, 'SCHEMA_PER_TENANT')).toMatchObject({ isolation_name: `tenant_${slug}`, provisioning_status: 'pending' })
    const other = uniqueSlug('named')
    expect(await create(other, 'DB_PER_TENANT')).toMatchObject({ isolation_name: `stratum_${other}`, provisioning_status: 'pending' })
    expect(await create(uniqueSlug('named'), 'SHARED_RLS')).toMatchObject({ isolation_name: null, provisioning_status: 'ready' })
  })

  it('fits 63 bytes at its longest, and ends in a hash beyond', async () => {
    const [fits, beyond] = [uniqueSlug('fits').padEnd(56, 'x'), uniqueSlug('beyond').padEnd(57, 'x')]
    expect((await create(fits, 'SCHEMA_PER_TENANT')).isolation_name).toBe(`tenant_${fits}`)
    const hashed = await create(beyond, 'SCHEMA_PER_TENANT')
    expect(hashed.isolation_name).toBe(`${`tenant_${beyond}`.slice(0, 50)}_${hashOf(hashed.id)}`)
    expect(hashed.isolation_name).toHaveLength(63)
  })

  it('ends in a hash where a schema, a database or a tenant has the plain one', async () => {
    const [schema, database, tenant] = [uniqueSlug('schema'), uniqueSlug('database'), uniqueSlug('tenant')]
    await installation.owner.query(`create schema tenant_${schema}`)
    await installation.owner.query(`create database stratum_${database}`)
    const holder = await create(uniqueSlug('holder'), 'SCHEMA_PER_TENANT')
    await installation.owner.query('update stratum.tenants set isolation_name = $1 where id = $2', [`tenant_${tenant}`, holder.id])
    try {
      for (const [slug, strategy, prefix] of [
        [schema, 'SCHEMA_PER_TENANT', 'tenant_'],
        [database, 'DB_PER_TENANT', 'stratum_'],
        [tenant, 'SCHEMA_PER_TENANT', 'tenant_'],
      ] as const) {
        const made = await create(slug, strategy)
        expect(made.isolation_name).toBe(`${prefix}${slug}_${hashOf(made.id)}`)
      }
    } finally {
      await installation.owner.query(`drop database stratum_${database}`)
    }
  })

  it('stays through a rename, and the slug that made it is nobody else’s', async () => {
    const slug = uniqueSlug('renamed')
    const made = await create(slug, 'SCHEMA_PER_TENANT')
    const renamed = await installation.stratum.updateTenant(made.id, { slug: uniqueSlug('other') })
    expect(renamed.isolation_name).toBe(`tenant_${slug}`)
    await expect(create(slug, 'SCHEMA_PER_TENANT')).rejects.toMatchObject({ code: 'TENANT_SLUG_TAKEN' })
  })

  it('is one tenant’s when several are made at once for it', async () => {
    const slug = uniqueSlug('raced')
    const tries = await Promise.allSettled(Array.from({ length: 8 }, () => create(slug, 'SCHEMA_PER_TENANT')))
    expect(tries.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
    for (const each of tries) if (each.status === 'rejected') expect(each.reason).toMatchObject({ code: 'TENANT_SLUG_TAKEN' })
    const { rows } = await installation.owner.query(
      'select t.isolation_name, count(j.id)::int as jobs from stratum.tenants t join stratum.jobs j on j.tenant_id = t.id where t.slug = $1 group by 1',
      [slug],
    )
    expect(rows).toEqual([{ isolation_name: `tenant_${slug}`, jobs: 1 }])
  })
})

describe('a job for each place that is to be made', () => {
  const queued = async (tenantId: string) =>
    (
      await installation.owner.query(
        `select j.task, j.status, q.payload ->> 'job_id' = j.id::text as in_queue from stratum.jobs j
         left join graphile_worker._private_jobs q on q.key = j.id::text where j.tenant_id = $1`,
        [tenantId],
      )
    ).rows

  it('is enqueued with the tenant and with no other', async () => {
    const { id } = await create(uniqueSlug('placed'), 'SCHEMA_PER_TENANT')
    expect(await queued(id)).toEqual([{ task: 'provision_tenant', status: 'queued', in_queue: true }])
    expect(await queued((await create(uniqueSlug('shared'), 'SHARED_RLS')).id)).toEqual([])
  })

  it('goes with the tenant when the batch is refused', async () => {
    const [good, taken] = [uniqueSlug('good'), uniqueSlug('taken')]
    await create(taken, 'SHARED_RLS')
    const before = await contents(installation.owner)
    const inQueue = async () => (await installation.owner.query('select count(*)::int as n from graphile_worker._private_jobs')).rows[0]
    const queuedBefore = await inQueue()
    const batch = [good, taken].map((slug) => ({ slug, name: 'B', isolation_strategy: 'SCHEMA_PER_TENANT' as const }))
    await expect(installation.stratum.batchCreateTenants(batch)).rejects.toMatchObject({ code: 'TENANT_SLUG_TAKEN' })
    expect(await contents(installation.owner)).toEqual(before)
    expect(await inQueue()).toEqual(queuedBefore)
  })

  it('a batch of mixed strategies gets one for each that needs it', async () => {
    const specs = (['SHARED_RLS', 'SCHEMA_PER_TENANT', 'DB_PER_TENANT'] as const).map((isolation_strategy) => ({
      slug: uniqueSlug('mix'),
      name: 'Mix',
      isolation_strategy,
    }))
    const made = await installation.stratum.batchCreateTenants(specs)
    expect(made.map(({ provisioning_status }) => provisioning_status)).toEqual(['ready', 'pending', 'pending'])
    expect(await Promise.all(made.map(async ({ id }) => (await queued(id)).length))).toEqual([0, 1, 1])
  })

  it('no batch of a tenant is let in before its place is made', async () => {
    const { id } = await create(uniqueSlug('early'), 'SCHEMA_PER_TENANT')
    const { rows } = await installation.owner.query('select open, schema_name is not null as named from stratum_guard.route where tenant_id = $1', [id])
    expect(rows).toEqual([{ open: false, named: true }])
  })
})

describe('what cannot be provided is refused and leaves nothing behind', () => {
  let bare: Installation
  beforeAll(async () => {
    bare = await createInstallation()
  })
  afterAll(() => bare.close())

  it('a database more than the server may hold', async () => {
    const present = Number((await bare.owner.query('select count(*) from pg_database where not datistemplate')).rows[0]?.count)
    await bare.owner.query('update stratum.installation set database_limit = 2')
    const before = await contents(bare.owner)
    const admin = await bare.clientFor(null)
    const refused = await refusal(admin.createTenant({ slug: uniqueSlug(), name: 'D', isolation_strategy: 'DB_PER_TENANT' }), 'DATABASE_LIMIT_REACHED')
    expect(refused.details).toMatchObject({ limit: 2 })
    expect(Number(refused.details['count'])).toBeGreaterThanOrEqual(Math.min(present, 2))
    const { api_keys: _, audit_entries: __, audit_heads: ___, changes: ____, outbox: _____, ...rest } = await contents(bare.owner)
    expect(before).toMatchObject(rest)
    await expect(admin.createTenant({ slug: uniqueSlug(), name: 'S', isolation_strategy: 'SCHEMA_PER_TENANT' })).resolves.toMatchObject({
      provisioning_status: 'pending',
    })
  })

  it('a place where there is no queue', async () => {
    await bare.owner.query('drop schema graphile_worker cascade')
    const before = await contents(bare.owner)
    for (const isolation_strategy of ['SCHEMA_PER_TENANT', 'DB_PER_TENANT'] as const) {
      const slug = uniqueSlug()
      await expect(bare.stratum.createTenant({ slug, name: 'S', isolation_strategy })).rejects.toMatchObject({
        code: 'PROVISIONING_UNAVAILABLE',
        details: { isolation_strategy },
        message: expect.stringContaining(isolation_strategy),
      })
    }
    expect(await contents(bare.owner)).toEqual(before)
    await expect(bare.stratum.createTenant({ slug: uniqueSlug(), name: 'R', isolation_strategy: 'SHARED_RLS' })).resolves.toMatchObject({
      provisioning_status: 'ready',
    })
  })
})
