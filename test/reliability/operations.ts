/** The SQL operations called directly, as the port calls them, with every retry of the port in sight. */
import pg from 'pg'
import type { Actor } from '../../src/core/actor.ts'
import { StratumError } from '../../src/core/errors.ts'
import { callStatement, isTransient, withOneRetry } from '../../src/db/errors.ts'

export interface Call {
  operation: string
  input: Record<string, unknown>
  actor?: Actor
}

/** What came of a call: `ok` or the code a caller gets, and the SQLSTATEs the port's one retry swallowed. */
export interface Outcome {
  code: string
  answer: unknown
  retried: string[]
}

export const RACER: Actor = {
  credential: { type: 'embedded', actor_id: 'race', actor_type: 'system' },
  named: [],
  exposed: false,
  request_id: null,
  source_ip: null,
}

/** An admin bound to this tenant, as a verified token makes one. */
export const boundTo = (tenantId: string): Actor => ({
  ...RACER,
  credential: { type: 'token', issuer: 'race', subject: 'race', tenant: tenantId, issuer_tenant_id: null, global: false, scopes: ['admin'] },
})

export const withKey = (hash: string): Actor => ({ ...RACER, credential: { type: 'api_key', hashes: [hash] } })

const sqlState = (error: unknown) => (error as { code?: string }).code ?? 'none'

/** A cause that is no word of the catalogue: what a reader of a failed race wants to see. */
const causeOf = (error: StratumError) => (error.cause === undefined ? '' : `: ${sqlState(error.cause)} ${String(error.cause)}`)

/** Run an attempt as the port does. */
export async function outcomeOf(attempt: () => Promise<unknown>): Promise<Outcome> {
  const retried: string[] = []
  try {
    const answer = await withOneRetry(async () => {
      try {
        return await attempt()
      } catch (error) {
        if (isTransient(error)) retried.push(sqlState(error))
        throw error
      }
    })
    return { code: 'ok', answer, retried }
  } catch (error) {
    if (!(error instanceof StratumError)) throw error
    return { code: error.code + causeOf(error), answer: null, retried }
  }
}

/** Anything that runs a statement: a pool or one connection. */
export interface Connection {
  query(text: string, values: unknown[]): Promise<{ rows: Array<Record<string, unknown>> }>
}

export async function run(connection: Connection, { operation, input, actor = RACER }: Call): Promise<unknown> {
  const { rows } = await connection.query(callStatement(operation), [JSON.stringify(actor), JSON.stringify(input)])
  return rows[0]?.['answer']
}

/** A statement on a connection of its own that is in flight. */
export interface InFlight {
  outcome: Promise<Outcome>
  backend: number
}

/** Start a call on a client and hand it over unfinished, without the port's retry: a raw error stays raw. */
export const start = (client: BackendClient, call: Call): InFlight => ({
  backend: client.backend,
  outcome: run(client, call).then(
    (answer) => ({ code: 'ok', answer, retried: [] }),
    (error: unknown) => ({ code: sqlState(error) === 'STRAT' ? (error as Error).message : sqlState(error), answer: null, retried: [] }),
  ),
})

/** A connection that knows which server process it talks to. */
export class BackendClient extends pg.Client {
  backend = 0

  static async open(url: string): Promise<BackendClient> {
    const client = new BackendClient(url)
    // Dropping the database ends connections; that is no failure of a test.
    client.on('error', () => {})
    await client.connect()
    const { rows } = await client.query('select pg_backend_pid() as pid')
    client.backend = Number(rows[0]?.['pid'])
    return client
  }
}

/** Resolves true once the call waits for another transaction, false if it ended without waiting. */
export async function isBlocked(observer: Connection, { backend, outcome }: InFlight): Promise<boolean> {
  let ended = false
  const end = outcome.then(() => {
    ended = true
  })
  for (;;) {
    const { rows } = await observer.query('select cardinality(pg_blocking_pids($1)) > 0 as blocked', [backend])
    if (rows[0]?.['blocked'] === true) return true
    if (ended) return false
    await Promise.race([end, Promise.resolve()])
  }
}
