/** The control database as its owner, for commands that change tables. */
import { readFile } from 'node:fs/promises'
import pg from 'pg'
import { stratumError } from '../core/error-classes.ts'
import { StratumError } from '../core/errors.ts'
import { isSqlState } from '../db/errors.ts'
import type { Server } from '../provisioning/places.ts'
import { openServer } from '../provisioning/server.ts'

async function localUrl(): Promise<string | undefined> {
  try {
    const { database_url } = JSON.parse(await readFile('.stratum/dev.json', 'utf8')) as { database_url?: string }
    return database_url
  } catch {
    return undefined
  }
}

const invalid = (reason: string, cause?: unknown) => stratumError('CONFIGURATION_INVALID', { reason }, { cause })

/** The connection string to use. @throws CONFIGURATION_INVALID without one that can be read */
export async function ownerUrl(given: string | undefined): Promise<string> {
  const url = given ?? (await localUrl())
  if (url === undefined) throw invalid('No database is named: give --database-url, set DATABASE_URL, or start the local stack (stratum dev).')
  if (!URL.canParse(url) || !/^postgres(ql)?:$/.test(new URL(url).protocol)) {
    throw invalid('--database-url must be a connection string: postgresql://user:password@host/database.')
  }
  return url
}

/** A failure as a sentence; what is of the catalogue is one already. */
function explain(error: unknown, url: string): StratumError {
  if (error instanceof StratumError) return error
  const { message, code } = error as { message?: string; code?: string }
  const what = isSqlState(code)
    ? `The database refused: ${message?.replace(/\.$/, '')}.`
    : `The database at ${new URL(url).host} cannot be reached: ${message || code}.`
  return invalid(what, error)
}

/**
 * Connect, work, and close.
 * @throws CONFIGURATION_INVALID with a sentence where the server is not reached or refuses
 */
export async function withOwner<T>(given: string | undefined, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const url = await ownerUrl(given)
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 15_000 })
  client.on('error', () => {})
  try {
    await client.connect()
    return await work(client)
  } catch (error) {
    throw explain(error, url)
  } finally {
    await client.end().catch(() => {})
  }
}

/** The same for work that needs several connections, or other databases of the server. It makes no database. */
export async function withServer<T>(given: string | undefined, work: (server: Server) => Promise<T>): Promise<T> {
  const url = await ownerUrl(given)
  const server = openServer(url, { databaseLimit: 0 })
  try {
    return await work(server)
  } catch (error) {
    throw explain(error, url)
  } finally {
    await server.close()
  }
}
