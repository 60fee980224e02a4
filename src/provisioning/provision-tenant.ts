/** A new tenant's place: its schema or database with a copy of every managed table, and then the tenant is ready. */
import type { IsolationStrategy } from '../isolation/place.ts'
import { withTenantLock } from './lock.ts'
import { makePlace, type Server } from './places.ts'
import { syncRoute } from './sync-route.ts'
import type { Task } from './task.ts'

interface Pending {
  strategy: IsolationStrategy
  name: string | null
  provisioning_status: string
  routing_version: string
}

const PENDING = `
select t.isolation_strategy as strategy, t.isolation_name as name, t.provisioning_status, r.routing_version
from stratum.tenants t join stratum_guard.route r on r.tenant_id = t.id where t.id = $1`

const setStatus = (server: Server, tenantId: string, status: string) => server.pool.query('select stratum.set_provisioning_status($1, $2)', [tenantId, status])

/** Task: make what a tenant was created with. A tenant that is ready, or purged meanwhile, needs nothing. */
export const provisionTenant: Task = async ({ server, job }) => {
  const tenantId = job.tenant_id
  if (tenantId === null) return
  await withTenantLock(server.pool, tenantId, async () => {
    const [tenant] = (await server.pool.query<Pending>(PENDING, [tenantId])).rows
    if (tenant === undefined || tenant.provisioning_status === 'ready') return
    await setStatus(server, tenantId, 'provisioning')
    await server.step('provision_tenant: begun')
    const { strategy, name } = tenant
    await makePlace(server, tenantId, { strategy, name }, { routingVersion: Number(tenant.routing_version), open: true })
    await server.step('provision_tenant: made')
    // it may have been suspended before there was a database to tell
    if (strategy === 'DB_PER_TENANT') await syncRoute(server, tenantId)
    await server.step('provision_tenant: synced')
    await setStatus(server, tenantId, 'ready')
    await server.step('provision_tenant: ready')
  })
}
