/** What is tried every few seconds would fill the log with one failure while the database is away. */
import { describeError } from './job-error.ts'
import type { Log } from './run-job.ts'

const REPEAT_MS = 60_000

/** Logs `<what>.failed` at the first failure, then at most once a minute, and `<what>.works_again` after the last. */
export class Outage {
  readonly #log: Log
  readonly #what: string
  readonly #now: () => number
  #failures = 0
  #began = 0
  #said = 0

  constructor(log: Log, what: string, now: () => number = () => performance.now()) {
    this.#log = log
    this.#what = what
    this.#now = now
  }

  failed(error: unknown): void {
    const now = this.#now()
    if (this.#failures++ === 0) this.#began = now
    else if (now - this.#said < REPEAT_MS) return
    this.#said = now
    this.#log('warn', `${this.#what}.failed`, { failures: this.#failures, error: describeError(error) })
  }

  ended(): void {
    if (this.#failures === 0) return
    this.#log('info', `${this.#what}.works_again`, { failures: this.#failures, seconds: Math.round((this.#now() - this.#began) / 1000) })
    this.#failures = 0
  }
}
