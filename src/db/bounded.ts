import { stratumError } from '../core/error-classes.ts'
import type { Database } from './database.ts'

/**
 * A port that has so many calls under way at once. No queue: on Workers a promise that another request resolves never
 * comes back to this one, and a queue that grows without end answers nobody in time; the platform itself lets those
 * wait that have no connection yet.
 * @throws DATABASE_BUSY from a call for which there is no room
 */
export function boundedDatabase(database: Database, concurrent: number): Database {
  let running = 0
  return {
    async call(...call) {
      if (running >= concurrent) throw stratumError('DATABASE_BUSY')
      running++
      try {
        return await database.call(...call)
      } finally {
        running--
      }
    },
  }
}
