/** A place that a tenant has left is kept for the rollback window as it was left: nothing in use is compared with it, waits for it or is put into it. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { doctor } from '../../src/isolation/doctor.ts'
import { migrateTables } from '../../src/isolation/register.ts'
import { unmigrateTable } from '../../src/isolation/unregister.ts'
import { withPlace } from '../../src/provisioning/places.ts'
import { type Changing, createChanging } from './changing.ts'
import type { Made } from './stage.ts'

const ID = 'id uuid primary key default gen_random_uuid()'

let stage: Changing
/** Both came back to the shared tables. */
let left: Array<{ tenant: Made; place: Made['place'] }>
let inSchema: Made
beforeAll(async () => {
  stage = await createChanging(`create table orders (${ID}, amount int); create table notes (${ID}, body text)`, ['orders', 'notes'])
  inSchema = await stage.placed('SCHEMA_PER_TENANT')
  left = []
  for (const strategy of ['SCHEMA_PER_TENANT', 'DB_PER_TENANT'] as const) {
    const tenant = await stage.placed('SHARED_RLS')
    await stage.handle(tenant.id).query('insert into orders (amount) values (1)')
    await stage.handle(tenant.id).query(`insert into notes (body) values ('kept')`)
    await stage.change(tenant, strategy)
    const { place } = tenant
    await stage.change(tenant, 'SHARED_RLS')
    left.push({ tenant, place })
  }
  // what `stratum tenants migrate` brings to every place that is in use
  for (const schema of ['public', inSchema.place.name])
    await stage.owner.query(`alter table "${schema}".orders add column note text, add unique (tenant_id, note)`)
})
afterAll(() => stage.close())

const found = async () => (await stage.asOwner((client) => doctor(client))).map(({ level, check, subject }) => [level, check, subject].join(' '))
const inPlace = ({ tenant, place }: (typeof left)[number], sql: string) => withPlace(stage.server, tenant.id, place, (client) => client.query(sql))

describe('the doctor', () => {
  it('does not ask of it what came after', async () => {
    expect(await found()).toEqual([])
  })

  it('tells where its rows are not kept apart any more', async () => {
    for (const each of left) await inPlace(each, 'alter table orders disable row level security')
    expect(await found()).toEqual(left.map(({ place }) => `error copy_differs ${place.name}.orders`).toSorted())
    for (const each of left) await inPlace(each, 'alter table orders enable row level security')
  })
})

it('gets no table that becomes managed later, and is not in its way', async () => {
  await stage.owner.query(`create table later (${ID})`)
  await stage.asOwner((client) => migrateTables(client, ['later']))
  const { rows } = await stage.owner.query<{ schema: string }>(`select schemaname as schema from pg_tables where tablename = 'later' order by 1`)
  expect(rows.map(({ schema }) => schema)).toEqual(['public', inSchema.place.name])
  const { rows: jobs } = await stage.owner.query(`select from stratum.jobs where task = 'create_managed_copies'`)
  expect(jobs).toEqual([])
})

it('keeps its copy of a table that is managed no more', async () => {
  await stage.handle(inSchema.id).query(`insert into notes (body) values ('live')`)
  const slug = (await stage.stratum.getTenant(inSchema.id)).slug
  await expect(stage.asOwner((client) => unmigrateTable(client, 'notes'))).rejects.toMatchObject({
    code: 'TABLE_NOT_MANAGEABLE',
    message: `The table notes cannot be made unmanaged: tenant ${slug} (${inSchema.id}) has rows in a copy of its own: delete them, or change its isolation to SHARED_RLS.`,
  })
  await stage.change(inSchema, 'SHARED_RLS')

  await stage.asOwner((client) => unmigrateTable(client, 'notes'))

  for (const each of left) expect((await inPlace(each, 'select body from notes')).rows).toEqual([{ body: 'kept' }])
  expect((await stage.owner.query<{ body: string }>('select body from notes order by body')).rows.map(({ body }) => body)).toEqual(['kept', 'kept', 'live'])
  expect(await found()).toEqual(['warning unmanaged notes'])
})
