/** drizzle, Kysely and Prisma on a tenant pool, unchanged, wherever the tenant is. */
import { PrismaPg } from '@prisma/adapter-pg'
import { eq, sql } from 'drizzle-orm'
import { drizzle } from 'drizzle-orm/node-postgres'
import { integer, pgTable, text, uuid } from 'drizzle-orm/pg-core'
import { type Generated, Kysely, PostgresDialect } from 'kysely'
import pg from 'pg'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { findByPath } from '../../src/isolation/handles/public-names.ts'
import { createTenantPool, type TenantPool } from '../../src/isolation/handles/tenant-pool.ts'
import { getPrismaClientClass } from './prisma/client.ts'
import { createStage, type Made, type Stage } from './stage.ts'

let stage: Stage
let pool: pg.Pool
let tenants: Made[]
let current: Made | undefined
let tenantPool: TenantPool
beforeAll(async () => {
  stage = await createStage()
  await stage.owner.query('create table orders (id uuid primary key default gen_random_uuid(), item text not null, amount integer not null default 1)')
  await stage.manage('orders')
  tenants = [await stage.placed('SHARED_RLS'), await stage.placed('SHARED_RLS'), await stage.placed('SCHEMA_PER_TENANT'), await stage.placed('DB_PER_TENANT')]
  pool = new pg.Pool({ connectionString: stage.urls.app, max: 3 })
})
beforeEach(() => {
  tenantPool = createTenantPool(pool, () => current?.id ?? '')
})
afterEach(() => tenantPool.end())
afterAll(async () => {
  await pool.end()
  await stage.close()
})

/** What one library leaves at each tenant, one after the other on the same pool. */
async function atEach(work: (tenant: Made) => Promise<unknown>, item: string) {
  for (const tenant of tenants) {
    current = tenant
    await work(tenant)
    const [row] = await stage.batch(tenant, `select count(*)::int as rows, sum(amount)::int as amount from orders where item = '${item}'`)
    expect(row, tenant.place.strategy).toEqual({ rows: 1, amount: 3 })
  }
  // A tenant with a schema or database of its own has left nothing in the shared tables.
  const [, , schema] = tenants as [Made, Made, Made]
  expect(await stage.batch(schema, 'select item from public.orders')).toEqual([])
}
const broken = new Error('given up by the test')

describe('drizzle', () => {
  const orders = pgTable('orders', {
    id: uuid('id').primaryKey().defaultRandom(),
    item: text('item').notNull(),
    amount: integer('amount').notNull().default(1),
  })

  it('queries, prepares and runs transactions', async () => {
    const db = drizzle(tenantPool)
    const byItem = db
      .select()
      .from(orders)
      .where(eq(orders.item, sql.placeholder('item')))
      .prepare('by_item')
    await atEach(async () => {
      const [made] = await db.insert(orders).values({ item: 'drizzle' }).returning()
      expect(await byItem.execute({ item: 'drizzle' })).toEqual([made])
      await db.transaction(
        async (tx) => {
          await tx.update(orders).set({ amount: 2 }).where(eq(orders.item, 'drizzle'))
          await tx
            .transaction(async (inner) => {
              await inner.update(orders).set({ amount: 9 })
              throw broken
            })
            .catch((error) => expect(error).toBe(broken))
          expect(await tx.execute(sql`show transaction_isolation`)).toMatchObject({ rows: [{ transaction_isolation: 'repeatable read' }] })
        },
        { isolationLevel: 'repeatable read' },
      )
      await db.transaction(async (tx) => {
        await tx.setTransaction({ isolationLevel: 'serializable' })
        await tx.update(orders).set({ amount: 3 }).where(eq(orders.item, 'drizzle'))
        expect(await tx.execute(sql`show transaction_isolation`)).toMatchObject({ rows: [{ transaction_isolation: 'serializable' }] })
      })
      await expect(
        db.transaction(async (tx) => {
          await tx.delete(orders)
          throw broken
        }),
      ).rejects.toBe(broken)
    }, 'drizzle')
  })
})

describe('Kysely', () => {
  it('queries and runs transactions', async () => {
    const db = new Kysely<{ orders: { id: Generated<string>; item: string; amount: Generated<number> } }>({
      dialect: new PostgresDialect({ pool: tenantPool }),
    })
    await atEach(async () => {
      await db.insertInto('orders').values({ item: 'kysely' }).execute()
      await db
        .transaction()
        .setIsolationLevel('serializable')
        .execute(async (trx) => {
          await trx.updateTable('orders').set({ amount: 3 }).where('item', '=', 'kysely').execute()
          expect(await trx.selectFrom('orders').select('amount').where('item', '=', 'kysely').execute()).toEqual([{ amount: 3 }])
        })
      const given = db.transaction().execute(async (trx) => {
        await trx.deleteFrom('orders').execute()
        throw broken
      })
      await expect(given).rejects.toBe(broken)
    }, 'kysely')
  })
})

describe('Prisma', () => {
  interface Orders {
    create(args: object): Promise<{ id: string }>
    findMany(args?: object): Promise<Array<{ item: string; amount: number }>>
    update(args: object): Promise<unknown>
    deleteMany(): Promise<{ count: number }>
  }
  interface Client {
    order: Orders
    $transaction<T>(work: ((tx: Client) => Promise<T>) | Array<Promise<unknown>>, options?: object): Promise<T>
    $queryRawUnsafe(text: string): Promise<unknown>
    $disconnect(): Promise<void>
  }

  it('queries and runs transactions at any isolation level', async () => {
    // The client of prisma/schema.prisma; its types are left out.
    const prisma = new (getPrismaClientClass() as unknown as new (options: object) => Client)({ adapter: new PrismaPg(tenantPool) })
    await atEach(async () => {
      const { id } = await prisma.order.create({ data: { item: 'prisma' } })
      await prisma.$transaction([prisma.order.update({ where: { id }, data: { amount: 2 } }), prisma.order.findMany()])
      const level = await prisma.$transaction(
        async (tx) => {
          await tx.order.update({ where: { id }, data: { amount: 3 } })
          return tx.$queryRawUnsafe('show transaction_isolation')
        },
        { isolationLevel: 'Serializable' },
      )
      expect(level).toEqual([{ transaction_isolation: 'serializable' }])
      const given = prisma.$transaction(async (tx) => {
        await tx.order.deleteMany()
        throw broken
      })
      await expect(given).rejects.toBe(broken)
      expect((await prisma.order.findMany({ where: { id } })).map(({ amount }) => amount)).toEqual([3])
    }, 'prisma')
    await prisma.$disconnect()
  })

  it('has its names found by the search path, and nothing else of its texts changed', () => {
    expect(findByPath('select "public"."orders"."id" from "public"."orders"')).toBe('select          "orders"."id" from          "orders"')
    for (const kept of [
      `select '"public".'`,
      `select E'\\'"public".'`,
      'select $q$"public".x$q$',
      '-- "public".x',
      '/* "public".x */',
      'select "a""public".x',
      'select t."public".x',
    ]) {
      expect(findByPath(kept)).toBe(kept)
    }
  })
})
