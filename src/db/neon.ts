import { neon, neonConfig } from '@neondatabase/serverless'
import type { Database } from './database.ts'
import { callStatement, withOneRetry } from './errors.ts'

/** Milliseconds after which a request is given up by default; the role's own limit is 10 s. */
export const REQUEST_TIMEOUT = 15_000

// The driver keeps one address rule for the whole process, so local endpoints are told apart by host here.
const localEndpoints = new Map<string, string>()
let patched = false

/** Send what goes to this database to another endpoint than Neon's. */
export function sendToEndpoint(databaseUrl: string, endpoint: string) {
  const { hostname, port } = new URL(databaseUrl)
  localEndpoints.set(`${hostname}:${port}`, endpoint)
  if (patched) return
  patched = true
  const standard = neonConfig.fetchEndpoint
  neonConfig.fetchEndpoint = (host, at, options) =>
    localEndpoints.get(`${host}:${at}`) ?? (typeof standard === 'function' ? standard(host, at, options) : standard)
}

/**
 * The port over Neon's HTTP protocol: one call is one HTTP request.
 *
 * @param databaseUrl connection string of the role to use
 * @param options.endpoint where the protocol is spoken, if not at Neon: the local stack's `neon_url`
 * @param options.timeout milliseconds after which a request is given up
 */
export function neonDatabase(databaseUrl: string, options: { endpoint?: string | undefined; timeout?: number } = {}): Database {
  if (options.endpoint) sendToEndpoint(databaseUrl, options.endpoint)
  const sql = neon(databaseUrl)
  return {
    call: (operation, actor, input, tell) =>
      withOneRetry(async () => {
        const started = performance.now()
        const fetchOptions = { signal: AbortSignal.timeout(options.timeout ?? REQUEST_TIMEOUT) }
        let version: string | null = null
        try {
          const [row] = await sql.query(callStatement(operation), [JSON.stringify(actor), JSON.stringify(input)], { fetchOptions })
          if (row?.['answer'] === undefined) throw new TypeError('The endpoint did not answer with the row that was asked for.')
          version = (row['version'] as string | null | undefined) ?? null
          return row['answer']
        } finally {
          tell?.({ version, milliseconds: performance.now() - started })
        }
      }),
  }
}
