import type { Actor } from '../core/actor.ts'

/** What is known of a call's transaction besides its answer. */
export interface CallFacts {
  /** The transaction's id where it changed something, else null. Who has read at this version sees the change. */
  readonly version: string | null
  /** How long it was waited for. */
  readonly milliseconds: number
}

/**
 * The database port. One call is one statement, one round trip and one transaction; there is no
 * callback form, so an operation of two trips cannot be written.
 */
export interface Database {
  /**
   * Run `stratum.<operation>(actor, input)` and answer its JSON.
   * @param tell told of the transaction before the answer is given
   * @throws {StratumError} with a code of the catalogue, whatever went wrong underneath.
   */
  call(operation: string, actor: Actor, input: unknown, tell?: (facts: CallFacts) => void): Promise<unknown>
}
