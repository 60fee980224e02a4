/** One Postgres and one Neon endpoint for the whole run; each test file gets its own database from the template. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import type { TestProject } from 'vitest/node'
import { migrate, overPostgres } from '../../src/db/migrate.ts'
import { ensureRoles } from '../../src/db/roles.ts'
import { startNeonEndpoint } from '../../src/local/neon-endpoint.ts'
import { startPostgres } from '../../src/local/postgres.ts'
import { installJobs } from '../../src/provisioning/queue.ts'
import { PASSWORDS, TEMPLATE } from './names.ts'

export interface TestServer {
  postgresPort: number
  adminUrl: string
  neonEndpoint: string
}

declare module 'vitest' {
  interface ProvidedContext {
    server: TestServer
  }
}

async function prepareTemplate(adminUrl: string, templateUrl: string) {
  const admin = new pg.Client(adminUrl)
  await admin.connect()
  await admin.query(`create database ${TEMPLATE}`)
  await admin.end()
  const client = new pg.Client(templateUrl)
  await client.connect()
  const connection = overPostgres(client)
  await ensureRoles(connection, PASSWORDS)
  await migrate(connection, { owner: 'stratum_owner' })
  await client.end()
  await installJobs(templateUrl)
}

export default async function setup(project: TestProject) {
  const directory = await mkdtemp(join(tmpdir(), 'stratum-test-'))
  const postgres = await startPostgres({ directory: join(directory, 'postgres'), password: 'admin', durable: false })
  const neon = await startNeonEndpoint({ postgresPort: postgres.port })
  await prepareTemplate(postgres.url('postgres'), postgres.url(TEMPLATE))
  project.provide('server', { postgresPort: postgres.port, adminUrl: postgres.url('postgres'), neonEndpoint: neon.url })
  return async () => {
    await neon.close()
    await postgres.stop()
    await rm(directory, { recursive: true, force: true })
  }
}
