import * as z from 'zod'
import { endpoint, page, paging, Uuid } from '../../core/endpoint.ts'

export const JobStatus = z.enum(['queued', 'running', 'succeeded', 'failed', 'cancelled'])

/** Something the provisioner has to do, or has done. Times are ISO 8601 in UTC. */
export const Job = z.object({
  id: z.uuid(),
  /** What is done, for example `provision_tenant`. */
  task: z.string(),
  /** The tenant it is about; kept after that is purged. */
  tenant_id: z.uuid().nullable(),
  /** A job that failed and will be tried again is `queued` and has an `error`. */
  status: JobStatus,
  /** How often it was begun since it was enqueued, or retried by hand. */
  attempts: z.number().int(),
  /** Why the last try failed: a code of the catalogue and its sentence. */
  error: z.object({ code: z.string(), message: z.string() }).nullable(),
  /** How far it is, in the words of its task. */
  progress: z.unknown(),
  created_at: z.string(),
  started_at: z.string().nullable(),
  finished_at: z.string().nullable(),
})
export type Job = z.infer<typeof Job>

const tag = 'jobs'
const reach = [{ kind: 'job', field: 'id' }] as const
const id = z.strictObject({ id: Uuid })

export const listJobs = endpoint({
  id: 'listJobs',
  method: 'GET',
  path: '/jobs',
  tag,
  summary: 'List the jobs about tenants within reach, newest first',
  scope: 'admin',
  reach: [{ kind: 'tenant', field: 'tenant_id' }],
  query: z.strictObject({ ...paging, status: JobStatus.optional(), tenant_id: Uuid.optional() }),
  output: page(Job),
  position: z.tuple([z.uuid()]),
  errors: ['TENANT_NOT_FOUND'],
})

export const getJob = endpoint({
  id: 'getJob',
  method: 'GET',
  path: '/jobs/:id',
  tag,
  summary: 'Get a job: how it stands, how far it is, and why it failed',
  scope: 'admin',
  reach,
  params: id,
  output: Job,
  errors: ['JOB_NOT_FOUND', 'GLOBAL_ADMIN_REQUIRED'],
})

export const retryJob = endpoint({
  id: 'retryJob',
  method: 'POST',
  path: '/jobs/:id/retry',
  tag,
  summary: 'Try a failed job again, or one that waits for its next try at once',
  scope: 'admin',
  reach,
  params: id,
  output: Job,
  errors: ['JOB_NOT_FOUND', 'GLOBAL_ADMIN_REQUIRED', 'JOB_INVALID_STATE', 'PROVISIONING_UNAVAILABLE'],
})

export const cancelJob = endpoint({
  id: 'cancelJob',
  method: 'POST',
  path: '/jobs/:id/cancel',
  tag,
  summary: "Call off the making of a tenant's place before it begins, or a change of isolation before its cutover",
  scope: 'admin',
  reach,
  params: id,
  output: Job,
  errors: ['JOB_NOT_FOUND', 'GLOBAL_ADMIN_REQUIRED', 'JOB_INVALID_STATE'],
})
