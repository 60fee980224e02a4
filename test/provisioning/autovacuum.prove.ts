/** The triggers of a move come and go while autovacuum is at work on the table, and nobody who writes waits for it. */
import pg from 'pg'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { startCapture, stopCapture } from '../../src/provisioning/move/capture.ts'
import { movedTables } from '../../src/provisioning/move/tables.ts'
import { OwnServer, SLOW_VACUUM } from '../support/own-server.ts'
import { untilWaiting } from '../support/waiting.ts'

const TENANT = '00000000-0000-7000-8000-000000000001'
const MOVE = '00000000-0000-7000-8000-000000000002'
const column = (name: string, type: string) => ({ name, type, generated: false, identity: null })
const tables = movedTables(
  [{ name: 'worn', columns: [column('tenant_id', 'uuid'), column('id', 'integer')], primaryKey: ['tenant_id', 'id'], references: [], cyclic: false }],
  'public',
  'elsewhere',
)

let own: OwnServer
let mover: pg.Client
beforeAll(async () => {
  own = await OwnServer.start()
  mover = new pg.Client({ connectionString: own.url(), lock_timeout: 10_000 })
  mover.on('error', () => {})
  await mover.connect()
  await mover.query(`
    create table worn (tenant_id uuid, id int, primary key (tenant_id, id)) with (${SLOW_VACUUM});
    insert into worn select '${TENANT}', n from generate_series(1, 100000) n; delete from worn;
    select pg_stat_force_next_flush()`)
  await own.set('autovacuum_naptime', '1s')
})
afterAll(async () => {
  await mover.end()
  await own.close()
})

const triggers = async () => (await own.admin.query(`select from pg_trigger where tgrelid = 'worn'::regclass`)).rowCount
/** Resolves with the worker of autovacuum once one is busy with the table, for long. */
const untilVacuuming = () =>
  vi.waitFor(
    async () => {
      const { rows } = await own.admin.query<{ pid: number }>(
        `select l.pid from pg_locks l join pg_stat_activity a using (pid) where l.relation = 'worn'::regclass and a.backend_type = 'autovacuum worker'`,
      )
      expect(rows).toHaveLength(1)
      return rows[0]?.pid
    },
    { timeout: 30_000, interval: 50 },
  )

it('which gives way to who waits for longer than deadlock_timeout', async () => {
  await untilVacuuming()
  await startCapture(mover, tables, MOVE, TENANT)
  expect(await triggers()).toBe(3)
  await untilVacuuming()
  await stopCapture(mover, tables, MOVE)
  expect(await triggers()).toBe(0)
})

it('and who writes does not wait behind who waits for it', async () => {
  await startCapture(mover, tables, MOVE, TENANT)
  // it gives way to nobody now
  await own.set('deadlock_timeout', '10min')
  await vi.waitFor(async () => expect((await mover.query('show deadlock_timeout')).rows).toEqual([{ deadlock_timeout: '10min' }]), { timeout: 30_000 })
  const worker = await untilVacuuming()
  const stopped = stopCapture(mover, tables, MOVE)
  await untilWaiting(own.admin)
  await own.admin.query(`insert into worn values ('${TENANT}', 0)`)
  expect((await own.admin.query(`select mode from pg_locks where relation = 'worn'::regclass and not granted`)).rows).toEqual([
    { mode: 'ShareUpdateExclusiveLock' },
  ])
  expect(await triggers()).toBe(3)
  await own.admin.query('select pg_cancel_backend($1)', [worker])
  await stopped
  expect(await triggers()).toBe(0)
})
