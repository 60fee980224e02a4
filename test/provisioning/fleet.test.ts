/** The application's migrations over the shared tables and every schema and database of a tenant. */
import { describe, expect, it } from 'vitest'
import type { FleetReport } from '../../src/provisioning/fleet/migrate-fleet.ts'
import { makePlace, type Server } from '../../src/provisioning/places.ts'
import { refusal } from '../support/tree.ts'
import { untilNobodyWaits, untilWaiting } from '../support/waiting.ts'
import { database, everywhere, having, migrate, put, schemas, shared, slugOf, stage, status } from './fleet-stage.ts'

describe('a run', () => {
  it('brings every place to the last file, rows of the shared tables included, once', async () => {
    await put({
      '0001_note.sql': 'alter table orders add column note text; -- one\n',
      '0002_fill.sql': `update orders set note = 'was ' || total; alter table orders alter column note set not null`,
    })
    expect(await migrate()).toMatchObject({ migrated: 5, failed: [], left: [] })
    expect(await having('note')).toEqual(everywhere())
    for (const tenant of [...schemas, database, shared]) {
      expect(await stage.batch(tenant, 'select note from orders order by note')).toEqual([{ note: 'was 7' }, { note: 'was 8' }])
    }
    expect(await status()).toMatchObject({ current: true, latest: '0002_fill.sql', counts: { current: 5, behind: 0, failed: 0 }, places: [] })
    expect(await migrate()).toMatchObject({ plan: [], migrated: 0 })
    const { rows } = await stage.owner.query(`select relforcerowsecurity as forced from pg_class where oid = 'public.orders'::regclass`)
    expect(rows).toEqual([{ forced: true }])
  })

  it('makes and checks a foreign key over the rows of all', async () => {
    await put({
      '0001.sql': `alter table orders add column parent uuid, add constraint parent_key foreign key (tenant_id, parent) references orders (tenant_id, id) not valid;
        update orders set parent = id`,
      '0002.sql': 'alter table orders validate constraint parent_key',
      '0003.sql': 'alter table orders drop constraint parent_key',
      '0004.sql': 'alter table orders add foreign key (tenant_id, parent) references orders (tenant_id, id)',
    })
    expect(await migrate()).toMatchObject({ migrated: 5, failed: [], left: [] })
    const { rows } = await stage.owner.query(
      `select bool_and(convalidated) as checked, count(*)::int as keys from pg_constraint where contype = 'f' and conrelid::regclass::text like '%orders'`,
    )
    expect(rows).toEqual([{ checked: true, keys: 4 }])
  })

  it('goes to one tenant, to the shared tables, and then to the others', async () => {
    await put({ '0001.sql': 'alter table orders add column a1 text' })
    const order: string[] = []
    const canary = await slugOf(database)
    await migrate({ canary, onProgress: ({ stage: of, place }) => order.push(`${of}: ${place}`) })
    expect(order.slice(0, 2)).toEqual([`canary: ${canary}`, 'shared: the shared tables'])
    expect(order.slice(2).sort()).toEqual((await Promise.all(schemas.map(slugOf))).map((slug) => `rest: ${slug}`).sort())
    await refusal(migrate({ canary: 'nobody' }), 'CONFIGURATION_INVALID')
  })

  it('shows what it would do, and does nothing, when it is dry', async () => {
    await put({ '0001.sql': 'alter table orders add column a2 text' })
    const { plan, migrated } = await migrate({ dryRun: true })
    expect(plan.map(({ migrations }) => migrations)).toEqual(Array(5).fill(['0001.sql']))
    expect(migrated).toBe(0)
    expect(await having('a2')).toEqual([])
    expect(await status()).toMatchObject({ latest: null })
  })

  it('stops at the canary, and leaves nothing of the file that failed', async () => {
    await put({ '0001.sql': 'alter table orders add column a3 text', '0002.sql': 'alter table orders add column b3 text; select 1 / 0' })
    const report = await migrate()
    expect(report.failed).toEqual([
      { place: await slugOf(schemas[0]), migration: '0002.sql', error: { code: 'MIGRATION_FAILED', message: 'division by zero', sqlstate: '22012' } },
    ])
    expect(report.left).toHaveLength(4)
    expect(await having('a3')).toEqual([schemas[0].place.name])
    expect(await having('b3')).toEqual([])
    expect((await status()).counts).toMatchObject({ failed: 1, behind: 4 })
    await put({ '0002.sql': 'alter table orders add column b3 text' })
    expect(await migrate()).toMatchObject({ failed: [], left: [], migrated: 5 })
    expect(await having('b3')).toEqual(everywhere())
  })

  it.each(['canary', 'shared'] as const)('stops where the %s fails, however many failures are allowed', async (first) => {
    const column = `a3_${first}`
    const failing = first === 'canary' ? `"${schemas[0].place.name}".orders` : 'orders'
    await stage.asOwner((client) => client.query(`alter table ${failing} add column ${column} text`))
    await put({ '0001.sql': `alter table orders add column ${column} text` })
    const report = await migrate({ maxFailures: 3 })
    expect(report.failed).toMatchObject([{ place: first === 'canary' ? await slugOf(schemas[0]) : 'the shared tables' }])
    expect(report.left).toHaveLength(first === 'canary' ? 4 : 3)
    expect(await having(column)).toEqual(first === 'canary' ? [schemas[0].place.name] : ['', schemas[0].place.name])
    await stage.asOwner((client) => client.query(`alter table ${failing} drop column ${column}`))
    expect(await migrate()).toMatchObject({ failed: [], left: [], migrated: first === 'canary' ? 5 : 4 })
  })

  it('stops after as many failures as are allowed, and goes on where it stopped', async () => {
    const culprits = [schemas[1], schemas[2]]
    for (const { place } of culprits) await stage.owner.query(`alter table "${place.name}".orders add column a4 text`)
    await put({ '0001.sql': 'alter table orders add column a4 text' })
    expect((await migrate({ concurrency: 1 })).failed).toHaveLength(1)
    expect((await migrate({ concurrency: 1, maxFailures: 5 })).failed).toHaveLength(2)
    expect((await status()).counts).toMatchObject({ failed: 2, current: 3 })
    for (const { place } of culprits) await stage.owner.query(`alter table "${place.name}".orders drop column a4`)
    expect(await migrate()).toMatchObject({ failed: [], migrated: 2 })
    expect(await having('a4')).toEqual(everywhere())
  })

  it('that is cut short at any place is resumed by the next, each file done once in each place', async () => {
    await put({ '0001.sql': 'alter table orders add column a5 integer default 0 not null', '0002.sql': 'update orders set a5 = a5 + 1' })
    let steps = 0
    for (let cutAt = 1, done = false; !done; cutAt++) {
      steps = 0
      const server: Server = {
        ...stage.server,
        step: async () => {
          if (++steps === cutAt) throw new Error('cut short')
        },
      }
      done = (await migrate({ maxFailures: 1 }, server)).failed.length === 0
    }
    for (const tenant of [...schemas, database, shared]) {
      expect(await stage.batch(tenant, 'select distinct a5 from orders')).toEqual([{ a5: 1 }])
    }
    expect((await status()).current).toBe(true)
  })

  it('finds what a database has had by its own ledger, when its end was not noted here', async () => {
    await put({ '0001.sql': 'alter table orders add column a6 text' })
    await migrate()
    await stage.owner.query(`update stratum.fleet_places set migration = '' where tenant_id = $1`, [database.id])
    expect(await migrate()).toMatchObject({ migrated: 1, failed: [] })
    expect((await status()).current).toBe(true)
  })

  it('gives way to a batch that holds a table, and tries again', async () => {
    await put({ '0001.sql': 'alter table orders add column a7 text' })
    const held = await stage.owner.connect()
    await held.query('begin; lock table orders in access share mode')
    const running = migrate({ lockTimeout: 20 })
    await untilWaiting(stage.owner)
    await untilNobodyWaits(stage.owner)
    await held.query('commit')
    held.release()
    expect(await running).toMatchObject({ migrated: 5, failed: [] })
  })

  it('is refused while another is at work', async () => {
    await put({ '0001.sql': 'alter table orders add column a8 text' })
    const first = await stage.owner.connect()
    await first.query(`select pg_advisory_lock(hashtextextended('stratum.fleet', 0))`)
    await refusal(migrate(), 'FLEET_MIGRATION_RUNNING')
    await first.query(`select pg_advisory_unlock(hashtextextended('stratum.fleet', 0))`)
    first.release()
  })

  it('is not refused while another only shows what it would do', async () => {
    await put({ '0001.sql': 'alter table orders add column b8 text' })
    let meanwhile: FleetReport | undefined
    const server: Server = {
      ...stage.server,
      connect: async (name) => {
        const client = await stage.server.connect(name)
        const end = client.end.bind(client)
        return Object.assign(client, {
          end: async () => {
            meanwhile = await migrate().finally(end)
          },
        })
      },
    }
    expect((await migrate({ dryRun: true }, server)).plan).toHaveLength(5)
    expect(meanwhile).toMatchObject({ migrated: 5, failed: [] })
  })

  it('stops when it is told to, between places', async () => {
    await put({ '0001.sql': 'alter table orders add column a9 text' })
    const stop = new AbortController()
    const report = await migrate({ signal: stop.signal, onProgress: () => stop.abort() })
    expect(report).toMatchObject({ migrated: 1, failed: [] })
    expect(report.left).toHaveLength(4)
    expect(await migrate()).toMatchObject({ migrated: 4 })
  })
})

describe('a place that is made while a run is at work', () => {
  it.each(['SCHEMA_PER_TENANT', 'DB_PER_TENANT'] as const)('is not left behind: %s', async (strategy) => {
    await put({ '0001.sql': `alter table orders add column made_${strategy.toLowerCase()} text` })
    const late = await stage.tenant(strategy)
    const copied = Promise.withResolvers<void>()
    const goOn = Promise.withResolvers<void>()
    const server: Server = {
      ...stage.server,
      step: async (name) => {
        if (name !== (strategy === 'SCHEMA_PER_TENANT' ? 'copies' : 'filled')) return
        copied.resolve()
        await goOn.promise
      },
    }
    // it has copied the shared tables as they were, and is not done
    const making = makePlace(server, late.id, late.place, { routingVersion: 1, open: true })
    await copied.promise
    const running = migrate()
    if (strategy === 'SCHEMA_PER_TENANT') await untilWaiting(stage.owner)
    else await running
    goOn.resolve()
    await making
    expect((await running).failed).toEqual([])
    await stage.owner.query(`update stratum.tenants set provisioning_status = 'ready' where id = $1`, [late.id])
    expect(await status()).toMatchObject({ current: true })
    const wanted = `made_${strategy.toLowerCase()}`
    expect(
      await stage.batch(
        late,
        `select column_name from information_schema.columns where table_name = 'orders' and column_name = '${wanted}' and table_schema = current_schema()`,
      ),
    ).toHaveLength(1)
  })

  it('would be left behind if the shared tables did not wait for it', async () => {
    await put({ '0001.sql': 'alter table orders add column e0 text' })
    const { rows } = await stage.owner.query<{ guard: string }>(`select pg_get_functiondef('stratum.lock_copies'::regproc) as guard`)
    await stage.owner.query('create or replace function stratum.lock_copies() returns void language plpgsql as $$ begin end $$')
    const late = await stage.tenant('SCHEMA_PER_TENANT')
    const server: Server = {
      ...stage.server,
      // it has copied the shared tables and holds the copies back
      step: async (name) => {
        if (name === 'copies') await migrate()
      },
    }
    await makePlace(server, late.id, late.place, { routingVersion: 1, open: true })
    await stage.owner.query(`update stratum.tenants set provisioning_status = 'ready' where id = $1`, [late.id])
    expect(await having('e0')).not.toContain(late.place.name)
    expect(await status()).toMatchObject({ current: false })
    await stage.owner.query(rows[0]?.guard ?? '')
  })

  it('and one that is made after has had every file by its making', async () => {
    await put({ '0001.sql': 'alter table orders add column e1 text' })
    await migrate()
    const later = await stage.placed('SCHEMA_PER_TENANT')
    expect(await having('e1')).toContain(later.place.name)
    expect(await status()).toMatchObject({ current: true })
    expect(await migrate()).toMatchObject({ plan: [] })
  })

  it('while one that is being moved is left to another run', async () => {
    await put({ '0001.sql': 'alter table orders add column e2 text' })
    const [moving] = schemas
    await stage.owner.query(
      `insert into stratum.isolation_changes (id, tenant_id, job_id, from_strategy, from_name, to_strategy, to_name) values (gen_random_uuid(), $1, gen_random_uuid(), 'SCHEMA_PER_TENANT', $2, 'DB_PER_TENANT', $2)`,
      [moving.id, moving.place.name],
    )
    const report = await migrate()
    expect(report.failed).toEqual([])
    expect(report.left).toEqual([{ place: await slugOf(moving), reason: expect.stringContaining('is being changed') }])
    expect(await having('e2')).not.toContain(moving.place.name)
    await stage.owner.query(`update stratum.isolation_changes set finished_at = now(), phase = 'cancelled'`)
    expect(await migrate()).toMatchObject({ migrated: 1, left: [] })
  })

  it('while no tenant changes its isolation whose place is ahead of the shared tables, or behind them', async () => {
    await put({ '0001.sql': 'alter table orders add column e9 text' })
    const canaries = [schemas[0], database] as const
    for (const canary of canaries) {
      const stop = new AbortController()
      await migrate({ canary: await slugOf(canary), signal: stop.signal, onProgress: () => stop.abort() })
      const { details } = await refusal(stage.stratum.migrateIsolation(canary.id, 'SHARED_RLS'), 'TENANT_INVALID_STATE')
      expect(details).toMatchObject({ status: 'at the migration 0001.sql, and the shared tables at none' })
    }
    await migrate()
    for (const canary of canaries) {
      const change = await stage.stratum.migrateIsolation(canary.id, 'SHARED_RLS')
      await stage.owner.query(`update stratum.isolation_changes set finished_at = now(), phase = 'cancelled' where id = $1`, [change.id])
    }
    await stage.owner.query(`insert into stratum_guard.applied_migrations (schema_name, name, hash) values ('', '0002.sql', '')`)
    for (const canary of canaries) await refusal(stage.stratum.migrateIsolation(canary.id, 'SHARED_RLS'), 'TENANT_INVALID_STATE')
  })

  it('and one that is purged meanwhile is no failure', async () => {
    await put({ '0001.sql': 'alter table orders add column e3 text' })
    const gone = await stage.placed('SCHEMA_PER_TENANT')
    const slug = await slugOf(gone)
    const server: Server = {
      ...stage.server,
      step: async (name) => {
        if (name.startsWith(`${slug} `)) await stage.stratum.purgeTenant(gone.id)
      },
    }
    expect(await migrate({}, server)).toMatchObject({ failed: [], left: [] })
    expect(await having('e3')).not.toContain(gone.place.name)
    expect(await status()).toMatchObject({ current: true })
  })
})
