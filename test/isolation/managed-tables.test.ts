/** What becomes of a table that is managed. */
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { readManagedTables } from '../../src/isolation/catalog.ts'
import { doctor } from '../../src/isolation/doctor.ts'
import { migrateTable, migrateTables } from '../../src/isolation/register.ts'
import { scan } from '../../src/isolation/scan.ts'
import { readTableFacts } from '../../src/isolation/table-facts.ts'
import { unmigrateTable, unmigrateTables } from '../../src/isolation/unregister.ts'
import { tasks } from '../../src/provisioning/tasks.ts'
import { createStage, type Made, type Stage } from './stage.ts'

let stage: Stage
let shared: Made
let neighbour: Made
beforeAll(async () => {
  stage = await createStage()
  shared = await stage.tenant()
  neighbour = await stage.tenant()
})
afterAll(() => stage.close())

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

const factsOf = async (client: pg.ClientBase, name: string) => (await readTableFacts(client, 'public', [name]))[0]
const keysOf = async (client: pg.ClientBase, name: string) => {
  const facts = await factsOf(client, name)
  return [...(facts?.constraints ?? []), ...(facts?.foreign_keys ?? [])].map(({ definition }) => definition).sort()
}

/** Do a database's jobs as the provisioner would. */
async function doJobs() {
  const { rows } = await stage.owner.query(
    `select id, tenant_id, payload from stratum.jobs where task = 'create_managed_copies' and status = 'queued' order by id`,
  )
  for (const job of rows) {
    await tasks['create_managed_copies']?.({ server: stage.server, job, progress: async () => {}, cancelled: async () => false, log: () => {} })
    await stage.owner.query(`update stratum.jobs set status = 'succeeded' where id = $1`, [job.id])
  }
}

describe('a managed table', () => {
  it('holds rows of each tenant apart, wherever its place is and whenever it was made', async () => {
    await stage.owner.query(`
      create type order_state as enum ('open', 'paid');
      create table customers (id uuid primary key default gen_random_uuid(), email text not null);
      create table "Order Items" (id uuid primary key default gen_random_uuid(), customer_id uuid references customers on delete set null,
        state order_state default 'open', "größe" numeric(10, 2) check ("größe" > 0))`)
    const before = [await stage.placed('SCHEMA_PER_TENANT'), await stage.placed('DB_PER_TENANT')]
    await stage.manage(['customers', 'Order Items'])
    await doJobs()
    const after = [await stage.placed('SCHEMA_PER_TENANT'), await stage.placed('DB_PER_TENANT')]
    const tenants = [shared, neighbour, ...before, ...after]
    for (const tenant of tenants) {
      const insert = `with c as (insert into customers (email) values ('${tenant.id}') returning id) insert into "Order Items" (customer_id) select id from c`
      await stage.batch(tenant, insert)
    }
    for (const tenant of tenants) {
      const rows = await stage.batch(tenant, `select c.email, o.tenant_id, state from customers c join "Order Items" o on o.customer_id = c.id`)
      expect(rows).toEqual([{ email: tenant.id, tenant_id: tenant.id, state: 'open' }])
    }
    expect(await stage.asOwner((client) => doctor(client))).toEqual([])
  })

  it('has the column, the default, the index, the policy and the grants', () =>
    passing(async (client) => {
      await client.query('create table t (id uuid primary key default gen_random_uuid())')
      await migrateTable(client, 't')

      const facts = await factsOf(client, 't')
      expect(facts).toMatchObject({ row_security: true, forced: true, owner: 'stratum_owner' })
      expect(facts?.columns.find(({ name }) => name === 'tenant_id')).toMatchObject({
        type: 'uuid',
        not_null: true,
        default: 'stratum_guard.current_tenant_id()',
      })
      expect(await keysOf(client, 't')).toEqual(['PRIMARY KEY (id)', 'UNIQUE (tenant_id, id)'])
      const due = '(tenant_id = ( SELECT stratum_guard.current_tenant_id() AS current_tenant_id))'
      expect(facts?.policies).toEqual([{ name: 'tenant_isolation', permissive: true, command: '*', to_public: true, using: due, check: due }])
      const { rows } = await client.query(
        `select privilege_type from information_schema.role_table_grants where table_schema = 'public' and table_name = 't' and grantee = 'stratum_app' order by 1`,
      )
      expect(rows.map((row) => row.privilege_type)).toEqual(['DELETE', 'INSERT', 'SELECT', 'UPDATE'])
    }))

  it('has foreign keys whose ends are of one tenant, with their actions, checked when the transaction wishes', () =>
    passing(async (client) => {
      const id = 'id uuid primary key default gen_random_uuid()'
      await client.query(`create table parents (${id}, code text not null, unique (code));
        create table children (${id}, p1 uuid references parents on delete cascade, p2 uuid references parents on delete set null on update cascade,
          p3 text references parents (code) deferrable initially deferred, self uuid references children)`)
      await migrateTables(client, ['children', 'parents'], { rewriteKeys: true })

      expect(await keysOf(client, 'children')).toEqual([
        'FOREIGN KEY (tenant_id, p1) REFERENCES parents(tenant_id, id) ON DELETE CASCADE DEFERRABLE',
        'FOREIGN KEY (tenant_id, p2) REFERENCES parents(tenant_id, id) ON UPDATE CASCADE ON DELETE SET NULL (p2) DEFERRABLE',
        'FOREIGN KEY (tenant_id, p3) REFERENCES parents(tenant_id, code) DEFERRABLE INITIALLY DEFERRED',
        'FOREIGN KEY (tenant_id, self) REFERENCES children(tenant_id, id) DEFERRABLE',
        'PRIMARY KEY (tenant_id, id)',
      ])
      const tables = await readManagedTables(client)
      expect(
        tables
          .filter(({ name }) => /^(parents|children)$/.test(name))
          .map(({ name, references, cyclic, primaryKey }) => ({ name, references, cyclic, primaryKey })),
      ).toEqual([
        { name: 'parents', references: [], cyclic: false, primaryKey: ['tenant_id', 'id'] },
        { name: 'children', references: ['parents'], cyclic: true, primaryKey: ['tenant_id', 'id'] },
      ])
    }))

  it('has its keys rewritten on request, each as it was but for the tenant', () =>
    passing(async (client) => {
      await client.query(`create table "A (x) t" (id serial primary key, email text, code text, unique nulls not distinct (email) include (code));
        create unique index "I USING btree (" on "A (x) t" using btree (lower(email) desc nulls last) where code is not null`)
      await migrateTable(client, 'A (x) t', { rewriteKeys: true })

      expect(await keysOf(client, 'A (x) t')).toEqual(['PRIMARY KEY (tenant_id, id)', 'UNIQUE NULLS NOT DISTINCT (tenant_id, email) INCLUDE (code)'])
      expect((await factsOf(client, 'A (x) t'))?.indexes.find(({ constraint }) => !constraint)?.definition).toBe(
        'CREATE UNIQUE INDEX "I USING btree (" ON "A (x) t" USING btree (tenant_id, lower(email) DESC NULLS LAST) WHERE code IS NOT NULL',
      )
    }))

  it('keeps rows that had their tenant, and gives the others theirs', () =>
    passing(async (client) => {
      await client.query(`create table t (id uuid primary key default gen_random_uuid(), tenant_id uuid); insert into t (tenant_id) values ('${shared.id}'), (null);
        create table u (id uuid primary key default gen_random_uuid()); insert into u default values`)
      await migrateTables(client, ['t', 'u'], { backfill: neighbour.id })
      for (const [tenant, expected] of [
        [shared, [1, 0]],
        [neighbour, [1, 1]],
      ] as const) {
        await client.query(`select set_config('app.current_tenant_id', $1, true)`, [tenant.id])
        const { rows } = await client.query('select (select count(*)::int from t) as t, (select count(*)::int from u) as u')
        expect([rows[0]?.t, rows[0]?.u]).toEqual(expected)
      }
    }))

  it('may reference one that was managed before, also with rows', () =>
    passing(async (client) => {
      const id = 'id uuid primary key default gen_random_uuid()'
      await client.query(`create table a (${id}); insert into a default values`)
      await migrateTable(client, 'a', { backfill: shared.id })
      await client.query(
        `create table b (${id}, a_id uuid references a); select set_config('app.current_tenant_id', '${shared.id}', true); insert into b (a_id) select id from a`,
      )
      await migrateTable(client, 'b', { backfill: shared.id })
      expect(await keysOf(client, 'b')).toContain('FOREIGN KEY (tenant_id, a_id) REFERENCES a(tenant_id, id) DEFERRABLE')
      expect(await factsOf(client, 'a')).toMatchObject({ forced: true })
    }))

  it('refuses rows that reference those of another tenant, found when it becomes managed', () =>
    passing(async (client) => {
      const id = 'id uuid primary key default gen_random_uuid()'
      await client.query(`create table a (${id}, tenant_id uuid); create table b (${id}, a_id uuid references a, tenant_id uuid);
        insert into a (tenant_id) values ('${shared.id}'); insert into b (a_id, tenant_id) select id, '${neighbour.id}' from a`)
      await expect(migrateTables(client, ['a', 'b'])).rejects.toMatchObject({
        code: 'TABLE_NOT_MANAGEABLE',
        details: { table: 'b', reason: expect.stringContaining('violates foreign key') },
      })
    }))

  it('stays as it is when it is managed again', () =>
    passing(async (client) => {
      await client.query('create table t (id uuid primary key default gen_random_uuid())')
      await migrateTable(client, 't')
      const before = await factsOf(client, 't')
      await migrateTable(client, 't')
      expect(await factsOf(client, 't')).toEqual(before)
    }))

  it('gets the copies back that a place lacks when it is managed again', () =>
    passing(async (client) => {
      await client.query(
        'create table t (id uuid primary key default gen_random_uuid()); create table u (id uuid primary key default gen_random_uuid(), t uuid references t)',
      )
      await migrateTables(client, ['t', 'u'])
      const { rows } = await client.query<{ name: string }>(
        `select nspname as name from pg_namespace n where obj_description(n.oid, 'pg_namespace') ~ '^stratum tenant' limit 1`,
      )
      const schema = rows[0]?.name ?? ''
      const whole = await readTableFacts(client, schema, ['t', 'u'])
      await client.query(`drop table "${schema}".u`)
      await migrateTable(client, 't')
      expect(await readTableFacts(client, schema, ['t', 'u'])).toEqual(whole)
    }))

  it('is not managed while the isolation of a tenant is changed, which would leave its rows behind', () =>
    passing(async (client) => {
      await client.query('create table t (id uuid primary key default gen_random_uuid())')
      await client.query(
        `insert into stratum.isolation_changes (id, tenant_id, job_id, from_strategy, to_strategy) values (gen_random_uuid(), $1, gen_random_uuid(), 'SHARED_RLS', 'SCHEMA_PER_TENANT')`,
        [shared.id],
      )
      await expect(migrateTable(client, 't')).rejects.toMatchObject({ code: 'ISOLATION_CHANGE_RUNNING', details: { tenant_id: shared.id } })
      await expect(unmigrateTable(client, 'customers')).rejects.toMatchObject({ code: 'ISOLATION_CHANGE_RUNNING' })
    }))

  it("leaves the caller's role, search path, context and timeout as they were", () =>
    passing(async (client) => {
      await client.query(
        `create table t (id uuid primary key default gen_random_uuid()); set local search_path = stratum, public; set local statement_timeout = '7s'`,
      )
      const settings = `select current_setting('role') as role, current_setting('search_path') as path, current_setting('statement_timeout') as timeout, coalesce(current_setting('app.current_tenant_id', true), '') as tenant`
      const before = (await client.query(settings)).rows
      await migrateTable(client, 't')
      expect((await client.query(settings)).rows).toEqual(before)
    }))

  it('is made by a member of the owner too, whole or not at all without a transaction of the caller', async () => {
    const admin = new pg.Client(stage.urls.admin)
    await admin.connect()
    await admin.query('create table ours (id uuid primary key default gen_random_uuid()); create table theirs (id int primary key)')
    await expect(migrateTables(admin, ['ours', 'theirs'])).rejects.toMatchObject({ code: 'TABLE_NOT_MANAGEABLE', details: { table: 'theirs' } })
    expect(await factsOf(admin, 'ours')).toMatchObject({ owner: 'postgres', row_security: false })
    await migrateTable(admin, 'ours')
    expect(await factsOf(admin, 'ours')).toMatchObject({ owner: 'stratum_owner', forced: true })
    await unmigrateTable(admin, 'ours')
    await admin.query('drop table ours, theirs')
    await admin.end()
  })

  it('takes its views with it', async () => {
    await stage.owner.query(`create table sales (id uuid primary key default gen_random_uuid(), amount int);
      create view big_sales with (security_invoker = true) as select id, amount from sales where amount > 10;
      create view sums with (security_invoker = true) as select sum(amount) as total from big_sales; grant select on sums to public`)
    await stage.manage('sales')
    const tenants = [shared, await stage.placed('SCHEMA_PER_TENANT'), await stage.placed('DB_PER_TENANT')]
    for (const [index, tenant] of tenants.entries()) {
      await stage.batch(tenant, `insert into sales (amount) values (1), (${20 + index})`)
      expect(await stage.batch(tenant, 'select total::int from sums')).toEqual([{ total: 20 + index }])
    }
  })
})

describe('a table that is managed no more', () => {
  it('loses policy, default, rights and empty copies, and keeps its rows', async () => {
    await stage.owner.query(`create table notes (id uuid primary key default gen_random_uuid(), body text);
      create view short_notes with (security_invoker = true) as select left(body, 5) as body from notes`)
    await stage.manage('notes')
    const [schema, database] = [await stage.placed('SCHEMA_PER_TENANT'), await stage.placed('DB_PER_TENANT')]
    await stage.batch(shared, `insert into notes (body) values ('kept')`)
    for (const full of [schema, database]) {
      await stage.batch(full, `insert into notes (body) values ('x')`)
      await expect(stage.asOwner((client) => unmigrateTable(client, 'notes'))).rejects.toMatchObject({
        code: 'TABLE_NOT_MANAGEABLE',
        message: expect.stringContaining(full.id),
      })
      expect(await stage.batch(full, 'select body from short_notes')).toEqual([{ body: 'x' }])
      await stage.batch(full, 'delete from notes')
    }

    await stage.asOwner((client) => unmigrateTable(client, 'notes'))
    await doJobs()

    await expect(stage.batch(schema, 'select from notes')).rejects.toMatchObject({ code: '42501' })
    await expect(stage.batch(database, 'select from notes')).rejects.toMatchObject({ code: '42P01' })
    await expect(stage.batch(shared, 'select from notes')).rejects.toMatchObject({ code: '42501' })
    expect((await stage.owner.query('select body from notes')).rows).toEqual([{ body: 'kept' }])
    await stage.owner.query(`drop table notes cascade`)
  })

  it('is not torn from what stays managed', async () => {
    await expect(stage.asOwner((client) => unmigrateTable(client, 'customers'))).rejects.toMatchObject({
      code: 'TABLE_NOT_MANAGEABLE',
      message: expect.stringContaining('Order Items, which stays managed'),
    })
  })

  it('can be managed again', async () => {
    await stage.owner.query(
      `create table m1 (id uuid primary key default gen_random_uuid()); create table m2 (id uuid primary key default gen_random_uuid(), m1 uuid references m1)`,
    )
    await stage.manage(['m1', 'm2'])
    await stage.asOwner((client) => unmigrateTables(client, ['m1', 'm2']))
    await stage.manage(['m1', 'm2'])
    expect(await stage.asOwner((client) => keysOf(client, 'm2'))).toEqual([
      'FOREIGN KEY (tenant_id, m1) REFERENCES m1(tenant_id, id) DEFERRABLE',
      'PRIMARY KEY (id)',
      'UNIQUE (tenant_id, id)',
    ])
    await doJobs()
  })
})

describe('a scan', () => {
  it('tells of every table what it is and what it takes', () =>
    passing(async (client) => {
      const id = 'id uuid primary key default gen_random_uuid()'
      await client.query(`create table fit (${id}); create table a (${id}); create table b (${id}, a_id uuid references a);
        create table numbered (id serial primary key); insert into numbered default values; create table keyless (n int);
        create table tied (${id}, n uuid); alter table keyless add column t_id uuid references tied`)
      const states = new Map((await scan(client)).map((state) => [state.table, state]))

      expect(states.get('customers')).toMatchObject({ state: 'managed', row_security: true, reasons: [] })
      expect(states.get('fit')).toMatchObject({ state: 'ready', together_with: [], needs: [] })
      expect(states.get('a')).toMatchObject({ state: 'ready', together_with: ['b'] })
      expect(states.get('numbered')).toMatchObject({ state: 'ready_with_options', needs: ['rewriteKeys', 'backfill'] })
      expect(states.get('keyless')).toMatchObject({ state: 'blocked', reasons: [expect.stringMatching(/no primary key/)] })
      expect(states.get('tied')).toMatchObject({ state: 'blocked', reasons: [expect.stringMatching(/tie it to keyless/)] })
    }))
})
