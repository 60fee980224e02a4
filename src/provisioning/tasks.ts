/** Which code does which task. What is enqueued is one of these, or it is refused (stratum.is_task). */
import { changeIsolation } from './change-isolation.ts'
import { createManagedCopies } from './create-managed-copies.ts'
import { dropPlaceTask } from './drop-place.ts'
import { provisionTenant } from './provision-tenant.ts'
import { purgeTenantData } from './purge-tenant-data.ts'
import { syncRouteTask } from './sync-route.ts'
import type { Task } from './task.ts'

export const tasks: Record<string, Task> = {
  change_isolation: changeIsolation,
  create_managed_copies: createManagedCopies,
  drop_place: dropPlaceTask,
  provision_tenant: provisionTenant,
  purge_tenant_data: purgeTenantData,
  sync_route: syncRouteTask,
}

/**
 * Tasks that may take hours. They have workers of their own, so that a tenant that is made or suspended meanwhile does
 * not wait for them.
 */
export const LONG_TASKS: readonly string[] = ['change_isolation', 'drop_place', 'purge_tenant_data', 'create_managed_copies']
