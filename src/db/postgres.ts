import type { Database } from './database.ts'
import { callStatement, withOneRetry } from './errors.ts'

/** What the port needs of a `pg` pool. */
export interface QueryablePool {
  query(text: string, values: unknown[]): Promise<{ rows: Array<Record<string, unknown>> }>
}

/** The port over a `pg` pool of the caller's, which stays the caller's to close. */
export function postgresDatabase(pool: QueryablePool): Database {
  return {
    call: (operation, actor, input) =>
      withOneRetry(async () => {
        const { rows } = await pool.query(callStatement(operation), [JSON.stringify(actor), JSON.stringify(input)])
        return rows[0]?.['answer']
      }),
  }
}
