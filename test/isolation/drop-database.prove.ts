/** A tenant's database goes whatever is at work in it, or the refusal says what keeps it. */
import pg from 'pg'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { dropPlace, makePlace } from '../../src/provisioning/places.ts'
import { installJobs, tolerateBreaks } from '../../src/provisioning/queue.ts'
import { openServer, urlOfDatabase } from '../../src/provisioning/server.ts'
import { Stratum } from '../../src/stratum.ts'
import { PASSWORDS } from '../support/names.ts'
import { OwnServer, SLOW_VACUUM } from '../support/own-server.ts'
import { type Made, uniqueSlug } from './stage.ts'

let own: OwnServer
let server: ReturnType<typeof openServer>
let control: pg.Pool
let stratum: Stratum

const urlOf = (user: string, password: string, database: string) => `postgresql://${user}:${password}@${new URL(own.url()).host}/${database}`
const url = (user: 'owner' | 'control' | 'app', database: string) => urlOf(`stratum_${user}`, PASSWORDS[user], database)

beforeAll(async () => {
  own = await OwnServer.start()
  await installJobs(url('owner', 'postgres'))
  await own.admin.query(`create role reporter login password 'reporter'`)
  server = openServer(url('owner', 'postgres'), { databaseLimit: 100, connections: 2 })
  control = tolerateBreaks(new pg.Pool({ connectionString: url('control', 'postgres') }))
  stratum = new Stratum({ pool: control })
})
afterAll(async () => {
  await server.close()
  await control.end()
  await own.close()
})

const made = async (): Promise<Made & { database: string }> => {
  const slug = uniqueSlug('t')
  const { id, isolation_name } = await stratum.createTenant({ name: slug, slug, isolation_strategy: 'DB_PER_TENANT' })
  const place = { strategy: 'DB_PER_TENANT', name: isolation_name } as const
  await makePlace(server, id, place, { routingVersion: 1, open: true })
  return { id, place, database: isolation_name ?? '' }
}

const connect = async (connectionString: string) => {
  const client = new pg.Client({ connectionString })
  client.on('error', () => {})
  await client.connect()
  return client
}

const remaining = async ({ database }: { database: string }) =>
  (await own.admin.query<{ count: number }>('select count(*)::int from pg_database where datname = $1', [database])).rows[0]?.count

/** Resolves once a worker of autovacuum is busy in the database, for long. */
async function keepVacuuming({ database }: { database: string }) {
  const client = await connect(urlOfDatabase(own.url(), database))
  await client.query(`
    create table worn (id int) with (${SLOW_VACUUM});
    insert into worn select generate_series(1, 100000); delete from worn`)
  await client.end()
  await own.set('autovacuum_naptime', '1s')
  const at = `select from pg_stat_activity where datname = $1 and backend_type = 'autovacuum worker' and query like '%worn%'`
  await vi.waitFor(async () => expect((await own.admin.query(at, [database])).rowCount).toBe(1), { timeout: 30_000, interval: 50 })
}

it('is dropped while autovacuum is at work in it, which would refuse a forced drop', async () => {
  const tenant = await made()
  await keepVacuuming(tenant)

  await expect(server.pool.query(`drop database "${tenant.database}" with (force)`)).rejects.toMatchObject({ code: '42501' })
  await dropPlace(server, tenant.id, tenant.place)

  expect(await remaining(tenant)).toBe(0)
})

it('is dropped while sessions go on in it, and more begin', async () => {
  const tenant = await made()
  let over = false
  const insistent = async () => {
    while (!over) {
      const client = await connect(url('app', tenant.database)).catch(() => null)
      await client?.query('select pg_sleep(600)').catch(() => {})
      await client?.end().catch(() => {})
    }
  }
  const sessions = Promise.all([insistent(), insistent(), insistent()])
  const busy = `select from pg_stat_activity where datname = $1 and query like '%pg_sleep%'`
  await vi.waitFor(async () => expect((await own.admin.query(busy, [tenant.database])).rowCount).toBe(3), { timeout: 30_000, interval: 50 })

  await dropPlace(server, tenant.id, tenant.place).finally(() => {
    over = true
  })
  await sessions

  expect(await remaining(tenant)).toBe(0)
})

it.each([
  ['a superuser', () => own.url()],
  ['somebody else', () => urlOf('reporter', 'reporter', 'postgres')],
])('stays, and says so, while %s is connected to it, and goes afterwards', async (_, urlOfUser) => {
  const tenant = await made()
  await own.admin.query(`grant connect on database "${tenant.database}" to reporter`)
  const client = await connect(urlOfDatabase(urlOfUser(), tenant.database))

  await expect(dropPlace(server, tenant.id, tenant.place)).rejects.toMatchObject({
    code: 'PLACE_REFUSED',
    message: expect.stringMatching(/still used by sessions of (postgres|reporter), which/),
  })
  await client.end()
  await dropPlace(server, tenant.id, tenant.place)

  expect(await remaining(tenant)).toBe(0)
})

it('is made in the next try where somebody looks into it while it gets its name', async () => {
  const slug = uniqueSlug('t')
  const { id, isolation_name } = await stratum.createTenant({ name: slug, slug, isolation_strategy: 'DB_PER_TENANT' })
  const place = { strategy: 'DB_PER_TENANT', name: isolation_name } as const
  const visitors: pg.Client[] = []
  const visited = async (step: string) => {
    if (step !== 'filled') return
    const { rows } = await own.admin.query<{ name: string }>('select working_name as name from stratum.tenant_databases where tenant_id = $1', [id])
    visitors.push(await connect(urlOfDatabase(own.url(), rows[0]?.name ?? '')))
  }

  await expect(makePlace({ ...server, step: visited }, id, place, { routingVersion: 1, open: true })).rejects.toMatchObject({ code: '55006' })
  for (const visitor of visitors) await visitor.end()
  await makePlace(server, id, place, { routingVersion: 1, open: true })

  expect(await remaining({ database: isolation_name ?? '' })).toBe(1)
  await dropPlace(server, id, place)
})
