/** Meetings of transactions, told by the locks they wait for and not by the time that passes. */
import type { Pool, PoolClient } from 'pg'

async function waiting(owner: Pool): Promise<number> {
  const text = `select count(*)::int as waiting from pg_stat_activity where datname = current_database() and cardinality(pg_blocking_pids(pid)) > 0`
  return (await owner.query<{ waiting: number }>(text)).rows[0]?.waiting ?? 0
}

/** Resolves when so many of this database's connections wait for a lock. */
export async function untilWaiting(owner: Pool, count = 1): Promise<void> {
  while ((await waiting(owner)) < count);
}

/** Resolves when none of them does, be it that it got its lock or gave up. */
export async function untilNobodyWaits(owner: Pool): Promise<void> {
  while ((await waiting(owner)) > 0);
}

/** Run `work` in a transaction that stays open while `meanwhile` does its part, and commits when that calls `commit`. */
export async function whileOpen<T>(
  owner: Pool,
  work: (held: PoolClient) => Promise<unknown>,
  meanwhile: (commit: () => Promise<void>) => Promise<T>,
): Promise<T> {
  const held = await owner.connect()
  try {
    await held.query('begin')
    await work(held)
    return await meanwhile(async () => {
      await held.query('commit')
    })
  } finally {
    await held.query('rollback')
    held.release()
  }
}
