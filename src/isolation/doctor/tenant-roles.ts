/** Roles of tenants with a schema of their own: that each reaches its schema, whole, and nothing else. */
import type pg from 'pg'
import { markOf } from '../place.ts'
import { error, type Finding, warning } from './finding.ts'
import { checkRole, type Role } from './roles.ts'

interface TenantRole extends Role {
  tenant_id: string
  mark: string | null
  /** The schema that is the tenant's place now. */
  schema: string | null
  /** The data plane's role may become it. */
  granted: boolean
  may_use: boolean
  /** Tables and views of its schema that it may not read. */
  unreadable: string[]
  /** Managed tables of public that it may read or write. */
  shared: string[]
}

const ANY = 'SELECT, INSERT, UPDATE, DELETE'

const TENANT_ROLES = `
  with family as (
    select o.oid as owner, (select r.oid from pg_roles r where r.rolname = regexp_replace(o.rolname, 'owner$', 'app') and r.oid <> o.oid) as data
    from pg_namespace n join pg_roles o on o.oid = n.nspowner where n.nspname = 'stratum_guard')
  select r.rolname as name, 'tenant' as part, r.rolsuper as superuser, r.rolbypassrls as bypasses, pg_has_role(r.oid, f.owner, 'MEMBER') as owns,
    has_schema_privilege(r.oid, 'stratum', 'USAGE') as sees_control, t.id as tenant_id, shobj_description(r.oid, 'pg_authid') as mark, n.nspname as schema,
    coalesce(pg_has_role(f.data, r.oid, 'SET'), false) as granted, coalesce(has_schema_privilege(r.oid, n.oid, 'USAGE'), false) as may_use,
    array(select c.relname::text from pg_class c where c.relnamespace = n.oid and c.relkind in ('r', 'p', 'v', 'm') and not has_table_privilege(r.oid, c.oid, 'SELECT')
      order by 1) as unreadable,
    array(select m.table_name::text from stratum.managed_tables m join pg_class c on c.relnamespace = to_regnamespace('public') and c.relname = m.table_name
      where has_table_privilege(r.oid, c.oid, '${ANY}') order by 1) as shared
  from stratum.tenants t join pg_roles r on r.rolname = stratum_guard.tenant_role(t.id) cross join family f
    left join pg_namespace n on n.nspname = t.isolation_name and t.isolation_strategy = 'SCHEMA_PER_TENANT'
  order by r.rolname`

// Of any database of this server: one that nothing refers to has no rights, and so is no tenant's any more.
const LEFT_OVER = `
  select r.rolname as name from pg_roles r
  where r.rolname ~ '^stratum_tenant_[0-9a-f]{32}$' and shobj_description(r.oid, 'pg_authid') ~ '^stratum tenant [0-9a-f-]{36}$'
    and not exists (select from pg_shdepend d where d.refclassid = 'pg_authid'::regclass and d.refobjid = r.oid) order by 1`

// What every tenant's queries read besides the managed tables, if not those of tenants with a role.
const WITHHELD = `
  select c.relname as name, f.tenants from pg_namespace n join pg_roles o on o.oid = n.nspowner
    cross join lateral (select regexp_replace(o.rolname, 'owner$', 'app') as app, regexp_replace(o.rolname, 'owner$', 'tenants') as tenants) f
    join pg_roles a on a.rolname = f.app join pg_roles g on g.rolname = f.tenants
    join pg_class c on c.relnamespace = to_regnamespace('public') and c.relkind in ('r', 'p', 'v', 'm', 'f')
  where n.nspname = 'stratum_guard' and has_table_privilege(a.oid, c.oid, 'SELECT') and not has_table_privilege(g.oid, c.oid, 'SELECT')
    and not c.relname = any ($1) order by 1`

function checkTenantRole(role: TenantRole): Finding[] {
  const { name, tenant_id: tenant, schema, unreadable, shared } = role
  const found = checkRole(role)
  const say = (check: string, problem: string, advice: string) => found.push(error(check, name, problem, advice))
  if (!role.superuser && shared.length > 0) {
    say(
      'role_reaches_shared',
      `Batches of tenant ${tenant}, which has a schema, reach the shared tables ${shared.join(', ')}.`,
      'Revoke that from the role, and from what it is a member of.',
    )
  }
  if (schema === null) return found
  if (role.mark !== markOf(tenant)) {
    say(
      'role_unmarked',
      `It has the name of the role of tenant ${tenant}, and not its mark.`,
      `If it is that tenant’s: COMMENT ON ROLE ${name} IS '${markOf(tenant)}'. Else rename it: until then the tenant’s batches are refused or served as it.`,
    )
  } else if (!role.granted) {
    say('role_not_granted', `Batches of tenant ${tenant} are refused, as they may not work as their role.`, `GRANT ${name} TO stratum_app WITH INHERIT FALSE.`)
  } else if (!role.may_use || unreadable.length > 0) {
    say(
      'role_lacks_rights',
      `Batches of tenant ${tenant} may not read ${role.may_use ? unreadable.join(', ') : `schema ${schema}`}.`,
      `GRANT to ${name} what stratum_app may do there.`,
    )
  }
  return found
}

/** `copied`: the managed tables and the views over them, of which each tenant has its own. */
export async function checkTenantRoles(client: pg.ClientBase, copied: readonly string[]): Promise<Finding[]> {
  const { rows: roles } = await client.query<TenantRole>(TENANT_ROLES)
  const { rows: leftOver } = await client.query<{ name: string }>(LEFT_OVER)
  const withheld = roles.length === 0 ? [] : (await client.query<{ name: string; tenants: string }>(WITHHELD, [copied])).rows
  return [
    ...roles.flatMap(checkTenantRole),
    ...leftOver.map(({ name }) => warning('role_left_over', name, 'This role of a tenant has no rights anywhere on this server.', `DROP ROLE ${name}.`)),
    ...withheld.map(({ name, tenants }) =>
      warning(
        'table_withheld',
        name,
        'Tenants that have a role of their own may not read it, and the others may.',
        `If all should: GRANT SELECT ON ${name} TO ${tenants}.`,
      ),
    ),
  ]
}
