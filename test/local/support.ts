import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { neonConfig } from '@neondatabase/serverless'
import pg from 'pg'
import { vi } from 'vitest'
import { type NeonEndpoint, startNeonEndpoint } from '../../src/local/neon-endpoint.ts'
import { type LocalPostgres, startPostgres } from '../../src/local/postgres.ts'

// Servers start and stop here, which takes its time on a busy machine.
vi.setConfig({ testTimeout: 30_000, hookTimeout: 60_000 })

/** Awkward in URLs, on purpose. */
export const PASSWORD = 'p@ss/w:ör d?'

/** A PostgreSQL server in a temporary directory with an endpoint the driver is pointed to. */
export interface Stack {
  readonly directory: string
  readonly postgres: LocalPostgres
  readonly endpoint: NeonEndpoint
  /** Runs a statement over TCP, as the administrator, on a connection of its own. */
  admin(sql: string, params?: unknown[], database?: string): Promise<pg.QueryResult>
  close(): Promise<void>
}

export async function makeDirectory(): Promise<string> {
  return mkdtemp(join(tmpdir(), 'stratum-local-'))
}

export async function startStack(): Promise<Stack> {
  const directory = await makeDirectory()
  const postgres = await startPostgres({ directory: join(directory, 'data'), password: PASSWORD, durable: false })
  const endpoint = await startNeonEndpoint({ postgresPort: postgres.port })
  neonConfig.fetchEndpoint = endpoint.url
  return {
    directory,
    postgres,
    endpoint,
    admin: (sql, params, database) => withClient(postgres.url(database), (client) => client.query(sql, params)),
    async close() {
      await endpoint.close()
      await postgres.stop()
      await rm(directory, { recursive: true })
    },
  }
}

export async function withClient<T>(url: string, use: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    return await use(client)
  } finally {
    await client.end()
  }
}

/** What a promise rejected with; fails when it did not. */
export async function failureOf(promise: Promise<unknown>): Promise<Error & Record<string, unknown>> {
  const outcome = await promise.then(
    (value) => ({ value }),
    (error: unknown) => ({ error }),
  )
  if ('error' in outcome) return outcome.error as Error & Record<string, unknown>
  throw new Error(`expected a failure, got ${JSON.stringify(outcome.value)}`)
}
