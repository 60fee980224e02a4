import { NeonDbError, neon } from '@neondatabase/serverless'
import pg from 'pg'
import { ApiKeySecrets } from '../auth/api-keys.ts'
import { stratumError } from '../core/error-classes.ts'
import { StratumError } from '../core/errors.ts'
import { generateRingKey, parseKeyRing } from '../crypto/key-ring.ts'
import { isSqlState } from '../db/errors.ts'
import { type MigrationConnection, migrate, overNeon, overPostgres } from '../db/migrate.ts'
import { sendToEndpoint } from '../db/neon.ts'
import { ensureRoles, generatePassword, ROLE_PARTS, type RolePart } from '../db/roles.ts'
import { isPooled } from '../provisioning/environment.ts'
import { installJobs } from '../provisioning/queue.ts'

export interface SetupOptions {
  databaseUrl: string
  http: boolean
  neonEndpoint?: string
  rolePrefix: string
}

interface Opened {
  connection: MigrationConnection
  close(): Promise<unknown>
}

async function open({ databaseUrl, http, neonEndpoint }: SetupOptions): Promise<Opened> {
  if (http) {
    if (neonEndpoint) sendToEndpoint(databaseUrl, neonEndpoint)
    return { connection: overNeon(neon(databaseUrl)), close: async () => {} }
  }
  const client = new pg.Client({ connectionString: databaseUrl, connectionTimeoutMillis: 15_000 })
  await client.connect()
  return { connection: overPostgres(client), close: () => client.end() }
}

const literal = (text: string) => `'${text.replaceAll("'", "''")}'`

/** A global admin's key for the very first request; null when there is one already. */
async function firstKey(connection: MigrationConnection, ring: string): Promise<string | null> {
  const [present] = await connection.query(
    'select exists (select from stratum.api_keys where tenant_id is null and revoked_at is null and (expires_at is null or expires_at > now())) as present',
  )
  if (present?.['present'] === true) return null
  const { key, key_hash, hint } = await new ApiKeySecrets(parseKeyRing(ring, { variable: 'STRATUM_API_KEY_SECRETS', bytes: 32, exact: false })).mint()
  const actor = { credential: { type: 'embedded', actor_id: 'setup', actor_type: 'system' }, named: [], exposed: false, request_id: null, source_ip: null }
  const input = { name: 'first global key', scopes: ['admin'], key_hash, hint }
  await connection.query(`select stratum.create_api_key(${literal(JSON.stringify(actor))}, ${literal(JSON.stringify(input))})`)
  return key
}

function urlFor(databaseUrl: string, role: string, password: string): string {
  const url = new URL(databaseUrl)
  url.username = role
  url.password = password
  return url.href
}

/** Passwords are shown once, and at once: what fails later must not lose them. */
function reportRoles(options: SetupOptions, made: readonly RolePart[], passwords: Record<RolePart, string>) {
  for (const part of ROLE_PARTS) {
    const role = options.rolePrefix + part
    const state = made.includes(part) ? urlFor(options.databaseUrl, role, passwords[part]) : 'was there; its password is left as it is'
    console.log(`role      ${role}: ${state}`)
  }
}

/**
 * The schema is given to the roles of this prefix: from an application that migrated first, but never from other roles
 * that were set up here, as a Worker and a provisioner connect with those.
 * @throws CONFIGURATION_INVALID
 */
async function refuseOtherRoles(connection: MigrationConnection, prefix: string) {
  const [found] = await connection.query(`
    select o.rolname as owner from pg_namespace n join pg_roles o on o.oid = n.nspowner
      join pg_roles c on c.rolname = regexp_replace(o.rolname, 'owner$', 'control') and c.oid <> o.oid
    where n.nspname = 'stratum' and has_schema_privilege(c.oid, n.oid, 'usage')`)
  const owner = found?.['owner']
  if (typeof owner !== 'string' || owner === `${prefix}owner`) return
  const theirs = owner.slice(0, -'owner'.length)
  throw stratumError('CONFIGURATION_INVALID', {
    reason: `Schema stratum of this database belongs to ${owner}. Repeat this with --role-prefix ${theirs}, or take another database.`,
  })
}

const secretLine = (name: string, value: string) => `printf '%s' '${value}' | npx wrangler secret put ${name}`

/** The provisioner brings its queue along; without one, tenants are isolated by row security only. */
async function installQueue({ databaseUrl, http }: SetupOptions) {
  if (http || isPooled(new URL(databaseUrl))) {
    console.log('queue     comes with the first start of the provisioner, over a direct connection')
    return
  }
  await installJobs(databaseUrl)
  console.log('queue     installed')
}

async function run(options: SetupOptions, connection: MigrationConnection) {
  await refuseOtherRoles(connection, options.rolePrefix)
  const passwords = { owner: generatePassword(), control: generatePassword(), app: generatePassword() }
  const made = await ensureRoles(connection, passwords, options.rolePrefix)
  reportRoles(options, made, passwords)
  const applied = await migrate(connection, { owner: `${options.rolePrefix}owner` })
  console.log(applied.length === 0 ? 'schema    up to date' : `schema    ${applied.length} files applied`)
  await installQueue(options)
  const apiKeySecrets = generateRingKey('1')
  const key = await firstKey(connection, apiKeySecrets)
  if (key === null) {
    console.log('key       a global key is there already; nothing was made anew.')
    console.log('          Lost it? Revoke it in stratum.api_keys as the owner, run this again, and give the Worker the new STRATUM_API_KEY_SECRETS as well.')
    return
  }
  console.log(`key       ${key}\n\nThis is shown once. Keep the key and the owner's connection string; give the Worker its secrets:\n`)
  const control = made.includes('control')
    ? urlFor(options.databaseUrl, `${options.rolePrefix}control`, passwords.control)
    : `<connection string of ${options.rolePrefix}control>`
  console.log(
    [secretLine('DATABASE_URL', control), secretLine('STRATUM_MASTER_KEYS', generateRingKey('1')), secretLine('STRATUM_API_KEY_SECRETS', apiKeySecrets)].join(
      '\n',
    ),
  )
  console.log(
    `\nThe provisioner gives tenants schemas and databases of their own: npx stratum provisioner, with the same\nSTRATUM_MASTER_KEYS and STRATUM_API_KEY_SECRETS, and as DATABASE_URL the connection string of ${options.rolePrefix}owner.`,
  )
}

/** What the server said, or null where none was reached. Neon's driver hands on an answer of status 500 as it came. */
function serverWords(error: unknown): string | null {
  const { message = '', code } = error as { message?: string; code?: string }
  const answer = /^Server error \(HTTP status \d+\): \{.*"message":("(?:[^"\\]|\\.)*")/.exec(message)?.[1]
  if (answer) return String(JSON.parse(answer))
  const reached = isSqlState(code) || (error instanceof NeonDbError && error.sourceError === undefined)
  return reached ? message : null
}

function explain(error: unknown, { databaseUrl }: SetupOptions): string {
  const said = serverWords(error)
  if (said !== null) return `The database refused: ${said.replace(/\.$/, '')}.`
  const { message, code } = error as { message?: string; code?: string }
  return `The database at ${new URL(databaseUrl).host} cannot be reached: ${message || code}.`
}

/**
 * Roles, schema and the first key in a database of the caller's.
 * @throws CONFIGURATION_INVALID with a sentence that says what to do
 */
export async function setup(options: SetupOptions): Promise<void> {
  if (!URL.canParse(options.databaseUrl) || !/^postgres(ql)?:$/.test(new URL(options.databaseUrl).protocol)) {
    throw stratumError('CONFIGURATION_INVALID', { reason: '--database-url must be a connection string: postgresql://user:password@host/database.' })
  }
  let opened: Opened | undefined
  try {
    opened = await open(options)
    await run(options, opened.connection)
  } catch (error) {
    if (error instanceof StratumError) throw error
    throw stratumError('CONFIGURATION_INVALID', { reason: explain(error, options) }, { cause: error })
  } finally {
    await opened?.close()
  }
}
