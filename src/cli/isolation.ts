/** `stratum isolation …`: changing how a tenant is isolated, and following it. */
import { setTimeout as pause } from 'node:timers/promises'
import { stratumError, TenantNotFoundError } from '../core/error-classes.ts'
import type { AuditActor } from '../embedding.ts'
import type { IsolationChange } from '../features/isolation/contract.ts'
import type { Job } from '../features/jobs/contract.ts'
import type { Tenant } from '../features/tenants/contract.ts'
import { Stratum } from '../stratum.ts'
import { withServer } from './owner-database.ts'
import { openProgress, type Progress } from './progress.ts'

export interface IsolationOptions {
  databaseUrl?: string
  json?: boolean
  /** False: answer once the job is enqueued. */
  wait?: boolean
}

const ACTOR: AuditActor = { actor_id: 'stratum', actor_type: 'command_line' }
const POLL = 250
/** Milliseconds after which a job that nobody takes up is worth a word. */
const PATIENCE = 5_000

const withStratum = <T>(databaseUrl: string | undefined, work: (stratum: Stratum) => Promise<T>): Promise<T> =>
  withServer(databaseUrl, ({ pool }) => work(new Stratum({ pool })))

/** @throws TENANT_NOT_FOUND in a sentence that names it: whoever owns the database may know what there is */
const tenantOf = (stratum: Stratum, slug: string): Promise<Tenant> =>
  stratum.getTenantBySlug(slug).catch((error: unknown) => {
    if (!(error instanceof TenantNotFoundError)) throw error
    throw new TenantNotFoundError({ slug }, { message: `There is no tenant with the slug ${slug}. GET /api/v1/tenants lists those there are.` })
  })

const placeOf = (strategy: string, name: string | null) => (name === null ? strategy : `${strategy} (${name})`)
const directionOf = (change: IsolationChange) => `${placeOf(change.from_strategy, change.from_name)} → ${placeOf(change.to_strategy, change.to_name)}`

/** Rows copied and to be copied, as far as they are counted. */
function rowsOf({ progress }: IsolationChange): { copied: number; total: number } {
  const tables = Object.values(progress ?? {})
  const copied = tables.reduce((sum, table) => sum + table.copied, 0)
  return {
    copied,
    total: Math.max(
      copied,
      tables.reduce((sum, table) => sum + table.total, 0),
    ),
  }
}

/** The newest change of a tenant, or that of a job. */
async function changeOf(stratum: Stratum, tenantId: string, jobId?: string): Promise<IsolationChange | undefined> {
  const { data } = await stratum.listIsolationChanges(tenantId)
  return jobId === undefined ? data[0] : data.find((change) => change.job_id === jobId)
}

const untaken = (job: Job) => job.status === 'queued' && job.attempts === 0
const UNTAKEN = 'No provisioner has taken this up yet. Start one: stratum provisioner'

/** The last failure of a job that is tried again. While it runs, or is to call itself off, which try that was is not known. */
function failureOf({ status, attempts, error }: Job): string | null {
  if (error === null || status === 'failed') return null
  const what = `failed: ${error.code}, ${error.message}`
  return status === 'queued' && attempts > 0 ? `try ${attempts} ${what} It is tried again.` : `an earlier try ${what}`
}

/** Show a job until it has ended. */
async function follow(stratum: Stratum, tenant: Tenant, jobId: string, progress: Progress): Promise<{ job: Job; change: IsolationChange | undefined }> {
  const begun = Date.now()
  let told = false
  let failures = 0 // tries that were told of
  for (let shown = ''; ; await pause(POLL)) {
    const [job, change] = [await stratum.getJob(jobId), await changeOf(stratum, tenant.id, jobId)]
    if (job.status !== 'queued' && job.status !== 'running') return { job, change }
    if (untaken(job) && !told && Date.now() - begun > PATIENCE) {
      told = true
      progress.note(UNTAKEN, { event: 'waiting', job_id: jobId })
    }
    const failure = failureOf(job)
    if (failure !== null && job.status === 'queued' && job.attempts !== failures) {
      failures = job.attempts
      progress.note(failure, { event: 'try_failed', job_id: jobId, attempts: job.attempts, error: job.error })
    }
    if (!change) continue
    const { copied, total } = rowsOf(change)
    const state = `${change.phase} ${copied} ${total}`
    if (state !== shown && job.status === 'running') progress.update(copied, total, change.phase.replace('_', ' '), { phase: change.phase, job_id: jobId })
    shown = state
  }
}

/**
 * `stratum isolation migrate`: enqueue the change and follow it. Exit code 1 where it fails or is cancelled.
 * @throws TENANT_NOT_FOUND, ISOLATION_UNCHANGED, ISOLATION_CHANGE_RUNNING, and the others of the operation
 */
export async function migrateIsolationCommand(slug: string, strategy: IsolationChange['to_strategy'], options: IsolationOptions): Promise<void> {
  await withStratum(options.databaseUrl, async (stratum) => {
    const tenant = await tenantOf(stratum, slug)
    const begun = await stratum.migrateIsolation(tenant.id, strategy, ACTOR)
    const progress = openProgress(options.json === undefined ? {} : { json: options.json })
    progress.note(`${slug}: ${directionOf(begun)}, by job ${begun.job_id}`, { event: 'begun', ...begun })
    if (options.wait === false) return
    const { job, change } = await follow(stratum, tenant, begun.job_id, progress).finally(() => progress.end())
    if (options.json) console.log(JSON.stringify({ event: 'ended', job, change: change ?? null }))
    else if (job.status === 'succeeded')
      console.log(
        `${slug} is ${strategy} now. Its writes waited ${change?.fenced_ms ?? 0} ms; the old place is kept until ${change?.source_kept_until ?? 'now'}.`,
      )
    else if (job.status === 'cancelled') console.log(`The change was called off: ${slug} stays as it was.`)
    if (job.status === 'failed') {
      const { code, message } = change?.error ?? job.error ?? { code: 'INTERNAL_ERROR', message: 'See the log of the provisioner.' }
      throw stratumError('CONFIGURATION_INVALID', { reason: `The change failed with ${code}: ${message} Put that right, and retry job ${job.id}.` })
    }
    if (job.status !== 'succeeded') process.exitCode = 1
  })
}

/** A line for each thing that is worth knowing of a change under way. */
function describeRunning(slug: string, { cancel_requested }: IsolationChange, job: Job): string[] {
  const gaveUp = job.status === 'failed' && job.error ? `it failed: ${job.error.code}, ${job.error.message} Put that right, and retry job ${job.id}.` : null
  const called = cancel_requested ? 'it was asked to be called off, and the provisioner will' : `call it off with: stratum isolation cancel ${slug}`
  return [untaken(job) ? UNTAKEN : null, failureOf(job), gaveUp, called].filter((line) => line !== null)
}

/** `stratum isolation status`: where a tenant's rows are, and the change that is under way or was the last. */
export async function isolationStatusCommand(slug: string, { databaseUrl, json }: IsolationOptions): Promise<void> {
  await withStratum(databaseUrl, async (stratum) => {
    const tenant = await tenantOf(stratum, slug)
    const change = (await changeOf(stratum, tenant.id)) ?? null
    const job = change?.finished_at === null ? await stratum.getJob(change.job_id) : null
    const { id, isolation_strategy, isolation_name, provisioning_status } = tenant
    if (json) {
      console.log(JSON.stringify({ tenant_id: id, slug, isolation_strategy, isolation_name, provisioning_status, change, job }, null, 2))
      return
    }
    console.log(`${slug}: ${placeOf(isolation_strategy, isolation_name)}, ${provisioning_status}`)
    if (!change) return
    const { copied, total } = rowsOf(change)
    const rows = total > 0 ? `, ${copied} of ${total} rows` : ''
    console.log(
      `${change.finished_at === null ? 'changing' : 'last change'}: ${directionOf(change)}: ${change.phase}${rows}${change.error ? `: ${change.error.message}` : ''}`,
    )
    if (job !== null) console.log(describeRunning(slug, change, job).join('\n'))
    else if (change.source_kept_until !== null && change.source_dropped_at === null) console.log(`the old place is kept until ${change.source_kept_until}`)
  })
}

/** `stratum isolation cancel`. @throws JOB_INVALID_STATE from the cutover on; CONFIGURATION_INVALID where no change runs */
export async function cancelIsolationCommand(slug: string, { databaseUrl, json }: IsolationOptions): Promise<void> {
  await withStratum(databaseUrl, async (stratum) => {
    const tenant = await tenantOf(stratum, slug)
    const change = await changeOf(stratum, tenant.id)
    if (!change || change.finished_at !== null) throw stratumError('CONFIGURATION_INVALID', { reason: `The isolation of ${slug} is not being changed.` })
    const job = await stratum.cancelJob(change.job_id, ACTOR)
    console.log(json ? JSON.stringify(job, null, 2) : `Asked job ${job.id} to call the change off; ${slug} stays as it was.`)
  })
}
