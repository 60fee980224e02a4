/** Roles that row security does not hold for. */
import type pg from 'pg'
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

// Who may read a managed table by a grant, and the two roles of the family.
const ROLES = `
  with family as (
    select o.oid as owner, o.rolname, (select r.oid from pg_roles r where r.rolname = regexp_replace(o.rolname, 'owner$', 'app') and r.oid <> o.oid) as data
    from pg_namespace n join pg_roles o on o.oid = n.nspowner where n.nspname = 'stratum_guard'),
  readers as (
    select distinct a.grantee from pg_class c join stratum.managed_tables m on m.table_name = c.relname, aclexplode(c.relacl) a
    where c.relnamespace = to_regnamespace('public') and a.grantee <> 0)
  select r.rolname as name, case r.oid when f.owner then 'owner' when f.data then 'data' else 'other' end as part, r.rolsuper as superuser,
    r.rolbypassrls as bypasses, pg_has_role(r.oid, f.owner, 'MEMBER') as owns, has_schema_privilege(r.oid, 'stratum', 'USAGE') as sees_control
  from family f join pg_roles r on r.oid in (f.owner, f.data) or r.oid in (select grantee from readers) order by r.rolname`

const PUBLIC_GRANTS = `
  select distinct c.relname as name from pg_class c join stratum.managed_tables m on m.table_name = c.relname, aclexplode(c.relacl) a
  where c.relnamespace = to_regnamespace('public') and a.grantee = 0 order by 1`

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
  const lacking = rows.some(({ part }) => part === 'data')
    ? []
    : [warning('role_missing', 'stratum_app', 'There is no role for tenants’ batches.', 'Run npx stratum setup, which makes it.')]
  return [
    ...lacking,
    ...rows.flatMap(checkRole),
    ...open.rows.map(({ name }) => warning('granted_to_public', name, 'Every role of the server has rights on it.', `REVOKE ALL ON ${name} FROM PUBLIC.`)),
  ]
}
