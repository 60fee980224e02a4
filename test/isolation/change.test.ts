/** A tenant changes how it is isolated while it works: nothing is lost, nothing doubled, nothing written to the old place. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { IsolationStrategy } from '../../src/isolation/place.ts'
import { type Changing, createChanging, startWriters } from './changing.ts'

const TABLES = `create table orders (id uuid primary key default gen_random_uuid(), amount integer not null)`

let stage: Changing
beforeAll(async () => {
  stage = await createChanging(TABLES, ['orders'])
})
afterAll(() => stage.close())

const asMap = (rows: Array<Record<string, unknown>>) => new Map(rows.map(({ id, amount }) => [id, amount]))

describe('with constant writers', () => {
  it('every change keeps what was acknowledged, there and back again', { timeout: 60_000 }, async () => {
    const tenant = await stage.placed('SHARED_RLS')
    const neighbour = await stage.placed('SHARED_RLS')
    const handle = stage.handle(tenant.id)
    await stage.handle(neighbour.id).query('insert into orders (amount) values (77)')
    await using writers = startWriters(handle, 3)
    const route: IsolationStrategy[] = ['SCHEMA_PER_TENANT', 'DB_PER_TENANT', 'SHARED_RLS', 'DB_PER_TENANT', 'SCHEMA_PER_TENANT', 'SHARED_RLS']
    for (const strategy of route) {
      const [left, before] = [tenant.place, writers.writes]
      const { id } = await stage.change(tenant, strategy)
      const change = await stage.changeRow(id)
      expect(change).toMatchObject({ phase: 'done', fenced_ms: expect.any(Number) })
      // a write that begins now reaches the new place only
      const { rows } = await handle.query<{ id: string }>('insert into orders (amount) values (-1) returning id')
      expect((await stage.rowsAt(tenant.id, left)).map((row) => row['id'])).not.toContain(rows[0]?.id)
      await handle.query('delete from orders where id = $1', [rows[0]?.id])
      expect(writers.writes).toBeGreaterThan(before)
    }
    await writers.stop()
    expect(writers.refused).toEqual({})
    expect(asMap(await stage.rowsAt(tenant.id, tenant.place))).toEqual(writers.rows)
    expect((await stage.handle(neighbour.id).query('select amount from orders')).rows).toEqual([{ amount: 77 }])
  })
})
