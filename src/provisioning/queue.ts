/** The queue of the provisioner's jobs: graphile-worker's schema, owned by who owns schema `stratum`. */
import { Logger, runMigrations } from 'graphile-worker'
import pg from 'pg'

const OWNER = `select quote_ident(pg_get_userbyid(nspowner)) as owner from pg_namespace where nspname = 'stratum' and pg_get_userbyid(nspowner) <> current_user`

/** A connection that breaks while nobody uses it is replaced; without a listener its error would end the process. */
export function tolerateBreaks(pool: pg.Pool): pg.Pool {
  pool.on('error', () => {})
  pool.on('connect', (client) => client.on('error', () => {}))
  return pool
}

/** Failures are thrown; what else it says of its migrations is of no interest. */
const silent = new Logger(() => () => {})

async function ownerToBecome(connectionString: string): Promise<string | undefined> {
  const client = new pg.Client({ connectionString, connectionTimeoutMillis: 15_000 })
  await client.connect()
  try {
    return (await client.query<{ owner: string }>(OWNER)).rows[0]?.owner
  } finally {
    await client.end()
  }
}

/**
 * Install the queue in a migrated database, or bring it up to date. Safe to repeat and to run from several places at
 * once. Operations that need it find it there from then on.
 *
 * @param connectionString of the schema's owner, or of a role that may SET ROLE to it; not through a pooler
 */
export async function installJobs(connectionString: string): Promise<void> {
  const owner = await ownerToBecome(connectionString)
  const become = async (client: pg.ClientBase) => {
    if (owner !== undefined) await client.query(`set role ${owner}`)
  }
  const pool = new pg.Pool({ connectionString, max: 2, connectionTimeoutMillis: 15_000, onConnect: become })
  tolerateBreaks(pool)
  try {
    await runMigrations({ pgPool: pool, logger: silent })
  } finally {
    await pool.end()
  }
}
