/** Each harm that the doctor looks for, done on purpose: it says so, and says what to do. */
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { doctor, type Finding } from '../../src/isolation/doctor.ts'
import { dropPlace, withPlace } from '../../src/provisioning/places.ts'
import { createStage, type Made, type Stage } from './stage.ts'

const ID = 'id uuid primary key default gen_random_uuid()'

let stage: Stage
let schema: Made
let database: Made
beforeAll(async () => {
  stage = await createStage()
  await stage.owner.query(`create table orders (${ID}, total int); create table items (${ID}, order_id uuid references orders);
    create view open_orders with (security_invoker = true) as select * from orders`)
  await stage.manage(['orders', 'items'])
  schema = await stage.placed('SCHEMA_PER_TENANT')
  database = await stage.placed('DB_PER_TENANT')
})
afterAll(() => stage.close())

/** What is found after this harm, which is then undone. */
async function after(harm: string, { asAdmin = false } = {}): Promise<Finding[]> {
  const client = await clientOf(asAdmin ? stage.urls.admin : stage.urls.owner)
  try {
    await client.query('begin')
    await client.query(harm)
    return await doctor(client)
  } finally {
    await client.query('rollback')
    await client.end()
  }
}

async function clientOf(url: string): Promise<pg.Client> {
  const client = new pg.Client(url)
  await client.connect()
  return client
}

const found = (findings: Finding[]) => findings.map(({ level, check, subject }) => [level, check, subject].join(' '))

it('finds nothing where all is well', async () => {
  expect(await stage.asOwner((client) => doctor(client))).toEqual([])
})

const inSchema = (sql: string) => () => sql.replaceAll('$', `"${schema.place.name}"`)
const COPY = () => `${schema.place.name}.orders`

const HARMS: Array<[what: string, harm: string | (() => string), expected: Array<string | (() => string)>]> = [
  ['row security off', 'alter table orders disable row level security', ['error row_security_off orders']],
  ['row security not forced', 'alter table orders no force row level security', ['error row_security_not_forced orders']],
  ['no policy', 'drop policy tenant_isolation on orders', ['error policy_missing orders']],
  ['a second policy', 'create policy extra on orders using (true)', ['error policies_ored orders']],
  ['an OR', 'alter policy tenant_isolation on orders using (tenant_id = (select stratum_guard.current_tenant_id()) or total = 0)', ['error policy_or orders']],
  [
    'a cast',
    'alter policy tenant_isolation on orders using (tenant_id::text = (select stratum_guard.current_tenant_id())::text)',
    ['error policy_cast orders'],
  ],
  [
    'the bare setting',
    "alter policy tenant_isolation on orders using (tenant_id = current_setting('app.current_tenant_id', true)::uuid)",
    ['error policy_bare_setting orders'],
  ],
  ['a volatile function', 'alter policy tenant_isolation on orders using (tenant_id = gen_random_uuid())', ['error policy_volatile orders']],
  ['a call for each row', 'alter policy tenant_isolation on orders using (tenant_id = stratum_guard.current_tenant_id())', ['error policy_per_row orders']],
  ['another check', 'alter policy tenant_isolation on orders with check (true)', ['error policy_differs orders']],
  ['no index', 'alter table items drop constraint items_tenant_id_id_key', ['error tenant_index_missing items']],
  ['rows of nobody', 'alter table orders alter tenant_id drop not null', ['error tenant_id_nullable orders']],
  ['no default', 'alter table orders alter tenant_id drop default', ['warning tenant_id_default orders']],
  [
    'a plain foreign key',
    'alter table orders no force row level security; alter table items no force row level security, add foreign key (order_id) references orders (id)',
    ['error foreign_key_plain items'],
  ],
  ['a foreign key out', `create table plain (${ID}); alter table items add column p uuid references plain`, ['error not_manageable items']],
  ['a key over all tenants', 'create unique index on orders (total)', ['error not_manageable orders']],
  ['a table with tenant_id', `create table stray (${ID}, tenant_id uuid)`, ['warning unmanaged stray']],
  [
    'a policy of the application',
    `create table stray (${ID}, tenant_id uuid); create policy p on stray using (tenant_id = current_setting('my.tenant')::uuid)`,
    ['warning policy_bare_setting stray', 'warning unmanaged stray'],
  ],
  ['a view as its owner', 'alter view open_orders set (security_invoker = false)', ['error view open_orders']],
  ['a view over more', `create table plain (${ID}); create view more with (security_invoker = true) as select o.* from orders o, plain`, ['error view more']],
  ['no such table', 'drop table items', ['error managed_table_missing items']],
  ['rights for everybody', 'grant select on orders to public', ['warning granted_to_public orders']],
  ['a column that copies lack', 'alter table orders add column note text', [() => `error copy_differs ${COPY()}`]],
  ['a copy without row security', inSchema('alter table $.orders disable row level security'), [() => `error copy_differs ${COPY()}`]],
  [
    'a copy without a foreign key',
    inSchema('alter table $.items drop constraint items_order_id_fkey'),
    [() => `error copy_differs ${schema.place.name}.items`],
  ],
  ['a copy that is gone', inSchema('drop table $.orders cascade'), [() => `error copy_differs ${COPY()}`]],
  ['a table of its own in a place', inSchema('create table $.extra (id int)'), [() => `warning copy_of_unmanaged ${schema.place.name}.extra`]],
  ['a place without its mark', inSchema('comment on schema $ is null'), [() => `error place_unmarked ${schema.place.name}`]],
  ['a place that is gone', inSchema('drop schema $ cascade'), [() => `error place_missing ${schema.place.name}`]],
  [
    'a place of nobody',
    `create schema lost; comment on schema lost is 'stratum tenant 0198c0de-0000-7000-8000-000000000000'`,
    ['warning place_left_over lost'],
  ],
]

it.each(HARMS)('finds %s', async (_, harm, expected) => {
  const findings = await after(typeof harm === 'string' ? harm : harm())
  for (const each of expected) expect(found(findings)).toContain(typeof each === 'string' ? each : each())
  for (const { problem, advice } of findings) expect(`${problem} ${advice}`).not.toMatch(/undefined|null\b.*null/)
})

describe('roles', () => {
  const asAdmin = (harm: string) => after(harm, { asAdmin: true })
  const database = () => new URL(stage.urls.admin).pathname.slice(1)

  it.each([
    ['a data role that is a superuser', 'alter role stratum_app superuser', 'error role_superuser stratum_app'],
    ['a data role that bypasses', 'alter role stratum_app bypassrls', 'error role_bypasses stratum_app'],
    ['a data role that sees the control plane', 'grant usage on schema stratum to stratum_app', 'error role_sees_control stratum_app'],
    ['a reader who may become the owner', 'create role snoop; grant stratum_owner to snoop; grant select on orders to snoop', 'error role_owns snoop'],
    ['a table of somebody else', 'create role someone; grant all on schema public to someone; alter table items owner to someone', 'error owner items'],
  ])('finds %s', async (_, harm, expected) => {
    expect(found(await asAdmin(harm))).toContain(expected)
  })

  it.each([
    ['everybody', '', 'public'],
    ['the data role', '', 'stratum_app'],
    ['a login that may become it', 'create role my_app; grant stratum_app to my_app', 'my_app'],
    ['a reader', 'create role analyst; grant select on orders to analyst', 'analyst'],
    ['what a reader is a member of', 'create role staff; create role analyst in role staff; grant select on orders to analyst', 'staff'],
    ['all tenants with a role', 'create role "stratum_tenant_x" in role stratum_tenants; grant "stratum_tenant_x" to stratum_app', 'stratum_tenants'],
  ])('finds temporary tables permitted to %s, and says how to end it', async (_, made, grantee) => {
    const [finding, ...others] = await asAdmin(`${made}; grant temporary on database "${database()}" to ${grantee}`)
    expect(others).toEqual([])
    expect(finding).toMatchObject({ level: 'error', check: 'temporary_tables', subject: database() })
    expect(await asAdmin(`${made}; grant temporary on database "${database()}" to ${grantee}; ${finding?.advice.replace(/\.$/, '')}`)).toEqual([])
  })

  it('finds nothing in temporary tables of the owner, and of roles without rows of tenants', async () => {
    const harm = `create role loader; create role operator in role stratum_owner; grant temporary on database "${database()}" to loader, operator, stratum_control`
    expect(await asAdmin(harm)).toEqual([])
  })
})

describe('a database of a tenant', () => {
  const inDatabase = (sql: string) => withPlace(stage.server, database.id, database.place, (client) => client.query(sql))
  const now = async () => found(await stage.asOwner((client) => doctor(client)))

  it('is looked into', async () => {
    await inDatabase(
      'alter table items disable row level security; alter table orders add column extra int; update stratum_guard.route set routing_version = 9',
    )
    await inDatabase('create or replace function stratum_guard.current_tenant_id() returns uuid language plpgsql stable as $$ begin return null; end $$')
    await stage.owner.query(`grant connect, temporary on database "${database.place.name}" to public`)
    expect(await now()).toEqual([
      `error guard_differs ${database.place.name}`,
      `error place_open ${database.place.name}`,
      `error route_differs ${database.place.name}`,
      `error temporary_tables ${database.place.name}`,
      `error copy_differs ${database.place.name}.items`,
      `error copy_differs ${database.place.name}.orders`,
    ])
    await stage.owner.query(`comment on database "${database.place.name}" is 'mine'`)
    expect(await now()).toEqual([`error place_unmarked ${database.place.name}`])
    await stage.owner.query(`comment on database "${database.place.name}" is 'stratum tenant ${database.id}'`)
  })

  it('is missed', async () => {
    await dropPlace(stage.server, database.id, database.place)
    expect(await now()).toEqual([`error place_missing ${database.place.name}`])
    await stage.owner.query(
      `insert into stratum.tenant_databases (database_name, tenant_id, working_name) values ('stratum_never', '0198c0de-0000-7000-8000-000000000000', 'w')`,
    )
    expect(await now()).toContain('warning place_unfinished stratum_never')
  })
})
