import { Pool, type PoolConfig } from 'pg'

/**
 * A pool whose database may be dropped as soon as it was ended: `end()` does not wait for the connections to
 * close, and one that the server ends first is no failure of a test.
 */
export function quiet(pool: Pool): Pool {
  pool.on('error', () => {})
  pool.on('connect', (client) => client.on('error', () => {}))
  return pool
}

export const openPool = (config: PoolConfig): Pool => quiet(new Pool(config))
