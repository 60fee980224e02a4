/** After a purge the data plane holds nothing of the tenant, wherever it was, and its neighbours are untouched. */
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { dropPlace, makePlace, type Server } from '../../src/provisioning/places.ts'
import { tasks } from '../../src/provisioning/tasks.ts'
import { createStage, type Made, type Stage } from '../isolation/stage.ts'
import { contents } from '../support/record.ts'
import { refusal } from '../support/tree.ts'
import { untilWaiting } from '../support/waiting.ts'

const STRATEGIES = ['SHARED_RLS', 'SCHEMA_PER_TENANT', 'DB_PER_TENANT'] as const

let stage: Stage
let neighbour: Made
beforeAll(async () => {
  stage = await createStage()
  await stage.asOwner((client) => client.query('create table notes (id uuid primary key default gen_random_uuid(), text text not null)'))
  await stage.manage('notes')
  neighbour = await stage.tenant()
  await stage.batch(neighbour, `insert into notes (text) values ('of the neighbour')`)
})
afterAll(() => stage.close())

const sql = async (text: string, values: unknown[] = []) => (await stage.owner.query(text, values)).rows

/** A tenant with rows. */
async function furnished(strategy: (typeof STRATEGIES)[number]): Promise<Made> {
  const tenant = await stage.placed(strategy)
  await stage.batch(tenant, `insert into notes (text) values ('one'), ('two')`)
  return tenant
}

/** Do what a purge has left to be done. */
async function carryOut(jobId: string | undefined, server: Server = stage.server) {
  const [job] = await sql('select id, tenant_id, payload from stratum.jobs where id = $1', [jobId])
  const progress = async (value: object) => void (await sql('select stratum.set_job_progress($1, $2)', [jobId, JSON.stringify(value)]))
  await tasks['purge_tenant_data']?.({ server, job, progress, cancelled: async () => false, log: () => {} })
}

/** What is left of a tenant in the data plane: rows, schemas, databases, lines of ours. */
async function leftOf({ id, place }: Made): Promise<string[]> {
  const left = await sql(
    `select 'schema' as what from pg_namespace where nspname = $2
     union all select 'database' from pg_database where datname = $2 or datname in (select working_name from stratum.tenant_databases where tenant_id = $1)
     union all select 'route' from stratum_guard.route where tenant_id = $1
     union all select 'ledger' from stratum_guard.applied_migrations where schema_name = $2
     union all select 'database ledger' from stratum.tenant_databases where tenant_id = $1
     union all select 'fleet' from stratum.fleet_places where tenant_id = $1`,
    [id, place.name],
  )
  const rows = await stage.asOwner(async (client) => {
    await client.query(`select set_config('app.current_tenant_id', $1, true)`, [id])
    return (await client.query('select from public.notes')).rows
  })
  return [...left.map(({ what }) => what), ...rows.map(() => 'row')].sort()
}

describe.each(STRATEGIES)('%s', (strategy) => {
  it('ends batches at once, and rows, schema or database by its job', async () => {
    const tenant = await furnished(strategy)
    const { job_ids } = await stage.stratum.purgeTenant(tenant.id)
    expect(job_ids).toHaveLength(1)
    await expect(stage.batch({ ...tenant, place: { strategy: 'SHARED_RLS', name: null } }, 'select 1')).rejects.toMatchObject({ message: 'TENANT_ARCHIVED' })
    const [told] = await sql(`select id, tenant_id, payload from stratum.jobs where tenant_id = $1 and task = 'sync_route' and status = 'queued'`, [tenant.id])
    expect(told !== undefined).toBe(strategy === 'DB_PER_TENANT')
    if (told) await tasks['sync_route']?.({ server: stage.server, job: told, progress: async () => {}, cancelled: async () => false, log: () => {} })
    await expect(stage.batch(tenant, 'select 1')).rejects.toMatchObject({ message: 'TENANT_ARCHIVED' })
    expect(await leftOf(tenant)).not.toEqual([])
    await carryOut(job_ids[0])
    expect(await leftOf(tenant)).toEqual([])
    expect(await sql('select progress from stratum.jobs where id = $1', [job_ids[0]])).toEqual([{ progress: { tenants: 1, dropped: 1 } }])
    expect(await stage.batch(neighbour, 'select text from notes')).toEqual([{ text: 'of the neighbour' }])
  })

  it('broken off at any step is done by the next try, and once more changes nothing', async () => {
    const tenant = await furnished(strategy)
    const { job_ids } = await stage.stratum.purgeTenant(tenant.id)
    const seen: string[] = []
    const server: Server = {
      ...stage.server,
      step: async (name) => {
        if (seen.includes(name)) return
        seen.push(name)
        throw new Error('broken off')
      },
    }
    for (let done = false; !done; ) {
      const before = seen.length
      done = await carryOut(job_ids[0], server).then(
        () => true,
        () => false,
      )
      expect(seen.length).toBe(before + (done ? 0 : 1))
    }
    expect(seen).toEqual(['purge_tenant_data: alone', 'dropped', 'purge_tenant_data: dropped'])
    expect(await leftOf(tenant)).toEqual([])
    await carryOut(job_ids[0])
    expect(await leftOf(tenant)).toEqual([])
  })
})

it('is one job for all that had rows in the shared tables, and one for each that had a place of its own', async () => {
  const top = await furnished('SHARED_RLS')
  const below = [await furnished('SHARED_RLS'), await furnished('SCHEMA_PER_TENANT')] as const
  for (const { id } of below) await stage.stratum.moveTenant(id, top.id)
  const { job_ids } = await stage.stratum.purgeTenant(top.id, { subtree: true })
  expect(job_ids).toHaveLength(2)
  for (const jobId of job_ids) await carryOut(jobId)
  for (const tenant of [top, ...below]) expect(await leftOf(tenant)).toEqual([])
})

describe('a batch that is under way when its tenant is purged', () => {
  /** Begin a batch that writes, purge, and end the batch when `meanwhile` says so. */
  async function underWay(meanwhile: (jobId: string | undefined, commit: () => Promise<unknown>, tenant: Made) => Promise<unknown>): Promise<Made> {
    const tenant = await furnished('SHARED_RLS')
    const client = new pg.Client(stage.urls.app)
    await client.connect()
    await client.query('begin')
    await client.query('select stratum_guard.enter($1)', [tenant.id])
    await client.query(`insert into notes (text) values ('late')`)
    const { job_ids } = await stage.stratum.purgeTenant(tenant.id)
    await meanwhile(job_ids[0], () => client.query('commit'), tenant)
    await client.end()
    return tenant
  }

  it('is waited for, so that what it writes goes too', async () => {
    const tenant = await underWay(async (jobId, commit) => {
      const carried = carryOut(jobId)
      await untilWaiting(stage.owner)
      await commit()
      await carried
    })
    expect(await leftOf(tenant)).toEqual([])
  })
  it('would leave its rows behind if it were not', async () => {
    const tenant = await underWay(async (_, commit, { id, place }) => {
      await dropPlace(stage.server, id, place)
      await commit()
    })
    expect(await leftOf(tenant)).toContain('row')
  })
})

it('drops the place that a tenant was moved from too, while that is kept', async () => {
  const tenant = await furnished('SCHEMA_PER_TENANT')
  await sql(
    `insert into stratum.isolation_changes (id, tenant_id, job_id, from_strategy, from_name, to_strategy, to_name, phase, finished_at)
     values (gen_random_uuid(), $1, gen_random_uuid(), 'SHARED_RLS', null, 'SCHEMA_PER_TENANT', $2, 'done', now())`,
    [tenant.id, tenant.place.name],
  )
  await stage.asOwner(async (client) => {
    await client.query(`select set_config('app.current_tenant_id', $1, true)`, [tenant.id])
    await client.query(`insert into public.notes (text) values ('kept')`)
  })
  const { job_ids } = await stage.stratum.purgeTenant(tenant.id)
  expect(await leftOf(tenant)).toContain('row')
  await carryOut(job_ids[0])
  expect(await leftOf(tenant)).toEqual([])
})

it('comes after the making of a place that is under way, and ends what was still to be made', async () => {
  const tenant = await stage.tenant('SCHEMA_PER_TENANT')
  const provision = () => {
    const job = { id: tenant.id, tenant_id: tenant.id, payload: {} }
    return tasks['provision_tenant']?.({ server: stage.server, job, progress: async () => {}, cancelled: async () => false, log: () => {} })
  }
  const { job_ids } = await stage.stratum.purgeTenant(tenant.id)
  expect(await sql(`select task, status from stratum.jobs where tenant_id = $1 order by task`, [tenant.id])).toEqual([
    { task: 'provision_tenant', status: 'cancelled' },
    { task: 'purge_tenant_data', status: 'queued' },
  ])
  await makePlace(stage.server, tenant.id, tenant.place, { routingVersion: 1, open: true })
  await carryOut(job_ids[0])
  await provision()
  expect(await leftOf(tenant)).toEqual([])
})

it('leaves alone what does not carry the mark of the tenant', async () => {
  const tenant = await stage.tenant('SCHEMA_PER_TENANT')
  await sql(`create schema "${tenant.place.name}"`)
  const { job_ids } = await stage.stratum.purgeTenant(tenant.id)
  await refusal(carryOut(job_ids[0]), 'PLACE_NOT_OURS')
  expect(await leftOf(tenant)).toEqual(['route', 'schema'])
  await sql(`drop schema "${tenant.place.name}"`)
  await carryOut(job_ids[0])
  expect(await leftOf(tenant)).toEqual([])
})

it('takes the rows elsewhere although one place is not to be had', async () => {
  const tenant = await furnished('SHARED_RLS')
  await sql(
    `insert into stratum.isolation_changes (id, tenant_id, job_id, from_strategy, from_name, to_strategy, phase, finished_at)
     values (gen_random_uuid(), $1, gen_random_uuid(), 'SCHEMA_PER_TENANT', 'a_foreign_schema', 'SHARED_RLS', 'done', now())`,
    [tenant.id],
  )
  await sql('create schema a_foreign_schema')
  const { job_ids } = await stage.stratum.purgeTenant(tenant.id)
  await refusal(carryOut(job_ids[0]), 'PLACE_NOT_OURS')
  expect(await leftOf(tenant)).toEqual(['route'])
  await sql('drop schema a_foreign_schema')
  await carryOut(job_ids[0])
  expect(await leftOf(tenant)).toEqual([])
})

it('is not held up by a schema that a change of isolation found in its way, and ended at', async () => {
  const tenant = await furnished('SHARED_RLS')
  await sql(
    `insert into stratum.isolation_changes (id, tenant_id, job_id, from_strategy, to_strategy, to_name, phase, finished_at)
     values (gen_random_uuid(), $1, gen_random_uuid(), 'SHARED_RLS', 'SCHEMA_PER_TENANT', 'a_foreign_schema', 'failed', now())`,
    [tenant.id],
  )
  await sql('create schema a_foreign_schema')
  const { job_ids } = await stage.stratum.purgeTenant(tenant.id)
  await carryOut(job_ids[0])
  expect(await leftOf(tenant)).toEqual([])
  await sql('drop schema a_foreign_schema')
})

it('is refused where there is something to drop and no queue to drop it by', async () => {
  const tenant = await furnished('SHARED_RLS')
  const before = await contents(stage.owner)
  await sql('alter schema graphile_worker rename to elsewhere')
  await refusal(stage.stratum.purgeTenant(tenant.id), 'PROVISIONING_UNAVAILABLE')
  await sql('alter schema elsewhere rename to graphile_worker')
  expect(await contents(stage.owner)).toEqual(before)
})
