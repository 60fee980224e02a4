import * as z from 'zod'
import { endpoint, page, paging, Uuid } from '../../core/endpoint.ts'
import { IsolationStrategy } from '../tenants/contract.ts'

export const IsolationPhase = z.enum(['preparing', 'copying', 'catching_up', 'verifying', 'fenced', 'done', 'failed', 'cancelled'])

/** A move of a tenant's rows from one place to another, while it works. Times are ISO 8601 in UTC. */
export const IsolationChange = z.object({
  id: z.uuid(),
  tenant_id: z.uuid(),
  /** The job that does it; see `GET /jobs/:id`. */
  job_id: z.uuid(),
  from_strategy: IsolationStrategy,
  /** The schema or database; null is the shared tables. */
  from_name: z.string().nullable(),
  to_strategy: IsolationStrategy,
  to_name: z.string().nullable(),
  phase: IsolationPhase,
  /** Rows of each table: how many are copied, and how many there were when copying began. */
  progress: z.record(z.string(), z.object({ copied: z.number().int(), total: z.number().int() })).nullable(),
  cancel_requested: z.boolean(),
  /** Milliseconds at the cutover in which no batch of the tenant could begin. */
  fenced_ms: z.number().int().nullable(),
  /** Why it failed: a code of the catalogue and its sentence. */
  error: z.object({ code: z.string(), message: z.string() }).nullable(),
  created_at: z.string(),
  finished_at: z.string().nullable(),
  /** Until when the rows stay at the old place, where nobody is sent any more. */
  source_kept_until: z.string().nullable(),
  source_dropped_at: z.string().nullable(),
})
export type IsolationChange = z.infer<typeof IsolationChange>

const tag = 'isolation'
const id = z.strictObject({ id: Uuid })

export const migrateIsolation = endpoint({
  id: 'migrateIsolation',
  method: 'POST',
  path: '/tenants/:id/migrate-isolation',
  tag,
  summary: 'Change how a tenant is isolated while it works; a job does it, and the answer says which',
  scope: 'admin',
  reach: [{ kind: 'parent', field: 'id' }],
  params: id,
  body: z.strictObject({ isolation_strategy: IsolationStrategy }),
  status: 201,
  output: IsolationChange,
  errors: [
    'TENANT_NOT_FOUND',
    'GLOBAL_ADMIN_REQUIRED',
    'TENANT_INVALID_STATE',
    'ISOLATION_CHANGE_RUNNING',
    'ISOLATION_UNCHANGED',
    'PROVISIONING_UNAVAILABLE',
    'DATABASE_LIMIT_REACHED',
  ],
})

export const listIsolationChanges = endpoint({
  id: 'listIsolationChanges',
  method: 'GET',
  path: '/tenants/:id/isolation-changes',
  tag,
  summary: 'List the changes of how a tenant is isolated, newest first',
  scope: 'read',
  reach: [{ kind: 'tenant', field: 'id' }],
  params: id,
  query: z.strictObject(paging),
  output: page(IsolationChange),
  position: z.tuple([z.uuid()]),
  errors: ['TENANT_NOT_FOUND'],
})
