/** Tenant handles over Neon's HTTP protocol: one request, one transaction, the tenant's own rows. */
import { neon } from '@neondatabase/serverless'
import { drizzle } from 'drizzle-orm/neon-http'
import { integer, pgTable, text, uuid } from 'drizzle-orm/pg-core'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createTenantSql } from '../../src/isolation/handles/tenant-sql.ts'
import { refusal } from '../support/tree.ts'
import { createStage, type Made, type Stage } from './stage.ts'

const orders = pgTable('orders', { id: uuid('id').primaryKey().defaultRandom(), item: text('item').notNull(), amount: integer('amount').notNull().default(1) })

let stage: Stage
let tenants: Made[]
beforeAll(async () => {
  stage = await createStage()
  await stage.owner.query('create table orders (id uuid primary key default gen_random_uuid(), item text not null, amount integer not null default 1)')
  await stage.manage('orders')
  tenants = [await stage.placed('SHARED_RLS'), await stage.placed('SHARED_RLS'), await stage.placed('SCHEMA_PER_TENANT'), await stage.placed('DB_PER_TENANT')]
})
afterAll(() => stage.close())

const handle = (tenant: Made) => createTenantSql(stage.urls.app, () => tenant.id, { endpoint: stage.neonEndpoint })
const requestsOf = async (work: () => PromiseLike<unknown>) => {
  const before = stage.databaseRequests()
  await work()
  return stage.databaseRequests() - before
}

describe('tenant SQL over HTTP', () => {
  it('answers as neon() does, each query in one request, wherever the tenant is', async () => {
    for (const tenant of tenants) {
      const sql = handle(tenant)
      const first = await requestsOf(() => sql`insert into orders (item) values (${tenant.id})`)
      expect(first).toBe(tenant.place.strategy === 'DB_PER_TENANT' ? 2 : 1)
      expect(await requestsOf(() => sql`select 1`)).toBe(1)
      const fragment = sql`where amount = ${1}`
      expect(await sql`select item, amount from orders ${fragment}`).toEqual([{ item: tenant.id, amount: 1 }])
      expect(await sql.query('select item from orders where amount = $1', [1], { arrayMode: true, fullResults: true })).toMatchObject({
        rows: [[tenant.id]],
        command: 'SELECT',
        rowCount: 1,
      })
      expect(await sql`select ${sql.unsafe('item')} from orders`).toEqual([{ item: tenant.id }])
    }
  })

  it('runs a batch as one transaction in one request, with the isolation level that was asked for', async () => {
    for (const tenant of tenants) {
      const sql = handle(tenant)
      await sql`select 1`
      for (const isolationLevel of ['ReadCommitted', 'RepeatableRead', 'Serializable'] as const) {
        let answers: unknown
        const requests = await requestsOf(async () => {
          answers = await sql.transaction(
            (txn) => [txn`select current_setting('transaction_isolation') as level`, txn`select count(*)::int as n from orders`],
            {
              isolationLevel,
            },
          )
        })
        expect(requests).toBe(1)
        expect(answers).toEqual([[{ level: isolationLevel.replace(/(?!^)(?=[A-Z])/g, ' ').toLowerCase() }], [{ n: 1 }]])
      }
      await sql.transaction([sql`delete from orders`, sql`select 1 / 0`]).then(
        () => expect.unreachable(),
        (error) => expect(error.code).toBe('22012'),
      )
      expect(await sql`select count(*)::int as n from orders`).toEqual([{ n: 1 }])
    }
  })

  it('serves drizzle, batches included', async () => {
    for (const tenant of tenants) {
      const db = drizzle(handle(tenant))
      const [row] = await db.insert(orders).values({ item: 'drizzled', amount: 7 }).returning()
      expect(row).toMatchObject({ item: 'drizzled', amount: 7 })
      const [found, gone] = await db.batch([db.select({ amount: orders.amount }).from(orders), db.delete(orders).returning({ item: orders.item })])
      expect(found.map(({ amount }) => amount).sort()).toEqual([1, 7])
      expect(gone).toHaveLength(2)
      await db.insert(orders).values({ item: tenant.id })
    }
  })

  it('goes nowhere but where its tenant is, whatever a query asks for', async () => {
    const [shared, , , own] = tenants as [Made, Made, Made, Made]
    const sql = handle(shared)
    const astray = { database: own.place.name ?? '', user: 'postgres', connectionString: stage.urls.owner } as object
    expect(await sql.query('select current_user::text as role, item from orders', [], astray)).toEqual([{ role: 'stratum_app', item: shared.id }])
    expect(await sql.transaction([sql`select current_user::text as role`], astray)).toEqual([[{ role: 'stratum_app' }]])
  })

  it('refuses what pg handles refuse, by the same codes', async () => {
    const [shared] = tenants as [Made]
    const { neonEndpoint: endpoint, urls } = stage
    await refusal(Promise.resolve(createTenantSql(urls.app, () => '', { endpoint })`select 1`), 'TENANT_REQUIRED')
    await refusal(Promise.resolve(createTenantSql(urls.app, () => crypto.randomUUID(), { endpoint })`select 1`), 'TENANT_NOT_FOUND')
    for (const url of [urls.admin, urls.owner, urls.control]) {
      await refusal(Promise.resolve(createTenantSql(url, () => shared.id, { endpoint })`select 1`), 'DATA_ROLE_REFUSED')
    }
    await expect(Promise.resolve(handle(shared)`select * from stratum.tenants`)).rejects.toMatchObject({ code: '42501' })
    await stage.stratum.suspendTenant(shared.id)
    await refusal(Promise.resolve(handle(shared)`select 1`), 'TENANT_SUSPENDED')
    await stage.stratum.resumeTenant(shared.id)
    expect(await requestsOf(() => createTenantSql(urls.app, () => '', { endpoint })`select 1`.catch(() => {}))).toBe(0)
  })

  it('leaves nothing on the connection for a query that enters for nobody', async () => {
    const [shared] = tenants as [Made]
    await handle(shared)`select 1`
    const bare = neon(stage.urls.app)
    await expect(Promise.resolve(bare`select * from orders`)).rejects.toMatchObject({ code: 'STRAT', message: 'TENANT_CONTEXT_REQUIRED' })
  })
})
