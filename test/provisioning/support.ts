/** Provisioners of tests, and what they have made. */
import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import { generateRingKey, parseKeyRing } from '../../src/crypto/key-ring.ts'
import type { IsolationStrategy } from '../../src/isolation/place.ts'
import { type Provisioner, type ProvisionerOptions, startProvisioner } from '../../src/provisioning/runner.ts'
import type { Installation } from '../support/installation.ts'

export interface LoggedLine {
  level: string
  event: string
  [field: string]: unknown
}

export const ring = (variable: string) => parseKeyRing(generateRingKey('test'), { variable, bytes: 32, exact: true })

export const settingsFor = (installation: Installation, lines: LoggedLine[] = []): ProvisionerOptions => ({
  databaseUrl: installation.urls.owner,
  masterKeys: ring('STRATUM_MASTER_KEYS'),
  apiKeySecrets: ring('STRATUM_API_KEY_SECRETS'),
  port: 0,
  host: '127.0.0.1',
  concurrency: 4,
  dnsUrl: 'https://dns.invalid/dns-query',
  log: (level, event, fields = {}) => lines.push({ level, event, ...fields }),
})

export const start = (installation: Installation, options: Partial<ProvisionerOptions> = {}, lines: LoggedLine[] = []): Promise<Provisioner> =>
  startProvisioner({ ...settingsFor(installation, lines), ...options })

/** Asks until it is so, as another process is at work. @throws after 15 seconds */
export async function until<T>(what: string, ask: () => Promise<T | null | undefined | false>): Promise<T> {
  for (const deadline = Date.now() + 15_000; ; ) {
    const answer = await ask()
    if (answer) return answer
    if (Date.now() > deadline) throw new Error(`It did not come to be: ${what}.`)
    await delay(5)
  }
}

export const isolated = (installation: Installation, slug: string, isolation_strategy: IsolationStrategy) =>
  installation.stratum.createTenant({ slug, name: slug, isolation_strategy })

export const untilStatus = (installation: Installation, id: string, status: string) =>
  until(`tenant ${id} is ${status}`, async () => {
    const tenant = await installation.stratum.getTenant(id)
    return tenant.provisioning_status === status && tenant
  })

/** The one job of a task about a tenant, or the newest. */
export async function jobOf(installation: Installation, tenantId: string, task = 'provision_tenant') {
  const { data } = await installation.stratum.listJobs({ tenant_id: tenantId })
  const job = data.find((each) => each.task === task)
  if (job === undefined) throw new Error(`There is no job ${task}.`)
  return job
}

export const untilJob = (installation: Installation, tenantId: string, status: string, task = 'provision_tenant') =>
  until(`${task} of ${tenantId} is ${status}`, async () => {
    const job = await jobOf(installation, tenantId, task)
    return job.status === status && job
  })

const asAdmin = async <T>(installation: Installation, database: string | null, work: (client: pg.Client) => Promise<T>): Promise<T> => {
  const url = new URL(installation.urls.admin)
  if (database !== null) url.pathname = `/${database}`
  const client = new pg.Client(url.href)
  await client.connect()
  try {
    return await work(client)
  } finally {
    await client.end()
  }
}

/** Schemas of this installation and databases of the server that carry a tenant's mark, or were begun for it. */
export const placesOf = (installation: Installation, tenantId: string): Promise<string[]> =>
  asAdmin(installation, null, async (client) => {
    const { rows } = await client.query<{ name: string }>(
      `select 'schema ' || nspname as name from pg_namespace where obj_description(oid, 'pg_namespace') = $1
       union all select 'database ' || datname from pg_database where shobj_description(oid, 'pg_database') = $1
       union all select 'unfinished ' || d.datname from pg_database d join stratum.tenant_databases t on t.working_name = d.datname and t.tenant_id = $2
       order by 1`,
      [`stratum tenant ${tenantId}`, tenantId],
    )
    return rows.map(({ name }) => name)
  })

/** The route of a tenant in a database of its own. */
export const routeIn = (installation: Installation, database: string, tenantId: string) =>
  asAdmin(
    installation,
    database,
    async (client) => (await client.query('select status, open, routing_version::int from stratum_guard.route where tenant_id = $1', [tenantId])).rows[0],
  )

/** Drop the databases that this installation's provisioner made: they belong to the server. */
export async function dropDatabases(installation: Installation): Promise<void> {
  await asAdmin(installation, null, async (client) => {
    const { rows } = await client.query<{ name: string }>(
      'select d.datname as name from pg_database d join stratum.tenant_databases t on d.datname in (t.database_name, t.working_name)',
    )
    for (const { name } of rows) await client.query(`drop database "${name}" with (force)`)
  })
}
