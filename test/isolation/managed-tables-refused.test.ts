/** What cannot be managed: each is refused with its reason, and leaves nothing behind. */
import type pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { ManageOptions } from '../../src/isolation/obstacles.ts'
import { migrateTable, migrateTables } from '../../src/isolation/register.ts'
import { readTableFacts } from '../../src/isolation/table-facts.ts'
import { unmigrateTable } from '../../src/isolation/unregister.ts'
import { createStage, type Stage } from './stage.ts'

let stage: Stage
beforeAll(async () => {
  stage = await createStage()
})
afterAll(() => stage.close())

const ID = 'id uuid primary key default gen_random_uuid()'

interface Case {
  what: string
  sql: string
  tables?: string[]
  options?: ManageOptions
  reason: RegExp
}

const CASES: Case[] = [
  { what: 'a table that is not there', sql: '', reason: /there is no such table in schema public/ },
  { what: 'a view', sql: 'create view t as select 1 as id', reason: /it is a view/ },
  { what: 'a materialized view', sql: 'create materialized view t as select 1 as id', reason: /it is a materialized view/ },
  { what: 'a partitioned table', sql: 'create table t (id uuid primary key) partition by hash (id)', reason: /it is a partitioned table/ },
  {
    what: 'a partition',
    sql: 'create table p (id uuid primary key) partition by hash (id); create table t partition of p for values with (modulus 1, remainder 0)',
    reason: /inheritance or partitioning/,
  },
  { what: 'a table that others inherit from', sql: `create table t (${ID}); create table child () inherits (t)`, reason: /inheritance or partitioning/ },
  { what: 'a temporary table', sql: 'create temporary table t (id uuid primary key)', reason: /there is no such table in schema public/ },
  { what: 'a table without a primary key', sql: 'create table t (id uuid)', reason: /it has no primary key/ },
  { what: 'rows of nobody', sql: `create table t (${ID}); insert into t default values`, reason: /it holds rows of no tenant/ },
  {
    what: 'rows without a tenant beside rows with one',
    sql: `create table t (${ID}, tenant_id uuid); insert into t default values`,
    reason: /it holds rows of no tenant/,
  },
  {
    what: 'rows of a tenant that is unknown',
    sql: `create table t (${ID}, tenant_id uuid); insert into t (tenant_id) values (gen_random_uuid())`,
    reason: /tenant_id is of no tenant in the shared tables/,
  },
  {
    what: 'rows to be given to a tenant that is unknown',
    sql: `create table t (${ID}); insert into t default values`,
    options: { backfill: '0198c0de-0000-7000-8000-000000000000' },
    reason: /backfill names 0198c0de/,
  },
  { what: 'rows to be given to what is no id', sql: `create table t (${ID})`, options: { backfill: "x'; drop table t; --" }, reason: /backfill names/ },
  { what: 'a tenant_id of another type', sql: `create table t (${ID}, tenant_id text)`, reason: /tenant_id is of type text/ },
  { what: 'a generated tenant_id', sql: `create table t (${ID}, tenant_id uuid generated always as (null::uuid) stored)`, reason: /tenant_id is generated/ },
  {
    what: 'a foreign key to an unmanaged table',
    sql: `create table other (${ID}); create table t (${ID}, other_id uuid references other)`,
    reason: /foreign key t_other_id_fkey references public.other, which is not managed/,
  },
  {
    what: 'a foreign key from an unmanaged table',
    sql: `create table t (${ID}); create table other (${ID}, t_id uuid references t)`,
    reason: /other_t_id_fkey of public.other, which is not managed, references it/,
  },
  {
    what: 'a foreign key from another schema',
    sql: `create table t (${ID}); create schema elsewhere; create table elsewhere.other (t_id uuid references t)`,
    reason: /of elsewhere.other, which is not managed/,
  },
  {
    what: 'a foreign key that would null the tenant',
    sql: `create table t (${ID}, parent uuid references t on update set null)`,
    reason: /ON UPDATE SET NULL/,
  },
  {
    what: 'MATCH FULL over several columns',
    sql: `create table t (${ID}, a uuid, b uuid, unique (a, b), c uuid, d uuid, foreign key (c, d) references t (a, b) match full)`,
    options: { rewriteKeys: true },
    reason: /MATCH FULL/,
  },
  {
    what: 'a circle that cannot be deleted together',
    sql: `create table t (${ID}, parent uuid references t on delete restrict)`,
    reason: /t_parent_fkey is ON DELETE RESTRICT in a circle/,
  },
  {
    what: 'a circle of tables that cannot be deleted together',
    sql: `create table t (${ID}); create table other (${ID}, t_id uuid references t on delete restrict); alter table t add column other_id uuid references other`,
    tables: ['t', 'other'],
    reason: /other_t_id_fkey is ON DELETE RESTRICT in a circle/,
  },
  {
    what: 'a numbered primary key',
    sql: 'create table t (id bigint generated always as identity primary key)',
    reason: /primary key t_pkey \(id\) holds over all tenants: rewrite it/,
  },
  { what: 'a natural primary key', sql: 'create table t (code text primary key)', reason: /t_pkey \(code\) holds over all tenants/ },
  { what: 'a uuid key that the application gives', sql: 'create table t (id uuid primary key)', reason: /t_pkey \(id\) holds over all tenants/ },
  {
    what: 'a unique constraint over all tenants',
    sql: `create table t (${ID}, email text unique)`,
    reason: /unique constraint t_email_key \(email\) holds over all tenants/,
  },
  {
    what: 'a unique index over all tenants',
    sql: `create table t (${ID}, email text); create unique index t_email on t (lower(email)) where email is not null`,
    reason: /unique index t_email \(an expression\) holds over all tenants/,
  },
  {
    what: 'an exclusion over all tenants',
    sql: `create table t (${ID}, during tsrange, exclude using gist (during with &&))`,
    reason: /exclusion constraint t_during_excl holds over all tenants/,
  },
  {
    what: 'a trigger with a function of its own',
    sql: `create table t (${ID}); create function touch() returns trigger language plpgsql as 'begin return new; end'; create trigger touch before insert on t for each row execute function touch()`,
    reason: /trigger touch calls public.touch/,
  },
  { what: 'a rule', sql: `create table t (${ID}); create rule quiet as on delete to t do instead nothing`, reason: /it has the rule quiet/ },
  {
    what: 'a policy of its own',
    sql: `create table t (${ID}); create policy everyone on t using (true)`,
    reason: /it has the policy everyone, which is OR-ed/,
  },
  {
    what: 'a policy of our name that is another',
    sql: `create table t (${ID}); create policy tenant_isolation on t using (true)`,
    reason: /its policy tenant_isolation is another/,
  },
  {
    what: 'a default by a function of the application',
    sql: `create function secret() returns text language sql as $$ select 'x' $$; create table t (${ID}, a text default secret())`,
    reason: /it uses function secret\(\)/,
  },
  { what: 'a domain', sql: `create domain positive as int check (value > 0); create table t (${ID}, a positive)`, reason: /it uses type positive/ },
  { what: 'a composite type', sql: `create type pair as (a int, b int); create table t (${ID}, a pair)`, reason: /it uses type pair/ },
  { what: 'a type of the control plane', sql: `create table t (${ID}, path stratum.ltree)`, reason: /of schema stratum, which tenants' databases do not have/ },
  {
    what: "another table's sequence",
    sql: `create sequence numbers; create table t (${ID}, number bigint default nextval('numbers'))`,
    reason: /it uses sequence numbers/,
  },
  {
    what: 'an index with a function of the application',
    sql: `create function norm(text) returns text language sql immutable as 'select lower($1)'; create table t (${ID}, a text); create index on t (norm(a))`,
    reason: /it uses function norm/,
  },
  {
    what: 'a view that reads as its owner',
    sql: `create table t (${ID}); create view all_t as select * from t`,
    reason: /view all_t over it cannot be copied: it reads as its owner; run ALTER VIEW all_t SET \(security_invoker = true\)/,
  },
  {
    what: 'a view over an unmanaged table as well',
    sql: `create table t (${ID}); create table other (${ID}); create view pairs with (security_invoker = true) as select t.id from t join other using (id)`,
    reason: /view pairs over it cannot be copied: it also reads public.other/,
  },
  {
    what: 'a materialized view over it',
    sql: `create table t (${ID}); create materialized view totals as select count(*) from t`,
    reason: /view totals over it cannot be copied: it is materialized/,
  },
  {
    what: 'a view over a view that reads as its owner',
    sql: `create table t (${ID}); create view a with (security_invoker = true) as select * from t; create view b as select * from a`,
    reason: /view b over it cannot be copied/,
  },
]

/** What is in the database, apart from rows. */
async function picture(client: pg.ClientBase) {
  const { rows } = await client.query('select (select array_agg(table_name) from stratum.managed_tables) as managed, current_user as role')
  const { rows: stays } = await client.query(`select (select count(*) from stratum.jobs) as jobs, current_setting('search_path') as path`)
  return { tables: await readTableFacts(client), rows, stays }
}

/** In a transaction that is rolled back. */
async function passing(work: (client: pg.PoolClient) => Promise<void>) {
  const client = await stage.owner.connect()
  try {
    await client.query('begin')
    await work(client)
  } finally {
    await client.query('rollback')
    client.release()
  }
}

describe('refused', () => {
  it.each(CASES)('$what', ({ sql, tables = ['t'], options, reason }) =>
    passing(async (client) => {
      await client.query(sql)
      const before = await picture(client)

      await expect(migrateTables(client, tables, options)).rejects.toMatchObject({
        code: 'TABLE_NOT_MANAGEABLE',
        status: 422,
        details: { reason: expect.stringMatching(reason) },
      })

      expect(await picture(client)).toEqual(before)
    }),
  )

  it('with every reason at once', () =>
    passing(async (client) => {
      await client.query('create table t (id serial primary key, email text unique, tenant_id text)')
      const refusal = await migrateTable(client, 't').catch((error: { details: { reasons: string[] } }) => error.details.reasons)
      expect(refusal).toHaveLength(3)
    }))

  it('to who is not the owner', async () => {
    const { PASSWORDS } = await import('../support/names.ts')
    const { default: postgres } = await import('pg')
    const app = new postgres.Client({ connectionString: stage.urls.app, password: PASSWORDS.app })
    await app.connect()
    await expect(migrateTable(app, 'stratum')).rejects.toMatchObject({ code: 'CONFIGURATION_INVALID', message: expect.stringContaining('stratum_owner') })
    await app.end()
  })

  it('in the words of the server where it is the server that refuses', () =>
    passing(async (client) => {
      // the name of the new key is taken by another relation
      await client.query(`create table t (${ID}); create table t_tenant_id_id_key ()`)
      const before = await picture(client)
      await expect(migrateTable(client, 't')).rejects.toMatchObject({
        code: 'TABLE_NOT_MANAGEABLE',
        message: expect.stringContaining('the database refused: relation "t_tenant_id_id_key" already exists'),
      })
      expect(await picture(client)).toEqual(before)
    }))

  it('where another transaction holds the table for too long', async () => {
    await stage.owner.query(`create table busy (${ID})`)
    const holder = await stage.owner.connect()
    await holder.query('begin; lock table busy in access share mode')
    await expect(
      passing(async (client) => {
        await client.query(`set local lock_timeout = '50ms'`)
        await migrateTable(client, 'busy')
      }),
    ).rejects.toMatchObject({ code: 'DATABASE_BUSY' })
    await holder.query('rollback')
    holder.release()
  })

  it('to make unmanaged what is not managed', () =>
    passing(async (client) => {
      await expect(unmigrateTable(client, 'nothing')).rejects.toMatchObject({
        code: 'TABLE_NOT_MANAGEABLE',
        message: expect.stringContaining('it is not managed'),
      })
    }))
})
