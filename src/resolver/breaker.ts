/** Stops asking a database that does not answer, and tries again now and then. */
import { stratumError } from '../core/error-classes.ts'
import { StratumError } from '../core/errors.ts'

/** Failures in a row after which nothing is asked for a while. */
const TOLERATED = 3
const FIRST_PAUSE_MS = 500
const LONGEST_PAUSE_MS = 15_000

const isAway = (error: unknown) => error instanceof StratumError && error.code === 'DATABASE_UNAVAILABLE'

/** A circuit breaker: open for growing times with jitter, so that isolates do not come back all at once. */
export class Breaker {
  readonly #now: () => number
  readonly #random: () => number
  #failures = 0
  #closedFrom = Number.NEGATIVE_INFINITY

  constructor(now: () => number, random: () => number = Math.random) {
    this.#now = now
    this.#random = random
  }

  get open(): boolean {
    return this.#now() < this.#closedFrom
  }

  /** @throws DATABASE_UNAVAILABLE at once while open */
  async guard<T>(ask: () => Promise<T>): Promise<T> {
    if (this.open) throw stratumError('DATABASE_UNAVAILABLE')
    try {
      const answer = await ask()
      this.#failures = 0
      return answer
    } catch (error) {
      if (isAway(error)) this.#failed()
      else this.#failures = 0
      throw error
    }
  }

  #failed(): void {
    this.#failures++
    if (this.#failures < TOLERATED) return
    const pause = Math.min(FIRST_PAUSE_MS * 2 ** (this.#failures - TOLERATED), LONGEST_PAUSE_MS)
    this.#closedFrom = this.#now() + pause * (0.5 + this.#random() / 2)
  }
}
