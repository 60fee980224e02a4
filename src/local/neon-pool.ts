/** Connections to PostgreSQL, kept for a moment between requests. */
import { connect } from 'node:net'
import pg, { DatabaseError } from 'pg'
import { type Credentials, RequestError } from './neon-protocol.ts'
import { isIdle } from './neon-query.ts'

/** A connection lent to one request. */
export interface PooledConnection {
  readonly client: pg.Client
  readonly key: string
  idleTimer: NodeJS.Timeout | undefined
}

/** How a pool connects and keeps. */
export interface PoolOptions {
  readonly host: string
  readonly port: number
  /** How long an unused connection stays open, in milliseconds. */
  readonly idleTimeoutMs: number
  /** Whether settings, temporary tables and session locks survive from one request to the next. */
  readonly keepSessionState: boolean
  readonly log: (line: string) => void
}

const CONNECT_TIMEOUT_MS = 10_000
// CancelRequest: its length, its code, the session's process id and key.
const CANCEL_REQUEST_BYTES = 16
const CANCEL_REQUEST_CODE = 80877102

// DISCARD ALL but for the plans: those are no session state, and functions would be planned anew
// on each request, which Neon does not do either.
const RESET = `close all; set session authorization default; reset role; reset all; deallocate all;
unlisten *; select pg_advisory_unlock_all(); discard sequences; discard temp`

/**
 * Lends connections by user, password and database, one request at a time each.
 *
 * There is no upper bound: as with Neon, PostgreSQL's own `max_connections` is it.
 */
export class ConnectionPool {
  readonly #options: PoolOptions
  readonly #idle = new Map<string, PooledConnection[]>()
  readonly #open = new Set<PooledConnection>()
  readonly #ending = new Set<Promise<void>>()

  constructor(options: PoolOptions) {
    this.#options = options
  }

  /**
   * A live connection with a clean session. An idle one proves itself by a round trip first, so one
   * the server has ended (a dropped database, a restart) is never handed out.
   *
   * @throws RequestError 400 for a wrong password or unknown user, 500 when there is no such
   * database, no room, or no server.
   */
  async acquire(credentials: Credentials): Promise<PooledConnection> {
    const key = JSON.stringify([credentials.user, credentials.password, credentials.database])
    for (let kept = this.#takeIdle(key); kept; kept = this.#takeIdle(key)) {
      try {
        await kept.client.query(this.#options.keepSessionState ? '' : RESET)
        if (isIdle(kept.client)) return kept
      } catch (error) {
        this.#options.log(`idle connection dropped: ${messageOf(error)}`)
      }
      this.#discard(kept)
    }
    return this.#connect(credentials, key)
  }

  /** Takes a connection back; one that is not `reusable` is closed. */
  release(connection: PooledConnection, reusable: boolean): void {
    if (!reusable || !this.#open.has(connection)) {
      this.#discard(connection)
      return
    }
    connection.idleTimer = setTimeout(() => this.#discard(connection), this.#options.idleTimeoutMs)
    connection.idleTimer.unref()
    const idle = this.#idle.get(connection.key)
    if (idle) idle.push(connection)
    else this.#idle.set(connection.key, [connection])
  }

  /** Asks the server to stop what a connection runs. The connection must not be used again. */
  cancel(connection: PooledConnection): void {
    const { processID, secretKey } = connection.client as unknown as { processID: number; secretKey: number }
    const message = Buffer.alloc(CANCEL_REQUEST_BYTES)
    message.writeInt32BE(CANCEL_REQUEST_BYTES, 0)
    message.writeInt32BE(CANCEL_REQUEST_CODE, 4)
    message.writeInt32BE(processID, 8)
    message.writeInt32BE(secretKey, 12)
    const socket = connect(this.#options.port, this.#options.host, () => socket.end(message))
    socket.resume()
    socket.once('error', (error) => {
      this.#options.log(`query not cancelled: ${error.message}`)
      // Its end is not to be waited for, then.
      this.#discard(connection)
    })
  }

  /** Closes every connection. Lent ones are closed too: call it when no request runs. */
  async close(): Promise<void> {
    for (const connection of this.#open) this.#discard(connection)
    await Promise.all(this.#ending)
  }

  async #connect(credentials: Credentials, key: string): Promise<PooledConnection> {
    const { host, port } = this.#options
    const client = new pg.Client({
      ...credentials,
      host,
      port,
      ssl: false,
      application_name: 'neon-endpoint',
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    })
    const connection: PooledConnection = { client, key, idleTimer: undefined }
    // Emitted when the server ends an idle connection; without a listener it would end the process.
    client.on('error', (error) => {
      this.#options.log(`connection lost: ${error.message}`)
      this.#discard(connection)
    })
    try {
      await client.connect()
    } catch (error) {
      throw connectError(error, credentials.user)
    }
    this.#open.add(connection)
    return connection
  }

  #takeIdle(key: string): PooledConnection | undefined {
    const idle = this.#idle.get(key)
    const connection = idle?.pop()
    if (idle?.length === 0) this.#idle.delete(key)
    clearTimeout(connection?.idleTimer)
    return connection
  }

  /** Closes a connection, at once even when a query runs, and forgets it. */
  #discard(connection: PooledConnection): void {
    clearTimeout(connection.idleTimer)
    if (!this.#open.delete(connection)) return
    const rest = this.#idle.get(connection.key)?.filter((other) => other !== connection) ?? []
    if (rest.length > 0) this.#idle.set(connection.key, rest)
    else this.#idle.delete(connection.key)
    const ending = connection.client
      .end()
      .catch((error: unknown) => this.#options.log(`connection not closed: ${messageOf(error)}`))
      .finally(() => this.#ending.delete(ending))
    this.#ending.add(ending)
  }
}

/** The answer to a failed connection attempt. */
function connectError(error: unknown, user: string): RequestError {
  if (error instanceof DatabaseError) {
    // Neon checks passwords itself, and so has no SQLSTATE for this.
    if (error.code === '28P01') return new RequestError(400, `password authentication failed for user '${user}'`)
    return new RequestError(500, error.message, error)
  }
  return new RequestError(500, `error connecting to server: ${messageOf(error)}`, error)
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
