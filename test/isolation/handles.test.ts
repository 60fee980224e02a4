/** Tenant handles over pg: the same queries reach the right rows, whatever the tenant's isolation and the library above. */
import pg from 'pg'
import { to as copyTo } from 'pg-copy-streams'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createTenantPool, type TenantPool } from '../../src/isolation/handles/tenant-pool.ts'
import { getTenantContext } from '../../src/sdk/index.ts'
import { runWithTenant } from '../../src/tenant-scope.ts'
import { refusal } from '../support/tree.ts'
import { createStage, type Made, type Stage } from './stage.ts'

let stage: Stage
let pool: pg.Pool
let tenantPool: TenantPool
let shared: Made
let other: Made
let schema: Made
let database: Made

beforeAll(async () => {
  stage = await createStage()
  await stage.owner.query('create table orders (id uuid primary key default gen_random_uuid(), item text not null, amount integer not null default 1)')
  await stage.manage('orders')
  shared = await stage.placed('SHARED_RLS')
  other = await stage.placed('SHARED_RLS')
  schema = await stage.placed('SCHEMA_PER_TENANT')
  database = await stage.placed('DB_PER_TENANT')
  pool = new pg.Pool({ connectionString: stage.urls.app, max: 3 })
  tenantPool = createTenantPool(pool, () => getTenantContext().tenant_id)
})
afterAll(async () => {
  await tenantPool.end()
  await pool.end()
  await stage.close()
})

const as = <T>(tenant: Made, work: () => T) => runWithTenant({ tenant_id: tenant.id }, work)
const all = () => [shared, other, schema, database]

describe('a tenant pool', () => {
  it("runs the quickstart's query for whichever tenant is current", async () => {
    for (const tenant of all()) {
      await as(tenant, () => tenantPool.query('insert into orders (item) values ($1)', [tenant.id]))
    }
    for (const tenant of all()) {
      const orders = await as(tenant, () => tenantPool.query('SELECT * FROM orders'))
      expect(orders.rows).toMatchObject([{ item: tenant.id, tenant_id: tenant.id }])
      expect(orders.command).toBe('SELECT')
    }
  })

  it('keeps a transaction of connect() at its tenant', async () => {
    for (const tenant of all()) {
      const client = await as(tenant, () => tenantPool.connect())
      const run = (text: string, values?: unknown[]) => as(tenant, () => client.query(text, values))
      for (const begin of [
        'begin',
        'BEGIN;',
        ' -- one\nstart transaction isolation level serializable, read write',
        'begin work isolation level repeatable read',
      ]) {
        expect(await run(begin)).toMatchObject({ command: expect.stringMatching(/BEGIN|START/) })
        await run('savepoint before')
        expect((await run('select item from orders where item = $1', [tenant.id])).rows).toHaveLength(1)
        await expect(run('select 1 / 0')).rejects.toMatchObject({ code: '22012' })
        await run('rollback to savepoint before')
        expect((await run('select item from orders')).rows).toHaveLength(1)
        await run('commit')
      }
      client.release()
    }
  })

  it('answers as pg does: results of several statements, callbacks, positions of errors', async () => {
    await as(shared, async () => {
      const [first, second] = (await tenantPool.query('select 1 as one; select 2 as two')) as unknown as pg.QueryResult[]
      expect([first?.rows, second?.rows]).toEqual([[{ one: 1 }], [{ two: 2 }]])
      expect(await tenantPool.query({ text: 'select $1::int as n', values: [7], rowMode: 'array' })).toMatchObject({ rows: [[7]], fields: [{ name: 'n' }] })
      expect(await tenantPool.query('')).toMatchObject({ rows: [] })
      await expect(tenantPool.query('select nothing')).rejects.toMatchObject({ code: '42703', position: '8' })
      await expect(tenantPool.query('select $1::int, nothing', [1])).rejects.toMatchObject({ code: '42703', position: '17' })
      const named = await new Promise((resolve, reject) =>
        tenantPool.connect((error, client, release) => {
          client?.query('select 3 as three', (failed: Error, result: pg.QueryResult) => {
            release()
            if (error ?? failed) reject(error ?? failed)
            else resolve(result.rows)
          })
        }),
      )
      expect(named).toEqual([{ three: 3 }])
      const both = (await tenantPool.query('begin; select count(*)::int as n from orders; commit')) as unknown as pg.QueryResult[]
      expect(both.map(({ command }) => command)).toEqual(['BEGIN', 'SELECT', 'COMMIT'])
    })
  })

  it('takes one round trip for a query, and one for the begin of a transaction', async () => {
    const sent: string[] = []
    const client = await pool.connect()
    const stream = (client as unknown as { connection: { on(event: 'readyForQuery', listener: () => void): void } }).connection
    stream.on('readyForQuery', () => sent.push('trip'))
    client.release()
    const alone = createTenantPool(pool, () => shared.id)
    await alone.query('select 1')
    sent.length = 0
    await alone.query('insert into orders (item, amount) values ($1, $2)', ['trip', 3])
    await alone.query('delete from orders where amount = 3')
    expect(sent).toHaveLength(2)
    await alone.transaction((inner) => inner.query('select 1'))
    expect(sent).toHaveLength(2 + 3)
  })

  it('runs transaction() to its end or not at all', async () => {
    await as(database, async () => {
      expect(
        await tenantPool.transaction(async (client) => (await client.query('show transaction_isolation')).rows, { isolationLevel: 'serializable' }),
      ).toEqual([{ transaction_isolation: 'serializable' }])
      const given = new Error('given up by the test')
      await expect(
        tenantPool.transaction(async (client) => {
          await client.query("insert into orders (item) values ('gone')")
          throw given
        }),
      ).rejects.toBe(given)
      const silent = tenantPool.transaction(async (client) => {
        await client.query("insert into orders (item) values ('gone')")
        await client.query('select 1 / 0').catch(() => {})
      })
      await expect(silent).rejects.toMatchObject({ code: '25P02' })
      await expect(tenantPool.transaction((client) => client.query('delete from orders'), { readOnly: true })).rejects.toMatchObject({ code: '25006' })
      expect((await tenantPool.query("select * from orders where item = 'gone'")).rows).toEqual([])
    })
  })

  it('stays at the tenant its transaction began with, and goes to the next one after that', async () => {
    const client = await tenantPool.connect()
    const tenantIn = async () => (await client.query('select stratum_guard.current_tenant_id() as id')).rows[0].id
    await as(shared, () => client.query('begin'))
    expect(await as(schema, tenantIn)).toBe(shared.id)
    await as(schema, () => client.query('set transaction read only').catch(() => {}))
    await as(schema, () => client.query('rollback'))
    for (const tenant of [schema, database, other]) {
      expect(await as(tenant, tenantIn)).toBe(tenant.id)
    }
    client.release()
  })

  it('sets the isolation level where a library asks for it after begin', async () => {
    for (const tenant of all()) {
      await as(tenant, async () => {
        const client = await tenantPool.connect()
        await client.query('BEGIN')
        expect(await client.query('SET TRANSACTION ISOLATION LEVEL SERIALIZABLE')).toMatchObject({ command: 'SET' })
        await client.query('set transaction read only;')
        expect((await client.query('show transaction_isolation')).rows).toEqual([{ transaction_isolation: 'serializable' }])
        expect((await client.query('select count(*)::int as n from orders')).rows).toEqual([{ n: 1 }])
        await expect(client.query('delete from orders')).rejects.toMatchObject({ code: '25006' })
        await client.query('rollback')
        client.release()
      })
    }
  })

  it('gives back no connection with a transaction open or broken', async () => {
    const left = await as(shared, () => tenantPool.connect())
    await as(shared, () => left.query('begin'))
    left.release()
    await as(other, () => tenantPool.query('begin'))
    const lost = await as(shared, () => tenantPool.connect())
    const { rows } = await as(shared, async () => {
      await lost.query('begin')
      return lost.query('select pg_backend_pid() as pid')
    })
    const ended = new Promise((resolve) => lost.once('error', resolve))
    const admin = new pg.Client(stage.urls.admin)
    await admin.connect()
    await admin.query('select pg_terminate_backend($1)', [rows[0].pid])
    await admin.end()
    await ended
    await expect(as(shared, () => lost.query('select 1'))).rejects.toThrow(/connection/i)
    lost.release()
    expect(() => lost.release()).toThrow(/already/)
    for (const tenant of all()) {
      expect((await as(tenant, () => tenantPool.query('select item from orders'))).rows).toEqual([{ item: tenant.id }])
    }
  })

  it('runs queries of one client in the order they were sent', async () => {
    await as(schema, async () => {
      const client = await tenantPool.connect()
      const answers = await Promise.all([client.query('begin'), client.query("insert into orders (item) values ('queued')"), client.query('rollback')])
      expect(answers.map(({ command }) => command)).toEqual(['BEGIN', 'INSERT', 'ROLLBACK'])
      const unawaited = client.query('select 5 as five')
      client.release()
      expect((await unawaited).rows).toEqual([{ five: 5 }])
    })
  })

  it('lets cursors, streams and COPY run within a transaction only', async () => {
    await as(shared, async () => {
      const client = await tenantPool.connect()
      expect(() => client.query(copyTo('copy (select item from orders) to stdout'))).toThrow(/needs a transaction/)
      await client.query('begin')
      const copied: string[] = []
      for await (const chunk of client.query(copyTo('copy (select item from orders) to stdout'))) copied.push(String(chunk))
      expect(copied.join('')).toBe(`${shared.id}\n`)
      await client.query('commit')
      client.release()
    })
  })

  it('refuses before anything is sent where there is no tenant', async () => {
    await refusal(tenantPool.query('select 1'), 'TENANT_REQUIRED')
    await refusal(createTenantPool(pool, () => '').query('select 1'), 'TENANT_REQUIRED')
    await refusal(createTenantPool(pool, () => 'acme').query('select 1'), 'VALIDATION_FAILED')
    const client = await tenantPool.connect()
    await refusal(client.query('begin'), 'TENANT_REQUIRED')
    client.release()
  })
})
