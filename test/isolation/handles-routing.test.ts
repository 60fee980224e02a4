/** How a handle finds its tenant, waits for it, and keeps its connections in bounds. */
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { DatabaseConnections } from '../../src/isolation/handles/connections.ts'
import { createTenantPool } from '../../src/isolation/handles/tenant-pool.ts'
import { createTenantSql } from '../../src/isolation/handles/tenant-sql.ts'
import { refusal } from '../support/tree.ts'
import { createStage, type Made, type Stage } from './stage.ts'

let stage: Stage
let pool: pg.Pool
beforeAll(async () => {
  stage = await createStage()
  await stage.owner.query('create table orders (id uuid primary key default gen_random_uuid(), item text not null)')
  await stage.manage('orders')
  pool = new pg.Pool({ connectionString: stage.urls.app, max: 3, idleTimeoutMillis: 50 })
  // Connections are cut on purpose below.
  pool.on('error', () => {})
})
afterAll(async () => {
  await pool.end()
  await stage.close()
})

const handle = (tenant: { id: string }, options = {}) => createTenantPool(pool, () => tenant.id, options)
const fence = (tenant: Made, fenced: boolean) => stage.owner.query('update stratum_guard.route set fenced = $2 where tenant_id = $1', [tenant.id, fenced])
const inOwnDatabase = async (tenant: Made, text: string) => {
  const client = await stage.server.connect(tenant.place.name ?? '')
  await client.query(text).finally(() => client.end())
}
/** Resolves once the door has refused a batch of this tenant, by what its connection ran last. */
async function untilRefused(tenant: Made) {
  const text = `select count(*)::int as n from pg_stat_activity where usename = 'stratum_app' and query like $1 and state like 'idle%'`
  for (;;) {
    const { rows } = await stage.owner.query(text, [`%enter('${tenant.id}')%`])
    if (rows[0].n > 0) return
  }
}

describe('a tenant that is being made or moved', () => {
  it('is waited for, by queries and by transactions that have run nothing yet', async () => {
    for (const text of ['select 1', 'begin', 'begin isolation level repeatable read']) {
      const tenant = await stage.placed('SHARED_RLS')
      await fence(tenant, true)
      const client = await handle(tenant).connect()
      const answer = client.query(text)
      await untilRefused(tenant)
      await fence(tenant, false)
      await expect(answer).resolves.toBeDefined()
      client.release()
    }
  })

  it('is given up after the time allowed, with an error that says to retry', async () => {
    const tenant = await stage.placed('SHARED_RLS')
    await fence(tenant, true)
    const tenantPool = handle(tenant, { waitMillis: 20 })
    expect(await refusal(tenantPool.query('select 1'), 'TENANT_UNAVAILABLE')).toMatchObject({ details: { tenant_id: tenant.id }, retryAfter: 1 })
    await refusal(
      tenantPool.transaction(() => expect.unreachable()),
      'TENANT_UNAVAILABLE',
    )
    // Not made yet: its place is pending.
    await refusal(handle(await stage.tenant('SCHEMA_PER_TENANT'), { waitMillis: 0 }).query('select 1'), 'TENANT_UNAVAILABLE')
  })

  it('is followed to another database, and back', async () => {
    const tenant = await stage.placed('DB_PER_TENANT')
    const tenantPool = handle(tenant)
    const here = async () => (await tenantPool.query('select current_database() as name')).rows[0].name
    expect(await here()).toBe(tenant.place.name)
    const move = (strategy: string, name: string | null) =>
      stage.owner.query('update stratum.tenants set isolation_strategy = $2, isolation_name = $3 where id = $1', [tenant.id, strategy, name])

    await inOwnDatabase(tenant, `update stratum_guard.route set fenced = true`)
    await move('SHARED_RLS', null)
    expect(await here()).not.toBe(tenant.place.name)

    await inOwnDatabase(tenant, `update stratum_guard.route set fenced = false, routing_version = 3`)
    await move('DB_PER_TENANT', tenant.place.name)
    expect(await here()).toBe(tenant.place.name)
    // A version that only its own database knows yet: the control database is asked until both agree.
    await inOwnDatabase(tenant, `update stratum_guard.route set routing_version = 4`)
    const held = here()
    await stage.owner.query('update stratum_guard.route set routing_version = 4 where tenant_id = $1', [tenant.id])
    expect(await held).toBe(tenant.place.name)
    await tenantPool.end()
  })

  it.each([
    ['gone', 'pg'],
    ['gone', 'HTTP'],
    ['closed', 'pg'],
    ['closed', 'HTTP'],
  ] as const)('is asked for anew when the database that was remembered is %s, over %s', async (how, over) => {
    const tenant = await stage.placed('DB_PER_TENANT')
    const name = tenant.place.name ?? ''
    const tenantPool = handle(tenant)
    const sql = createTenantSql(stage.urls.app, () => tenant.id, { endpoint: stage.neonEndpoint })
    const here = async () => {
      const text = 'select current_database() as name'
      const [row] = over === 'pg' ? (await tenantPool.query(text)).rows : await sql.query(text)
      return row?.['name']
    }
    expect(await here()).toBe(name)
    const admin = new pg.Client(stage.urls.admin)
    await admin.connect()
    await admin.query(`select pg_terminate_backend(pid, 10000) from pg_stat_activity where datname = $1`, [name])
    await admin.query(how === 'gone' ? `alter database "${name}" rename to "${name}_gone"` : `alter database "${name}" allow_connections false`)
    try {
      // The connection that was cut may be lent once more before its end is heard of; its query fails and it is closed.
      await expect(here().catch(here)).rejects.toThrow(how === 'gone' ? 'does not exist' : 'is not currently accepting connections')
      await stage.owner.query(`update stratum.tenants set isolation_strategy = 'SHARED_RLS', isolation_name = null where id = $1`, [tenant.id])
      expect(await here()).not.toBe(name)
    } finally {
      await admin.query(how === 'gone' ? `alter database "${name}_gone" rename to "${name}"` : `alter database "${name}" allow_connections true`)
      await admin.end()
      await tenantPool.end()
    }
  })

  it('is refused with the reason where its status forbids', async () => {
    for (const strategy of ['SHARED_RLS', 'SCHEMA_PER_TENANT', 'DB_PER_TENANT'] as const) {
      const tenant = await stage.placed(strategy)
      const { id } = tenant
      const fresh = () => handle(tenant)
      await stage.stratum.suspendTenant(id)
      await refusal(fresh().query('select 1'), 'TENANT_SUSPENDED')
      await stage.stratum.resumeTenant(id)
      await stage.stratum.archiveTenant(id)
      await refusal(fresh().query('select 1'), 'TENANT_ARCHIVED')
    }
    await refusal(handle({ id: crypto.randomUUID() }).query('select 1'), 'TENANT_NOT_FOUND')
  })
})

describe('the role of a handle', () => {
  it('is refused, before any row, where it could see more than the tenant', async () => {
    const tenant = await stage.placed('SHARED_RLS')
    const member = `member_${crypto.randomUUID().slice(0, 8)}`
    const bypassing = `bypassing_${crypto.randomUUID().slice(0, 8)}`
    const reaching = `reaching_${crypto.randomUUID().slice(0, 8)}`
    const stranger = `stranger_${crypto.randomUUID().slice(0, 8)}`
    const admin = new pg.Client(stage.urls.admin)
    await admin.connect()
    await admin.query(
      `create role ${member} login password 'secret' in role stratum_owner; create role ${bypassing} login password 'secret' bypassrls in role stratum_app`,
    )
    await admin.query(`create role ${reaching} login password 'secret' in role stratum_app, ${bypassing}; create role ${stranger} login password 'secret'`)
    const urlOf = (user: string) => Object.assign(new URL(stage.urls.app), { username: user, password: 'secret' }).href
    try {
      for (const url of [stage.urls.admin, stage.urls.owner, stage.urls.control, ...[member, bypassing, reaching, stranger].map(urlOf)]) {
        const unfit = new pg.Pool({ connectionString: url, max: 1 })
        unfit.on('error', () => {})
        const tenantPool = createTenantPool(unfit, () => tenant.id)
        const error = await refusal(tenantPool.query('select 1'), 'DATA_ROLE_REFUSED')
        expect(error.message).toMatch(/Connect as stratum_app, or as a role that/)
        const client = await tenantPool.connect()
        await refusal(client.query('begin'), 'DATA_ROLE_REFUSED')
        client.release()
        await unfit.end()
      }
    } finally {
      await admin.query(`drop role ${reaching}, ${member}, ${bypassing}, ${stranger}`)
      await admin.end()
    }
  })
})

describe('connections to databases of tenants', () => {
  const limited = (perDatabase: number, overall: number) => new DatabaseConnections(pool, { perDatabase, overall }, () => {})

  it('are opened with the pool’s own options and another database’s name', async () => {
    const connections = limited(1, 1)
    const held = await connections.acquire('postgres')
    expect((await held.client.query('select current_database() as name, current_user::text as role')).rows).toEqual([{ name: 'postgres', role: 'stratum_app' }])
    held.release(false)
    await connections.end()
    expect(connections.counts).toEqual({ open: 0, idle: 0, waiting: 0, databases: 0 })
  })

  it('stay under the ceiling of each database and the one over all; an idle one elsewhere makes room', async () => {
    const connections = limited(2, 3)
    const [a, b, c] = [await connections.acquire('postgres'), await connections.acquire('postgres'), await connections.acquire('template1')]
    const order: string[] = []
    const third = connections.acquire('postgres').then((held) => {
      order.push('postgres')
      return held
    })
    const fourth = connections.acquire('template1').then((held) => {
      order.push('template1')
      return held
    })
    expect(connections.counts).toMatchObject({ open: 3, waiting: 2 })
    a.release(false)
    const again = await third
    expect(again.client).toBe(a.client)
    b.release(false)
    await fourth
    expect(order).toEqual(['postgres', 'template1'])
    expect(connections.counts).toMatchObject({ open: 3, idle: 0, waiting: 0 })
    for (const held of [again, c, await fourth]) held.release(true)
    await connections.end()
    expect(connections.counts.open).toBe(0)
  })

  it('are closed when idle long enough, when cut by the server, and when the pool ends', async () => {
    const connections = limited(2, 2)
    const held = await connections.acquire('postgres')
    const closed = new Promise((resolve) => held.client.once('end', () => resolve(true)))
    held.release(false)
    expect(await closed).toBe(true)
    expect(connections.counts.open).toBe(0)
    const lent = await connections.acquire('postgres')
    const ending = connections.end()
    await expect(connections.acquire('postgres')).rejects.toThrow(/end/)
    lent.release(false)
    await ending
    expect(connections.counts.open).toBe(0)
  })

  it('that cannot be opened fail who waits for them, and nobody else', async () => {
    const connections = limited(1, 1)
    await expect(connections.acquire('no_such_database')).rejects.toMatchObject({ code: '3D000' })
    expect(connections.counts).toEqual({ open: 0, idle: 0, waiting: 0, databases: 0 })
    ;(await connections.acquire('postgres')).release(false)
    await connections.end()
  })
})
