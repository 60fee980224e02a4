/** Names that are long or need quotes, and many tenants of every strategy in one tree. */
import { afterAll, beforeAll, expect, it } from 'vitest'
import { doctor } from '../../src/isolation/doctor.ts'
import { boundedName, identifier, literal } from '../../src/isolation/identifiers.ts'
import { dropPlace, makePlace } from '../../src/provisioning/places.ts'
import { createStage, type Made, type Stage, uniqueSlug } from './stage.ts'

let stage: Stage
beforeAll(async () => {
  stage = await createStage()
})
afterAll(() => stage.close())

it('bounds names by bytes, cuts no character, and keeps two that begin alike apart', () => {
  const [a, b] = [boundedName(['é'.repeat(31)], 'tenant_id_key'), boundedName([`${'é'.repeat(30)}x`], 'tenant_id_key')]
  expect(Buffer.byteLength(a)).toBeLessThanOrEqual(63)
  expect(a).toMatch(/^é+_[0-9a-f]{8}_tenant_id_key$/)
  expect(a).not.toBe(b)
  expect(boundedName(['orders', 'tenant_id'], 'idx')).toBe('orders_tenant_id_idx')
})

it('quotes what Postgres must read as one name or text', async () => {
  for (const text of ['a"b', "it's", 'back\\slash', 'sélect', '$$', 'x\n; drop table y']) {
    const { rows } = await stage.owner.query(`select ${literal(text)} as text, 1 as ${identifier(text)}`)
    expect(rows).toEqual([{ text, [text]: 1 }])
  }
})

it('gives 200 tenants of mixed strategies in one tree each its own place', async () => {
  await stage.owner.query(`create table "Order Items" (id uuid primary key default gen_random_uuid())`)
  await stage.manage('Order Items')
  const root = await stage.tenant()
  const strategyOf = (index: number) => (index % 50 === 0 ? 'DB_PER_TENANT' : index % 10 === 1 ? 'SCHEMA_PER_TENANT' : 'SHARED_RLS')
  const made: Made[] = []
  for (let hundred = 0; hundred < 2; hundred++) {
    const prefix = uniqueSlug('n')
    const specs = Array.from({ length: 100 }, (_, index) => ({
      name: 'x',
      slug: `${prefix}_${index}`,
      isolation_strategy: strategyOf(hundred * 100 + index) as Made['place']['strategy'],
      ...(index === 0 ? { parent_id: root.id } : { parent_slug: `${prefix}_${Math.floor((index - 1) / 3)}` }),
    }))
    const batch = await stage.stratum.batchCreateTenants(specs)
    made.push(...batch.map(({ id, isolation_strategy, isolation_name }) => ({ id, place: { strategy: isolation_strategy, name: isolation_name } })))
  }
  const own = made.filter(({ place }) => place.strategy !== 'SHARED_RLS')
  for (const { id, place } of own) await makePlace(stage.server, id, place, { routingVersion: 1, open: true })
  await stage.owner.query(`update stratum.tenants set provisioning_status = 'ready' where provisioning_status <> 'ready'`)

  const names = own.map(({ place }) => place.name)
  expect(new Set(names).size).toBe(24)
  for (const tenant of [made[2], made[1], made[50]] as Made[]) {
    await stage.batch(tenant, `insert into "Order Items" default values`)
    expect(await stage.batch(tenant, `select count(*)::int from "Order Items"`)).toEqual([{ count: 1 }])
  }
  for (const { id, place } of own) await dropPlace(stage.server, id, place)
  await stage.owner.query(`update stratum.tenants set provisioning_status = 'failed' where isolation_name = any ($1)`, [names])
})

it('leaves a tenant a name when somebody takes the one that its id would give it', async () => {
  const { id } = await stage.tenant()
  const slug = 'y'.repeat(60)
  const nameOf = async () =>
    (await stage.owner.query<{ name: string }>(`select stratum.isolation_name_for('SCHEMA_PER_TENANT', $1, $2) as name`, [slug, id])).rows[0]?.name ?? ''
  const foreseen = await nameOf()
  expect(foreseen).toMatch(/^tenant_y{43}_[0-9a-f]{12}$/)
  expect(await nameOf()).toBe(foreseen)
  const taker = await stage.stratum.createTenant({ name: 'x', slug: foreseen.slice('tenant_'.length), isolation_strategy: 'SCHEMA_PER_TENANT' })
  expect(taker.isolation_name).toBe(foreseen)
  expect(await nameOf()).toMatch(/^tenant_y{43}_[0-9a-f]{12}$/)
  expect(await nameOf()).not.toBe(foreseen)
  await stage.stratum.purgeTenant(taker.id)
})

const LONG = 'x'.repeat(63)
const TABLES = ['Line Items', 'sélect', 'select', 'a"b', "it's", 'a.b', 'tenant_isolation', '%s %I', 'C:\\', LONG, `${'x'.repeat(62)}y`]

it('manages tables of any name, and copies them', async () => {
  for (const table of TABLES) {
    await stage.owner.query(
      `create table ${identifier(table)} (id uuid primary key default gen_random_uuid(), ${identifier(table)} serial, self uuid references ${identifier(table)})`,
    )
  }
  await stage.manage(TABLES)
  const tenants = [await stage.tenant(), await stage.placed('SCHEMA_PER_TENANT'), await stage.placed('DB_PER_TENANT')]
  for (const tenant of tenants) {
    const inserts = TABLES.map((table) => `insert into ${identifier(table)} (self) select null`)
    const counts = TABLES.map((table) => `(select count(*) from ${identifier(table)} where ${identifier(table)} = 1)`).join(' + ')
    expect(await stage.batch(tenant, ...inserts, `select (${counts})::int as count`)).toEqual([{ count: TABLES.length }])
  }
  expect(await stage.asOwner((client) => doctor(client))).toEqual([])
  for (const { id, place } of tenants) await dropPlace(stage.server, id, place)
})
