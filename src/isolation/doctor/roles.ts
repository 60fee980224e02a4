/** Roles that row security does not hold for, and rights that undo it. */
import type pg from 'pg'
import { identifier } from '../identifiers.ts'
import { error, type Finding, warning } from './finding.ts'

export interface Role {
  name: string
  part: 'owner' | 'data' | 'tenant' | 'other'
  superuser: boolean
  bypasses: boolean
  /** May become the owner, and drop a policy. */
  owns: boolean
  sees_control: boolean
}

const FAMILY = `
    select o.oid as owner, o.rolname, (select r.oid from pg_roles r where r.rolname = regexp_replace(o.rolname, 'owner$', 'app') and r.oid <> o.oid) as data
    from pg_namespace n join pg_roles o on o.oid = n.nspowner where n.nspname = 'stratum_guard'`

const READERS = `
    select distinct a.grantee from pg_class c join stratum.managed_tables m on m.table_name = c.relname, aclexplode(c.relacl) a
    where c.relnamespace = to_regnamespace('public') and a.grantee <> 0`

// Who may read a managed table by a grant, and the two roles of the family.
const ROLES = `
  with family as (${FAMILY}),
  readers as (${READERS})
  select r.rolname as name, case r.oid when f.owner then 'owner' when f.data then 'data' else 'other' end as part, r.rolsuper as superuser,
    r.rolbypassrls as bypasses, pg_has_role(r.oid, f.owner, 'MEMBER') as owns, has_schema_privilege(r.oid, 'stratum', 'USAGE') as sees_control
  from family f join pg_roles r on r.oid in (f.owner, f.data) or r.oid in (select grantee from readers) order by r.rolname`

const PUBLIC_GRANTS = `
  select distinct c.relname as name from pg_class c join stratum.managed_tables m on m.table_name = c.relname, aclexplode(c.relacl) a
  where c.relnamespace = to_regnamespace('public') and a.grantee = 0 order by 1`

// Whom tenants' batches come as: the data plane's role, who may become it, whom it may become (tenants with a role), and readers.
// The databases are this one and those that carry the mark of a tenant; null rights are those a database is made with.
const TEMPORARY = `
  with family as (${FAMILY}),
  batches as (
    select r.oid from family f join pg_roles r on pg_has_role(r.oid, f.data, 'MEMBER') or pg_has_role(f.data, r.oid, 'MEMBER') or r.oid in (${READERS})
    where not r.rolsuper and not pg_has_role(r.oid, f.owner, 'MEMBER'))
  select d.datname as name, coalesce(quote_ident(g.rolname), 'PUBLIC') as grantee
  from pg_database d cross join aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a left join pg_roles g on g.oid = a.grantee
  where a.privilege_type = 'TEMPORARY' and (a.grantee = 0 or exists (select from batches b where pg_has_role(b.oid, a.grantee, 'USAGE')))
    and (d.datname = current_database() or exists (select from stratum.tenant_databases l
      where l.database_name = d.datname and shobj_description(d.oid, 'pg_database') = 'stratum tenant ' || l.tenant_id))
  order by 1, 2`

export function checkRole(role: Role): Finding[] {
  const { name, part } = role
  const found: Finding[] = []
  const say = (check: string, problem: string, advice: string) => found.push(error(check, name, problem, advice))
  if (role.superuser) say('role_superuser', 'It is a superuser, whom no policy binds.', `ALTER ROLE ${name} NOSUPERUSER, or give it no rows of tenants.`)
  else if (role.bypasses)
    say('role_bypasses', 'It has BYPASSRLS, so that no policy binds it.', `ALTER ROLE ${name} NOBYPASSRLS, or give it no rows of tenants.`)
  if (part === 'owner' || role.superuser) return found
  if (role.owns) say('role_owns', 'It may become the owner of the tables and drop their policies.', 'Take it out of that role.')
  else if (role.sees_control)
    say('role_sees_control', 'It may use schema stratum, which holds the control plane.', `REVOKE USAGE ON SCHEMA stratum FROM ${name}.`)
  return found
}

export async function checkRoles(client: pg.ClientBase): Promise<Finding[]> {
  const { rows } = await client.query<Role>(ROLES)
  const open = await client.query<{ name: string }>(PUBLIC_GRANTS)
  const temporary = await client.query<{ name: string; grantee: string }>(TEMPORARY)
  const lacking = rows.some(({ part }) => part === 'data')
    ? []
    : [warning('role_missing', 'stratum_app', 'There is no role for tenants’ batches.', 'Run npx stratum setup, which makes it.')]
  return [
    ...lacking,
    ...rows.flatMap(checkRole),
    ...temporary.rows.map(({ name, grantee }) =>
      error(
        'temporary_tables',
        name,
        `${grantee} may make temporary tables in this database, and so may tenants’ batches: one stays on the connection, which another tenant gets.`,
        `REVOKE TEMPORARY ON DATABASE ${identifier(name)} FROM ${grantee}.`,
      ),
    ),
    ...open.rows.map(({ name }) => warning('granted_to_public', name, 'Every role of the server has rights on it.', `REVOKE ALL ON ${name} FROM PUBLIC.`)),
  ]
}
