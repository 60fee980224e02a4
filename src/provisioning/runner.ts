/** The provisioner: takes jobs from the queue and does them, until it is told to stop. */
import { setTimeout as delay } from 'node:timers/promises'
import { Logger, type Runner, run, type TaskList } from 'graphile-worker'
import pg from 'pg'
import { DomainProofs } from '../auth/domain-proofs.ts'
import { recheckDomains } from '../features/domains/recheck.ts'
import { dnsOverHttps } from '../resolver/dns.ts'
import { VERSION } from '../version.ts'
import { changeIsolationWith } from './change-isolation.ts'
import type { ProvisionerSettings } from './environment.ts'
import { checkConnection } from './fitness.ts'
import { keepGuardsRenewed } from './guards.ts'
import { serveHealth } from './health.ts'
import { describeError } from './job-error.ts'
import { Outage } from './outage.ts'
import type { Server } from './places.ts'
import { installJobs, tolerateBreaks } from './queue.ts'
import { type JobOptions, type Log, runJob } from './run-job.ts'
import { openServer } from './server.ts'
import type { Task } from './task.ts'
import { LONG_TASKS, tasks as ownTasks } from './tasks.ts'
import { checkTenantRoles, keepRolesGiven } from './tenant-roles.ts'

export interface ProvisionerOptions extends ProvisionerSettings {
  log: Log
  /** Told between the steps of jobs; it may throw. Default: nothing. */
  step?: Server['step']
  /** Default: all there are. */
  tasks?: Record<string, Task>
  /** Milliseconds that running jobs have to end by themselves when it is stopped. Default 10,000. */
  grace?: number
}

export interface Provisioner {
  /** Where `GET /health` is. */
  readonly url: string
  /** Take no more jobs, let those that run end or give them back, and close all. Answers false when some had to be left as they were. */
  stop(): Promise<boolean>
}

/** A job whose process died is noticed this often. */
const RECOVER_EVERY_MS = 2_000
/** After the jobs were told to end at their next step, so long is waited for that step. */
const LAST_WAIT_MS = 5_000
const RESTART_AFTER_MS = 1_000
/** Each recheck looks only at the domains that are due, so a day's work is spread over the day. */
const CRONTAB = '*/10 * * * * recheck_domains\n5,15,25,35,45,55 * * * * trim_changes'
/** An isolate that did not poll for so long begins anew; what it keeps would be too old by then anyway. */
const FEED_KEPT = '1 hour'

const quiet = (log: Log) =>
  new Logger(() => (level, message) => {
    if (level === 'error' || level === 'warning') log(level === 'error' ? 'error' : 'warn', 'queue.said', { message })
  })

/** Each of our tasks as the queue calls it. What is in a payload comes from SQL alone, and is looked at all the same. */
function asTaskList(names: readonly string[], options: JobOptions): TaskList {
  return Object.fromEntries(
    names.map((name) => [
      name,
      async (payload: unknown) => {
        const { job_id: jobId } = (payload ?? {}) as { job_id?: unknown }
        if (typeof jobId === 'string') await runJob(jobId, options)
      },
    ]),
  )
}

const recheckTask =
  ({ apiKeySecrets, dnsUrl, log }: ProvisionerOptions, server: Server): TaskList[string] =>
  async () => {
    const round = { db: server.pool, dns: dnsOverHttps({ url: dnsUrl }), domainProofs: new DomainProofs(apiKeySecrets) }
    const result = await recheckDomains(round)
    if (result.checked > 0) log('info', 'domains.rechecked', result)
  }

const trimTask =
  (server: Server): TaskList[string] =>
  async () => {
    await server.pool.query('select stratum.trim_changes($1)', [FEED_KEPT])
  }

/** Otherwise the queue tells the database how a job ended without waiting for it, and a database that is away then ends the process. */
const AWAITED = { worker: { completeJobBatchDelay: 0, failJobBatchDelay: 0 } }

interface Lane {
  taskList: TaskList
  concurrency: number
  crontab: string
}

/** Keep a runner going: one that ends by itself, as after an error of the queue's own, is followed by another. */
function keepRunning(databaseUrl: string, { taskList, concurrency, crontab }: Lane, log: Log) {
  const stopping = new AbortController()
  const pool = tolerateBreaks(new pg.Pool({ connectionString: databaseUrl, max: concurrency + 3, statement_timeout: 60_000, connectionTimeoutMillis: 15_000 }))
  let current: Runner | undefined
  const start = () => run({ pgPool: pool, taskList, concurrency, crontab, noHandleSignals: true, logger: quiet(log), preset: AWAITED })
  const watch = async (runner: Runner) => {
    for (let running: Runner | undefined = runner; !stopping.signal.aborted; ) {
      await running?.promise.catch((error: unknown) => log('error', 'queue.ended', { error: describeError(error) }))
      if (stopping.signal.aborted) return
      await delay(RESTART_AFTER_MS, undefined, { signal: stopping.signal }).catch(() => {})
      running = stopping.signal.aborted
        ? undefined
        : await start().catch((error: unknown) => {
            log('error', 'queue.unreachable', { error: describeError(error) })
            return undefined
          })
      current = running
    }
  }
  return {
    async start() {
      current = await start()
      void watch(current)
    },
    /** Resolves when the jobs that run have ended. */
    async stop() {
      stopping.abort()
      await current?.stop().catch(() => {})
    },
    close: () => pool.end(),
  }
}

/** Free the jobs of processes that died, now and from time to time. */
function keepRecovering(server: Server, log: Log) {
  const stopping = new AbortController()
  const outage = new Outage(log, 'recovery')
  const round = async () => {
    try {
      const { rows } = await server.pool.query<{ id: string }>('select id from stratum.recover_jobs() as id')
      for (const { id } of rows) log('warn', 'job.recovered', { job_id: id })
      outage.ended()
    } catch (error) {
      outage.failed(error)
    }
  }
  const ended = (async () => {
    while (!stopping.signal.aborted) {
      await round()
      await delay(RECOVER_EVERY_MS, undefined, { signal: stopping.signal }).catch(() => {})
    }
  })()
  return {
    stop() {
      stopping.abort()
      return ended
    },
  }
}

/** The ceiling is kept in the database, so that whoever creates a tenant is told before it is made. */
async function settleDatabaseLimit(pool: pg.Pool, configured: number | undefined): Promise<number> {
  if (configured !== undefined) await pool.query('update stratum.installation set database_limit = $1 where database_limit <> $1', [configured])
  const { rows } = await pool.query<{ database_limit: number }>('select database_limit from stratum.installation')
  return rows[0]?.database_limit ?? 450
}

/**
 * Start the provisioner. It brings the queue up to date first.
 * @throws CONFIGURATION_INVALID with a sentence where the connection, its role or the port will not do
 */
export async function startProvisioner(options: ProvisionerOptions): Promise<Provisioner> {
  const { databaseUrl, concurrency, log, grace = 10_000 } = options
  const { tasks = { ...ownTasks, change_isolation: changeIsolationWith({ keepFor: options.rollbackWindow }) } } = options
  const { createsDatabases, role } = await checkConnection(databaseUrl)
  if (!createsDatabases)
    log('warn', 'role.lacks_createdb', { role, message: 'Tenants with a database of their own will fail. Grant it: alter role … createdb.' })
  await installJobs(databaseUrl)
  const long = Math.max(1, Math.floor(concurrency / 2))
  // a job holds its own lock, its tenant's and at times its route's, and works over a fourth
  const { tenantRoles = false } = options
  const server = openServer(databaseUrl, { databaseLimit: 0, tenantRoles, connections: 4 * (concurrency + long) + 3 })
  const healthPool = tolerateBreaks(new pg.Pool({ connectionString: databaseUrl, max: 1, statement_timeout: 2_000, connectionTimeoutMillis: 2_000 }))
  const closers: Array<() => Promise<unknown>> = [() => server.close(), () => healthPool.end()]
  const closeAll = () => Promise.all(closers.map((close) => close().catch(() => {})))
  try {
    if (tenantRoles) await checkTenantRoles(server.pool)
    server.databaseLimit = await settleDatabaseLimit(server.pool, options.databaseLimit)
    if (options.step) server.step = options.step
    let isStopping = false
    const health = await serveHealth(healthPool, { port: options.port, host: options.host, isStopping: () => isStopping })
    closers.unshift(() => health.close())
    const breakOff = new AbortController()
    const jobs: JobOptions = { server, tasks, log, signal: breakOff.signal }
    const names = Object.keys(tasks)
    const lanes = [
      {
        taskList: {
          ...asTaskList(
            names.filter((name) => !LONG_TASKS.includes(name)),
            jobs,
          ),
          recheck_domains: recheckTask(options, server),
          trim_changes: trimTask(server),
        },
        concurrency,
        crontab: CRONTAB,
      },
      {
        taskList: asTaskList(
          names.filter((name) => LONG_TASKS.includes(name)),
          jobs,
        ),
        concurrency: long,
        crontab: '',
      },
    ]
      .filter(({ taskList }) => Object.keys(taskList).length > 0)
      .map((lane) => keepRunning(databaseUrl, lane, log))
    closers.push(...lanes.map((lane) => () => lane.close()))
    await Promise.all(lanes.map((lane) => lane.start()))
    const recovery = keepRecovering(server, log)
    const keepers = [keepGuardsRenewed(server, log), ...(tenantRoles ? [keepRolesGiven(server, log)] : [])]
    log('info', 'provisioner.up', { version: VERSION, role, health: health.url, concurrency })
    return {
      url: health.url,
      async stop() {
        isStopping = true
        await recovery.stop()
        const ended = Promise.all([...keepers.map((keeper) => keeper.stop()), ...lanes.map((lane) => lane.stop())]).then(() => true)
        const clean = await endWithin(ended, breakOff, grace)
        if (clean) await closeAll()
        else void closeAll()
        log('info', 'provisioner.down', { clean })
        return clean
      },
    }
  } catch (error) {
    await closeAll()
    throw error
  }
}

/** Jobs may end by themselves for a while; then they end at their next step; then they are left, and the next provisioner recovers them. */
async function endWithin(ended: Promise<boolean>, breakOff: AbortController, grace: number): Promise<boolean> {
  const timers = new AbortController()
  const after = (ms: number) => delay(ms, false, { signal: timers.signal }).catch(() => false)
  try {
    if (await Promise.race([ended, after(grace)])) return true
    breakOff.abort()
    return await Promise.race([ended, after(LAST_WAIT_MS)])
  } finally {
    timers.abort()
  }
}
