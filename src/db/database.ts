import type { Actor } from '../core/actor.ts'

/**
 * The database port. One call is one statement, one round trip and one transaction; there is no
 * callback form, so an operation of two trips cannot be written.
 */
export interface Database {
  /**
   * Run `stratum.<operation>(actor, input)` and answer its JSON.
   * @throws {StratumError} with a code of the catalogue, whatever went wrong underneath.
   */
  call(operation: string, actor: Actor, input: unknown): Promise<unknown>
}
