/** Roles of tenants with a schema: made, brought up to date, moved and dropped with it, from wherever it broke off. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { doctor } from '../../src/isolation/doctor.ts'
import { migrateFleet } from '../../src/provisioning/fleet/migrate-fleet.ts'
import { addMissingCopies, addTenantRole, dropPlace, makePlace } from '../../src/provisioning/places.ts'
import { openServer } from '../../src/provisioning/server.ts'
import { tasks } from '../../src/provisioning/tasks.ts'
import { untilWaiting, whileOpen } from '../support/waiting.ts'
import { type Changing, Crash, createChanging } from './changing.ts'
import type { Made } from './stage.ts'

const OPEN = { routingVersion: 1, open: true }

let stage: Changing
beforeAll(async () => {
  stage = await createChanging('create table orders (id uuid primary key default gen_random_uuid(), amount integer not null)', ['orders'])
  stage.server.tenantRoles = true
})
afterAll(() => stage.close())

const roleOf = ({ id }: Made) => `stratum_tenant_${id.replaceAll('-', '')}`
const sql = async (text: string, values: unknown[] = []) => (await stage.owner.query(text, values)).rows
const markOfRole = async (tenant: Made) =>
  (await sql(`select shobj_description(oid, 'pg_authid') as mark from pg_roles where rolname = $1`, [roleOf(tenant)])).map(({ mark }) => mark)
const hasSchema = async ({ place }: Made) => (await sql('select from pg_namespace where nspname = $1', [place.name])).length > 0
const roleNow = async (tenant: Made) => (await stage.handle(tenant.id).query('select current_user::text as role')).rows[0].role
const findings = async () => (await stage.asOwner((client) => doctor(client))).map(({ check, subject }) => `${check} ${subject}`)

async function withoutRole(): Promise<Made> {
  stage.server.tenantRoles = false
  const tenant = await stage.placed('SCHEMA_PER_TENANT')
  stage.server.tenantRoles = true
  return tenant
}

describe('making', () => {
  it('marks the role, which cannot log in and has nothing but its schema', async () => {
    const tenant = await stage.placed('SCHEMA_PER_TENANT')
    expect(await markOfRole(tenant)).toEqual([`stratum tenant ${tenant.id}`])
    expect(await sql('select rolcanlogin, rolsuper, rolcreaterole, rolcreatedb, rolbypassrls from pg_roles where rolname = $1', [roleOf(tenant)])).toEqual([
      { rolcanlogin: false, rolsuper: false, rolcreaterole: false, rolcreatedb: false, rolbypassrls: false },
    ])
    const reached = await sql(
      `select n.nspname as schema, c.relname as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
       where n.nspname not in ('pg_catalog', 'information_schema') and c.relkind in ('r', 'v') and has_table_privilege($1, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')`,
      [roleOf(tenant)],
    )
    expect(reached).toEqual([{ schema: tenant.place.name, name: 'orders' }])
    expect(await findings()).toEqual([])
  })

  it('is whole or not at all, resumed after a crash at each step, and repeated without harm', async () => {
    const tenant = await stage.tenant('SCHEMA_PER_TENANT')
    for (const crashAt of ['schema', 'copies', 'role']) {
      const step = async (name: string) => {
        if (name === crashAt) throw new Crash(name)
      }
      await expect(makePlace({ ...stage.server, step }, tenant.id, tenant.place, OPEN)).rejects.toThrow(Crash)
      expect([await hasSchema(tenant), await markOfRole(tenant)]).toEqual([false, []])
    }
    for (const _ of [1, 2]) await makePlace(stage.server, tenant.id, tenant.place, OPEN)
    await sql(`update stratum.tenants set provisioning_status = 'ready' where id = $1`, [tenant.id])
    expect(await roleNow(tenant)).toBe(roleOf(tenant))
    expect(await findings()).toEqual([])
  })

  it('neither adopts nor drops a role of the name that is not marked as its own', async () => {
    const [tenant, other] = [await stage.tenant('SCHEMA_PER_TENANT'), await stage.tenant()]
    // with a right, as doctors of other databases of this server would tell of one without
    await sql(`create role ${roleOf(tenant)}; create table theirs (id int); grant select on theirs to ${roleOf(tenant)}`)
    for (const mark of ['null', `'stratum tenant ${other.id}'`]) {
      await sql(`comment on role ${roleOf(tenant)} is ${mark}`)
      await expect(makePlace(stage.server, tenant.id, tenant.place, OPEN)).rejects.toMatchObject({
        code: 'PLACE_NOT_OURS',
        details: { kind: 'role', name: roleOf(tenant) },
      })
      expect(await hasSchema(tenant)).toBe(false)
      await dropPlace(stage.server, tenant.id, tenant.place)
      expect(await markOfRole(tenant)).toHaveLength(1)
    }
    await sql(`drop table theirs; drop role ${roleOf(tenant)}`)
  })

  it('is refused in a sentence where the owner may make no role, and leaves nothing', async () => {
    const tenant = await stage.tenant('SCHEMA_PER_TENANT')
    const powerless = `powerless_${crypto.randomUUID().slice(0, 8)}`
    const admin = new pg.Client(stage.urls.admin)
    await admin.connect()
    await admin.query(`create role ${powerless} login password 'secret' in role stratum_owner`)
    const server = openServer(Object.assign(new URL(stage.urls.owner), { username: powerless, password: 'secret' }).href, {
      databaseLimit: 0,
      tenantRoles: true,
    })
    try {
      await expect(makePlace(server, tenant.id, tenant.place, OPEN)).rejects.toMatchObject({
        code: 'PLACE_REFUSED',
        message: expect.stringContaining('CREATEROLE for roles of tenants'),
      })
    } finally {
      await server.close()
      await admin.query(`drop role ${powerless}`)
      await admin.end()
    }
    expect([await hasSchema(tenant), await markOfRole(tenant)]).toEqual([false, []])
  })
})

describe('tables that come later', () => {
  it('are the role’s too: copies of what becomes managed, and what a migration of the fleet makes', async () => {
    const tenant = await stage.placed('SCHEMA_PER_TENANT')
    const handle = stage.handle(tenant.id)
    await sql('create table items (number serial primary key, order_id uuid references orders)')
    await stage.manage('items', { rewriteKeys: true })
    expect((await handle.query('insert into items default values returning number')).rows).toEqual([{ number: 1 }])

    const folder = await mkdtemp(join(tmpdir(), 'stratum-roles-'))
    await writeFile(
      join(folder, '1.sql'),
      'alter table orders add column note text; create view noted with (security_invoker = true) as select note from orders',
    )
    await migrateFleet(stage.server, folder, {})
    await rm(folder, { recursive: true })
    await handle.query(`insert into orders (amount, note) values (1, 'new')`)
    expect((await handle.query('select note from noted')).rows).toEqual([{ note: 'new' }])
  })

  it('are it also where roles were switched off meanwhile', async () => {
    const tenant = await stage.placed('SCHEMA_PER_TENANT')
    stage.server.tenantRoles = false
    await sql(`drop table "${tenant.place.name}".items`)
    await addMissingCopies(stage.server, tenant.id, tenant.place)
    stage.server.tenantRoles = true
    expect((await stage.handle(tenant.id).query('select * from items')).rows).toEqual([])
    expect(await roleNow(tenant)).toBe(roleOf(tenant))
  })
})

describe('changes of isolation', () => {
  it('make the role with the schema, leave it unused there, and drop it with it', async () => {
    const tenant = await stage.placed('SHARED_RLS')
    const handle = stage.handle(tenant.id)
    await handle.query('insert into orders (amount) values (1), (2)')
    const rows = async () => (await handle.query('select amount, current_user::text as role from orders order by amount')).rows
    const all = (role: string) => [1, 2, 3].map((amount) => ({ amount, role }))

    await stage.change(tenant, 'SCHEMA_PER_TENANT')
    expect(await rows()).toEqual(all(roleOf(tenant)).slice(0, 2))
    const left = await stage.change(tenant, 'DB_PER_TENANT', {
      // what the role writes meanwhile is captured
      atStep: async (name) => void (name === 'move: caught up' && (await handle.query('insert into orders (amount) values (3)'))),
    })
    expect(await rows()).toEqual(all('stratum_app'))
    expect(await markOfRole(tenant)).toHaveLength(1)
    // back to the place that was kept, which is made anew
    await stage.change(tenant, 'SCHEMA_PER_TENANT')
    expect(await rows()).toEqual(all(roleOf(tenant)))
    const { id } = await stage.change(tenant, 'SHARED_RLS')
    expect(await rows()).toEqual(all('stratum_app'))
    expect(await markOfRole(tenant)).toHaveLength(1)

    for (const change of [left.id, id]) {
      const [job] = await sql(`select id, status from stratum.jobs where task = 'drop_place' and payload ->> 'change_id' = $1`, [change])
      if (job?.status === 'queued') expect(await stage.run(job.id)).toMatchObject({ status: 'succeeded' })
    }
    expect(await markOfRole(tenant)).toEqual([])
    expect(await rows()).toEqual(all('stratum_app'))
  })

  it('that are called off leave no role', async () => {
    const tenant = await stage.placed('SHARED_RLS')
    const { job_id } = await stage.request(tenant, 'SCHEMA_PER_TENANT')
    const roles: number[] = []
    await stage.run(job_id, {
      atStep: async (name) => {
        if (name !== 'move: made') return
        roles.push((await markOfRole(tenant)).length)
        await stage.stratum.cancelJob(job_id)
      },
    })
    expect(roles).toEqual([1])
    expect(await markOfRole(tenant)).toEqual([])
  })
})

describe('a schema from before', () => {
  it('gets its role later, once, while its tenant works', async () => {
    const tenant = await withoutRole()
    const handle = stage.handle(tenant.id)
    await handle.transaction(async (client) => {
      await client.query('insert into orders (amount) values (1)')
      await addTenantRole(stage.server, tenant.id)
      expect((await client.query('select amount, current_user::text as role from orders')).rows).toEqual([{ amount: 1, role: 'stratum_app' }])
    })
    await addTenantRole(stage.server, tenant.id)
    expect((await handle.query('select amount, current_user::text as role from orders')).rows).toEqual([{ amount: 1, role: roleOf(tenant) }])
    expect(await findings()).toEqual([])
  })

  it('gets it after the migration that is making something there, and with rights to that', async () => {
    const tenant = await withoutRole()
    await whileOpen(
      stage.owner,
      async (held) => {
        await held.query('select stratum.require_unchanging($1, $2)', [tenant.id, tenant.place.name])
        await held.query(`create view "${tenant.place.name}".late as select 1 as one`)
      },
      async (commit) => {
        const given = addTenantRole(stage.server, tenant.id)
        await untilWaiting(stage.owner)
        await commit()
        await given
      },
    )
    expect((await stage.handle(tenant.id).query('select one from late')).rows).toEqual([{ one: 1 }])
  })

  it('gets none while the tenant is elsewhere', async () => {
    const [tenant, pending] = [await stage.placed('SHARED_RLS'), await stage.tenant('SCHEMA_PER_TENANT')]
    for (const each of [tenant, pending, { id: crypto.randomUUID(), place: tenant.place }]) {
      await addTenantRole(stage.server, each.id)
      expect(await markOfRole(each)).toEqual([])
    }
  })
})

describe('dropping', () => {
  it('is part of a purge', async () => {
    const tenant = await stage.placed('SCHEMA_PER_TENANT')
    const { job_ids } = await stage.stratum.purgeTenant(tenant.id)
    const [job] = await sql('select id, tenant_id, payload from stratum.jobs where id = $1', [job_ids[0]])
    const context = { server: stage.server, job, progress: async () => {}, cancelled: async () => false, log: () => {} }
    for (const crashes of [true, false]) {
      const step = async () => {
        if (crashes) throw new Crash()
      }
      const purged = tasks['purge_tenant_data']?.({ ...context, server: { ...stage.server, step } })
      await (crashes ? expect(purged).rejects.toThrow(Crash) : purged)
    }
    expect([await hasSchema(tenant), await markOfRole(tenant)]).toEqual([false, []])
  })

  it('takes the schema also where something else was granted to the role, and the doctor tells of that once it is free', async () => {
    const tenant = await stage.placed('SCHEMA_PER_TENANT')
    await sql(`create table countries (code text); grant select on countries to ${roleOf(tenant)}`)
    await dropPlace(stage.server, tenant.id, tenant.place)
    expect([await hasSchema(tenant), await markOfRole(tenant)]).toEqual([false, [`stratum tenant ${tenant.id}`]])
    // not committed: the role is of the whole server, and so is what other databases' doctors see
    const found = async (held: pg.PoolClient) => {
      await held.query('drop table countries')
      return (await doctor(held)).map(({ check, subject }) => `${check} ${subject}`)
    }
    await whileOpen(
      stage.owner,
      async (held) => expect(await found(held)).toContain(`role_left_over ${roleOf(tenant)}`),
      async () => {},
    )
    await sql(`drop table countries; drop role ${roleOf(tenant)}`)
  })
})

describe('by hand', () => {
  it('a role is taken away as the documents say, and its tenant goes on without', async () => {
    const tenant = await stage.placed('SCHEMA_PER_TENANT')
    await stage.handle(tenant.id).query('insert into orders (amount) values (1)')
    await sql(`grant ${roleOf(tenant)} to stratum_owner; drop owned by ${roleOf(tenant)}; drop role ${roleOf(tenant)}`)
    expect((await stage.handle(tenant.id).query('select amount, current_user::text as role from orders')).rows).toEqual([{ amount: 1, role: 'stratum_app' }])
  })
})

describe('the doctor', () => {
  const harms: Array<[what: string, harm: (role: string, schema: string) => string, check: (role: string) => string]> = [
    ['is a superuser', (role) => `alter role ${role} superuser`, (role) => `role_superuser ${role}`],
    ['bypasses row security', (role) => `alter role ${role} bypassrls`, (role) => `role_bypasses ${role}`],
    ['sees the control plane', (role) => `grant usage on schema stratum to ${role}`, (role) => `role_sees_control ${role}`],
    ['reaches shared tables', () => 'grant select on orders to stratum_tenants', (role) => `role_reaches_shared ${role}`],
    ['has lost its mark', (role) => `comment on role ${role} is null`, (role) => `role_unmarked ${role}`],
    ['cannot be become', (role) => `revoke ${role} from stratum_app granted by stratum_owner`, (role) => `role_not_granted ${role}`],
    ['may not use its schema', (role, schema) => `revoke usage on schema ${schema} from ${role}`, (role) => `role_lacks_rights ${role}`],
    ['may not read a copy', (role, schema) => `revoke select on ${schema}.orders from ${role}`, (role) => `role_lacks_rights ${role}`],
    ['may not read what others may', () => 'create table countries (code text); grant select on countries to stratum_app', () => 'table_withheld countries'],
  ]

  it.each(harms)('tells of a role that %s', async (_, harm, check) => {
    const tenant = await stage.placed('SCHEMA_PER_TENANT')
    const client = new pg.Client(stage.urls.admin)
    await client.connect()
    try {
      await client.query('begin')
      await client.query(harm(roleOf(tenant), `"${tenant.place.name}"`))
      expect((await doctor(client)).map((finding) => `${finding.check} ${finding.subject}`)).toContain(check(roleOf(tenant)))
    } finally {
      await client.query('rollback')
      await client.end()
    }
  })
})
