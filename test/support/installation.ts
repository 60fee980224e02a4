/**
 * An installation of one test file's own: a database from the migrated template, the app over the real Neon
 * driver, and clients that go through the front door.
 */
import { randomUUID } from 'node:crypto'
import { neonConfig } from '@neondatabase/serverless'
import { SignJWT } from 'jose'
import pg from 'pg'
import { inject } from 'vitest'
import { ApiKeySecrets } from '../../src/auth/api-keys.ts'
import { DomainProofs } from '../../src/auth/domain-proofs.ts'
import { parseIssuers } from '../../src/auth/issuers.ts'
import { TokenVerifier } from '../../src/auth/tokens.ts'
import type { Scope } from '../../src/core/scopes.ts'
import { Secrets } from '../../src/crypto/envelope.ts'
import { generateRingKey, parseKeyRing } from '../../src/crypto/key-ring.ts'
import { neonDatabase } from '../../src/db/neon.ts'
import { ConfigDefinitions } from '../../src/features/config/definitions.ts'
import { askDatabaseForIssuer } from '../../src/features/issuers/stored.ts'
import type { Services } from '../../src/features/operation.ts'
import { createApp } from '../../src/http/app.ts'
import type { LogLine } from '../../src/http/log.ts'
import { type ClientOptions, createClient, type StratumClient } from '../../src/sdk/client.ts'
import { Stratum } from '../../src/stratum.ts'
import { createZone, type Zone } from './dns.ts'
import { PASSWORDS, TEMPLATE } from './names.ts'

export const ISSUER = 'https://issuer.test'
export const AUDIENCE = 'stratum'
export const JWT_SECRET = 'a-secret-of-the-tests-that-is-long-enough-for-HS256'
/** The host that names no tenant; its subdomains are tenants. */
export const BASE = 'http://stratum.test'

const masterKeys = generateRingKey('test')
const apiKeySecrets = generateRingKey('test')

const issuers = parseIssuers(
  JSON.stringify([
    {
      issuer: ISSUER,
      audience: AUDIENCE,
      algorithms: ['HS256'],
      keys: [{ kty: 'oct', k: Buffer.from(JWT_SECRET).toString('base64url') }],
      max_scopes: ['admin'],
    },
  ]),
)

export interface Installation {
  /** The owner's connections, to look at what was written. */
  owner: pg.Pool
  urls: { admin: string; owner: string; control: string; app: string }
  neonEndpoint: string
  services: Services
  /** What DNS holds, for the app and the embedded class alike. */
  zone: Zone
  /** Answer a request as the Worker would. */
  fetch(request: Request): Response | Promise<Response>
  /** The lines logged so far. */
  log: LogLine[]
  /** Requests the driver has made so far. */
  databaseRequests(): number
  /** The embedded class, a global admin. */
  stratum: Stratum
  /** A client with a new API key: global, or bound to a tenant. */
  clientFor(tenantId: string | null, scopes?: Scope[], options?: Partial<ClientOptions>): Promise<StratumClient>
  /** A new API key: global, or bound to a tenant. */
  apiKey(tenantId: string | null, scopes?: Scope[]): Promise<string>
  /** A client without credentials of its own. */
  client(options?: Partial<ClientOptions>): StratumClient
  /** A token of the test issuer. */
  token(claims: Record<string, unknown>, options?: { expires?: string; subject?: string }): Promise<string>
  close(): Promise<void>
}

// Counted at the driver's fetch: one for each HTTP request to the database, in this file only.
let requests = 0
neonConfig.fetchFunction = (...args: Parameters<typeof fetch>) => {
  requests++
  return fetch(...args)
}

export const signToken = (claims: Record<string, unknown>, { expires = '5m', subject = 'user-1' } = {}): Promise<string> =>
  new SignJWT(claims)
    .setProtectedHeader({ alg: 'HS256' })
    .setIssuer(ISSUER)
    .setAudience(AUDIENCE)
    .setSubject(subject)
    .setIssuedAt()
    .setExpirationTime(expires)
    .sign(new TextEncoder().encode(JWT_SECRET))

/** `grants`: what ensureRoles gives to the roles in a database, as a database made from a template starts with none of it. */
async function createDatabase(adminUrl: string, template: string, grants: readonly string[] = []): Promise<{ name: string; drop(): Promise<void> }> {
  const name = `test_${randomUUID().replaceAll('-', '')}`
  const run = async (sql: string) => {
    const admin = new pg.Client(adminUrl)
    await admin.connect()
    await admin.query(sql).finally(() => admin.end())
  }
  await run(`create database ${name} template ${template}`)
  for (const grant of grants) await run(grant.replace('%I', name))
  return { name, drop: () => run(`drop database ${name} with (force)`) }
}

/** An empty database of one's own, for what installs itself. */
export async function createEmptyDatabase(): Promise<{ name: string; adminUrl: string; drop(): Promise<void> }> {
  const { adminUrl, postgresPort } = inject('server')
  const { name, drop } = await createDatabase(adminUrl, 'template1')
  return { name, adminUrl: `postgresql://postgres:admin@localhost:${postgresPort}/${name}`, drop }
}

export async function createInstallation(): Promise<Installation> {
  const { adminUrl, postgresPort, neonEndpoint } = inject('server')
  const database = await createDatabase(adminUrl, TEMPLATE, [
    'revoke temporary on database %I from public',
    'grant connect, create, temporary on database %I to stratum_owner',
  ])
  const urlOf = (user: string, password: string) => `postgresql://${user}:${password}@localhost:${postgresPort}/${database.name}`
  const urls = {
    admin: urlOf('postgres', 'admin'),
    owner: urlOf('stratum_owner', PASSWORDS.owner),
    control: urlOf('stratum_control', PASSWORDS.control),
    app: urlOf('stratum_app', PASSWORDS.app),
  }
  const owner = new pg.Pool({ connectionString: urls.owner, max: 4 })
  // Dropping the database ends connections that are idle or still closing; that is no failure of a test.
  owner.on('error', () => {})
  owner.on('connect', (client) => client.on('error', () => {}))
  const zone = createZone()
  const apiKeyRing = parseKeyRing(apiKeySecrets, { variable: 'apiKeySecrets', bytes: 32, exact: false })
  const db = neonDatabase(urls.control, { endpoint: neonEndpoint })
  const services: Services = {
    db,
    secrets: new Secrets(parseKeyRing(masterKeys, { variable: 'masterKeys', bytes: 32, exact: true })),
    apiKeys: new ApiKeySecrets(apiKeyRing, 'sk_test_'),
    tokens: new TokenVerifier(issuers, { stored: askDatabaseForIssuer(db) }),
    hosts: { baseDomains: ['stratum.test'], apiHosts: [], pathPrefix: '/t' },
    domainProofs: new DomainProofs(apiKeyRing),
    dns: zone.resolver,
    definitions: new ConfigDefinitions(),
  }
  const log: LogLine[] = []
  const app = createApp({ services, log: (line) => log.push(line), version: 'test', corsOrigins: ['https://console.test'] })
  const fetchApp = (request: Request) => app.fetch(request)
  const stratum = new Stratum({ databaseUrl: urls.control, neonEndpoint, masterKeys, apiKeySecrets, apiKeyPrefix: 'sk_test_', dns: zone.resolver })
  const client = (options: Partial<ClientOptions> = {}) => createClient({ baseUrl: BASE, fetch: fetchApp, ...options })
  const apiKey = async (tenantId: string | null, scopes: Scope[] = ['admin']) => (await stratum.createApiKey(tenantId, { scopes })).key
  return {
    owner,
    urls,
    neonEndpoint,
    services,
    zone,
    fetch: fetchApp,
    log,
    databaseRequests: () => requests,
    stratum,
    client,
    apiKey,
    clientFor: async (tenantId, scopes, options) => client({ apiKey: await apiKey(tenantId, scopes), ...options }),
    token: signToken,
    async close() {
      await owner.end()
      await database.drop()
    },
  }
}
