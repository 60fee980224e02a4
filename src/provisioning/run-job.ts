/** One job, from the queue's word that it is due to what became of it. */
import { describeError, jobErrorOf } from './job-error.ts'
import { type HeldLock, withJobLock } from './lock.ts'
import type { Server } from './places.ts'
import type { Task, TaskContext } from './task.ts'

export type Level = 'info' | 'warn' | 'error'
/** Receives what the log says, a line at a time. */
export type Log = (level: Level, event: string, fields?: object) => void

export interface JobOptions {
  server: Server
  tasks: Record<string, Task>
  log: Log
  /** Aborted: the task ends at its next step, and the job is given back. */
  signal: AbortSignal
}

interface Started {
  id: string
  task: string
  tenant_id: string | null
  payload: Record<string, unknown>
  attempt: number
  maximum_attempts: number
}

/** Ends a task at a step because the provisioner is to stop, or no longer has the lock. No failure of the job's. */
class BrokenOff extends Error {}

function contextOf(started: Started, held: HeldLock, { server, log, signal }: JobOptions): TaskContext {
  const { id, tenant_id, payload } = started
  return {
    job: { id, tenant_id, payload },
    server: {
      pool: server.pool,
      databaseLimit: server.databaseLimit,
      tenantRoles: server.tenantRoles === true,
      connect: (database) => server.connect(database),
      async step(name) {
        await server.step(name)
        if (signal.aborted || held.lost()) throw new BrokenOff(`broken off at ${name}`)
      },
    },
    progress: async (value) => void (await server.pool.query('select stratum.set_job_progress($1, $2)', [id, JSON.stringify(value)])),
    async cancelled() {
      const { rows } = await server.pool.query('select 1 from stratum.isolation_changes where job_id = $1 and cancel_requested', [id])
      return rows.length > 0
    },
    log: (line) => log('info', 'job.note', { job_id: id, task: started.task, ...line }),
  }
}

async function work(started: Started, held: HeldLock, options: JobOptions): Promise<void> {
  const { log, server } = options
  const about = { job_id: started.id, task: started.task, tenant_id: started.tenant_id, attempt: started.attempt }
  const began = performance.now()
  const elapsed = () => ({ ...about, ms: Math.round(performance.now() - began) })
  const task = options.tasks[started.task]
  try {
    if (task === undefined) throw new Error(`This version has no task ${started.task}.`)
    await task(contextOf(started, held, options))
    await held.client.query('select stratum.finish_job($1)', [started.id])
    log('info', 'job.done', elapsed())
  } catch (error) {
    // whoever has the lock now goes on with it
    if (held.lost()) throw error
    if (error instanceof BrokenOff) {
      await server.pool.query('select stratum.give_back_job($1)', [started.id])
      log('info', 'job.given_back', elapsed())
      return
    }
    const shown = jobErrorOf(error)
    const final = started.attempt >= started.maximum_attempts
    log(final ? 'error' : 'warn', final ? 'job.failed' : 'job.will_be_tried_again', { ...elapsed(), code: shown.code, error: describeError(error) })
    await server.pool.query('select stratum.fail_job($1, $2, $3)', [started.id, JSON.stringify(shown), final])
    // thrown on, so that the queue tries it again after a longer wait
    if (!final) throw error
  }
}

/**
 * Do a job that the queue says is due, unless there is nothing left to do. Holds the job's lock meanwhile.
 * @throws what the task threw, where it is to be tried again
 */
export const runJob = (jobId: string, options: JobOptions): Promise<void> =>
  withJobLock(options.server.pool, jobId, async (held) => {
    const { rows } = await held.client.query<{ job: Started | null }>('select stratum.start_job($1) as job', [jobId])
    const started = rows[0]?.job
    if (started) await work(started, held, options)
  })
