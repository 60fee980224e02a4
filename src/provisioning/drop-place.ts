/** The end of the rollback window: the place that a tenant has left is dropped. */
import type { IsolationStrategy } from '../isolation/place.ts'
import { withTenantLock } from './lock.ts'
import { dropPlace } from './places.ts'
import type { Task } from './task.ts'

// Kept still, and the tenant has not come back to it, nor is about to.
const LEFT = `
select c.from_strategy as strategy, c.from_name as name from stratum.isolation_changes c join stratum.tenants t on t.id = c.tenant_id
where c.id = $1 and c.phase = 'done' and c.source_dropped_at is null
  and (t.isolation_strategy, t.isolation_name) is distinct from (c.from_strategy, c.from_name)
  and not exists (select from stratum.isolation_changes n where n.tenant_id = c.tenant_id and n.finished_at is null
    and (n.to_strategy, n.to_name) is not distinct from (c.from_strategy, c.from_name))`

/** Task: drop the place that the change in `payload.change_id` left. */
export const dropPlaceTask: Task = async ({ server, job }) => {
  const { tenant_id } = job
  if (tenant_id === null) return
  await withTenantLock(server.pool, tenant_id, async ({ client }) => {
    const { rows } = await client.query<{ strategy: IsolationStrategy; name: string | null }>(LEFT, [job.payload['change_id']])
    const [left] = rows
    if (left === undefined) return
    await dropPlace(server, tenant_id, left)
    await server.step('drop_place: dropped')
    await client.query('update stratum.isolation_changes set source_dropped_at = clock_timestamp() where id = $1', [job.payload['change_id']])
  })
}
