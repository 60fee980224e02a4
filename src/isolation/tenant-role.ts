/**
 * The role of a tenant with a schema of its own, where the provisioner makes such: its batches work as that
 * (`stratum_guard.enter`). What the role is called follows from the tenant's id, so nothing has to be written down.
 */
import type pg from 'pg'
import { notOurs } from './copies.ts'
import { identifier, literal } from './identifiers.ts'
import { markOf } from './place.ts'

interface Found {
  name: string
  present: boolean
  mark: string | null
  /** The roles of the family: who becomes it, and what it is a member of. */
  app: string | null
  tenants: string | null
}

const FIND = `
  select f.name, r.oid is not null as present, shobj_description(r.oid, 'pg_authid') as mark,
    (select a.rolname from pg_roles a where a.rolname = regexp_replace(o.rolname, 'owner$', 'app') and a.oid <> o.oid) as app,
    (select t.rolname from pg_roles t where t.rolname = regexp_replace(o.rolname, 'owner$', 'tenants') and t.oid <> o.oid) as tenants
  from (select stratum_guard.tenant_role($1) as name) f left join pg_roles r on r.rolname = f.name
    cross join pg_namespace n join pg_roles o on o.oid = n.nspowner where n.nspname = 'stratum_guard'`

async function find(client: pg.ClientBase, tenantId: string): Promise<Found> {
  const { rows } = await client.query<Found>(FIND, [tenantId])
  return rows[0] as Found
}

/** What the owner has made in a schema: tables and views, and sequences. */
const RELATIONS = `
  select coalesce(array_agg(c.oid::regclass::text) filter (where c.relkind <> 'S'), '{}') as tables,
    coalesce(array_agg(c.oid::regclass::text) filter (where c.relkind = 'S'), '{}') as sequences
  from pg_class c where c.relnamespace = to_regnamespace($1) and c.relkind in ('r', 'p', 'v', 'm', 'S') and pg_has_role(c.relowner, 'USAGE')`

const ROWS = 'select, insert, update, delete'

async function grants(client: pg.ClientBase, { name, app, tenants }: Found, schema: string): Promise<string[]> {
  const [role, there] = [identifier(name), identifier(schema)]
  const { rows } = await client.query<{ tables: string[]; sequences: string[] }>(RELATIONS, [there])
  const { tables = [], sequences = [] } = rows[0] ?? {}
  return [
    `grant usage on schema ${there} to ${role}`,
    ...(tables.length === 0 ? [] : [`grant ${ROWS} on ${tables.join(', ')} to ${role}`]),
    ...(sequences.length === 0 ? [] : [`grant usage on sequence ${sequences.join(', ')} to ${role}`]),
    // copies of tables that become managed later, and what the application's migrations make there
    `alter default privileges in schema ${there} grant ${ROWS} on tables to ${role}`,
    `alter default privileges in schema ${there} grant usage on sequences to ${role}`,
    ...(app === null ? [] : [`grant ${role} to ${identifier(app)} with inherit false, set true`]),
    // last: who makes another tenant's role waits for this
    ...(tenants === null ? [] : [`grant ${identifier(tenants)} to ${role} with inherit true, set false`]),
  ]
}

/**
 * Give a tenant's schema a role, or bring the rights of the one it has up to date. In the transaction of the schema's
 * making, or in one that holds COPIES_LOCK: so the copies are all there or come later, with the default privileges.
 *
 * @param make false leaves a tenant without a role as it is
 * @throws PLACE_NOT_OURS where another's role has the name
 */
export async function giveTenantRole(client: pg.ClientBase, tenantId: string, schema: string, make: boolean): Promise<void> {
  const found = await find(client, tenantId)
  if (!found.present && !make) return
  if (found.present && found.mark !== markOf(tenantId)) throw notOurs('role', found.name)
  const role = identifier(found.name)
  const create = found.present ? [] : [`create role ${role} nologin`, `comment on role ${role} is ${literal(markOf(tenantId))}`]
  await client.query([...create, ...(await grants(client, found, schema))].join(';\n'))
}

/** dependent_objects_still_exist, insufficient_privilege */
const KEPT = new Set(['2BP01', '42501'])

/**
 * Drop a tenant's role behind its schema, in the same transaction. One that something else was granted to, here or in
 * another database, or that may not be dropped, is left: it has no rows, and the doctor tells of it.
 */
export async function dropTenantRole(client: pg.ClientBase, tenantId: string): Promise<void> {
  const { name, mark } = await find(client, tenantId)
  if (mark !== markOf(tenantId)) return
  await client.query('savepoint drop_role')
  try {
    await client.query(`drop role ${identifier(name)}`)
  } catch (error) {
    if (!KEPT.has((error as { code?: string }).code ?? '')) throw error
    await client.query('rollback to savepoint drop_role')
  }
}
