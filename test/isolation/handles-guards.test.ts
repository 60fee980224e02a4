/** The guards of tenant handles, each shown by what happens without it. */
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createTenantPool } from '../../src/isolation/handles/tenant-pool.ts'
import { untilWaiting } from '../support/waiting.ts'
import { createStage, type Made, type Stage } from './stage.ts'

let stage: Stage
let shared: Made
let other: Made
let app: pg.Pool
beforeAll(async () => {
  stage = await createStage()
  await stage.owner.query('create table orders (id uuid primary key default gen_random_uuid(), item text not null)')
  await stage.manage('orders')
  shared = await stage.placed('SHARED_RLS')
  other = await stage.placed('SHARED_RLS')
  for (const tenant of [shared, other]) await stage.batch(tenant, `insert into orders (item) values ('${tenant.id}')`)
  app = new pg.Pool({ connectionString: stage.urls.app, max: 1 })
})
afterAll(async () => {
  await app.end()
  await stage.close()
})

describe('the policy that asks current_tenant_id()', () => {
  const policy = (name: string, compared: string) =>
    stage.owner.query(`create table ${name} (tenant_id uuid not null, item text); insert into ${name} values ('${shared.id}', 'kept');
      alter table ${name} enable row level security; alter table ${name} force row level security; grant select on ${name} to stratum_app;
      create policy bare on ${name} using (${compared})`)

  it('raises, where the bare setting yields no rows or no sense when the context was forgotten', async () => {
    await policy('with_cast', `tenant_id = current_setting('app.current_tenant_id', true)::uuid`)
    await policy('with_nullif', `tenant_id = nullif(current_setting('app.current_tenant_id', true), '')::uuid`)
    const client = new pg.Client(stage.urls.app)
    await client.connect()
    // Fresh: the setting is unset, and nobody learns that the rows are missed.
    expect((await client.query('select * from with_cast')).rows).toEqual([])
    expect((await client.query('select * from with_nullif')).rows).toEqual([])
    await client.query(`begin; select set_config('app.current_tenant_id', '${shared.id}', true); commit`)
    // Recycled: it is empty now.
    expect((await client.query('select * from with_nullif')).rows).toEqual([])
    await expect(client.query('select * from with_cast')).rejects.toMatchObject({ code: '22P02' })
    await expect(client.query('select * from orders')).rejects.toMatchObject({ code: 'STRAT', message: 'TENANT_CONTEXT_REQUIRED' })
    await client.end()
  })
})

describe('the function in the policy', () => {
  it('is STABLE and asked once, so that the index is used; a volatile one is asked for every row', async () => {
    // By hand, for rows of a thousand tenants that need not be made.
    await stage.owner.query(`create function asked_each_time() returns uuid language plpgsql volatile as $$ begin return current_setting('app.current_tenant_id')::uuid; end $$;
      create table readings as select case when n <= 20 then '${shared.id}' else md5((n % 1000)::text) end::uuid as tenant_id, n as value from generate_series(1, 20000) n;
      create table slow_readings as select * from readings;
      create policy tenant_isolation on readings using (tenant_id = (select stratum_guard.current_tenant_id()));
      create policy slow on slow_readings using (tenant_id = asked_each_time())`)
    for (const table of ['readings', 'slow_readings']) {
      await stage.owner.query(
        `create index on ${table} (tenant_id); alter table ${table} enable row level security; grant select on ${table} to stratum_app; analyze ${table}`,
      )
    }
    const handle = createTenantPool(app, () => shared.id)
    const plan = async (table: string) => JSON.stringify((await handle.query(`explain select * from ${table}`)).rows)
    expect(await plan('readings')).toMatch(/Index Cond: \(tenant_id = .*InitPlan/)
    expect(await plan('slow_readings')).toMatch(/Seq Scan.*Filter: \(tenant_id = asked_each_time/)
    await handle.end()
  })
})

describe('a context that ends with its transaction', () => {
  it('is in nobody else’s hands, where one of the session leaks through a pool each time', async () => {
    const setting = async () => (await app.query(`select current_setting('app.current_tenant_id', true) as id`)).rows[0].id
    let leaked = 0
    for (let round = 0; round < 10; round++) {
      await app.query(`select set_config('app.current_tenant_id', $1, false)`, [shared.id])
      if ((await app.query('select item from orders')).rows[0]?.item === shared.id) leaked++
    }
    expect(leaked).toBe(10)
    await app.query('discard all')

    const handle = createTenantPool(app, () => shared.id)
    for (let round = 0; round < 10; round++) {
      await handle.query('select item from orders')
      expect(await setting()).toBe('')
      await expect(app.query('select item from orders')).rejects.toMatchObject({ message: 'TENANT_CONTEXT_REQUIRED' })
    }
    await handle.end()
  })

  it('is refused to a session that was given a tenant by hand; the handle takes another connection', async () => {
    await app.query(`set app.current_tenant_id = '${other.id}'`)
    const before = (await app.query('select pg_backend_pid() as pid')).rows[0].pid
    const handle = createTenantPool(app, () => shared.id)
    const { rows } = await handle.query('select item, pg_backend_pid() as pid from orders')
    expect(rows.map(({ item }) => item)).toEqual([shared.id])
    expect(rows[0].pid).not.toBe(before)
    await handle.end()
  })
})

describe('queries of many tenants on few connections', () => {
  it('each see their own rows only, queries and transactions mixed', async () => {
    const tenants = [shared, other, await stage.placed('SCHEMA_PER_TENANT'), await stage.placed('DB_PER_TENANT')]
    for (const tenant of tenants.slice(2)) await stage.batch(tenant, `insert into orders (item) values ('${tenant.id}')`)
    const pool = new pg.Pool({ connectionString: stage.urls.app, max: 2 })
    const seen = await Promise.all(
      Array.from({ length: 200 }, async (_, index) => {
        const tenant = tenants[(index * 7) % tenants.length] as Made
        const handle = createTenantPool(pool, () => tenant.id)
        const items = async (query: (text: string) => Promise<pg.QueryResult>) => (await query('select item from orders')).rows.map(({ item }) => item)
        const found = index % 3 === 0 ? await handle.transaction((client) => items((text) => client.query(text))) : await items((text) => handle.query(text))
        await handle.end()
        return { tenant: tenant.id, found }
      }),
    )
    for (const { tenant, found } of seen) expect(found).toEqual([tenant])
    await pool.end()
  })
})

describe('statements without names', () => {
  it('run at tenants whose tables differ, where a named one fails on the second', async () => {
    const [one, two] = [await stage.placed('SCHEMA_PER_TENANT'), await stage.placed('SCHEMA_PER_TENANT')]
    await stage.owner.query(`alter table "${two.place.name}".orders add column note text`)
    const named = { name: 'all_orders', text: 'select * from orders' }
    const client = new pg.Client(stage.urls.app)
    await client.connect()
    const failures: unknown[] = []
    for (const tenant of [one, two]) {
      await client.query('begin')
      await client.query('select stratum_guard.enter($1)', [tenant.id])
      await client.query(named).catch((error) => failures.push(error.code))
      await client.query('rollback')
    }
    await client.end()
    expect(failures).toEqual(['0A000'])

    const columns = []
    let current = one
    const handle = createTenantPool(app, () => current.id)
    for (current of [one, two, one]) columns.push((await handle.query(named)).fields.length)
    expect(columns).toEqual([3, 4, 3])
    await handle.end()
  })
})

describe('a batch that shares the lock of its tenant', () => {
  const ROUNDS = 10
  /** One writer meets one cutover from `orders` to `moved_orders`; whether its acknowledged row is where the tenant is now. */
  async function meeting(enter: (writer: pg.PoolClient) => Promise<unknown>, tenant: Made): Promise<boolean> {
    const pool = new pg.Pool({ connectionString: stage.urls.app, max: 1 })
    const writer = await pool.connect()
    const item = crypto.randomUUID()
    const copy = `insert into moved_orders select * from orders where tenant_id = '${tenant.id}' on conflict (id) do nothing`
    await writer.query('begin')
    await enter(writer)
    const cutover = stage.asOwner(async (mover) => {
      await mover.query(`select pg_advisory_xact_lock(stratum_guard.lock_key('${tenant.id}'))`)
      await mover.query('update stratum_guard.route set fenced = true where tenant_id = $1', [tenant.id])
      await mover.query(`select set_config('app.current_tenant_id', '${tenant.id}', true)`)
      await mover.query(copy)
    })
    // Either the cutover is through, as nothing held it up, or it waits for the writer.
    await Promise.race([cutover, untilWaiting(stage.owner)])
    await writer.query('insert into orders (item) values ($1)', [item])
    await writer.query('commit')
    await cutover
    writer.release()
    await pool.end()
    await stage.owner.query('update stratum_guard.route set fenced = false where tenant_id = $1', [tenant.id])
    const { rows } = await stage.asOwner(async (client) => {
      await client.query(`select set_config('app.current_tenant_id', '${tenant.id}', true)`)
      return client.query('select from moved_orders where item = $1', [item])
    })
    return rows.length === 1
  }

  it('loses no acknowledged write to a cutover; one that only reads the route loses every one that meets it', async () => {
    await stage.owner.query('create table moved_orders (id uuid primary key default gen_random_uuid(), item text not null)')
    await stage.manage('moved_orders')
    const tenant = await stage.placed('SHARED_RLS')
    const kept = { reading: 0, locking: 0 }
    await stage.owner.query('grant select on stratum_guard.route to stratum_app')
    for (let round = 0; round < ROUNDS; round++) {
      const reading = await meeting(async (writer) => {
        const { rows } = await writer.query('select open from stratum_guard.route where tenant_id = $1', [tenant.id])
        expect(rows).toEqual([{ open: true }])
        await writer.query(`select set_config('app.current_tenant_id', $1, true)`, [tenant.id])
      }, tenant)
      const locking = await meeting((writer) => writer.query('select stratum_guard.enter($1)', [tenant.id]), tenant)
      kept.reading += Number(reading)
      kept.locking += Number(locking)
    }
    expect(kept).toEqual({ reading: 0, locking: ROUNDS })
  })
})
