/** Stops asking a database that does not answer, and tries again now and then. */
import { stratumError } from '../core/error-classes.ts'
import { StratumError } from '../core/errors.ts'

/** Failures in a row after which nothing is asked for a while. */
const TOLERATED = 3
const FIRST_PAUSE_MS = 500
const LONGEST_PAUSE_MS = 15_000
/** So long others wait for how a probe ends: its request may have been cut off, and then it never does. */
const PROBE_MS = 5_000

const isAway = ({ code }: StratumError) => code === 'DATABASE_UNAVAILABLE'

/** Did the database refuse? What comes from before it, a limit or a full house, says nothing of how it is. */
const isOfDatabase = ({ code, cause }: StratumError) => code !== 'RATE_LIMITED' && (code !== 'DATABASE_BUSY' || cause !== undefined)

/**
 * A circuit breaker: open for growing times with jitter, so that isolates do not come back all at once. After each of
 * them one probe is let through, and the others once that was answered. Any answer closes it.
 */
export class Breaker {
  readonly #now: () => number
  readonly #random: () => number
  #failures = 0
  #openedAt = Number.NEGATIVE_INFINITY
  #closedFrom = Number.NEGATIVE_INFINITY
  #probe: { began: number } | undefined

  constructor(now: () => number, random: () => number = Math.random) {
    this.#now = now
    this.#random = random
  }

  /** True while nothing may be asked: after failures, and while a probe is under way. */
  get open(): boolean {
    return this.#isPaused || (this.#probe !== undefined && this.#now() - this.#probe.began < PROBE_MS)
  }

  /** @throws DATABASE_UNAVAILABLE at once while open, with the seconds until it may close in `retry_after` */
  async guard<T>(ask: () => Promise<T>): Promise<T> {
    const began = this.#now()
    if (this.open) throw stratumError('DATABASE_UNAVAILABLE', { retry_after: Math.max(1, Math.ceil((this.#closedFrom - began) / 1000)) })
    const own = { began }
    if (this.#failures >= TOLERATED) this.#probe = own
    try {
      const answer = await ask()
      this.#close()
      return answer
    } catch (error) {
      // One that began before it opened failed for the same reason as those that opened it.
      if (error instanceof StratumError && isAway(error)) began > this.#openedAt && this.failed()
      else if (error instanceof StratumError && isOfDatabase(error)) this.#close()
      throw error
    } finally {
      if (this.#probe === own) this.#probe = undefined
    }
  }

  /** A failure that nobody was told of, such as an answer that does not come in time. It counts unless a pause is on already. */
  failed(): void {
    if (this.#isPaused) return
    this.#failures++
    if (this.#failures < TOLERATED) return
    const pause = Math.min(FIRST_PAUSE_MS * 2 ** (this.#failures - TOLERATED), LONGEST_PAUSE_MS)
    this.#openedAt = this.#now()
    this.#closedFrom = this.#openedAt + pause * (0.5 + this.#random() / 2)
    this.#probe = undefined
  }

  get #isPaused(): boolean {
    return this.#now() < this.#closedFrom
  }

  #close(): void {
    this.#failures = 0
    this.#closedFrom = Number.NEGATIVE_INFINITY
    this.#probe = undefined
  }
}
