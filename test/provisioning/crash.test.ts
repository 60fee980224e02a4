/** Whatever step a provisioner ends at, the next one goes on: one place for each tenant, marked, and nothing else. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { generateRingKey } from '../../src/crypto/key-ring.ts'
import { openServer } from '../../src/provisioning/server.ts'
import { tasks } from '../../src/provisioning/tasks.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { serverSlug } from '../support/tree.ts'
import { dropDatabases, isolated, placesOf, routeIn, until } from './support.ts'

let installation: Installation
beforeAll(async () => {
  installation = await createInstallation()
})
afterAll(async () => {
  await dropDatabases(installation)
  await installation.close()
})

describe.each(['SCHEMA_PER_TENANT', 'DB_PER_TENANT'] as const)('provision_tenant with %s', (strategy) => {
  it('broken off at each of its steps in turn, and begun again each time, makes one place', async () => {
    const created = await isolated(installation, serverSlug('stepped'), strategy)
    const server = openServer(installation.urls.owner, { databaseLimit: 10_000 })
    const job = { id: created.id, tenant_id: created.id, payload: {} }
    const run = () => tasks['provision_tenant']?.({ server, job, progress: async () => {}, cancelled: async () => false, log: () => {} })
    const brokenAt: string[] = []
    server.step = async (name) => {
      if (brokenAt.includes(name)) return
      brokenAt.push(name)
      throw new Error('broken off')
    }
    for (let done = false; !done; ) {
      const before = brokenAt.length
      done = await Promise.resolve(run()).then(
        () => true,
        () => false,
      )
      // each run is broken off at a step of its own, or is the last
      expect(brokenAt.length).toBe(before + (done ? 0 : 1))
    }
    expect(brokenAt).toEqual(
      expect.arrayContaining(['provision_tenant: begun', 'provision_tenant: made', 'provision_tenant: synced', 'provision_tenant: ready']),
    )
    if (strategy === 'DB_PER_TENANT') expect(brokenAt.length).toBeGreaterThan(6)
    const kind = strategy === 'DB_PER_TENANT' ? 'database' : 'schema'
    expect(await placesOf(installation, created.id)).toEqual([`${kind} ${created.isolation_name}`])
    expect(await installation.stratum.getTenant(created.id)).toMatchObject({ provisioning_status: 'ready' })
    await server.close()
  })
})

/** A provisioner in a process of its own; it is up when it says so, or dead before. */
async function mortal(diesAt: number): Promise<{ child: ChildProcess; ended: Promise<unknown>; lines: Array<Record<string, unknown>> }> {
  const child = spawn(process.execPath, [new URL('./mortal.ts', import.meta.url).pathname], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: {
      ...process.env,
      DATABASE_URL: installation.urls.owner,
      STRATUM_MASTER_KEYS: generateRingKey('test'),
      STRATUM_API_KEY_SECRETS: generateRingKey('test'),
      STRATUM_PROVISIONER_PORT: '0',
      DIES_AT: String(diesAt),
    },
  })
  const lines: Array<Record<string, unknown>> = []
  createInterface({ input: child.stdout }).on('line', (line) => lines.push(JSON.parse(line)))
  return { child, ended: once(child, 'exit'), lines }
}

it('killed at random steps in the midst of many tenants, processes that follow make each one’s place exactly once', async () => {
  const strategies = ['SCHEMA_PER_TENANT', 'DB_PER_TENANT', 'DB_PER_TENANT'] as const
  const created = await Promise.all(
    Array.from({ length: 9 }, (_, index) => isolated(installation, serverSlug('killed'), strategies[index % 3] ?? 'DB_PER_TENANT')),
  )
  const deaths: number[] = []
  const unready = async () => (await installation.owner.query(`select from stratum.tenants where provisioning_status <> 'ready'`)).rowCount ?? 0
  for (let kills = 0; kills < 4; kills++) {
    const diesAt = 1 + Math.floor(Math.random() * 14)
    const { ended, child } = await mortal(diesAt)
    const outcome = await Promise.race([ended, until('all are ready', async () => (await unready()) === 0)])
    if (outcome === true) child.kill('SIGKILL')
    deaths.push(diesAt)
    await ended
    if (outcome === true) break
  }
  const { child, ended, lines } = await mortal(0)
  await until('every job is done', async () => (await installation.owner.query(`select from stratum.jobs where status <> 'succeeded'`)).rowCount === 0)
  child.kill('SIGTERM')
  expect(await ended).toEqual([0, null])

  expect(lines.at(-1)).toMatchObject({ event: 'provisioner.down', clean: true })
  for (const { id, isolation_name, isolation_strategy } of created) {
    const kind = isolation_strategy === 'DB_PER_TENANT' ? 'database' : 'schema'
    expect(await placesOf(installation, id), `steps at which it was killed: ${deaths}`).toEqual([`${kind} ${isolation_name}`])
    if (kind === 'database') expect(await routeIn(installation, isolation_name ?? '', id)).toMatchObject({ status: 'active', open: true })
  }
  const { rows } = await installation.owner.query(
    `select tenant_id, count(*) filter (where type = 'tenant.provisioned')::int as ready from stratum.outbox where tenant_id = any ($1) group by 1`,
    [created.map(({ id }) => id)],
  )
  expect(rows.map(({ ready }) => ready)).toEqual(created.map(() => 1))
  // What comes by the clock has no job, and one that a kill broke off stays for hours.
  const { rows: left } = await installation.owner.query(`select payload from graphile_worker._private_jobs where payload ->> 'job_id' is not null`)
  expect(left).toEqual([])
}, 60_000)
