/**
 * One request to the server: a caller's query with `enter` in front of it, or behind its `begin`, in one round trip
 * and one transaction. What `enter` answers is kept out of the caller's results.
 */
import pg from 'pg'
import type { Door } from './door.ts'
import { findByPath } from './public-names.ts'

/** What callers pass to `query`. Cursors, streams and COPY come as objects with `submit` and are not meant here. */
export interface QueryConfig {
  text: string
  values?: unknown[] | undefined
  [option: string]: unknown
}

/** The parts of pg's own connection and query that are used here and that its types leave out. */
interface Wire {
  parse(message: { text: string; name: string; types: never[] }): void
  bind(message: { values: Array<string | null> }): void
  execute(message: object): void
  once(event: 'readyForQuery' | 'end', listener: () => void): void
  off(event: 'readyForQuery' | 'end', listener: () => void): void
}
interface DriverQuery {
  query_timeout?: unknown
  text: string
  prepare(connection: Wire): void
  handleRowDescription(message: unknown): void
  handleDataRow(message: unknown): void
  handleCommandComplete(message: unknown, connection: Wire): void
  handleError(error: Error, connection: Wire): void
}
type Callback = (error: Error | null | undefined, result: unknown) => void
const BaseQuery = pg.Query as unknown as new (config: object, values: unknown[] | undefined, callback: Callback) => DriverQuery

// No names: a named statement keeps the columns it was parsed with, and fails (0A000) at a tenant whose tables differ.
const OPTIONS = ['rowMode', 'types', 'binary', 'rows', 'portal', 'queryMode']

/** Statements that go before the caller's, the last of them `enter`, and the number of those whose results are the caller's. */
interface Opening {
  door: Door
  tenantId: string
  /** `begin` and what may only stand right behind it. */
  preamble: readonly string[]
}

const enterText = ({ door, tenantId }: Opening) => `select stratum_guard.enter('${tenantId}'${door.version === null ? '' : `, ${door.version}`})`

export class Statement extends BaseQuery {
  /** False until the tenant was let in. What failed before has run nothing of the caller's. */
  entered: boolean
  readonly result: Promise<unknown>
  readonly #opening: Opening | undefined
  /** How many statements still answer before `enter` does. */
  #before: number
  /** Characters that stand before the caller's own text. */
  readonly #shift: number

  constructor(config: QueryConfig, opening?: Opening) {
    let settle: Callback = () => {}
    const result = new Promise((resolve, reject) => {
      settle = (error, answer) => (error ? reject(error) : resolve(answer))
    })
    // The caller's values go with its statement alone, so `enter` is a message of its own then; without values all is one text.
    const apart = opening !== undefined && opening.preamble.length === 0 && isParameterized(config)
    const prefix = opening && !apart ? `${[...opening.preamble, enterText(opening)].join(';\n')};\n` : ''
    const options = Object.fromEntries(OPTIONS.filter((name) => config[name] !== undefined).map((name) => [name, config[name]]))
    super({ ...options, text: typeof config.text === 'string' ? prefix + findByPath(config.text) : config.text }, config.values, settle)
    if (config['query_timeout'] !== undefined) this.query_timeout = config['query_timeout']
    this.result = result
    this.entered = opening === undefined
    this.#opening = apart ? opening : undefined
    this.#before = opening?.preamble.length ?? 0
    this.#shift = prefix.length
  }

  /** Send it, and settle when the server is ready for the next: only then is it known whether a transaction is open. */
  run(client: pg.ClientBase): Promise<unknown> {
    client.query(this as unknown as pg.Query)
    return this.result
  }

  override prepare(connection: Wire) {
    if (this.#opening) {
      const { tenantId, door } = this.#opening
      connection.parse({ text: 'select stratum_guard.enter($1, $2)', name: '', types: [] })
      connection.bind({ values: [tenantId, door.version === null ? null : String(door.version)] })
      connection.execute({})
    }
    super.prepare(connection)
  }

  override handleRowDescription(message: unknown) {
    if (this.entered) super.handleRowDescription(message)
  }

  override handleDataRow(message: unknown) {
    if (this.entered) super.handleDataRow(message)
  }

  override handleCommandComplete(message: unknown, connection: Wire) {
    if (!this.entered && this.#before-- === 0) this.entered = true
    else super.handleCommandComplete(message, connection)
  }

  override handleError(error: Error, connection: Wire) {
    const position = Number((error as { position?: string }).position)
    if (position > this.#shift) Object.assign(error, { position: String(position - this.#shift) })
    const refused = (error as { severity?: string }).severity !== undefined
    if (!refused) return super.handleError(error, connection)
    const settle = () => {
      connection.off('readyForQuery', settle)
      connection.off('end', settle)
      super.handleError(error, connection)
    }
    connection.once('readyForQuery', settle)
    connection.once('end', settle)
  }
}

/** pg's own rule for when a query is sent with bound values. */
const isParameterized = (config: QueryConfig) =>
  (Array.isArray(config.values) && config.values.length > 0) || config['queryMode'] === 'extended' || Boolean(config['rows'])
