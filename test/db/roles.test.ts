/** What each of the three roles may do in a migrated database. */
import { neon } from '@neondatabase/serverless'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { sendToEndpoint } from '../../src/db/neon.ts'
import { createInstallation, type Installation } from '../support/installation.ts'

let installation: Installation
const clients = {} as Record<'owner' | 'control' | 'app', pg.Client>

beforeAll(async () => {
  installation = await createInstallation()
  for (const part of ['owner', 'control', 'app'] as const) {
    clients[part] = new pg.Client(installation.urls[part])
    await clients[part].connect()
  }
})
afterAll(async () => {
  await Promise.all(Object.values(clients).map((client) => client.end()))
  await installation.close()
})

const actor = JSON.stringify({ credential: { type: 'embedded', actor_id: 'test', actor_type: 'system' }, named: [] })
const create = `select stratum.create_tenant($1, $2) ->> 'slug' as slug`
const tenant = (slug: string) => JSON.stringify({ slug, name: slug, parent_id: null, isolation_strategy: 'SHARED_RLS', metadata: {} })
const TIMEOUTS = `select current_setting('statement_timeout') as statement, current_setting('lock_timeout') as lock, current_setting('idle_in_transaction_session_timeout') as idle`
const DENIED = { code: '42501' }

describe('the role of the edge', () => {
  it('calls operations', async () => {
    expect((await clients.control.query(create, [actor, tenant('by_control')])).rows).toEqual([{ slug: 'by_control' }])
  })

  it.each([
    'select from stratum.tenants',
    'update stratum.audit_entries set payload = null',
    'delete from stratum.audit_entries',
    `insert into stratum.operations values ('x', 'read', '[]')`,
    'truncate stratum.audit_heads',
    `select nextval('stratum.tenants_number_seq')`,
    `select stratum.record('{}', null, '', '{}', null, null, '[]')`,
    `select stratum.principal('{}')`,
    'create table stratum.mine (id int)',
    'create table public.mine (id int)',
    'create temporary table mine (id int)',
    'create schema mine',
    'create role mine',
    'set role stratum_owner',
  ])('may not: %s', async (statement) => {
    await expect(clients.control.query(statement)).rejects.toMatchObject(DENIED)
  })

  it('is limited in time over both transports', async () => {
    const limits = { statement: '10s', lock: '3s', idle: '10s' }
    expect((await clients.control.query(TIMEOUTS)).rows).toEqual([limits])
    sendToEndpoint(installation.urls.control, installation.neonEndpoint)
    expect(await neon(installation.urls.control).query(TIMEOUTS)).toEqual([limits])
  })

  it('cannot slip its own objects in between an operation and what it calls, where it may make temporary ones', async () => {
    const admin = new pg.Client(installation.urls.admin)
    await admin.connect()
    await admin.query(`grant temporary on database "${admin.database}" to stratum_control`).finally(() => admin.end())
    await clients.control.query('create temporary table tenants (id uuid)')
    await clients.control.query(`set search_path = pg_temp, public`)
    expect((await clients.control.query(create, [actor, tenant('by_control_again')])).rows).toEqual([{ slug: 'by_control_again' }])
    expect((await clients.control.query('select from pg_temp.tenants')).rowCount).toBe(0)
  })
})

describe('the role of the data plane', () => {
  it.each(['select from stratum.tenants', `select stratum.get_health('{}', '{}')`, `select stratum.authenticate('{}', '{}')`])(
    'sees nothing of ours: %s',
    async (statement) => {
      await expect(clients.app.query(statement)).rejects.toMatchObject(DENIED)
    },
  )
})

it('none of them is a superuser, bypasses row security or replicates', async () => {
  const { rows } = await installation.owner.query(`select rolname from pg_roles where rolname in ('stratum_owner', 'stratum_control', 'stratum_app')
    and not (rolsuper or rolbypassrls or rolreplication) order by 1`)
  expect(rows.map((row) => row.rolname)).toEqual(['stratum_app', 'stratum_control', 'stratum_owner'])
})
