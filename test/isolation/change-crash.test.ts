/** A change of isolation that breaks off anywhere goes on where it was, can be called off, and leaves nothing behind. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Place } from '../../src/isolation/place.ts'
import { withPlace } from '../../src/provisioning/places.ts'
import { type Changing, Crash, createChanging } from './changing.ts'
import type { Made } from './stage.ts'

const TABLES = `create table orders (id uuid primary key default gen_random_uuid(), amount integer not null)`

let stage: Changing
beforeAll(async () => {
  stage = await createChanging(TABLES, ['orders'])
})
afterAll(() => stage.close())

/** A tenant with some orders. */
async function planted(): Promise<Made> {
  const tenant = await stage.placed('SHARED_RLS')
  await stage.handle(tenant.id).query('insert into orders (amount) select generate_series(1, 50)')
  return tenant
}

const amounts = async (tenant: Made) =>
  (await stage.handle(tenant.id).query<{ amount: number }>('select amount from orders order by amount')).rows.map(({ amount }) => amount)

/** What a change leaves at a place besides rows. */
const traces = (changeId: string, tenantId: string, place: Place) =>
  withPlace(stage.server, tenantId, place, async (client) => {
    const { rows } = await client.query<{ triggers: number; captured: number; open: boolean }>(
      `select (select count(*)::int from pg_trigger where tgname like $2) as triggers,
         (select count(*)::int from stratum_guard.captured where tenant_id = $1) as captured, (select open from stratum_guard.route where tenant_id = $1) as open`,
      [tenantId, `stratum_capture_${changeId.replaceAll('-', '')}%`],
    )
    return rows[0]
  })

describe('a crash at any step', () => {
  it('is made good by the next try, while the tenant goes on', { timeout: 60_000 }, async () => {
    const tenant = await planted()
    const handle = stage.handle(tenant.id)
    const { id, job_id } = await stage.request(tenant, 'SCHEMA_PER_TENANT')
    let written = 50
    for (let crashAt = 0; ; crashAt++) {
      // a try that ended while the tenant was fenced lets it wait for the next
      const writing = handle.query('update orders set amount = amount + 1 where amount = $1', [written])
      written += 1
      const job = await stage.run(job_id, {
        atStep: async (_, index) => {
          if (index !== crashAt) return
          await stage.kill()
          throw new Crash()
        },
      })
      await writing
      if (job.status === 'succeeded') break
      // a job is tried only so often by itself
      await stage.owner.query('update stratum.jobs set attempts = 0 where id = $1', [job_id])
      if (crashAt > 60) throw new Error('it never came to an end')
    }
    expect(await stage.placeOf(tenant.id)).toMatchObject({ strategy: 'SCHEMA_PER_TENANT' })
    expect(await amounts(tenant)).toEqual([...Array.from({ length: 49 }, (_, index) => index + 1), written])
    expect(await traces(id, tenant.id, await stage.placeOf(tenant.id))).toEqual({ triggers: 0, captured: 0, open: true })
  })
})

describe('a change that is called off', () => {
  it.each(['move: made', 'move: capturing', 'move: chunk', 'move: compare', 'move: before the fence'])('at "%s" leaves the tenant as it was', async (where) => {
    const tenant = await planted()
    const { id, job_id, to_name } = await stage.request(tenant, 'SCHEMA_PER_TENANT')
    const job = await stage.run(job_id, {
      atStep: async (name) => {
        if (name === where) await stage.stratum.cancelJob(job_id)
      },
    })
    expect(job.status).toBe('cancelled')
    expect(await stage.changeRow(id)).toMatchObject({ phase: 'cancelled', error: null })
    expect(await amounts(tenant)).toHaveLength(50)
    expect(await stage.placeOf(tenant.id)).toEqual({ strategy: 'SHARED_RLS', name: null })
    expect(await traces(id, tenant.id, tenant.place)).toEqual({ triggers: 0, captured: 0, open: true })
    expect((await stage.owner.query('select from pg_namespace where nspname = $1', [to_name])).rows).toEqual([])
  })
})

describe('a copy that differs', () => {
  it('ends the change, removes the copy, and the retry succeeds', async () => {
    const tenant = await planted()
    const { id, job_id, to_name } = await stage.request(tenant, 'SCHEMA_PER_TENANT')
    const target: Place = { strategy: 'SCHEMA_PER_TENANT', name: to_name }
    const job = await stage.run(job_id, {
      atStep: async (name) => {
        if (name !== 'move: keys') return
        await withPlace(stage.server, tenant.id, target, (client) => client.query('update orders set amount = 1000 where amount = 7'))
      },
    })
    expect(job).toMatchObject({ status: 'failed', error: { code: 'COPY_DIFFERS' } })
    expect(await stage.changeRow(id)).toMatchObject({ phase: 'failed', error: { code: 'COPY_DIFFERS' } })
    expect(await traces(id, tenant.id, tenant.place)).toEqual({ triggers: 0, captured: 0, open: true })

    await stage.stratum.retryJob(job_id)
    expect(await stage.run(job_id)).toMatchObject({ status: 'succeeded', error: null })
    expect(await amounts(tenant)).toHaveLength(50)
  })
})
