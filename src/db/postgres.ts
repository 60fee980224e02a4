import type { Database } from './database.ts'
import { callStatement, leavesConnectionUsable, withOneRetry } from './errors.ts'

/** What is needed of a `pg` client that a pool lends. */
export interface PooledClient {
  query(text: string, values?: unknown[]): Promise<{ rows: Array<Record<string, unknown>> }>
  /** Give it back; with an error it is closed. */
  release(error?: Error | boolean): void
  on(event: 'error', listener: (error: Error) => void): unknown
  off(event: 'error', listener: (error: Error) => void): unknown
}

/** A `pg` Pool, as far as it is used here. */
export interface PoolLike {
  connect(): Promise<PooledClient>
}

/** While a client is lent, the pool does not listen: a connection that breaks then would end the process. Its query fails, too. */
const ignore = () => {}

/**
 * The port over a `pg` pool of the caller's, which stays the caller's to close. `pool.query` would close the
 * connection at every refusal, and a refusal is an answer here: a connection is closed only when it is broken.
 */
export function postgresDatabase(pool: PoolLike): Database {
  const once = async (text: string, values: unknown[]) => {
    const client = await pool.connect()
    client.on('error', ignore)
    let broken = true
    try {
      const { rows } = await client.query(text, values)
      broken = false
      return rows[0]
    } catch (error) {
      broken = !leavesConnectionUsable(error)
      throw error
    } finally {
      client.off('error', ignore)
      client.release(broken)
    }
  }
  return {
    call: async (operation, actor, input, tell) => {
      const started = performance.now()
      const row = await withOneRetry(() => once(callStatement(operation), [JSON.stringify(actor), JSON.stringify(input)]))
      tell?.({ version: (row?.['version'] as string | null | undefined) ?? null, milliseconds: performance.now() - started })
      return row?.['answer']
    },
  }
}
