/** The route in a tenant's own database follows the tenant's status: suspended here, nobody enters there. */
import { withRouteLock } from './lock.ts'
import type { Server } from './places.ts'
import type { Task } from './task.ts'

const INVALID_CATALOG_NAME = '3D000'

/** A database that is not there yet gets its route when it is made; one that is gone needs none. */
async function connectIfThere(server: Server, database: string) {
  try {
    return await server.connect(database)
  } catch (error) {
    if ((error as { code?: string }).code === INVALID_CATALOG_NAME) return null
    throw error
  }
}

/**
 * Bring the status in the route of a tenant's own database to what it is here. Nothing to do for other tenants.
 * The status is read under the lock that every writer of the route holds, so the last to write knows the latest:
 * each change of status has a job of its own that comes here after it.
 */
export async function syncRoute(server: Server, tenantId: string): Promise<void> {
  await withRouteLock(server.pool, tenantId, async ({ client }) => {
    const { rows } = await client.query<{ status: string; database_name: string | null }>(
      'select status, database_name from stratum_guard.route where tenant_id = $1',
      [tenantId],
    )
    const [route] = rows
    if (!route?.database_name) return
    const there = await connectIfThere(server, route.database_name)
    if (there === null) return
    try {
      const { rows: guarded } = await there.query<{ present: boolean }>(`select to_regclass('stratum_guard.route') is not null as present`)
      if (!guarded[0]?.present) return
      await there.query('update stratum_guard.route set status = $2 where tenant_id = $1 and status <> $2', [tenantId, route.status])
    } finally {
      await there.end()
    }
  })
}

/** Task: a tenant with a database of its own was suspended, resumed or archived. */
export const syncRouteTask: Task = async ({ server, job }) => {
  if (job.tenant_id !== null) await syncRoute(server, job.tenant_id)
}
