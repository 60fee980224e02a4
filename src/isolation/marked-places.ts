/** The places of tenants as the server has them. */
import type pg from 'pg'

/** Tenants' schemas, by their mark: of those that are made, being filled, and kept after a change. In the order of their names. */
export async function tenantSchemas(client: pg.ClientBase): Promise<Array<{ name: string; tenantId: string }>> {
  const { rows } = await client.query<{ name: string; tenantId: string }>(`
    select n.nspname as name, substring(obj_description(n.oid, 'pg_namespace') from '^stratum tenant ([0-9a-f-]{36})$') as "tenantId"
    from pg_namespace n where obj_description(n.oid, 'pg_namespace') ~ '^stratum tenant [0-9a-f-]{36}$' order by n.nspname`)
  return rows
}
