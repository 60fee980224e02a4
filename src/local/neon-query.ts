/** Runs one statement the way Neon's proxy does: extended protocol, all values as text. */

import type { ClientBase } from 'pg'
import { type Connection, DatabaseError, type FieldDef, type Submittable, type TransactionStatus } from 'pg'
import { RequestError, type Statement } from './neon-protocol.ts'
import { fieldsJson, rowJson } from './neon-rows.ts'

/** How the rows of a statement are written. */
export interface OutputMode {
  readonly rawText: boolean
  readonly arrayMode: boolean
}

/** Counts the bytes of the answer being built; a batch shares one. */
export interface OutputBudget {
  used: number
  readonly max: number
}

// The protocol counts parameters in 16 bits.
const MAX_PARAMETERS = 65535

/**
 * Runs a statement and resolves with its result as JSON text, when the server is ready for the next.
 *
 * @throws RequestError 400 with PostgreSQL's error as its cause; 400 when the connection was lost;
 * 507 when the result exceeds the budget, with rows still under way: the connection is unusable then.
 */
export function runStatement(client: ClientBase, statement: Statement, mode: OutputMode, budget: OutputBudget): Promise<string> {
  if (statement.query.includes('\0')) {
    throw new RequestError(400, 'error encoding message to server: string contains embedded null')
  }
  if (statement.params.length > MAX_PARAMETERS) {
    throw new RequestError(400, 'error encoding message to server: value too large to transmit')
  }
  return new Promise((resolve, reject) => {
    client.query(new TextQuery(statement, mode, budget, resolve, (error) => reject(asRequestError(error))))
  })
}

/** The HTTP answer to whatever went wrong while a statement ran. */
export function asRequestError(error: Error): RequestError {
  if (error instanceof RequestError) return error
  if (error instanceof DatabaseError) return new RequestError(400, error.message, error)
  return new RequestError(400, 'connection closed', error)
}

/** The messages a driver's connection can send, typed as they are used here. */
interface Wire {
  readonly stream: { cork(): void; uncork(): void }
  parse(message: { text: string; name: string; types: string[] }): void
  describe(message: { type: 'S' }): void
  bind(message: { values: readonly (string | null)[] }): void
  execute(message: object): void
  sync(): void
  sendCopyFail(reason: string): void
}

/**
 * A query object for `Client.query`: the client calls a handler for each message of the server.
 * The driver's own query class is not used: it keeps rows of any number, parses the command tag
 * beyond recovery, and takes the simple protocol when there are no parameters, which would let
 * several statements through in one.
 */
class TextQuery implements Submittable {
  readonly #statement: Statement
  readonly #mode: OutputMode
  readonly #budget: OutputBudget
  readonly #resolve: (json: string) => void
  readonly #reject: (error: Error) => void
  #fields: readonly FieldDef[] = []
  #rows: string[] = []
  #tag = ''
  #failure: RequestError | undefined

  constructor(statement: Statement, mode: OutputMode, budget: OutputBudget, resolve: (json: string) => void, reject: (error: Error) => void) {
    this.#statement = statement
    this.#mode = mode
    this.#budget = budget
    this.#resolve = resolve
    this.#reject = reject
  }

  submit(connection: Connection): void {
    const wire = connection as unknown as Wire
    // One packet for the five messages.
    wire.stream.cork()
    wire.parse({ text: this.#statement.query, name: '', types: [] })
    wire.describe({ type: 'S' })
    wire.bind({ values: this.#statement.params })
    wire.execute({})
    wire.sync()
    wire.stream.uncork()
  }

  handleRowDescription(message: { fields: FieldDef[] }): void {
    this.#fields = message.fields
  }

  handleDataRow(message: { fields: (string | null)[] }): void {
    if (this.#failure) return
    const row = rowJson(this.#fields, message.fields, this.#mode)
    this.#budget.used += Buffer.byteLength(row) + 1
    this.#rows.push(row)
    if (this.#budget.used <= this.#budget.max) return
    this.#failure = new RequestError(507, `response is too large (max is ${this.#budget.max} bytes)`)
    this.#rows = []
    // At once: the rest of the rows may be endless.
    this.#reject(this.#failure)
  }

  handleCommandComplete(message: { text: string }): void {
    this.#tag = message.text
  }

  handleEmptyQuery(): void {
    // An empty statement has neither rows nor a command.
  }

  handleCopyInResponse(connection: Connection): void {
    this.#failure = new RequestError(400, 'unexpected message from server')
    ;(connection as unknown as Wire).sendCopyFail('COPY is not possible over HTTP')
  }

  handleCopyData(): void {
    this.#failure = new RequestError(400, 'unexpected message from server')
  }

  handleError(error: Error): void {
    this.#reject(this.#failure ?? error)
  }

  handleReadyForQuery(): void {
    if (this.#failure) {
      this.#reject(this.#failure)
      return
    }
    const { command, rowCount } = readCommandTag(this.#tag)
    this.#resolve(
      `{"rowAsArray":${this.#mode.arrayMode},"fields":${fieldsJson(this.#fields)},"rows":[${this.#rows.join(',')}],` +
        `"command":${JSON.stringify(command)},"rowCount":${rowCount}}`,
    )
  }
}

/** `INSERT 0 3` is INSERT of 3 rows, `CREATE TABLE` is CREATE of none that count. */
function readCommandTag(tag: string): { command: string; rowCount: number | null } {
  const [command = '', first, second] = tag.split(' ')
  const count = command === 'INSERT' ? second : first
  return { command, rowCount: count !== undefined && /^\d+$/.test(count) ? Number(count) : null }
}

/** Whether a connection is outside any transaction and so fit for the next request. */
export function isIdle(client: { getTransactionStatus(): TransactionStatus }): boolean {
  return client.getTransactionStatus() === 'I'
}
