/** A newer version may bring a newer guard. Setup gives it to the control database; tenants' own databases get it here. */
import { setTimeout as delay } from 'node:timers/promises'
import { applyGuard, guardOf } from '../isolation/guard.ts'
import { describeError } from './job-error.ts'
import type { Server } from './places.ts'
import type { Log } from './run-job.ts'

const LOOK_EVERY_MS = 60_000

const DATABASES = `
  select l.database_name as name from stratum.tenant_databases l join pg_database d on d.datname = l.database_name
  where shobj_description(d.oid, 'pg_database') = 'stratum tenant ' || l.tenant_id order by 1`

/** @returns whether the guard there was another */
async function renewGuard(server: Server, name: string, guard: string): Promise<boolean> {
  const client = await server.connect(name)
  try {
    if ((await guardOf(client)) === guard) return false
    await client.query('begin')
    await applyGuard(client)
    await client.query('commit')
    return true
  } finally {
    await client.end().catch(() => {})
  }
}

/** Give every tenant's own database the control database's guard. @returns whether all were reached */
async function renewGuards(server: Server, guard: string, log: Log, signal: AbortSignal): Promise<boolean> {
  let complete = true
  const { rows } = await server.pool.query<{ name: string }>(DATABASES)
  for (const { name } of rows) {
    if (signal.aborted) return false
    try {
      if (await renewGuard(server, name, guard)) log('info', 'guard.renewed', { database: name })
    } catch (error) {
      // dropped meanwhile
      if ((error as { code?: string }).code === '3D000') continue
      complete = false
      log('warn', 'guard.not_renewed', { database: name, error: describeError(error) })
    }
  }
  return complete
}

/** See to it now, and again whenever the control database's guard has changed; databases that were not reached are tried again. */
export function keepGuardsRenewed(server: Server, log: Log): { stop(): Promise<void> } {
  const stopping = new AbortController()
  const { signal } = stopping
  let settled: string | null = null
  const round = async () => {
    const guard = await guardOf(server.pool)
    if (guard !== null && guard !== settled && (await renewGuards(server, guard, log, signal))) settled = guard
  }
  const ended = (async () => {
    while (!signal.aborted) {
      await round().catch((error: unknown) => log('warn', 'guards.not_looked_at', { error: describeError(error) }))
      await delay(LOOK_EVERY_MS, undefined, { signal }).catch(() => {})
    }
  })()
  return {
    stop() {
      stopping.abort()
      return ended
    },
  }
}
