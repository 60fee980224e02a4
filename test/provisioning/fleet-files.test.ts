/** Which files the application's migrations may hold, and how they are run in each place. */
import { rm } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { migrateFleet } from '../../src/provisioning/fleet/migrate-fleet.ts'
import { refusal } from '../support/tree.ts'
import { columns, database, everywhere, folder, having, migrate, put, schemas, slugOf, stage } from './fleet-stage.ts'

describe('files', () => {
  it.each([
    ['begin; alter table orders add column x text; commit', 'take that out'],
    ['alter table orders add column x text; /* ; */ COMMIT', 'take that out'],
    ['create index concurrently if not exists i on orders (total)', '-- stratum: no transaction'],
    ['vacuum orders', '-- stratum: no transaction'],
    ['create database other', 'run it by hand'],
    ['create table invoices (id integer)', '-- stratum: shared only'],
    ['-- stratum: no transaction\nselect 1; select 2', 'holds one statement'],
    ['-- stratum: no transaction\nalter table orders add column x text', 'what can be repeated'],
    ['-- stratum: twice\nselect 1', 'known are'],
  ])('that cannot be run over every place are refused before anything is done: %s', async (text, says) => {
    await put({ '0001.sql': 'alter table orders add column never text', '0002.sql': text })
    expect((await refusal(migrate(), 'MIGRATION_INVALID')).message).toContain(says)
    expect(await having('never')).toEqual([])
  })

  it('that only look so are run', async () => {
    await put({
      '0001.sql': `comment on table orders is 'begin; commit; vacuum';
        do $x$ begin perform 1; /* commit; */ end $x$;
        create function stamp() returns integer begin atomic select case when true then 1 end; end;
        -- create table t ();
        alter table orders add column "commit" text default E'it\\'s; '`,
    })
    expect((await migrate()).failed).toEqual([])
    expect(await having('commit')).toEqual(expect.arrayContaining(everywhere()))
  })

  it('must not change, go or come before those that were applied', async () => {
    await put({ '0002.sql': 'alter table orders add column c1 text' })
    await migrate()
    await put({ '0002.sql': 'alter table orders add column c2 text' })
    expect((await refusal(migrate(), 'MIGRATION_INVALID')).message).toContain('changed after it was applied')
    expect(await migrate({ acceptChanged: ['0002.sql'] })).toMatchObject({ migrated: 0 })
    expect(await having('c2')).toEqual([])
    await put({ '0001.sql': 'select 1' })
    expect((await refusal(migrate(), 'MIGRATION_INVALID')).message).toContain('it comes before 0002.sql')
    await rm(join(folder, '0001.sql'))
    await rm(join(folder, '0002.sql'))
    await put({ '0003.sql': 'select 1' })
    expect((await refusal(migrate(), 'MIGRATION_INVALID')).message).toContain('its file is gone')
    await refusal(migrateFleet(stage.server, join(folder, 'nowhere')), 'CONFIGURATION_INVALID')
  })

  it('for the shared tables alone count elsewhere as applied', async () => {
    await put({
      '0001.sql': '-- stratum: shared only\ncreate table invoices (id uuid primary key default gen_random_uuid())',
      '0002.sql': 'alter table orders add column d1 text',
    })
    expect(await migrate()).toMatchObject({ migrated: 5, failed: [] })
    expect(Object.keys(await columns('invoices')).filter((place) => place !== database.place.name)).toEqual([''])
    await stage.manage('invoices')
    await put({ '0003.sql': 'alter table invoices add column d2 text' })
    const done = await migrate({ maxFailures: 2 })
    // the database gets its copy by a job, which nobody does here
    expect(done.failed.map(({ error }) => error.message)).toEqual(['relation "invoices" does not exist'])
    expect(Object.values(await columns('invoices')).filter((names) => names.includes('d2'))).toHaveLength(4)
  })

  it('make an index without stopping writes, and repeat what was cut short', async () => {
    await put({ '0001.sql': '-- stratum: no transaction\ncreate index concurrently if not exists orders_by_total on orders (total)' })
    expect(await migrate()).toMatchObject({ migrated: 5, failed: [] })
    const { rows } = await stage.owner.query(
      `select count(*)::int as made from pg_index i join pg_class c on c.oid = i.indexrelid where c.relname = 'orders_by_total' and i.indisvalid`,
    )
    expect(rows).toEqual([{ made: 4 }])
  })

  it('see no table but those of their place: a shared one is not taken for it, nor is a setting left behind', async () => {
    const left = `do $$ begin if coalesce(current_setting('app.behind', true), '') <> '' then raise 'left behind'; end if; end $$`
    await put({
      '0001.sql': `set app.behind = 'yes'; set search_path = public; set role stratum_owner`,
      '0002.sql': left,
      '0003.sql': 'update unmanaged set id = id',
    })
    const { failed } = await migrate()
    expect(failed).toMatchObject([{ place: await slugOf(schemas[0]), error: { message: 'relation "unmanaged" does not exist' } }])
  })
})
