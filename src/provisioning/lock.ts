/** Session-level advisory locks of the control database: held as long as the connection lives, so no crash leaves one behind. */
import type pg from 'pg'

export interface HeldLock {
  /** The connection that holds it; what it holds ends with it. */
  client: pg.PoolClient
  /** True once the connection broke: the lock may be another's by now. */
  lost(): boolean
}

/**
 * Run `work` while holding an advisory lock. Waits for it as long as the pool's lock_timeout says.
 * @param key SQL that answers the lock's number from `$1`
 * @throws the driver's 55P03 (DATABASE_BUSY) when another holds it for longer
 */
async function withLock<T>(pool: pg.Pool, key: string, value: string, work: (held: HeldLock) => Promise<T>): Promise<T> {
  const client = await pool.connect()
  let broken = false
  const onError = () => {
    broken = true
  }
  client.on('error', onError)
  let locked = false
  try {
    await client.query(`select pg_advisory_lock(${key})`, [value])
    locked = true
    return await work({ client, lost: () => broken })
  } finally {
    // A connection on which it cannot be unlocked is closed, which unlocks it.
    if (locked) await client.query(`select pg_advisory_unlock(${key})`, [value]).catch(onError)
    client.off('error', onError)
    client.release(broken)
  }
}

/** Run `work` as the only one on the server to work on a job. */
export const withJobLock = <T>(pool: pg.Pool, jobId: string, work: (held: HeldLock) => Promise<T>): Promise<T> =>
  withLock(pool, 'stratum.job_lock($1)', jobId, work)

/** Run `work` as the only one on the server to make, move or drop a tenant's place. */
export const withTenantLock = <T>(pool: pg.Pool, tenantId: string, work: (held: HeldLock) => Promise<T>): Promise<T> =>
  withLock(pool, `hashtextextended('stratum.provision.' || $1, 0)`, tenantId, work)

/** Run `work` as the only one to write the route in a tenant's own database. Taken after {@link withTenantLock}, and never for long. */
export const withRouteLock = <T>(pool: pg.Pool, tenantId: string, work: (held: HeldLock) => Promise<T>): Promise<T> =>
  withLock(pool, `hashtextextended('stratum.route.' || $1, 0)`, tenantId, work)
