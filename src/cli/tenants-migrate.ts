/** `stratum tenants migrate` and `stratum tenants status`: the application's migrations over every place. */
import { type FleetOptions, type FleetReport, migrateFleet } from '../provisioning/fleet/migrate-fleet.ts'
import { type FleetStatus, fleetStatus } from '../provisioning/fleet/status.ts'
import { withOwner, withServer } from './owner-database.ts'
import { openProgress } from './progress.ts'

export interface MigrateTenantsOptions {
  databaseUrl?: string
  canary?: string
  concurrency: number
  maxFailures: number
  dryRun?: boolean
  acceptChanged?: string[]
  json?: boolean
}

const places = (count: number) => `${count} ${count === 1 ? 'place' : 'places'}`

function describePlan({ plan }: FleetReport): string {
  if (plan.length === 0) return 'Every place is current: there is nothing to do.'
  return [`${places(plan.length)} would be migrated, in this order:`, ...plan.map(({ place, migrations }) => `  ${place}: ${migrations.join(', ')}`)].join('\n')
}

/** What was done, and what is left to do. */
export function describeReport({ plan, migrated, failed, left }: FleetReport): string {
  if (plan.length === 0 && left.length === 0) return 'Every place is current: there was nothing to do.'
  const shown = left.slice(0, 10)
  return [
    `${places(migrated)} migrated${failed.length + left.length === 0 ? '; every place is current.' : '.'}`,
    ...failed.map(({ place, migration, error }) => `  failed: ${place}, at ${migration}: ${error.message}`),
    ...shown.map(({ place, reason }) => `  left: ${place}: ${reason}`),
    ...(left.length > shown.length ? [`  left: ${left.length - shown.length} more`] : []),
    ...(failed.length + left.length === 0 ? [] : ['Put right what failed, and run this again: it goes on where it stopped.']),
  ].join('\n')
}

function stopOnSignals(): { signal: AbortSignal; release(): void } {
  const stop = new AbortController()
  const onSignal = () => stop.abort()
  const signals = ['SIGINT', 'SIGTERM'] as const
  for (const name of signals) process.once(name, onSignal)
  return {
    signal: stop.signal,
    release() {
      for (const name of signals) process.off(name, onSignal)
    },
  }
}

/** Exit code 1 where a place failed or was left. @throws what {@link migrateFleet} throws */
export async function migrateTenantsCommand(folder: string, options: MigrateTenantsOptions): Promise<void> {
  const { databaseUrl, json = false, ...given } = options
  const progress = openProgress({ json })
  const { signal, release } = stopOnSignals()
  const how: FleetOptions = {
    ...given,
    signal,
    onProgress: ({ stage, place, done, total, failed }) => progress.update(done, total, `${stage}: ${place}`, { stage, place, failed }),
  }
  try {
    const report = await withServer(databaseUrl, (server) => migrateFleet(server, folder, how))
    progress.end()
    if (json) console.log(JSON.stringify({ event: 'report', dry_run: options.dryRun ?? false, ...report }))
    else console.log(options.dryRun ? describePlan(report) : describeReport(report))
    if (report.failed.length + report.left.length > 0) process.exitCode = 1
  } finally {
    progress.end()
    release()
  }
}

/** A line for the fleet, and one for each place that is listed. */
export function describeStatus({ current, latest, counts, places: listed }: FleetStatus): string {
  const states = Object.entries(counts).flatMap(([state, count]) => (count > 0 ? [`${count} ${state}`] : []))
  const width = Math.max(0, ...listed.map(({ slug }) => (slug ?? 'shared tables').length))
  return [
    `${current ? 'current' : 'not current'}: ${states.join(', ')}; the last migration is ${latest ?? 'none'}`,
    ...listed.map(({ slug, isolation_strategy, state, migration, error }) =>
      [`  ${(slug ?? 'shared tables').padEnd(width)}`, isolation_strategy, state, migration || 'none', ...(error ? [error.message] : [])].join('  '),
    ),
  ].join('\n')
}

/** Exit code 1 where a place is not current. */
export async function tenantsStatusCommand({ databaseUrl, all = false, json = false }: { databaseUrl?: string; all?: boolean; json?: boolean }): Promise<void> {
  const status = await withOwner(databaseUrl, (client) => fleetStatus(client, { all }))
  console.log(json ? JSON.stringify(status, null, 2) : describeStatus(status))
  if (!status.current) process.exitCode = 1
}
