/** `npm run dev`: Postgres, the Neon endpoint, migrations, the provisioner, the demo and the Worker, from one command. */
import { rename, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join, resolve } from 'node:path'
import { SignJWT } from 'jose'
import pg from 'pg'
import { stratumError } from '../core/error-classes.ts'
import { parseKeyRing } from '../crypto/key-ring.ts'
import { migrate, overPostgres } from '../db/migrate.ts'
import { ensureRoles, type RolePart } from '../db/roles.ts'
import { type ProvisionerChoices, parseProvisionerChoices } from '../provisioning/environment.ts'
import { type Provisioner, startProvisioner } from '../provisioning/runner.ts'
import { Stratum } from '../stratum.ts'
import { type DemoTenants, seedDemo } from './demo.ts'
import { startNeonEndpoint } from './neon-endpoint.ts'
import { startPostgres } from './postgres.ts'
import { type DevSecrets, ensureContextKeys, loadSecrets, saveSecrets } from './secrets.ts'
import { startWorker } from './worker.ts'
import { DEV_AUDIENCE, DEV_ISSUER, type DevGateway, gatewayOf, givenVariables, workerVariables } from './worker-variables.ts'

/** What `.stratum/dev.json` holds. */
export interface DevStack {
  /** Where the API is: `http://localhost:<port>`. */
  url: string
  /** A global admin's key. */
  api_key: string
  /** Signs HS256 tokens that the dev Worker trusts; the key is its UTF-8 text. */
  jwt_secret: string
  /** A token for `northstar_msp` with the scopes read and write. */
  jwt: string
  /** The owner's connection string over TCP. */
  database_url: string
  /** The connection string of `stratum_app` over TCP: for tenants' data, over a tenant handle. */
  app_database_url: string
  /** Where Neon's HTTP protocol is spoken for this database. */
  neon_url: string
  /** Where the provisioner answers `GET /health`. */
  provisioner_url: string
  /** Where tenants' hosts are forwarded to, with STRATUM_ORIGIN; else null. */
  gateway: DevGateway | null
  /** Ids by slug. */
  tenants: Partial<DemoTenants>
}

export interface DevOptions {
  /** Port of the Worker. */
  port: number
  /** Directory for data and secrets. */
  data: string
  /** Its STRATUM_* variables are the Worker's and the provisioner's, but for those that the local stack decides. */
  environment: NodeJS.ProcessEnv
  /** Told what goes on, a line at a time. */
  log: (line: string) => void
}

const DATABASE = 'stratum'
const JWT_LIFETIME = '30d'

async function requireFreePort(port: number) {
  const server = createServer()
  await new Promise<void>((free, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) =>
      reject(error.code === 'EADDRINUSE' ? stratumError('CONFIGURATION_INVALID', { reason: `Port ${port} is in use; choose another with --port.` }) : error),
    )
    server.listen(port, 'localhost', free)
  })
  await new Promise((closed) => server.close(closed))
}

/** The local servers refuse to start with a sentence of their own. */
const explain = (error: Error) => Promise.reject(stratumError('CONFIGURATION_INVALID', { reason: error.message }, { cause: error }))

const connectionString = (port: number, part: RolePart, secrets: DevSecrets) =>
  `postgresql://stratum_${part}:${secrets.passwords[part]}@localhost:${port}/${DATABASE}`

async function withClient(url: string, work: (client: pg.Client) => Promise<unknown>) {
  const client = new pg.Client(url)
  await client.connect()
  try {
    return await work(client)
  } finally {
    await client.end()
  }
}

async function prepareDatabase(urlOf: (database: string) => string, secrets: DevSecrets, log: DevOptions['log']) {
  await withClient(urlOf('postgres'), async (client) => {
    const { rowCount } = await client.query('select from pg_database where datname = $1', [DATABASE])
    if (rowCount === 0) await client.query(`create database ${DATABASE}`)
  })
  await withClient(urlOf(DATABASE), async (client) => {
    const connection = overPostgres(client)
    await ensureRoles(connection, secrets.passwords)
    const applied = await migrate(connection, { owner: 'stratum_owner' })
    if (applied.length > 0) log(`migrated: ${applied.length} files`)
  })
}

/** The kept key while it still works; else a new one, kept from now on. */
async function ensureApiKey(stratum: Stratum, directory: string, secrets: DevSecrets): Promise<string> {
  if (secrets.api_key !== null && (await stratum.validateApiKey(secrets.api_key))) return secrets.api_key
  const { key } = await stratum.createApiKey(null, { name: 'development', scopes: ['admin'] })
  await saveSecrets(directory, { ...secrets, api_key: key })
  return key
}

async function fill(databaseUrl: string, directory: string, secrets: DevSecrets) {
  const pool = new pg.Pool({ connectionString: databaseUrl, max: 2 })
  try {
    const stratum = new Stratum({ pool, masterKeys: secrets.master_keys, apiKeySecrets: secrets.api_key_secrets, apiKeyPrefix: 'sk_test_' })
    return { tenants: await seedDemo(stratum), apiKey: await ensureApiKey(stratum, directory, secrets) }
  } finally {
    await pool.end()
  }
}

/** In this process, so that it ends with it. */
function startDevProvisioner(databaseUrl: string, choices: ProvisionerChoices, secrets: DevSecrets, log: DevOptions['log']): Promise<Provisioner> {
  return startProvisioner({
    ...choices,
    databaseUrl,
    masterKeys: parseKeyRing(secrets.master_keys, { variable: 'master_keys', bytes: 32, exact: true }),
    apiKeySecrets: parseKeyRing(secrets.api_key_secrets, { variable: 'api_key_secrets', bytes: 32, exact: false }),
    grace: 2_000,
    log: (level, event, fields) => log(JSON.stringify({ time: new Date().toISOString(), level, event, ...fields })),
  })
}

/** Sign a token as the dev issuer does. */
export const signDevToken = (secret: string, claims: { tenant?: string; scope: string }, subject: string): Promise<string> =>
  new SignJWT(claims)
    .setProtectedHeader({ alg: 'HS256' })
    .setIssuer(DEV_ISSUER)
    .setAudience(DEV_AUDIENCE)
    .setSubject(subject)
    .setIssuedAt()
    .setExpirationTime(JWT_LIFETIME)
    .sign(new TextEncoder().encode(secret))

/**
 * Start everything and write `dev.json` into the data directory, last.
 * @returns the stack, a promise of its early end, and how to stop it
 */
export async function startDev({ port, data, environment, log }: DevOptions): Promise<{ stack: DevStack; failed: Promise<Error>; stop(): Promise<void> }> {
  const directory = resolve(data)
  const stackFile = join(directory, 'dev.json')
  const closers: Array<() => Promise<unknown>> = []
  const stop = async () => {
    for (let close = closers.pop(); close !== undefined; close = closers.pop()) await close()
  }
  const given = givenVariables(environment, log)
  // any port that is free, so that two stacks run side by side
  const choices = parseProvisionerChoices({ STRATUM_PROVISIONER_PORT: 0, ...given })
  const gateway = gatewayOf(given)
  await requireFreePort(port)
  try {
    let secrets = await loadSecrets(directory)
    const postgres = await startPostgres({ directory: join(directory, 'postgres'), password: secrets.admin_password }).catch(explain)
    closers.push(() => postgres.stop())
    // Only now is the directory ours: what a killed run left goes at once, as scripts wait for it to appear.
    await rm(stackFile, { force: true })
    if (gateway && !given['STRATUM_CONTEXT_KEYS']) secrets = await ensureContextKeys(directory, secrets)
    log(`postgres  127.0.0.1:${postgres.port}`)
    const neon = await startNeonEndpoint({ postgresPort: postgres.port })
    closers.push(() => neon.close())
    log(`neon http ${neon.url}`)
    await prepareDatabase((database) => postgres.url(database), secrets, log)
    const databaseUrl = connectionString(postgres.port, 'owner', secrets)
    const provisioner = await startDevProvisioner(databaseUrl, choices, secrets, log)
    closers.push(() => provisioner.stop())
    const { tenants, apiKey } = await fill(databaseUrl, directory, secrets)
    const worker = await startWorker({
      port,
      directory,
      variables: workerVariables(secrets, given, { databaseUrl: connectionString(postgres.port, 'control', secrets), neonUrl: neon.url }),
      apiKey,
      log,
    })
    closers.push(() => worker.stop())
    const jwt = await signDevToken(secrets.jwt_secret, { tenant: 'northstar_msp', scope: 'read write' }, 'dev@northstar')
    const stack: DevStack = {
      url: worker.url,
      api_key: apiKey,
      jwt_secret: secrets.jwt_secret,
      jwt,
      database_url: databaseUrl,
      app_database_url: connectionString(postgres.port, 'app', secrets),
      neon_url: neon.url,
      provisioner_url: provisioner.url,
      gateway,
      tenants,
    }
    closers.push(() => rm(stackFile, { force: true }))
    // Renamed into place: whoever waits for it finds it whole.
    await writeFile(`${stackFile}.new`, `${JSON.stringify(stack, null, 2)}\n`, { mode: 0o600 })
    await rename(`${stackFile}.new`, stackFile)
    return { stack, failed: worker.failed, stop }
  } catch (error) {
    await stop()
    throw error
  }
}
