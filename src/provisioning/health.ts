/** `GET /health` of the provisioner, for whatever keeps it running. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type pg from 'pg'
import { stratumError } from '../core/error-classes.ts'
import { VERSION } from '../version.ts'

/** What a healthy provisioner answers. */
export interface ProvisionerHealth {
  status: 'ok' | 'stopping' | 'database_unavailable'
  version: string
  /** Jobs that are not done; absent while the database is away. `waiting` failed before and will be tried again. */
  jobs?: { queued: number; waiting: number; running: number; failed: number }
}

const COUNTS = `
select count(*) filter (where status = 'queued' and error is null)::int as queued, count(*) filter (where status = 'queued' and error is not null)::int as waiting,
  count(*) filter (where status = 'running')::int as running, count(*) filter (where status = 'failed')::int as failed
from stratum.jobs where status in ('queued', 'running', 'failed')`

const ANSWER_WITHIN_MS = 2_000

/** A database that hangs is away too. */
async function within<T>(ms: number, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error('it took too long')), ms)
  })
  try {
    return await Promise.race([work, late])
  } finally {
    clearTimeout(timer)
  }
}

async function judge(pool: pg.Pool, stopping: boolean): Promise<ProvisionerHealth> {
  if (stopping) return { status: 'stopping', version: VERSION }
  try {
    const { rows } = await within(ANSWER_WITHIN_MS, pool.query<NonNullable<ProvisionerHealth['jobs']>>(COUNTS))
    return { status: 'ok', version: VERSION, jobs: rows[0] as NonNullable<ProvisionerHealth['jobs']> }
  } catch {
    return { status: 'database_unavailable', version: VERSION }
  }
}

/**
 * Serve it: 200 while jobs can be done, else 503.
 * @param pool of its own: it must answer while all others are in use
 * @throws CONFIGURATION_INVALID when the port is taken
 */
export async function serveHealth(pool: pg.Pool, { port, host, isStopping }: { port: number; host: string; isStopping: () => boolean }) {
  const server = createServer(async (request, response) => {
    // not parsed as a URL, which throws for some of what can be sent
    const known = request.method === 'GET' && request.url?.split('?')[0] === '/health'
    const health = known ? await judge(pool, isStopping()) : { error: { code: 'ROUTE_NOT_FOUND', message: 'There is only GET /health here.' } }
    response.writeHead(known ? ('status' in health && health.status === 'ok' ? 200 : 503) : 404, { 'content-type': 'application/json', connection: 'close' })
    response.end(JSON.stringify(health))
  })
  await new Promise<void>((listening, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) =>
      reject(
        error.code === 'EADDRINUSE'
          ? stratumError('CONFIGURATION_INVALID', { reason: `Port ${port} is in use; choose another with STRATUM_PROVISIONER_PORT.` })
          : stratumError('CONFIGURATION_INVALID', { reason: `GET /health cannot be served on ${host}, port ${port}: ${error.code}.` }, { cause: error }),
      ),
    )
    server.listen(port, host, listening)
  })
  const address = server.address() as AddressInfo
  return {
    url: `http://${host.includes(':') ? `[${host}]` : host}:${address.port}`,
    close: () => new Promise<void>((closed) => server.close(() => closed())),
  }
}
