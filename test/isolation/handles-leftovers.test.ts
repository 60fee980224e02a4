/** What one tenant's batch can leave on a connection: first with nothing but the context, where the next one finds it; then by a handle. */
import pg from 'pg'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { createTenantPool } from '../../src/isolation/handles/tenant-pool.ts'
import { createStage, type Made, type Stage } from './stage.ts'

let stage: Stage
let [gamma, beta, schema, otherSchema, database]: Made[] = []
let app: pg.Pool
beforeAll(async () => {
  stage = await createStage()
  await stage.owner.query('create table orders (id uuid primary key default gen_random_uuid(), item text not null)')
  await stage.manage('orders')
  gamma = await stage.placed('SHARED_RLS')
  beta = await stage.placed('SHARED_RLS')
  schema = await stage.placed('SCHEMA_PER_TENANT')
  otherSchema = await stage.placed('SCHEMA_PER_TENANT')
  database = await stage.placed('DB_PER_TENANT')
  for (const tenant of [gamma, beta, schema, otherSchema, database]) await stage.batch(tenant, `insert into orders (item) values ('${tenant.id}')`)
})
// One connection, so that what a batch leaves on it the next one finds.
beforeEach(() => {
  app = new pg.Pool({ connectionString: stage.urls.app, max: 1 })
  return () => app.end()
})
afterAll(() => stage.close())

/** A batch by a handle, on the connection that all have in common, or on the one to the tenant's own database. */
async function byHandle(tenant: Made | undefined, ...texts: string[]): Promise<unknown[]> {
  const handle = createTenantPool(app, () => tenant?.id ?? '')
  try {
    let rows: unknown[] = []
    for (const text of texts) rows = (await handle.query(text)).rows
    return rows
  } finally {
    await handle.end()
  }
}

/** The guard taken out: the policies have their tenant, and nothing else is done for the batch. */
async function withContextAlone(tenant: Made | undefined, text: string): Promise<unknown[]> {
  const client = await app.connect()
  try {
    await client.query('begin')
    await client.query(`select set_config('app.current_tenant_id', $1, true)`, [tenant?.id])
    const { rows } = await client.query(text)
    await client.query('commit')
    return rows
  } catch (error) {
    await client.query('rollback')
    throw error
  } finally {
    client.release()
  }
}

const ORDERS = 'select item from orders'
const COPY = 'create temporary table orders as select item from orders'
const itemOf = (tenant: Made | undefined) => [{ item: tenant?.id }]
const neighbours = () => [
  { from: gamma, to: beta },
  { from: schema, to: beta },
  { from: gamma, to: schema },
  { from: schema, to: otherSchema },
]

describe('a temporary table', () => {
  const permit = async (how: string) => {
    const admin = new pg.Client(stage.urls.admin)
    await admin.connect()
    await admin.query(`${how.replace('$', `temporary on database "${admin.database}"`)} stratum_app`).finally(() => admin.end())
  }

  it('is not made by a tenant’s batch, wherever the tenant is', async () => {
    for (const tenant of [gamma, schema, database]) await expect(byHandle(tenant, COPY)).rejects.toMatchObject({ code: '42501' })
    await expect(app.query('create temporary table mine (id int)')).rejects.toMatchObject({ code: '42501' })
  })

  it('stands in for the managed table and shows its rows to the next; entering puts an end to it', async () => {
    await permit('grant $ to')
    try {
      for (const { from, to } of neighbours()) {
        await byHandle(from, COPY)
        expect(await withContextAlone(to, ORDERS)).toEqual(itemOf(from))
        expect(await byHandle(to, ORDERS)).toEqual(itemOf(to))
        await byHandle(from, 'create temporary table report as select item from orders')
        await expect(byHandle(to, 'select * from report')).rejects.toMatchObject({ code: '42P01' })
      }
    } finally {
      await permit('revoke $ from')
    }
  })

  it('does not stand in for the managed table in its own transaction either', async () => {
    await permit('grant $ to')
    try {
      for (const tenant of [gamma, schema]) {
        const handle = createTenantPool(app, () => tenant?.id ?? '')
        await handle.transaction(async (client) => {
          await client.query('create temporary table orders (item text)')
          expect((await client.query(ORDERS)).rows).toEqual(itemOf(tenant))
          expect((await client.query('select item from pg_temp.orders')).rows).toEqual([])
        })
        await handle.end()
      }
    } finally {
      await permit('revoke $ from')
    }
  })
})

describe('a cursor WITH HOLD', () => {
  const HELD = 'declare held cursor with hold for select item from orders'

  it('shows its rows to the next; entering closes it', async () => {
    for (const { from, to } of neighbours()) {
      await byHandle(from, HELD)
      expect(await withContextAlone(to, 'fetch all from held')).toEqual(itemOf(from))
      await app.query('close held')
      await byHandle(from, HELD)
      await expect(byHandle(to, 'fetch all from held')).rejects.toMatchObject({ code: '34000' })
    }
    await expect(byHandle(database, HELD, 'fetch all from held')).rejects.toMatchObject({ code: '34000' })
  })

  it('is closed as well where the next tenant is named on the session, as no entry of ours', async () => {
    await byHandle(gamma, HELD)
    await app.query(`set app.current_tenant_id = '${beta?.id}'`)
    await expect(byHandle(beta, 'fetch all from held')).rejects.toMatchObject({ code: '34000' })
  })

  it('is closed as well where the next transaction is begun, and those of an open one are not', async () => {
    await byHandle(gamma, HELD)
    const handle = createTenantPool(app, () => beta?.id ?? '')
    const readOnly = { isolationLevel: 'serializable', readOnly: true } as const
    await handle.transaction(async (client) => {
      await client.query('savepoint before')
      await expect(client.query('fetch all from held')).rejects.toMatchObject({ code: '34000' })
      await client.query('rollback to savepoint before')
      await client.query('declare own cursor for select item from orders')
      await client.query('select stratum_guard.enter($1)', [beta?.id])
      expect((await client.query('fetch all from own')).rows).toEqual(itemOf(beta))
    }, readOnly)
    await handle.end()
  })
})

describe('a search path of the session', () => {
  it('fails the next tenant’s queries or leads its rows astray; entering begins with the connection’s own', async () => {
    await byHandle(gamma, 'set search_path = nowhere')
    await expect(withContextAlone(beta, ORDERS)).rejects.toMatchObject({ code: '42P01' })
    for (const tenant of [beta, schema]) expect(await byHandle(tenant, ORDERS)).toEqual(itemOf(tenant))

    const there = `select tenant_id as item from "${schema?.place.name}".orders where item = 'astray'`
    await byHandle(schema, `set search_path = "${schema?.place.name}"`)
    await withContextAlone(beta, `insert into orders (item) values ('astray')`)
    expect(await withContextAlone(beta, there)).toEqual(itemOf(beta))
    await withContextAlone(beta, `delete from orders where item = 'astray'`)
    await byHandle(beta, `insert into orders (item) values ('astray')`)
    expect(await byHandle(beta, there)).toEqual([])
    await byHandle(beta, `delete from orders where item = 'astray'`)
  })

  it('is kept where the connection or its role begins with it, behind the tenant’s schema and before temporary tables', async () => {
    await app.end()
    app = new pg.Pool({ connectionString: stage.urls.app, max: 1, options: '-c search_path=extra,public' })
    const path = `select current_setting('search_path') as path`
    expect(await byHandle(gamma, path)).toEqual([{ path: 'extra,public, pg_temp' }])
    expect(await byHandle(schema, path)).toEqual([{ path: `${schema?.place.name}, extra,public, pg_temp` }])
    expect(await byHandle(database, path)).toEqual([{ path: 'extra,public, pg_temp' }])
    expect((await app.query(path)).rows).toEqual([{ path: 'extra,public' }])
  })

  it('is the tenant’s own also where its batch left the tenant itself on the session', async () => {
    await byHandle(schema, `set app.current_tenant_id = '${schema?.id}'`)
    expect(await byHandle(schema, ORDERS)).toEqual(itemOf(schema))
  })
})

describe('a setting of the session that the policies stand against', () => {
  it('row_security = off fails the next tenant’s queries and shows no row', async () => {
    for (const from of [gamma, schema]) {
      await byHandle(from, 'set row_security = off')
      for (const to of [beta, otherSchema]) await expect(byHandle(to, ORDERS)).rejects.toMatchObject({ code: '42501' })
    }
  })

  it('the role of a tenant with one fails the queries of those without and shows no row', async () => {
    stage.server.tenantRoles = true
    const own = await stage.placed('SCHEMA_PER_TENANT')
    await byHandle(own, `insert into orders (item) values ('own')`, `select set_config('role', current_user, false)`)
    expect(await byHandle(own, ORDERS)).toEqual([{ item: 'own' }])
    for (const to of [beta, otherSchema]) await expect(byHandle(to, ORDERS)).rejects.toMatchObject({ code: '42501' })
  })
})

it('a query of nobody, past the handles, raises where the policy is asked, and shows nothing where there was nothing to ask', async () => {
  await stage.owner.query('create table empty (id uuid primary key default gen_random_uuid())')
  await stage.manage('empty')
  await expect(app.query(ORDERS)).rejects.toMatchObject({ code: 'STRAT', message: 'TENANT_CONTEXT_REQUIRED' })
  expect((await app.query('select * from orders where false')).rows).toEqual([])
  await app.query('set enable_indexscan = off; set enable_bitmapscan = off')
  expect((await app.query('select * from empty')).rows).toEqual([])
  await expect(app.query(ORDERS)).rejects.toMatchObject({ code: 'STRAT' })
  await expect(app.query('insert into empty default values')).rejects.toMatchObject({ code: 'STRAT' })
})
