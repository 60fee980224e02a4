/** Jobs as admins see and steer them: lists, reach, retry and cancel. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Tenant } from '../../src/features/tenants/contract.ts'
import { runJob } from '../../src/provisioning/run-job.ts'
import { openServer } from '../../src/provisioning/server.ts'
import type { Task } from '../../src/provisioning/task.ts'
import { tasks } from '../../src/provisioning/tasks.ts'
import type { StratumClient } from '../../src/sdk/client.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { contents, readChain, recordedBy, SYSTEM_CHAIN } from '../support/record.ts'
import { plantTree, refusal, serverSlug, walk } from '../support/tree.ts'
import { untilWaiting, whileOpen } from '../support/waiting.ts'

let installation: Installation
let admin: StratumClient
let root: Tenant
let placed: Tenant
let elsewhere: Tenant
beforeAll(async () => {
  installation = await createInstallation()
  admin = await installation.clientFor(null)
  const tree = await plantTree(admin, { root: null, other: null })
  root = tree.root
  placed = await create(root.id)
  elsewhere = await create(tree.other.id)
})
afterAll(() => installation.close())

const create = (parent_id: string | null) =>
  admin.createTenant({ slug: serverSlug('jobs'), name: 'Placed', parent_id, isolation_strategy: 'SCHEMA_PER_TENANT' })
const enqueue = async (task: string, tenantId: string | null, payload: object = {}) =>
  (await installation.owner.query<{ id: string }>('select stratum.enqueue($1, $2, $3) as id', [task, tenantId, JSON.stringify(payload)])).rows[0]?.id ?? ''
const jobsOf = async ({ id }: { id: string }) => (await admin.listJobs({ tenant_id: id })).data
const firstJobOf = async (tenant: { id: string }) => {
  const [job] = await jobsOf(tenant)
  if (job === undefined) throw new Error('There is no job.')
  return job
}
const setJob = (id: string, set: string) => installation.owner.query(`update stratum.jobs set ${set} where id = $1`, [id])
/** The queue's entries of a job: how many there are, and whether it is due. */
const inQueue = async (id: string) =>
  (await installation.owner.query<{ due: boolean }>('select run_at <= now() as due from graphile_worker._private_jobs where key = $1', [id])).rows

describe('lists', () => {
  it('show what there is to do about tenants within reach, newest first', async () => {
    const ofRoot = await installation.clientFor(root.id)
    const newest = await create(root.id)
    const seen = await walk((page) => ofRoot.listJobs({ ...page, limit: 1 }))
    expect(seen.map(({ tenant_id, task, status }) => ({ tenant_id, task, status }))).toEqual(
      [newest, placed].map(({ id }) => ({ tenant_id: id, task: 'provision_tenant', status: 'queued' })),
    )
    const everything = await walk((page) => admin.listJobs({ ...page, limit: 2 }))
    expect(everything.map(({ id }) => id)).toEqual(
      everything
        .map(({ id }) => id)
        .toSorted()
        .reverse(),
    )
    expect(everything.map(({ tenant_id }) => tenant_id)).toEqual(expect.arrayContaining([newest.id, placed.id, elsewhere.id]))
  })

  it('can be of one tenant and of one status', async () => {
    const tenant = await create(root.id)
    const failed = await enqueue('sync_route', tenant.id)
    await setJob(failed, `status = 'failed', error = '{"code": "DATABASE_UNAVAILABLE", "message": "Away."}'`)
    const ids = async (input: object) => (await admin.listJobs({ tenant_id: tenant.id, ...input })).data.map(({ id }) => id)
    expect(await ids({ status: 'failed' })).toEqual([failed])
    expect(await ids({ status: 'running' })).toEqual([])
    expect((await ids({})).length).toBe(2)
    expect(await admin.getJob({ id: failed })).toMatchObject({ status: 'failed', error: { code: 'DATABASE_UNAVAILABLE', message: 'Away.' } })
    await refusal(admin.listJobs({ status: 'lost' as 'failed' }), 'INVALID_REQUEST')
  })

  it('leave jobs of purged tenants, and of none, to global admins', async () => {
    const [purged, nobodys] = [await enqueue('drop_place', crypto.randomUUID()), await enqueue('create_managed_copies', null)]
    const ofRoot = await installation.clientFor(root.id)
    for (const id of [purged, nobodys]) {
      expect((await admin.getJob({ id })).id).toBe(id)
      for (const call of [ofRoot.getJob, ofRoot.retryJob, ofRoot.cancelJob]) await refusal(call({ id }), 'JOB_NOT_FOUND')
    }
  })
})

describe('retry', () => {
  it('makes a failed job due again with all its tries, and says who asked', async () => {
    const tenant = await create(root.id)
    const job = await firstJobOf(tenant)
    await installation.owner.query(`select stratum.start_job($1), stratum.fail_job($1, '{"code": "DATABASE_BUSY", "message": "Busy."}', true)`, [job.id])
    await installation.owner.query('select graphile_worker.remove_job($1)', [job.id])
    expect(await admin.getTenant({ id: tenant.id })).toMatchObject({ provisioning_status: 'failed' })
    const recorded = await recordedBy(installation.owner, () => admin.retryJob({ id: job.id }))
    expect(recorded.audit.map(({ chain, payload }) => [chain, payload['action'], (payload['actor'] as { type: string }).type])).toEqual([
      [tenant.id, 'tenant.provisioning', 'api_key'],
      [tenant.id, 'job.retried', 'api_key'],
    ])
    expect(recorded.transactions.size).toBe(1)
    expect(await admin.getJob({ id: job.id })).toMatchObject({ status: 'queued', attempts: 0, error: null, started_at: null, finished_at: null })
    expect(await admin.getTenant({ id: tenant.id })).toMatchObject({ provisioning_status: 'pending' })
    expect(await inQueue(job.id)).toEqual([{ due: true }])
  })

  it('does not wait for the next try of one that is to be tried again', async () => {
    const tenant = await create(root.id)
    const job = await firstJobOf(tenant)
    await setJob(job.id, 'attempts = 3')
    await installation.owner.query(`update graphile_worker._private_jobs set run_at = now() + interval '1 hour' where key = $1`, [job.id])
    expect(await inQueue(job.id)).toEqual([{ due: false }])
    await admin.retryJob({ id: job.id })
    expect(await inQueue(job.id)).toEqual([{ due: true }])
  })

  it.each([
    ['new', `status = 'queued', attempts = 0`],
    ['running', `status = 'running'`],
    ['done', `status = 'succeeded'`],
  ])('is refused for one that is %s', async (_, state) => {
    const tenant = await create(root.id)
    const job = await firstJobOf(tenant)
    await setJob(job.id, state)
    const before = await contents(installation.owner)
    await refusal(admin.retryJob({ id: job.id }), 'JOB_INVALID_STATE')
    expect(await contents(installation.owner)).toEqual(before)
  })

  it('by two at once is done once', async () => {
    const job = await firstJobOf(await create(root.id))
    await setJob(job.id, `status = 'failed'`)
    const tries = await Promise.allSettled([1, 2, 3, 4].map(() => admin.retryJob({ id: job.id })))
    expect(tries.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
    expect(await inQueue(job.id)).toEqual([{ due: true }])
  })
})

describe('cancel', () => {
  it('calls the making of a place off before it begins; the tenant has failed, and a retry makes it', async () => {
    const tenant = await create(root.id)
    const job = await firstJobOf(tenant)
    expect(await admin.cancelJob({ id: job.id })).toMatchObject({ status: 'cancelled', finished_at: expect.any(String) })
    expect(await admin.getTenant({ id: tenant.id })).toMatchObject({ provisioning_status: 'failed' })
    expect(await inQueue(job.id)).toEqual([])
    expect((await readChain(installation.owner, tenant.id)).map(({ payload }) => JSON.parse(payload ?? '{}').action)).toEqual([
      'tenant.created',
      'tenant.provisioning_failed',
      'job.cancelled',
    ])
    expect(await admin.retryJob({ id: job.id })).toMatchObject({ status: 'queued' })
    expect(await inQueue(job.id)).toEqual([{ due: true }])
  })

  it('tells a change of isolation that it is not wanted any more, and is not there for what must be done', async () => {
    const tenant = await create(root.id)
    const change = await enqueue('change_isolation', tenant.id)
    await installation.owner.query(
      `insert into stratum.isolation_changes (id, tenant_id, job_id, from_strategy, to_strategy) values (gen_random_uuid(), $1, $2, 'SHARED_RLS', 'SCHEMA_PER_TENANT')`,
      [tenant.id, change],
    )
    await setJob(change, `status = 'running'`)
    expect(await admin.cancelJob({ id: change })).toMatchObject({ status: 'running' })
    const { rows } = await installation.owner.query('select cancel_requested from stratum.isolation_changes where job_id = $1', [change])
    expect(rows).toEqual([{ cancel_requested: true }])
    await installation.owner.query(`update stratum.isolation_changes set phase = 'cancelled', finished_at = now() where job_id = $1`, [change])
    await installation.owner.query('select stratum.finish_job($1)', [change])
    expect(await admin.getJob({ id: change })).toMatchObject({ status: 'cancelled' })
    await refusal(admin.cancelJob({ id: change }), 'JOB_INVALID_STATE')

    for (const task of ['sync_route', 'drop_place', 'purge_tenant_data']) {
      await refusal(admin.cancelJob({ id: await enqueue(task, tenant.id) }), 'JOB_INVALID_STATE')
    }
  })

  it('of a change of isolation is for who decides on it: reach of the tenant itself is not enough', async () => {
    const tenant = await create(root.id)
    const change = await enqueue('change_isolation', tenant.id)
    await installation.owner.query(
      `insert into stratum.isolation_changes (id, tenant_id, job_id, from_strategy, to_strategy) values (gen_random_uuid(), $1, $2, 'SHARED_RLS', 'SCHEMA_PER_TENANT')`,
      [tenant.id, change],
    )
    const [own, above] = [await installation.clientFor(tenant.id), await installation.clientFor(root.id)]
    const before = await contents(installation.owner)
    await refusal(own.cancelJob({ id: change }), 'JOB_NOT_FOUND')
    await setJob(change, `status = 'failed'`)
    await refusal(own.retryJob({ id: change }), 'JOB_NOT_FOUND')
    await setJob(change, `status = 'queued'`)
    expect(await contents(installation.owner)).toEqual(before)
    expect(await own.getJob({ id: change })).toMatchObject({ status: 'queued' })
    expect(await above.cancelJob({ id: change })).toMatchObject({ status: 'queued' })
    await installation.owner.query(`update stratum.isolation_changes set phase = 'cancelled', finished_at = now() where job_id = $1`, [change])
  })

  it('is too late for a place that is being made', async () => {
    const job = await firstJobOf(await create(root.id))
    await whileOpen(
      installation.owner,
      (held) => held.query('select stratum.start_job($1)', [job.id]),
      async (commit) => {
        const late = admin.cancelJob({ id: job.id }).catch((error: unknown) => error)
        await untilWaiting(installation.owner)
        await commit()
        expect(await late).toMatchObject({ code: 'JOB_INVALID_STATE' })
      },
    )
  })
})

describe('a job that the queue delivers twice', () => {
  it('is done once, however many take it at the same time', async () => {
    const tenant = await create(root.id)
    const job = await firstJobOf(tenant)
    const server = openServer(installation.urls.owner, { databaseLimit: 10_000 })
    let runs = 0
    const provision_tenant: Task = async (context) => {
      runs++
      await tasks['provision_tenant']?.(context)
    }
    const counting = { provision_tenant }
    const options = { server, tasks: counting, log: () => {}, signal: new AbortController().signal }
    await Promise.all([1, 2, 3, 4].map(() => runJob(job.id, options)))
    await server.close()
    expect(runs).toBe(1)
    expect(await admin.getJob({ id: job.id })).toMatchObject({ status: 'succeeded', attempts: 1 })
  })

  it('would be done twice without its lock', async () => {
    const job = await firstJobOf(await create(root.id))
    const start = () => installation.owner.query<{ job: unknown }>('select stratum.start_job($1) as job', [job.id])
    const both = [await start(), await start()]
    expect(both.filter(({ rows }) => rows[0]?.job !== null)).toHaveLength(2)
  })
})

describe('a job whose process died', () => {
  const take = (id: string, ago: string) =>
    installation.owner.query(`update graphile_worker._private_jobs set locked_at = now() - $2::interval, locked_by = 'gone', attempts = 1 where key = $1`, [
      id,
      ago,
    ])
  const recover = async () => (await installation.owner.query<{ id: string }>('select id from stratum.recover_jobs() as id')).rows.map(({ id }) => id)

  it('is left alone when it is the application’s own', async () => {
    await installation.owner.query(`select graphile_worker.add_job('resize_image', '{"job_id": "not ours"}', job_key => 'theirs')`)
    await take('theirs', '1 minute')
    expect(await recover()).toEqual([])
    expect(await inQueue('theirs')).toHaveLength(1)
  })

  it('is due again, unless it was taken this moment, somebody works on it, or it is done', async () => {
    const [dead, fresh, busy, done] = await Promise.all([1, 2, 3, 4].map(async () => (await firstJobOf(await create(root.id))).id))
    await take(dead ?? '', '1 minute')
    await take(fresh ?? '', '0')
    await take(busy ?? '', '1 minute')
    await take(done ?? '', '1 minute')
    await setJob(done ?? '', `status = 'succeeded'`)
    await whileOpen(
      installation.owner,
      (held) => held.query('select pg_advisory_xact_lock(stratum.job_lock($1))', [busy]),
      async () => expect(await recover()).toEqual([dead]),
    )
    expect(await inQueue(dead ?? '')).toEqual([{ due: true }])
    expect(await inQueue(done ?? '')).toEqual([])
    expect(await recover()).toEqual([busy])
  })
})

it('what is enqueued is a task that there is, in one transaction with the change', async () => {
  await expect(enqueue('make_coffee', null)).rejects.toThrow('there is no task make_coffee')
  const { rows } = await installation.owner.query(`select name from unnest($1::text[]) as name where not stratum.is_task(name)`, [Object.keys(tasks)])
  expect(rows).toEqual([])
  await whileOpen(
    installation.owner,
    (held) => held.query(`select stratum.enqueue('sync_route', $1, '{}')`, [placed.id]),
    async () => {},
  )
  expect((await jobsOf(placed)).map(({ task }) => task)).toEqual(['provision_tenant'])
})

it('a retry of a job of none is told in the system’s chain', async () => {
  const id = await enqueue('create_managed_copies', null)
  await setJob(id, `status = 'failed'`)
  const recorded = await recordedBy(installation.owner, () => admin.retryJob({ id }))
  expect(recorded.audit.map(({ chain, payload }) => [chain, payload['action']])).toEqual([[SYSTEM_CHAIN, 'job.retried']])
})
