import { stratumError } from '../core/error-classes.ts'
import type { Database } from './database.ts'
import { REQUEST_TIMEOUT } from './neon.ts'

/** Milliseconds that a call may take: a request that is given up, and the one retry. */
const LONGEST_CALL = 2 * REQUEST_TIMEOUT

/**
 * A port that has so many calls under way at once. No queue: on Workers a promise that another request resolves never
 * comes back to this one, and a queue that grows without end answers nobody in time; the platform itself lets those
 * wait that have no connection yet.
 *
 * A place is given back when its call ends, and counts no longer than a call can take: where the platform drops a request
 * whose client has left, nothing of it runs any more that could give the place back.
 * @throws DATABASE_BUSY from a call for which there is no room
 */
export function boundedDatabase(database: Database, concurrent: number, now: () => number = () => Date.now()): Database {
  // A Set keeps the order of insertion, so the first is the one that began first.
  const running = new Set<{ began: number }>()
  const dropLapsed = (at: number) => {
    for (const call of running) {
      if (at - call.began <= LONGEST_CALL) return
      running.delete(call)
    }
  }
  return {
    async call(...call) {
      const own = { began: now() }
      if (running.size >= concurrent) dropLapsed(own.began)
      if (running.size >= concurrent) throw stratumError('DATABASE_BUSY')
      running.add(own)
      try {
        return await database.call(...call)
      } finally {
        running.delete(own)
      }
    },
  }
}
