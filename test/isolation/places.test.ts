/** Making and dropping places: whole, marked, from wherever it broke off, and nobody else's. */
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { doctor } from '../../src/isolation/doctor.ts'
import { identifier } from '../../src/isolation/identifiers.ts'
import { migrateTable } from '../../src/isolation/register.ts'
import { addForeignKeys, addMissingCopies, dropPlace, makePlace, type Server, withPlace } from '../../src/provisioning/places.ts'
import { untilWaiting, whileOpen } from '../support/waiting.ts'
import { createStage, type Made, type Stage } from './stage.ts'

const TABLES = `
  create extension citext; create extension btree_gist;
  create type mood as enum ('sad', 'it''s ok', 'happy');
  create table accounts (id uuid primary key default gen_random_uuid(), email citext not null, moods mood[] default '{happy}', unique (email));
  create table entries (
    number bigint generated always as identity (start with 100 increment by 5) primary key,
    serial_number serial not null,
    account_id uuid not null references accounts on delete cascade,
    previous bigint references entries,
    amount numeric(12, 4) not null default 0 check (amount >= 0),
    doubled numeric generated always as (amount * 2) stored,
    name text collate "C" default 'a \\ b ''c''',
    words tsvector generated always as (to_tsvector('english', name)) stored,
    during tsrange, at timestamptz default now(), data jsonb default '{"a": 1}',
    unique nulls not distinct (name, at) deferrable initially deferred) with (fillfactor = 70);
  create index on entries using gin (words); create index entries_open on entries (lower(name) desc nulls last, at) include (amount) where amount > 0;
  create index on entries using brin (at);
  create trigger words before update on entries for each row execute function suppress_redundant_updates_trigger();
  create view rich with (security_invoker = true) as select name, amount from entries where amount > 10;
  comment on table entries is 'what''s booked'; comment on column entries.amount is 'in \\ cents'`

let stage: Stage
beforeAll(async () => {
  stage = await createStage()
  await stage.owner.query(TABLES)
  await stage.manage(['accounts', 'entries'], { rewriteKeys: true })
})
afterAll(() => stage.close())

const OPEN = { routingVersion: 1, open: true }
const STRATEGIES = ['SCHEMA_PER_TENANT', 'DB_PER_TENANT'] as const

/** The server, crashing at its `at`-th step from now. */
function crashing(at: number): Server {
  let steps = 0
  const step = async (name: string) => {
    if (++steps === at) throw new Error(`crash at ${name}`)
  }
  return { pool: stage.server.pool, databaseLimit: stage.server.databaseLimit, connect: (name) => stage.server.connect(name), step }
}

const placesOf = async ({ id }: Made) => {
  const { rows } = await stage.owner.query<{ name: string }>(
    `select nspname as name from pg_namespace n where obj_description(n.oid, 'pg_namespace') = $1
     union all select datname from pg_database d where shobj_description(d.oid, 'pg_database') = $1
     union all select datname from pg_database where datname in (select working_name from stratum.tenant_databases where tenant_id = $2)`,
    [`stratum tenant ${id}`, id],
  )
  return rows.map(({ name }) => name)
}
const findings = async (of: Made) =>
  (await stage.asOwner((client) => doctor(client))).filter(({ subject }) => of.place.name !== null && subject.startsWith(of.place.name))
const ready = (of: Made) => stage.owner.query(`update stratum.tenants set provisioning_status = 'ready' where id = $1`, [of.id])

describe.each(STRATEGIES)('%s', (strategy) => {
  it('has copies that are as the shared tables, and work', async () => {
    const tenant = await stage.placed(strategy)

    expect(await findings(tenant)).toEqual([])
    const rows = await stage.batch(
      tenant,
      `insert into accounts (email) values ('A@b.c')`,
      `insert into entries (account_id, amount, name) select id, 20, 'boxes' from accounts where email = 'a@B.C'`,
      `select e.number::int, serial_number, doubled::text, words::text, r.amount::text, moods::text from entries e, rich r, accounts`,
    )
    expect(rows).toEqual([{ number: 100, serial_number: 1, doubled: '40.0000', words: "'box':1", amount: '20.0000', moods: '{happy}' }])
  })

  it('is made whole and once, resumed after a crash at each step', async () => {
    const tenant = await stage.tenant(strategy)
    // what is done already is not done again, so each try comes to a later step; a schema is one transaction
    const crashes: Array<[at: number, step: string]> =
      strategy === 'DB_PER_TENANT'
        ? [
            [1, 'recorded'],
            [1, 'created'],
            [1, 'marked'],
            [2, 'filled'],
            [3, 'renamed'],
          ]
        : [
            [1, 'schema'],
            [2, 'copies'],
          ]
    for (const [at, step] of crashes) {
      await expect(makePlace(crashing(at), tenant.id, tenant.place, OPEN)).rejects.toThrow(`crash at ${step}`)
    }
    await makePlace(stage.server, tenant.id, tenant.place, OPEN)
    await makePlace(stage.server, tenant.id, tenant.place, OPEN)
    await ready(tenant)

    expect(await placesOf(tenant)).toEqual([tenant.place.name])
    expect(await findings(tenant)).toEqual([])
    expect(await stage.batch(tenant, `insert into accounts (email) values ('x') returning 1 as one`)).toEqual([{ one: 1 }])
  })

  it('leaves alone what is not marked as its own, in making and in dropping', async () => {
    const tenant = await stage.tenant(strategy)
    const other = await stage.tenant(strategy)
    const kind = strategy === 'DB_PER_TENANT' ? 'database' : 'schema'
    const name = identifier(tenant.place.name ?? '')
    await stage.owner.query(`create ${kind} ${name}`)
    for (const mark of ['null', `'stratum tenant ${other.id}'`, `'stratum tenant ${tenant.id} '`]) {
      await stage.owner.query(`comment on ${kind} ${name} is ${mark}`)
      await expect(makePlace(stage.server, tenant.id, tenant.place, OPEN)).rejects.toMatchObject({
        code: 'PLACE_NOT_OURS',
        details: { kind, name: tenant.place.name },
      })
      await expect(dropPlace(stage.server, tenant.id, tenant.place)).rejects.toMatchObject({ code: 'PLACE_NOT_OURS' })
    }
    await stage.owner.query(`drop ${kind} ${name}`)
  })

  it('is dropped with all in it, and again without an error', async () => {
    const tenant = await stage.placed(strategy)
    await stage.batch(tenant, `insert into accounts (email) values ('x')`)
    await dropPlace(stage.server, tenant.id, tenant.place)
    await dropPlace(stage.server, tenant.id, tenant.place)
    expect(await placesOf(tenant)).toEqual([])
    const { rows } = await stage.owner.query(
      `select from stratum.tenant_databases where tenant_id = $1 union all select from stratum.fleet_places where tenant_id = $1
       union all select from stratum_guard.applied_migrations where schema_name = $2`,
      [tenant.id, tenant.place.name],
    )
    expect(rows).toEqual([])
  })

  it('can be filled before its foreign keys are there', async () => {
    const tenant = await stage.tenant(strategy)
    await makePlace(stage.server, tenant.id, tenant.place, { ...OPEN, foreignKeys: false })
    const keys = () =>
      withPlace(stage.server, tenant.id, tenant.place, async (client) => {
        const { rows } = await client.query(
          `select conname from pg_constraint k join pg_class c on c.oid = conrelid where contype = 'f' and relnamespace = current_schema()::regnamespace order by 1`,
        )
        return rows.map(({ conname }) => conname)
      })
    expect(await keys()).toEqual([])
    await withPlace(stage.server, tenant.id, tenant.place, (client) =>
      client.query(`with a as (insert into accounts (email) values ('x') returning id) insert into entries (account_id) select id from a`),
    )
    await addForeignKeys(stage.server, tenant.id, tenant.place)
    await addForeignKeys(stage.server, tenant.id, tenant.place)
    expect(await keys()).toEqual(['entries_account_id_fkey', 'entries_previous_fkey'])
  })

  it('does not take foreign keys that its rows break', async () => {
    const tenant = await stage.tenant(strategy)
    await makePlace(stage.server, tenant.id, tenant.place, { ...OPEN, foreignKeys: false })
    await withPlace(stage.server, tenant.id, tenant.place, (client) => client.query('insert into entries (account_id) values (gen_random_uuid())'))
    await expect(addForeignKeys(stage.server, tenant.id, tenant.place)).rejects.toMatchObject({ code: '23503' })
  })

  it("has the application's migrations that the shared tables had", async () => {
    await stage.owner.query(`insert into stratum_guard.applied_migrations (schema_name, name, hash) values ('', '001.sql', 'h') on conflict do nothing`)
    const tenant = await stage.placed(strategy)
    const { rows } = await withPlace(stage.server, tenant.id, tenant.place, (client) =>
      client.query('select name, hash from stratum_guard.applied_migrations where schema_name = $1', [strategy === 'DB_PER_TENANT' ? '' : tenant.place.name]),
    )
    expect(rows).toEqual([{ name: '001.sql', hash: 'h' }])
    expect((await stage.owner.query('select migration from stratum.fleet_places where tenant_id = $1', [tenant.id])).rows).toEqual([{ migration: '001.sql' }])
  })

  it('misses no table that becomes managed while it is made', async () => {
    const tenant = await stage.tenant(strategy)
    const table = `late_${strategy.toLowerCase()}`
    await stage.owner.query(`create table ${table} (id uuid primary key default gen_random_uuid())`)
    await whileOpen(
      stage.owner,
      (held) => migrateTable(held, table),
      async (commit) => {
        const made = makePlace(stage.server, tenant.id, tenant.place, OPEN)
        await untilWaiting(stage.owner)
        await commit()
        await made
      },
    )
    await addMissingCopies(stage.server, tenant.id, tenant.place)
    await ready(tenant)
    expect(await stage.batch(tenant, `select count(*)::int from ${table}`)).toEqual([{ count: 0 }])
  })
})

describe('a database', () => {
  it('is shut to everybody but the owner and the data plane, and shut while it is filled', async () => {
    const tenant = await stage.tenant('DB_PER_TENANT')
    await makePlace(stage.server, tenant.id, tenant.place, { routingVersion: 7, open: false })
    await expect(stage.batch(tenant, 'select 1')).rejects.toMatchObject({ code: 'STRAT', message: 'TENANT_UNAVAILABLE' })
    const control = new pg.Client(stage.urls.control.replace(/[^/]+$/, tenant.place.name ?? ''))
    await expect(control.connect()).rejects.toMatchObject({ code: '42501' })
    const { rows } = await withPlace(stage.server, tenant.id, tenant.place, (client) =>
      client.query('select routing_version::int, open, status from stratum_guard.route'),
    )
    expect(rows).toEqual([{ routing_version: 7, open: false, status: 'active' }])
  })

  it('is dropped with the connections to it', async () => {
    const tenant = await stage.placed('DB_PER_TENANT')
    const app = new pg.Client(stage.urls.app.replace(/[^/]+$/, tenant.place.name ?? ''))
    const ended = new Promise((resolve) => app.on('error', resolve))
    await app.connect()
    await dropPlace(stage.server, tenant.id, tenant.place)
    await ended
    expect(await placesOf(tenant)).toEqual([])
  })

  it('is not made above the ceiling, and nothing of it stays', async () => {
    const tenant = await stage.tenant('DB_PER_TENANT')
    const full = { ...stage.server, databaseLimit: 3 }
    await expect(makePlace(full, tenant.id, tenant.place, OPEN)).rejects.toMatchObject({ code: 'DATABASE_LIMIT_REACHED', details: { limit: 3 } })
    expect((await stage.owner.query('select from stratum.tenant_databases where tenant_id = $1', [tenant.id])).rows).toEqual([])
  })

  it('is never the control database', async () => {
    const tenant = await stage.tenant('DB_PER_TENANT')
    const { rows } = await stage.owner.query<{ name: string }>('select current_database() as name')
    const place = { strategy: 'DB_PER_TENANT', name: rows[0]?.name ?? '' } as const
    const admin = new pg.Client(stage.urls.admin)
    await admin.connect()
    await admin.query(`comment on database ${identifier(place.name)} is 'stratum tenant ${tenant.id}'`)
    await expect(makePlace(stage.server, tenant.id, place, OPEN)).rejects.toMatchObject({ code: 'PLACE_NOT_OURS' })
    await expect(dropPlace(stage.server, tenant.id, place)).rejects.toMatchObject({ code: 'PLACE_NOT_OURS' })
    await admin.query(`comment on database ${identifier(place.name)} is null`)
    await admin.end()
  })

  it('is refused in a sentence where the role may not make one', async () => {
    const tenant = await stage.tenant('DB_PER_TENANT')
    const pool = new pg.Pool({ connectionString: stage.urls.owner, max: 2, options: '-c role=stratum_powerless' })
    const admin = new pg.Client(stage.urls.admin)
    await admin.connect()
    await admin.query(`create role stratum_powerless; grant stratum_powerless to stratum_owner; grant usage on schema stratum, stratum_guard to stratum_powerless;
      grant select, insert on stratum.tenant_databases to stratum_powerless`)
    try {
      const refused = makePlace({ ...stage.server, pool, connect: (name) => stage.server.connect(name), step: async () => {} }, tenant.id, tenant.place, OPEN)
      await expect(refused).rejects.toMatchObject({ code: 'PLACE_REFUSED', status: 409, message: expect.stringContaining('it needs CREATEDB') })
    } finally {
      await pool.end()
      await admin.query('drop owned by stratum_powerless; drop role stratum_powerless')
      await admin.end()
    }
    expect(await placesOf(tenant)).toEqual([])
  })
})

describe('the shared tables', () => {
  it("lose a tenant's rows and no other's, also where they reference each other in circles", async () => {
    await stage.owner.query(`create table a (id uuid primary key default gen_random_uuid(), b uuid); create table b (id uuid primary key default gen_random_uuid(), a uuid references a);
      alter table a add foreign key (b) references b`)
    await stage.manage(['a', 'b'])
    const [gone, stays] = [await stage.tenant(), await stage.tenant()]
    for (const tenant of [gone, stays]) {
      await stage.batch(
        tenant,
        `with x as (insert into a default values returning id), y as (insert into b (a) select id from x returning id) select`,
        'update a set b = (select id from b)',
        `insert into accounts (email) values ('x')`,
        'insert into entries (account_id, name) select id, n::text from accounts, generate_series(1, 3) n',
        'update entries set previous = (select min(number) from entries)',
      )
    }
    await dropPlace(stage.server, gone.id, gone.place)
    await dropPlace(stage.server, gone.id, gone.place)
    const counts = 'select (select count(*) from a) + (select count(*) from b) + (select count(*) from accounts) + (select count(*) from entries) as count'
    expect(await stage.batch(gone, counts)).toEqual([{ count: '0' }])
    expect(await stage.batch(stays, counts)).toEqual([{ count: '6' }])
  })
})
