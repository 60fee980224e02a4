/**
 * The roles of an installation. `owner` holds the schema and runs migrations and the provisioner,
 * `control` is the edge's and may only call operations, `app` is the data plane's and sees nothing of ours.
 * A fourth, `tenants`, does not log in: the roles of single tenants, where the provisioner makes such, are its members.
 * Needs no superuser: Neon's default role, which may create roles and databases, can make them all.
 */
import type { MigrationConnection } from './migrate.ts'

/** The parts of an installation that log in; each is a role named prefix + part. */
export const ROLE_PARTS = ['owner', 'control', 'app'] as const
export type RolePart = (typeof ROLE_PARTS)[number]

const identifier = (name: string) => `"${name.replaceAll('"', '""')}"`
const literal = (text: string) => `'${text.replaceAll("'", "''")}'`

/** 256 random bits, in characters that need no escaping in a connection string. */
export const generatePassword = (): string => Array.from(crypto.getRandomValues(new Uint8Array(32)), (byte) => byte.toString(16).padStart(2, '0')).join('')

/** Limits belong to the roles, so that no client can forget them. The provisioner sets its own. */
const LIMITS = ["statement_timeout = '10s'", "lock_timeout = '3s'", "idle_in_transaction_session_timeout = '10s'"]

/**
 * Make a role, with its limits or not at all. Two installers may make the same cluster-wide role at once; the
 * later one finds it there.
 *
 * @returns whether it was made here, so that the password is the one given
 */
async function createRole(connection: MigrationConnection, name: string, password: string, attributes: string): Promise<boolean> {
  try {
    await connection.transaction([
      `create role ${identifier(name)} login password ${literal(password)} ${attributes}`,
      // Without these two options SET ROLE, schema authorization and ownership fail for a role that is no superuser.
      `grant ${identifier(name)} to current_user with inherit true, set true`,
      ...LIMITS.map((limit) => `alter role ${identifier(name)} set ${limit}`),
    ])
    return true
  } catch (error) {
    const { code } = error as { code?: string }
    if (code === '42710' || code === '23505') return false
    throw error
  }
}

/** Nothing is done where the connecting role may not: without it tenants are only not given roles. */
const ensureGroup = (tenants: string, owner: string) => `do $do$ begin
     if to_regrole(${literal(identifier(tenants))}) is null and (select rolcreaterole or rolsuper from pg_roles where rolname = current_user) then
       begin
         create role ${identifier(tenants)} nologin;
       exception when duplicate_object or unique_violation then null;
       end;
     end if;
     if to_regrole(${literal(identifier(tenants))}) is not null and not pg_has_role(${literal(owner)}, ${literal(tenants)}, 'MEMBER WITH ADMIN OPTION')
       and pg_has_role(current_user, ${literal(tenants)}, 'MEMBER WITH ADMIN OPTION') then
       grant ${identifier(tenants)} to ${identifier(owner)} with admin true, inherit false, set false;
     end if;
   end $do$`

/**
 * Make the roles that are missing. Passwords of roles that exist are left alone.
 *
 * @param passwords for each part, the password a missing role gets
 * @returns the parts that were made now
 */
export async function ensureRoles(connection: MigrationConnection, passwords: Record<RolePart, string>, prefix = 'stratum_'): Promise<RolePart[]> {
  const names = ROLE_PARTS.map((part) => literal(prefix + part)).join(', ')
  const present = new Set((await connection.query(`select rolname from pg_roles where rolname in (${names})`)).map((row) => row['rolname']))
  const made: RolePart[] = []
  for (const part of ROLE_PARTS) {
    if (present.has(prefix + part)) continue
    if (await createRole(connection, prefix + part, passwords[part], part === 'owner' ? 'createrole createdb' : '')) made.push(part)
  }
  const [database] = await connection.query('select quote_ident(current_database()) as name')
  await connection.transaction([
    // Two at once would update the same row of the catalog, and one would fail.
    `select pg_advisory_xact_lock(hashtextextended('stratum.migrate', 0))`,
    // Temporary tables stay on a connection, which the next tenant's batch gets.
    `revoke temporary on database ${database?.['name']} from public`,
    `grant connect, create, temporary on database ${database?.['name']} to ${identifier(`${prefix}owner`)}`,
    `grant connect on database ${database?.['name']} to ${identifier(`${prefix}control`)}, ${identifier(`${prefix}app`)}`,
    // A tenant's database is dropped with the connections to it, which takes membership in the role that has them.
    `do $do$ begin
       if not pg_has_role(${literal(`${prefix}owner`)}, ${literal(`${prefix}app`)}, 'USAGE') and (
         (select rolsuper from pg_roles where rolname = current_user) or exists (select from pg_auth_members m
           where m.roleid = to_regrole(${literal(identifier(`${prefix}app`))}) and m.member = to_regrole(quote_ident(current_user)) and m.admin_option)) then
         grant ${identifier(`${prefix}app`)} to ${identifier(`${prefix}owner`)} with inherit true, set false;
       end if;
     end $do$`,
    ensureGroup(`${prefix}tenants`, `${prefix}owner`),
    // The application's tables are in public. Where that is another's, the application grants what it wants to.
    `do $do$ begin
       if has_schema_privilege(to_regnamespace('public'), 'create with grant option') then
         grant usage, create on schema public to ${identifier(`${prefix}owner`)};
         grant usage on schema public to ${identifier(`${prefix}app`)};
       end if;
     end $do$`,
  ])
  return made
}
