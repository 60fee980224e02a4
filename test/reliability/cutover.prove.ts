/**
 * Changes of isolation under constant writers, a process killed at every step of every pair of strategies, and many
 * cutovers one after the other: nothing lost, nothing doubled, nothing in the old place.
 */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { IsolationStrategy } from '../../src/isolation/place.ts'
import { type Changing, Crash, createChanging, STRATEGIES, startWriters } from '../isolation/changing.ts'
import type { Made } from '../isolation/stage.ts'

const TABLES = `
  create table customers (id uuid primary key default gen_random_uuid(), name text);
  create table orders (id uuid primary key default gen_random_uuid(), amount integer not null, customer uuid references customers (id), number bigint generated always as identity)`

let stage: Changing
beforeAll(async () => {
  stage = await createChanging(TABLES, ['customers', 'orders'], { rewriteKeys: true })
})
afterAll(() => stage.close())

const PAIRS = STRATEGIES.flatMap((from) => STRATEGIES.filter((to) => to !== from).map((to): [IsolationStrategy, IsolationStrategy] => [from, to]))

/** A tenant at a place, with rows. */
async function planted(at: IsolationStrategy, rows = 200): Promise<Made> {
  const tenant = await stage.placed(at)
  const handle = stage.handle(tenant.id)
  await handle.query(`insert into customers (name) select 'c' || n from generate_series(1, 20) n`)
  await handle.query('insert into orders (amount, customer) select n, (select id from customers limit 1) from generate_series(1, $1::int) n', [rows])
  return tenant
}

async function expectExactly(tenant: Made, expected: ReadonlyMap<string, number>) {
  const rows = await stage.rowsAt(tenant.id, await stage.placeOf(tenant.id))
  const found = new Map(rows.map(({ id, amount }) => [String(id), Number(amount)]))
  const lost = [...expected].filter(([id, amount]) => found.get(id) !== amount)
  const doubled = [...found.keys()].filter((id) => !expected.has(id))
  expect({ lost, doubled, rows: rows.length }).toEqual({ lost: [], doubled: [], rows: expected.size })
}

/** What is at a tenant's place now, as the beginning of what writers add to. */
const contentsOf = async (tenant: Made) => new Map((await stage.rowsAt(tenant.id, tenant.place)).map(({ id, amount }) => [String(id), Number(amount)]))

// A database is made for each of these tenants, and a server holds only so many.
afterEach(async () => {
  const { rows } = await stage.owner.query<{ name: string; tenant: string }>('select database_name as name, tenant_id as tenant from stratum.tenant_databases')
  await stage.dropDatabases(rows)
  // A drop waits for who is still connected, and there may be thirty.
}, 300_000)

describe('killed at every step', () => {
  it.each(PAIRS)('a change from %s to %s is finished by the next try, under constant writers', async (from, to) => {
    const names: string[] = []
    await stage.change(await planted(from), to, { atStep: (name) => void names.push(name) })
    console.info(`${from} → ${to}: ${names.length} steps`)
    for (let killAt = 0; killAt < names.length; killAt++) {
      const tenant = await planted(from, 20)
      const expected = await contentsOf(tenant)
      await using writers = startWriters(stage.handle(tenant.id), 2)
      const { job_id } = await stage.request(tenant, to)
      await stage.run(job_id, {
        atStep: async (_, index) => {
          if (index !== killAt) return
          await stage.kill()
          throw new Crash()
        },
      })
      // The pool may still hold a connection that was killed. That fails a try, or ends it before it could say so, which leaves the job running.
      let job = await stage.run(job_id)
      for (let tries = 1; ['queued', 'running'].includes(job.status) && tries < 5; tries++) job = await stage.run(job_id)
      expect(job, `killed at step ${killAt}, ${names[killAt]}`).toMatchObject({ status: 'succeeded' })
      await writers.stop()
      await expectExactly(tenant, new Map([...expected, ...writers.rows]))
    }
  })
})

describe('one cutover after the other', () => {
  it('with 4 writers, 30 changes through all pairs', async () => {
    const tenant = await planted('SHARED_RLS', 2_000)
    const expected = await contentsOf(tenant)
    await using writers = startWriters(stage.handle(tenant.id), 4)
    const fenced: number[] = []
    for (let round = 0; round < 30; round++) {
      const choices = STRATEGIES.filter((strategy) => strategy !== tenant.place.strategy)
      const left = tenant.place
      const { id } = await stage.change(tenant, choices[round % choices.length] ?? 'SHARED_RLS')
      fenced.push(Number((await stage.changeRow(id))['fenced_ms']))
      const { rows } = await stage.handle(tenant.id).query<{ id: string }>('insert into orders (amount) values (-1) returning id')
      expect((await stage.rowsAt(tenant.id, left)).map((row) => row['id'])).not.toContain(rows[0]?.id)
      expected.set(rows[0]?.id ?? '', -1)
    }
    await writers.stop()
    console.info(
      `${writers.writes} writes over 30 changes, refused ${JSON.stringify(writers.refused)}, fenced ms ${fenced.toSorted((a, b) => a - b).join(' ')}`,
    )
    expect(writers.refused).toEqual({})
    await expectExactly(tenant, new Map([...expected, ...writers.rows]))
  })
})

describe('two at once', () => {
  it('200 rounds of two requests: one change, and one that is told of it', async () => {
    const tenant = await planted('SHARED_RLS', 5)
    for (let round = 0; round < 200; round++) {
      const asked = await Promise.allSettled([stage.request(tenant, 'SCHEMA_PER_TENANT'), stage.request(tenant, 'DB_PER_TENANT')])
      expect(asked.map(({ status }) => status).toSorted()).toEqual(['fulfilled', 'rejected'])
      for (const each of asked) {
        if (each.status === 'rejected') expect(each.reason).toMatchObject({ code: 'ISOLATION_CHANGE_RUNNING' })
        else {
          await stage.stratum.cancelJob(each.value.job_id)
          expect(await stage.run(each.value.job_id)).toMatchObject({ status: 'cancelled' })
        }
      }
    }
  })

  it('two workers with one job: it is done once', async () => {
    for (let round = 0; round < 10; round++) {
      const tenant = await planted('SHARED_RLS')
      const expected = await contentsOf(tenant)
      const { job_id } = await stage.request(tenant, 'SCHEMA_PER_TENANT')
      await Promise.all([stage.run(job_id), stage.run(job_id)])
      await expectExactly(tenant, expected)
    }
  })
})
