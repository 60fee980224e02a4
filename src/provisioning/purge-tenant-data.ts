/** What the data plane holds of a purged tenant: its rows, schema or database, wherever it is or was. */
import type pg from 'pg'
import * as z from 'zod'
import type { Place } from '../isolation/place.ts'
import { withTenantLock } from './lock.ts'
import { dropPlace, type Server } from './places.ts'
import type { Task } from './task.ts'

const PlaceOf = z.object({ strategy: z.enum(['SHARED_RLS', 'SCHEMA_PER_TENANT', 'DB_PER_TENANT']), name: z.string().nullable() })
const Payload = z.object({ tenants: z.array(z.object({ tenant_id: z.uuid(), places: z.array(PlaceOf) })) })

/**
 * Wait until the batches that began before the purge have ended: what they write is to be dropped too. The purge lets
 * none begin after them.
 */
async function outlastBatches(client: pg.PoolClient, tenantId: string) {
  await client.query('select pg_advisory_lock(stratum_guard.lock_key($1))', [tenantId])
  await client.query('select pg_advisory_unlock(stratum_guard.lock_key($1))', [tenantId])
}

async function dropPlaces(server: Server, tenantId: string, places: readonly Place[]) {
  await withTenantLock(server.pool, tenantId, async ({ client }) => {
    await outlastBatches(client, tenantId)
    await server.step('purge_tenant_data: alone')
    // What is not to be had must not keep the rest from going.
    let refused: unknown
    for (const place of places) {
      await dropPlace(server, tenantId, place).catch((error: { code?: string }) => {
        if (error.code !== 'PLACE_NOT_OURS') throw error
        refused = error
      })
      await server.step('purge_tenant_data: dropped')
    }
    if (refused !== undefined) throw refused
    await client.query('delete from stratum.fleet_places where tenant_id = $1', [tenantId])
    await client.query('delete from stratum_guard.captured where tenant_id = $1', [tenantId])
    // last, as it keeps batches out
    await client.query('delete from stratum_guard.route where tenant_id = $1', [tenantId])
  })
}

/** Task: drop every place of tenants that are no more, and then what kept their batches out. */
export const purgeTenantData: Task = async ({ server, job, progress }) => {
  const { tenants } = Payload.parse(job.payload)
  for (const [done, { tenant_id, places }] of tenants.entries()) {
    await progress({ tenants: tenants.length, dropped: done })
    await dropPlaces(server, tenant_id, places)
  }
  await progress({ tenants: tenants.length, dropped: tenants.length })
}
