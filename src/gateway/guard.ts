/** Keeps one address from making the database answer guess after guess. What is kept is served to it all the same. */
import type { Credential } from '../core/actor.ts'
import type { RateLimiter } from '../http/rate-limit.ts'

export class Guard {
  readonly #limiter: RateLimiter
  readonly #address: string | null
  #asked = false
  #credential: Credential | undefined

  constructor(limiter: RateLimiter, address: string | null) {
    this.#limiter = limiter
    this.#address = address
  }

  /** Before the database is asked about what may be a guess. @throws RATE_LIMITED where too much from this address was refused */
  beforeAsking(credential?: Credential): void {
    this.#limiter.requireWelcome(this.#address, credential)
    this.#asked = true
    this.#credential = credential
  }

  /** An answer with this credential came: it is no guess any more. */
  noteAccepted(credential: Credential): void {
    this.#limiter.noteAccepted(credential)
  }

  /** Counts a guess that the database was asked for. */
  noteRefusal(error: unknown): void {
    if (this.#asked) this.#limiter.noteRefusal(this.#address, error, ['API_KEY_INVALID', 'TENANT_NOT_FOUND', 'TOKEN_INVALID'], this.#credential)
    this.#asked = false
  }
}
