/** What waits for a lock too long is tried once more, and then refused as busy with nothing changed. */
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Tenant } from '../../src/features/tenants/contract.ts'
import { ask, expectRefusal } from '../support/answers.ts'
import { createInstallation, type Installation } from '../support/installation.ts'

let installation: Installation
let tenant: Tenant
let apiKey: string

/** How long the edge's role waits for a lock: 3 seconds, unless told otherwise. */
const installed = (lockTimeout?: string) => {
  beforeAll(async () => {
    installation = await createInstallation()
    const admin = new pg.Client(installation.urls.admin)
    await admin.connect()
    if (lockTimeout) await admin.query(`alter role stratum_control in database ${admin.database} set lock_timeout = '${lockTimeout}'`)
    await admin.end()
    tenant = await installation.stratum.createTenant({ slug: 'acme', name: 'Acme' })
    apiKey = await installation.apiKey(null)
  })
  afterAll(() => installation.close())
}

/** Run with a lock held by another connection; `release` ends it early. */
async function whileLocked<T>(lock: string, run: (release: () => Promise<unknown>, pid: number) => Promise<T>): Promise<T> {
  const holder = await installation.owner.connect()
  const release = () => holder.query('rollback')
  try {
    await holder.query('begin')
    const { rows } = await holder.query<{ pid: number }>('select pg_backend_pid() as pid')
    await holder.query(lock, lock.includes('$1') ? [tenant.id] : [])
    return await run(release, rows[0]?.pid ?? 0)
  } finally {
    await release()
    holder.release()
  }
}
/** Resolves when somebody waits for what the backend `pid` holds. */
async function someoneWaitsFor(pid: number) {
  for (let waits = false; !waits; ) {
    const { rowCount } = await installation.owner.query('select from pg_locks where not granted and $1 = any (pg_blocking_pids(pid))', [pid])
    waits = rowCount !== 0
  }
}
const rename = (name: string) => ask(installation.fetch, `/api/v1/tenants/${tenant.id}`, { method: 'PATCH', apiKey, json: { name } })
const nameNow = async () => (await installation.stratum.getTenant(tenant.id)).name

const ROW = 'select from stratum.tenants where id = $1 for update'
const STRUCTURE = 'lock table stratum.structure_lock in exclusive mode'
const CHAIN = 'select from stratum.audit_heads where tenant_id = $1 for update'

describe('a lock that does not go', () => {
  installed('250ms')

  it.each([
    ['the row', ROW],
    ['the audit chain', CHAIN],
  ])('of %s ends in DATABASE_BUSY after one retry, with nothing changed', async (_, lock) => {
    const before = await nameNow()
    const requests = installation.databaseRequests()
    const answer = await whileLocked(lock, () => rename('Never'))
    expect(expectRefusal(answer, 'DATABASE_BUSY')).toEqual({})
    expect(answer.headers.get('retry-after')).toBe('1')
    expect(installation.databaseRequests() - requests).toBe(2)
    expect(installation.log.at(-1)).toMatchObject({ code: 'DATABASE_BUSY', cause: 'SQLSTATE 55P03' })
    expect(await nameNow()).toBe(before)
  })
  it('of the tree stops who changes it and nobody who reads', async () => {
    await whileLocked(STRUCTURE, async () => {
      const create = ask(installation.fetch, '/api/v1/tenants', { method: 'POST', apiKey, json: { slug: 'never', name: 'Never' } })
      const read = await ask(installation.fetch, `/api/v1/tenants/${tenant.id}`, { apiKey })
      expect(read.status).toBe(200)
      expectRefusal(await create, 'DATABASE_BUSY')
    })
  })
})

describe('a lock that goes', () => {
  // Time enough to let it go on the slowest of machines.
  installed()

  it('is waited for', async () => {
    const renamed = await whileLocked(ROW, async (release, pid) => {
      const answer = rename('Patient')
      await someoneWaitsFor(pid)
      await release()
      return answer
    })
    expect(renamed.body).toMatchObject({ name: 'Patient' })
  })
  it('after the first try has given up lets the second succeed', async () => {
    const before = installation.databaseRequests()
    const renamed = await whileLocked(ROW, async (release) => {
      const answer = rename('Second')
      // each look at the database is a round trip, so this is no busy loop
      while (installation.databaseRequests() - before < 2) await installation.owner.query('select')
      await release()
      return answer
    })
    expect(renamed.body).toMatchObject({ name: 'Second' })
    expect(await nameNow()).toBe('Second')
  })
})
