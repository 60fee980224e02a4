/** Changes of isolation in tests: their jobs run here, step by step, while writers write through tenant handles. */
import { setImmediate } from 'node:timers/promises'
import pg from 'pg'
import { createTenantPool, type TenantPool } from '../../src/isolation/handles/tenant-pool.ts'
import type { IsolationStrategy, Place } from '../../src/isolation/place.ts'
import { schemaOf } from '../../src/isolation/place.ts'
import { type ChangeOptions, changeIsolationWith } from '../../src/provisioning/change-isolation.ts'
import { dropPlaceTask } from '../../src/provisioning/drop-place.ts'
import { dropPlace, withPlace } from '../../src/provisioning/places.ts'
import { runJob } from '../../src/provisioning/run-job.ts'
import { createStage, type Made, type Stage } from './stage.ts'

export const STRATEGIES: readonly IsolationStrategy[] = ['SHARED_RLS', 'SCHEMA_PER_TENANT', 'DB_PER_TENANT']

/** Stands for the end of the process between two steps. */
export class Crash extends Error {}

export interface RunOptions extends ChangeOptions {
  /** Called at each step, with how many there were before. */
  atStep?: (name: string, index: number) => void | Promise<void>
}

export interface Change {
  id: string
  job_id: string
  to_strategy: IsolationStrategy
  to_name: string | null
}

export interface Changing extends Stage {
  /** Run a job as the provisioner does, and answer how it ended. */
  run(jobId: string, options?: RunOptions): Promise<{ status: string; error: { code: string } | null }>
  /** Ask for a change, and do it. The tenant's `place` follows. */
  change(tenant: Made, strategy: IsolationStrategy, options?: RunOptions): Promise<Change>
  request(tenant: Made, strategy: IsolationStrategy): Promise<Change>
  /** End the provisioner's connections, as the end of its process would. */
  kill(): Promise<void>
  changeRow(id: string): Promise<Record<string, unknown>>
  /** Where the tenant is by now. */
  placeOf(tenantId: string): Promise<Place>
  /** All rows of a table at a place, as who holds it sees them. */
  rowsAt(tenantId: string, place: Place, table?: string): Promise<Array<Record<string, unknown>>>
  handle(tenantId: string): TenantPool
  /** Drop databases of tenants, those that they have left too. */
  dropDatabases(databases: ReadonlyArray<{ name: string; tenant: string }>): Promise<void>
}

export async function createChanging(tables: string, managed: readonly string[], options: { rewriteKeys?: boolean } = {}): Promise<Changing> {
  const stage = await createStage()
  await stage.owner.query(tables)
  await stage.manage([...managed], options)
  const appPool = new pg.Pool({ connectionString: stage.urls.app, max: 12 })
  const handles: TenantPool[] = []
  const jobOf = async (jobId: string) =>
    (await stage.owner.query<{ status: string; error: { code: string } | null }>('select status, error from stratum.jobs where id = $1', [jobId])).rows[0]
  const run: Changing['run'] = async (jobId, { atStep, ...change } = {}) => {
    let steps = 0
    let crashed = false
    const step = async (name: string) => {
      try {
        await atStep?.(name, steps++)
      } catch (error) {
        crashed ||= error instanceof Crash
        throw error
      }
    }
    const server = { ...stage.server, step }
    const tasks = { change_isolation: changeIsolationWith({ keepFor: '1 hour', ...change }), drop_place: dropPlaceTask }
    let failure: unknown
    await runJob(jobId, { server, tasks, log: () => {}, signal: new AbortController().signal }).catch((error: unknown) => {
      failure = error
    })
    const job = await jobOf(jobId)
    if (job === undefined) throw failure
    if (failure !== undefined && !crashed && job.error?.code === 'INTERNAL_ERROR') throw failure
    return job
  }
  const request: Changing['request'] = async (tenant, strategy) => {
    return (await stage.stratum.migrateIsolation(tenant.id, strategy)) as Change
  }
  const placeOf = async (tenantId: string): Promise<Place> => {
    const { isolation_strategy, isolation_name } = await stage.stratum.getTenant(tenantId)
    return { strategy: isolation_strategy, name: isolation_name }
  }
  const dropDatabases: Changing['dropDatabases'] = async (databases) => {
    for (const { name, tenant } of databases) await dropPlace(stage.server, tenant, { strategy: 'DB_PER_TENANT', name })
  }
  return {
    ...stage,
    run,
    request,
    async kill() {
      await stage.owner.query(
        `select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'stratum provisioner'
         and (datname = current_database() or datname in (select database_name from stratum.tenant_databases))`,
      )
    },
    placeOf,
    async change(tenant, strategy, runOptions) {
      const asked = await request(tenant, strategy)
      const job = await run(asked.job_id, runOptions)
      if (job.status !== 'succeeded') throw new Error(`The change ended as ${JSON.stringify(job)}.`)
      tenant.place = await placeOf(tenant.id)
      return asked
    },
    changeRow: async (id) => (await stage.owner.query('select * from stratum.isolation_changes where id = $1', [id])).rows[0],
    rowsAt: (tenantId, place, table = 'orders') =>
      withPlace(stage.server, tenantId, place, async (client) => (await client.query(`select * from "${schemaOf(place)}"."${table}" order by id`)).rows),
    handle(tenantId) {
      const handle = createTenantPool(appPool, () => tenantId)
      handles.push(handle)
      return handle
    },
    dropDatabases,
    async close() {
      for (const handle of handles) await handle.end()
      await appPool.end()
      const { rows } = await stage.owner.query<{ name: string; tenant: string }>(
        'select database_name as name, tenant_id as tenant from stratum.tenant_databases',
      )
      await dropDatabases(rows)
      await stage.close()
    },
  }
}

export interface Written {
  /** What was acknowledged, by id. */
  rows: Map<string, number>
  writes: number
  /** Errors that writers got, by code. */
  refused: Record<string, number>
  /** Ends the writers, and waits for what they had begun. Take them by `await using`, so that a failed test ends them too. */
  stop(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

/**
 * Writers that insert, update and delete orders without a pause. Each has rows of its own, so what they were told is
 * what must be there.
 */
export function startWriters(handle: TenantPool, count: number): Written {
  let stopped = false
  const stop = async () => {
    stopped = true
    await Promise.all(loops)
  }
  const written: Written = { rows: new Map(), writes: 0, refused: {}, stop, [Symbol.asyncDispose]: stop }
  const write = async (own: string[]) => {
    const roll = Math.random()
    const id = own[Math.floor(Math.random() * own.length)]
    if (id === undefined || roll < 0.4) {
      const { rows } = await handle.query<{ id: string }>('insert into orders (amount) values (1) returning id')
      const made = rows[0]?.id ?? ''
      own.push(made)
      written.rows.set(made, 1)
    } else if (roll < 0.8) {
      await handle.query('update orders set amount = amount + 1 where id = $1', [id])
      written.rows.set(id, (written.rows.get(id) ?? 0) + 1)
    } else {
      await handle.query('delete from orders where id = $1', [id])
      written.rows.delete(id)
      own.splice(own.indexOf(id), 1)
    }
    written.writes++
  }
  const loop = async () => {
    const own: string[] = []
    while (!stopped) {
      await write(own).catch(async (error: { code?: string; message?: string }) => {
        const code = String(error.code ?? error.message)
        written.refused[code] = (written.refused[code] ?? 0) + 1
        // A refusal that needs no answer of the server would come again at once, and let nothing else run, no time limit either.
        await setImmediate()
      })
    }
  }
  const loops = Array.from({ length: count }, loop)
  return written
}
