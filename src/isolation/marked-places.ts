/** The places of tenants as the server has them. */
import type pg from 'pg'

/**
 * As SQL: whether a tenant has left its place of this name, which is only kept for the rollback window. Such a place
 * stays as it was left until it is dropped: nobody is sent there, and nothing new is put there.
 */
export const isKept = (tenantId: string, name: string): string => `exists (
  select from stratum.isolation_changes c join stratum.tenants t on t.id = c.tenant_id
  where c.tenant_id = ${tenantId} and c.from_name = ${name} and c.phase = 'done' and c.source_dropped_at is null and t.isolation_name is distinct from c.from_name)`

/** As SQL: databases of tenants, but those that are only kept. */
export const DATABASES_IN_USE = `
  select l.database_name as name, l.tenant_id from stratum.tenant_databases l where not ${isKept('l.tenant_id', 'l.database_name')} order by 1`

/** Tenants' schemas, by their mark: of those that are made and being filled, and with `kept` of those kept after a change. In the order of their names. */
export async function tenantSchemas(client: pg.ClientBase, { kept }: { kept: boolean }): Promise<Array<{ name: string; tenantId: string }>> {
  const { rows } = await client.query<{ name: string; tenantId: string }>(
    `select * from (
       select n.nspname as name, substring(obj_description(n.oid, 'pg_namespace') from '^stratum tenant ([0-9a-f-]{36})$') as "tenantId"
       from pg_namespace n where obj_description(n.oid, 'pg_namespace') ~ '^stratum tenant [0-9a-f-]{36}$') s
     where $1 or not ${isKept('s."tenantId"::uuid', 's.name::text')} order by name`,
    [kept],
  )
  return rows
}
