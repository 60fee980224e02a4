/** A tenant with a role of its own: what its batches reach, beside those of a tenant with a schema and no role. */
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createTenantPool, type TenantPool } from '../../src/isolation/handles/tenant-pool.ts'
import { createTenantSql } from '../../src/isolation/handles/tenant-sql.ts'
import { withPlace } from '../../src/provisioning/places.ts'
import { refusal } from '../support/tree.ts'
import { createStage, type Made, type Stage } from './stage.ts'

const DENIED = { code: '42501' }

let stage: Stage
let [own, other, plain, shared]: Made[] = []
let app: pg.Pool
let handles: Map<Made, TenantPool>
beforeAll(async () => {
  stage = await createStage()
  await stage.owner.query(`create table orders (id uuid primary key default gen_random_uuid(), item text not null, number serial);
    create type mood as enum ('happy'); create table countries (code text); insert into countries values ('NO'); grant select on countries to stratum_app`)
  await stage.manage('orders')
  plain = await stage.placed('SCHEMA_PER_TENANT')
  stage.server.tenantRoles = true
  own = await stage.placed('SCHEMA_PER_TENANT')
  other = await stage.placed('SCHEMA_PER_TENANT')
  shared = await stage.placed('SHARED_RLS')
  // one connection, so that what one leaves on it another would find
  app = new pg.Pool({ connectionString: stage.urls.app, max: 1 })
  handles = new Map([own, other, plain, shared].map((tenant) => [tenant as Made, createTenantPool(app, () => (tenant as Made).id)]))
  for (const [tenant, handle] of handles) await handle.query('insert into orders (item) values ($1)', [tenant.id])
})
afterAll(async () => {
  await app.end()
  await stage.close()
})

const of = (tenant: Made | undefined) => handles.get(tenant as Made) as TenantPool
const roleOf = (tenant: Made | undefined) => `stratum_tenant_${tenant?.id.replaceAll('-', '')}`
const overHttp = (tenant: Made | undefined) => createTenantSql(stage.urls.app, () => tenant?.id ?? '', { endpoint: stage.neonEndpoint })
const inShared = async (tenant: Made | undefined) =>
  withPlace(stage.server, tenant?.id ?? '', { strategy: 'SHARED_RLS', name: null }, async (client) => (await client.query('select item from orders')).rows)

const STRAYS: Array<[what: string, statement: () => string]> = [
  ['the shared table read', () => 'select * from public.orders'],
  ['the shared table written', () => `insert into public.orders (item) values ('astray')`],
  ["another's schema read", () => `select * from "${other?.place.name}".orders`],
  ["another's schema written", () => `insert into "${other?.place.name}".orders (item) values ('astray')`],
]

describe('a name that leads elsewhere', () => {
  it.each(STRAYS)('is followed without a role, and refused with one: %s', async (_, statement) => {
    await expect(of(plain).query(statement())).resolves.toBeDefined()
    await expect(of(own).query(statement())).rejects.toMatchObject(DENIED)
    await expect(of(own).transaction((client) => client.query(statement()))).rejects.toMatchObject(DENIED)
    await expect(overHttp(own).query(statement())).rejects.toMatchObject(DENIED)
  })

  it('shows rows of others where the policy is gone, and with a role does not', async () => {
    await stage.owner.query('alter table orders no force row level security, disable row level security')
    try {
      expect((await of(plain).query('select item from public.orders')).rows).toContainEqual({ item: shared?.id })
      await expect(of(own).query('select item from public.orders')).rejects.toMatchObject(DENIED)
    } finally {
      await stage.owner.query('alter table orders enable row level security, force row level security')
    }
  })

  it('has put rows where their tenant does not look, and with a role has not', async () => {
    expect(await inShared(plain)).toEqual([{ item: 'astray' }])
    expect((await of(plain).query('select item from orders')).rows).toEqual([{ item: plain?.id }])
    expect(await inShared(own)).toEqual([])
  })

  it('is found in the own schema where a library wrote "public"', async () => {
    expect((await of(own).query('select "public"."orders"."item" from "public"."orders"')).rows).toEqual([{ item: own?.id }])
  })
})

describe('the role', () => {
  it('is had for the batch alone, whatever ends it', async () => {
    const now = async () => (await app.query('select current_user::text as role')).rows[0].role
    const inside = 'select current_user::text as role, session_user::text as login'
    for (const end of ['commit', 'rollback', 'select 1 / 0']) {
      const client = await of(own).connect()
      await client.query('begin')
      expect((await client.query(inside)).rows).toEqual([{ role: roleOf(own), login: 'stratum_app' }])
      await client.query(end).catch(() => client.query('rollback'))
      client.release()
      expect(await now()).toBe('stratum_app')
    }
    expect((await of(own).query(`${inside} where $1`, [true])).rows).toEqual([{ role: roleOf(own), login: 'stratum_app' }])
    expect(await now()).toBe('stratum_app')
    await expect(of(own).query('select 1 / $1', [0])).rejects.toMatchObject({ code: '22012' })
    expect(await now()).toBe('stratum_app')
    expect(await overHttp(own).query(inside)).toEqual([{ role: roleOf(own), login: 'stratum_app' }])
  })

  it('is each tenant’s own on connections that they share, and nobody’s for those without', async () => {
    const pool = new pg.Pool({ connectionString: stage.urls.app, max: 2 })
    const tenants = [own, other, plain, shared] as Made[]
    const seen = await Promise.all(
      Array.from({ length: 120 }, async (_, index) => {
        const tenant = tenants[(index * 7) % 4] as Made
        const handle = createTenantPool(pool, () => tenant.id)
        const query = 'select item, current_user::text as role from orders'
        const { rows } = index % 3 === 0 ? await handle.transaction((client) => client.query(query)) : await handle.query(query)
        await handle.end()
        return { tenant, rows }
      }),
    )
    await pool.end()
    for (const { tenant, rows } of seen) {
      expect(rows).toEqual([{ item: tenant.id, role: tenant === own || tenant === other ? roleOf(tenant) : 'stratum_app' }])
    }
  })

  it('reads and writes its rows, numbers them, and may enter again', async () => {
    await of(own).transaction(async (client) => {
      await client.query(`select stratum_guard.enter($1)`, [own?.id])
      const { rows } = await client.query(`insert into orders (item) values ('second') returning number`)
      expect(rows).toEqual([{ number: 2 }])
      await client.query(`update orders set item = 'changed' where item = 'second'`)
      expect((await client.query(`delete from orders where item = 'changed' returning 'happy'::mood as mood`)).rows).toEqual([{ mood: 'happy' }])
    })
  })

  it('may make nothing, alter nothing and read no table of the guard', async () => {
    const attempts = ['create table mine (id int)', 'create table public.mine (id int)', 'alter table orders disable row level security', 'truncate orders']
    for (const attempt of [...attempts, 'table stratum_guard.route', 'select from stratum.tenants', `set role ${roleOf(other)}; table stratum_guard.route`])
      await expect(of(own).query(attempt)).rejects.toMatchObject(DENIED)
  })

  it('reads what is common to all where its group was given that', async () => {
    await expect(of(own).query('select * from countries')).rejects.toMatchObject(DENIED)
    expect((await of(plain).query('select * from countries')).rows).toEqual([{ code: 'NO' }])
    await stage.owner.query('grant select on countries to stratum_tenants')
    expect((await of(own).query('select * from countries')).rows).toEqual([{ code: 'NO' }])
  })

  // What a role does not do, and the documents say so.
  it('is left by SQL that says so', async () => {
    await of(own).transaction(async (client) => {
      await client.query('reset role')
      expect((await client.query('select current_user::text as role from public.countries')).rows).toEqual([{ role: 'stratum_app' }])
      await expect(client.query('select from public.orders')).resolves.toBeDefined()
    })
  })
})

describe('row security', () => {
  it('holds for the role in its own schema', async () => {
    await withPlace(stage.server, other?.id ?? '', own?.place ?? { strategy: 'SHARED_RLS', name: null }, (client) =>
      client.query(`insert into orders (item) values ('of another')`),
    )
    expect((await of(own).query('select item from orders')).rows).toEqual([{ item: own?.id }])
    await expect(of(own).query('insert into orders (tenant_id, item) values ($1, $2)', [other?.id, 'x'])).rejects.toMatchObject(DENIED)
  })

  it('refuses the role without a tenant', async () => {
    const client = new pg.Client(stage.urls.app)
    await client.connect()
    await client.query(`set role ${roleOf(own)}`)
    await expect(client.query(`select from "${own?.place.name}".orders`)).rejects.toMatchObject({ code: 'STRAT', message: 'TENANT_CONTEXT_REQUIRED' })
    await client.end()
  })
})

describe('a batch', () => {
  it('of a suspended tenant is refused', async () => {
    await stage.stratum.suspendTenant(own?.id ?? '')
    await refusal(of(own).query('select 1'), 'TENANT_SUSPENDED')
    await stage.stratum.resumeTenant(own?.id ?? '')
    expect((await of(own).query('select item from orders')).rows).toEqual([{ item: own?.id }])
  })

  it('comes over a login of the application’s own, if that may become what stratum_app may', async () => {
    const [login, bound] = ['login', 'bound'].map((name) => `${name}_${crypto.randomUUID().slice(0, 8)}`) as [string, string]
    const admin = new pg.Client(stage.urls.admin)
    await admin.connect()
    await admin.query(`create role ${login} login password 'secret' in role stratum_app; create role ${bound} login password 'secret';
      grant stratum_app to ${bound} with inherit true, set false`)
    const queried = async (user: string) => {
      const pool = new pg.Pool({ connectionString: Object.assign(new URL(stage.urls.app), { username: user, password: 'secret' }).href, max: 1 })
      const query = (tenant: Made | undefined) => createTenantPool(pool, () => tenant?.id ?? '').query('select current_user::text as role from orders')
      return { rows: (tenant: Made | undefined) => query(tenant).then(({ rows }) => rows), end: () => pool.end() }
    }
    const free = await queried(login)
    expect(await free.rows(own)).toEqual([{ role: roleOf(own) }])
    expect(await free.rows(plain)).toEqual([{ role: login }])
    await free.end()
    const unfit = await queried(bound)
    expect(await unfit.rows(plain)).toEqual([{ role: bound }])
    expect((await refusal(unfit.rows(own), 'DATA_ROLE_REFUSED')).message).toContain(`it may not become ${roleOf(own)}`)
    await unfit.end()
    await admin.query(`drop role ${login}, ${bound}`)
    await admin.end()
  })

  it('is refused where its role bypasses row security', async () => {
    const admin = new pg.Client(stage.urls.admin)
    await admin.connect()
    try {
      // Rolled back, as roles are the server's: committed, it would be the data plane's trouble in every other database.
      await admin.query(`begin; alter role ${roleOf(other)} bypassrls; set local session authorization stratum_app; savepoint entering`)
      await expect(admin.query('select stratum_guard.enter($1)', [other?.id])).rejects.toMatchObject({ message: 'DATA_ROLE_REFUSED' })
      await admin.query('rollback to entering')
      // what a handle asks of a connection
      expect((await admin.query('select stratum_guard.role_problem() as problem')).rows).toEqual([{ problem: 'it bypasses row security' }])
    } finally {
      await admin.query('rollback')
      await admin.end()
    }
  })
})
