/** May the provisioner work with this connection? Asked once, at its start. */
import pg from 'pg'
import { stratumError } from '../core/error-classes.ts'
import { isSqlState } from '../db/errors.ts'

const FACTS = `
select current_user::text as role, r.rolsuper or r.rolbypassrls as bypasses, r.rolcreatedb as creates_databases,
  (select pg_get_userbyid(n.nspowner)::text from pg_namespace n where n.nspname = 'stratum') as owner, pg_is_in_recovery() as replica
from pg_roles r where r.rolname = current_user`

interface Facts {
  role: string
  bypasses: boolean
  creates_databases: boolean
  owner: string | null
  replica: boolean
}

const refuse = (reason: string, cause?: unknown) => stratumError('CONFIGURATION_INVALID', { reason }, { cause })

function explain(error: unknown, databaseUrl: string): Error {
  const { code, message } = error as { code?: string; message?: string }
  // what PgBouncer says to the settings that a session of the provisioner begins with
  if (message?.includes('unsupported startup parameter')) {
    return refuse('DATABASE_URL goes through a connection pooler; the provisioner holds locks and listens, which needs the direct connection.', error)
  }
  if (isSqlState(code)) return refuse(`The database refused: ${message?.replace(/\.$/, '')}.`, error)
  return refuse(`The database at ${new URL(databaseUrl).host} cannot be reached: ${message || code}.`, error)
}

/**
 * @returns whether it can make databases; without that, tenants with a database of their own fail
 * @throws CONFIGURATION_INVALID with a sentence that says what is wrong with the connection
 */
export async function checkConnection(databaseUrl: string): Promise<{ role: string; createsDatabases: boolean }> {
  const client = new pg.Client({ connectionString: databaseUrl, connectionTimeoutMillis: 15_000, statement_timeout: 15_000 })
  client.on('error', () => {})
  let facts: Facts
  try {
    await client.connect()
    facts = (await client.query<Facts>(FACTS)).rows[0] as Facts
  } catch (error) {
    throw explain(error, databaseUrl)
  } finally {
    await client.end().catch(() => {})
  }
  if (facts.owner === null) throw refuse('The database has no schema stratum. Make it: npx stratum setup --database-url …')
  if (facts.replica) throw refuse('The database is a replica and cannot be written to. Use the primary.')
  if (facts.bypasses) throw refuse(`The role ${facts.role} bypasses row security. Connect as ${facts.owner}, which owns schema stratum and must not bypass it.`)
  if (facts.owner !== facts.role) throw refuse(`The role ${facts.role} does not own schema stratum. Connect as ${facts.owner}.`)
  return { role: facts.role, createsDatabases: facts.creates_databases }
}
