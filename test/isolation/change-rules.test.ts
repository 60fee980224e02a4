/** Who may change a tenant's isolation and when; what is recorded, kept and dropped; what the guard is there for. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Place } from '../../src/isolation/place.ts'
import { withPlace } from '../../src/provisioning/places.ts'
import { rollbackWindow } from '../../src/provisioning/rollback-window.ts'
import { contents, recordedBy } from '../support/record.ts'
import { refusal } from '../support/tree.ts'
import { type Changing, createChanging } from './changing.ts'
import type { Made } from './stage.ts'

const TABLES = `create table orders (id uuid primary key default gen_random_uuid(), amount integer not null)`

let stage: Changing
beforeAll(async () => {
  stage = await createChanging(TABLES, ['orders'])
})
afterAll(() => stage.close())

const amounts = async (tenant: Made) =>
  (await stage.handle(tenant.id).query<{ amount: number }>('select amount from orders order by amount')).rows.map(({ amount }) => amount)

async function planted(): Promise<Made> {
  const tenant = await stage.placed('SHARED_RLS')
  await stage.handle(tenant.id).query('insert into orders (amount) values (1), (2), (3)')
  return tenant
}

/** By hand, after what stood in the way is gone. */
const retried = async (jobId: string) => {
  await stage.stratum.retryJob(jobId)
  return stage.run(jobId)
}

const dropJobOf = async (changeId: string): Promise<string> =>
  (await stage.owner.query<{ id: string }>(`select id from stratum.jobs where task = 'drop_place' and payload ->> 'change_id' = $1`, [changeId])).rows[0]?.id ??
  ''

describe('a change of isolation', () => {
  it('is refused where it cannot be, and leaves nothing', async () => {
    const [shared, suspended, unmade, busy] = [await planted(), await planted(), await stage.tenant('SCHEMA_PER_TENANT'), await planted()]
    await stage.stratum.suspendTenant(suspended.id)
    const { job_id } = await stage.request(busy, 'SCHEMA_PER_TENANT')
    const before = await contents(stage.owner)
    await refusal(stage.stratum.migrateIsolation(shared.id, 'SHARED_RLS'), 'ISOLATION_UNCHANGED')
    await refusal(stage.stratum.migrateIsolation(suspended.id, 'SCHEMA_PER_TENANT'), 'TENANT_INVALID_STATE')
    await refusal(stage.stratum.migrateIsolation(unmade.id, 'SHARED_RLS'), 'TENANT_INVALID_STATE')
    const running = await refusal(stage.stratum.migrateIsolation(busy.id, 'DB_PER_TENANT'), 'ISOLATION_CHANGE_RUNNING')
    expect(running.details).toEqual({ job_id })
    expect(await contents(stage.owner)).toEqual(before)
  })

  it('is asked for once, however many ask at once', async () => {
    const tenant = await planted()
    const asked = await Promise.allSettled(Array.from({ length: 4 }, () => stage.stratum.migrateIsolation(tenant.id, 'SCHEMA_PER_TENANT')))
    expect(asked.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
    for (const each of asked) if (each.status === 'rejected') expect(each.reason).toMatchObject({ code: 'ISOLATION_CHANGE_RUNNING' })
    const { data } = await stage.stratum.listIsolationChanges(tenant.id)
    expect(data).toHaveLength(1)
    // and done once, however often the queue delivers it
    const job_id = data[0]?.job_id ?? ''
    await Promise.all([stage.run(job_id), stage.run(job_id)])
    expect(await amounts(tenant)).toEqual([1, 2, 3])
    expect((await stage.stratum.listIsolationChanges(tenant.id)).data).toMatchObject([{ phase: 'done', progress: { orders: { copied: 3, total: 3 } } }])
  })

  it('is recorded when it is asked for and when it is done', async () => {
    const tenant = await planted()
    const { slug } = await stage.stratum.getTenant(tenant.id)
    const [from, to] = [
      { isolation_strategy: 'SHARED_RLS', isolation_name: null },
      { isolation_strategy: 'SCHEMA_PER_TENANT', isolation_name: `tenant_${slug}` },
    ]
    let job_id = ''
    const asked = await recordedBy(stage.owner, async () => {
      job_id = (await stage.request(tenant, 'SCHEMA_PER_TENANT')).job_id
    })
    const expected = { before: from, after: { ...to, job_id } }
    expect(asked).toMatchObject({ audit: [{ chain: tenant.id, payload: { action: 'tenant.isolation_change_requested', ...expected } }], feed: [] })
    const done = await recordedBy(stage.owner, () => stage.run(job_id))
    expect(done.audit).toMatchObject([{ chain: tenant.id, payload: { action: 'tenant.isolation_changed', actor: { id: 'provisioner' }, ...expected } }])
    expect(done.outbox).toMatchObject([{ type: 'tenant.isolation_changed' }])
    expect(done.feed.map(([kind]) => kind).toSorted()).toEqual(['host', 'subtree'])
    expect(done.transactions.size).toBe(1)
  })

  it('keeps the old place for the rollback window, and then it is dropped', async () => {
    const tenant = await planted()
    const { id } = await stage.change(tenant, 'SCHEMA_PER_TENANT')
    expect(await stage.rowsAt(tenant.id, { strategy: 'SHARED_RLS', name: null })).toHaveLength(3)
    expect(await stage.run(await dropJobOf(id))).toMatchObject({ status: 'succeeded' })
    expect(await stage.rowsAt(tenant.id, { strategy: 'SHARED_RLS', name: null })).toEqual([])
    expect(await stage.changeRow(id)).toMatchObject({ source_dropped_at: expect.any(Date) })
    expect(await amounts(tenant)).toEqual([1, 2, 3])
  })

  it('back to a place that is kept still makes it anew, and the job that was to drop it lets it be', async () => {
    const tenant = await planted()
    const first = await stage.change(tenant, 'SCHEMA_PER_TENANT')
    await stage.handle(tenant.id).query('update orders set amount = amount * 10')
    const back = await stage.change(tenant, 'SHARED_RLS')
    const again = await stage.change(tenant, 'SCHEMA_PER_TENANT')
    expect(again.to_name).toBe(first.to_name)
    for (const change of [first, back]) expect(await stage.run(await dropJobOf(change.id))).toMatchObject({ status: 'succeeded' })
    expect(await amounts(tenant)).toEqual([10, 20, 30])
    // the shared rows were left twice; the later window counts
    expect(await stage.rowsAt(tenant.id, { strategy: 'SHARED_RLS', name: null })).toHaveLength(3)
  })

  it('goes on where the tenant is suspended meanwhile, and it is suspended at the new place too', async () => {
    const tenant = await planted()
    const { job_id } = await stage.request(tenant, 'DB_PER_TENANT')
    const job = await stage.run(job_id, {
      atStep: async (name) => {
        if (name === 'move: compare') await stage.stratum.suspendTenant(tenant.id)
      },
    })
    expect(job.status).toBe('succeeded')
    const place = await stage.placeOf(tenant.id)
    expect(place.strategy).toBe('DB_PER_TENANT')
    const route = await withPlace(stage.server, tenant.id, place, async (client) => (await client.query('select status, open from stratum_guard.route')).rows)
    expect(route).toEqual([{ status: 'suspended', open: false }])
    await refusal(stage.handle(tenant.id).query('select from orders'), 'TENANT_SUSPENDED')
  })

  it('ends at once where the place is not to be had, and nothing is left', async () => {
    const tenant = await planted()
    const { id, job_id, to_name } = await stage.request(tenant, 'SCHEMA_PER_TENANT')
    await stage.owner.query(`create schema ${to_name}`)
    expect(await stage.run(job_id)).toMatchObject({ status: 'failed', error: { code: 'PLACE_NOT_OURS' } })
    expect(await stage.changeRow(id)).toMatchObject({ phase: 'failed' })
    expect(await amounts(tenant)).toEqual([1, 2, 3])
    await stage.owner.query(`drop schema ${to_name}`)
    expect(await retried(job_id)).toMatchObject({ status: 'succeeded' })
    expect(await amounts(tenant)).toEqual([1, 2, 3])
  })

  it('does not switch over where the application changed a table meanwhile, here or there', async () => {
    const tenant = await planted()
    const { job_id } = await stage.request(tenant, 'SCHEMA_PER_TENANT')
    const add = (column: string, table: string) => stage.owner.query(`alter table ${table} add column if not exists ${column} text`)
    const here = await stage.run(job_id, { atStep: async (name) => void (name === 'move: before the fence' && (await add('note', 'public.orders'))) })
    expect(here).toMatchObject({ status: 'failed', error: { code: 'COPY_DIFFERS' } })
    expect(await retried(job_id)).toMatchObject({ status: 'succeeded' })
    expect((await stage.handle(tenant.id).query('select note from orders')).rows).toHaveLength(3)

    const back = await stage.request(tenant, 'SHARED_RLS')
    const { name } = await stage.placeOf(tenant.id)
    const there = await stage.run(back.job_id, { atStep: async (step) => void (step === 'move: keys' && (await add('more', `${name}.orders`))) })
    expect(there).toMatchObject({ status: 'failed', error: { code: 'COPY_DIFFERS' } })
    await stage.owner.query('alter table public.orders add column more text')
    expect(await retried(back.job_id)).toMatchObject({ status: 'succeeded' })
    expect((await stage.handle(tenant.id).query('select more from orders')).rows).toHaveLength(3)
  })
})

describe('the rollback window', () => {
  it('is 24 hours unless it is set, and refused where it cannot be read', () => {
    expect(rollbackWindow(undefined)).toBe('24 hours')
    expect(rollbackWindow('7d')).toBe('7 days')
    expect(() => rollbackWindow('soon')).toThrow('STRATUM_ROLLBACK_WINDOW')
  })
})

/** A batch that begins before the cutover and ends after it has had its chance. @returns where its row came to be */
async function meetCutover(): Promise<{ old: number; new: number }> {
  const tenant = await planted()
  const { job_id } = await stage.request(tenant, 'SCHEMA_PER_TENANT')
  const client = await stage.handle(tenant.id).connect()
  let tries = 0
  await stage.run(job_id, {
    atStep: async (name) => {
      if (name === 'move: before the fence' && ++tries === 1) {
        await client.query('begin')
        await client.query('insert into orders (amount) values (99)')
      } else if ((name === 'move: before the fence' && tries === 2) || (name === 'change_isolation: switched' && tries === 1)) await client.query('commit')
    },
  })
  client.release()
  const count = async (place: Place) => (await stage.rowsAt(tenant.id, place)).filter(({ amount }) => amount === 99).length
  return { old: await count({ strategy: 'SHARED_RLS', name: null }), new: await count(await stage.placeOf(tenant.id)) }
}

describe('a batch under way at the cutover', () => {
  it('is waited for, so that what it wrote comes along', async () => {
    expect(await meetCutover()).toEqual({ old: 1, new: 1 })
  })

  it('would be lost by a guard that only looks', async () => {
    const [definition] = (await stage.owner.query<{ text: string }>(`select pg_get_functiondef('stratum_guard.admit(uuid, bigint)'::regprocedure) as text`))
      .rows
    const text = definition?.text ?? ''
    const blind = text.replace('perform pg_advisory_xact_lock_shared(lock_key(wanted));', '')
    expect(blind).not.toBe(text)
    await stage.owner.query(blind)
    try {
      expect(await meetCutover()).toEqual({ old: 1, new: 0 })
    } finally {
      await stage.owner.query(text)
    }
  })

  it('would be lost without the triggers, which the comparison finds', async () => {
    const tenant = await planted()
    const { job_id } = await stage.request(tenant, 'SCHEMA_PER_TENANT')
    const job = await stage.run(job_id, {
      atStep: async (name) => {
        if (name !== 'move: caught up') return
        const { rows } = await stage.owner.query<{ name: string }>(
          `select tgname as name from pg_trigger where tgname like 'stratum_capture_%' and tgrelid = 'orders'::regclass`,
        )
        for (const trigger of rows) await stage.owner.query(`drop trigger ${trigger.name} on orders`)
        await stage.handle(tenant.id).query('insert into orders (amount) values (4)')
      },
    })
    expect(job).toMatchObject({ status: 'failed', error: { code: 'COPY_DIFFERS' } })
    expect(await amounts(tenant)).toEqual([1, 2, 3, 4])
  })
})
