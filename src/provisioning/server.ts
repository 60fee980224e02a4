/** The provisioner's connections to the server that holds the control database and the tenants' databases. */
import pg from 'pg'
import type { Server } from './places.ts'
import { tolerateBreaks } from './queue.ts'

/** The limits that stratum_owner has for the edge do not suit long work; a lock is still waited for in vain only so long. */
const SETTINGS = { statement_timeout: 0, idle_in_transaction_session_timeout: 0, lock_timeout: 10_000, connectionTimeoutMillis: 15_000 } as const

/** The same server and credentials, another database. */
export function urlOfDatabase(connectionString: string, database: string): string {
  const url = new URL(connectionString)
  url.pathname = `/${encodeURIComponent(database)}`
  return url.href
}

export interface OpenServerOptions {
  databaseLimit: number
  tenantRoles?: boolean
  /** Connections to the control database at most. Default 20. */
  connections?: number
}

/** Connect as the owner; nothing is sent before the first query. @param connectionString direct, not through a pooler */
export function openServer(
  connectionString: string,
  { databaseLimit, tenantRoles = false, connections = 20 }: OpenServerOptions,
): Server & { close(): Promise<void> } {
  const pool = tolerateBreaks(new pg.Pool({ ...SETTINGS, connectionString, max: connections, application_name: 'stratum provisioner' }))
  return {
    pool,
    databaseLimit,
    tenantRoles,
    async connect(database) {
      const client = new pg.Client({ ...SETTINGS, connectionString: urlOfDatabase(connectionString, database), application_name: 'stratum provisioner' })
      // One that breaks while it is idle fails at its next query.
      client.on('error', () => {})
      await client.connect()
      return client
    },
    step: async () => {},
    close: () => pool.end(),
  }
}
