/**
 * The application's migrations over every place: one tenant's first, then the shared tables, then all others. Each
 * place keeps its own ledger, so a run that was cut short anywhere is resumed by running it again.
 */
import type pg from 'pg'
import { stratumError } from '../../core/error-classes.ts'
import type { Server } from '../places.ts'
import { type Applying, applyFile, describeFailure } from './apply.ts'
import { type FleetMigration, readMigrations } from './files.ts'
import { checkFiles } from './ledger.ts'
import { chooseCanary, databaseOf, type FleetPlace, isShared, listPlaces, pendingFor, refreshSummary, titleOf } from './places.ts'

export interface FleetOptions {
  /** Slug of the tenant that goes first. Default: the first with a schema of its own. */
  canary?: string
  /** Places migrated at once, in each database. Default 4. */
  concurrency?: number
  /** Stop after so many places have failed. Default 1. */
  maxFailures?: number
  /** Only say what would be done. */
  dryRun?: boolean
  /** Names of applied files whose change is meant: it is not applied again. */
  acceptChanged?: readonly string[]
  /** Milliseconds that a statement waits for a lock before it gives way and is tried again. Default 3,000. */
  lockTimeout?: number
  /** No place is begun any more once this is aborted. */
  signal?: AbortSignal
  onProgress?: (progress: FleetProgress) => void
}

/** A place is done, or has failed. */
export interface FleetProgress {
  stage: 'canary' | 'shared' | 'rest'
  place: string
  /** Places done so far, of those that had something to do. */
  done: number
  total: number
  failed: number
}

export interface FleetFailure {
  place: string
  migration: string
  error: { code: string; message: string; sqlstate?: string }
}

export interface FleetReport {
  /** Places that had something to do, with the files they had not had. After a dry run this is all. */
  plan: Array<{ place: string; strategy: FleetPlace['strategy']; migrations: string[] }>
  /** Places that have had every file now, and had not before. */
  migrated: number
  failed: FleetFailure[]
  /** Places that were not begun, or are being moved elsewhere, and need another run. */
  left: Array<{ place: string; reason: string }>
}

/** A backend keeps something of every table it has touched; a new one begins afresh. */
const PLACES_A_CONNECTION = 200
const RUN_LOCK = `hashtextextended('stratum.fleet', 0)`

class Run {
  readonly report: FleetReport = { plan: [], migrated: 0, failed: [], left: [] }
  readonly #server: Server
  readonly #files: readonly FleetMigration[]
  readonly #options: FleetOptions
  readonly #database: string
  readonly #managed: readonly string[]
  readonly #attempted = new Set<string>()
  /** Two indexes made concurrently in one database may wait for each other. */
  #alone: Promise<unknown> = Promise.resolve()

  constructor(server: Server, files: readonly FleetMigration[], options: FleetOptions, control: { database: string; managed: readonly string[] }) {
    this.#server = server
    this.#files = files
    this.#options = options
    this.#database = control.database
    this.#managed = control.managed
  }

  get stopped(): boolean {
    return this.report.failed.length >= (this.#options.maxFailures ?? 1) || (this.#options.signal?.aborted ?? false)
  }

  pending(places: readonly FleetPlace[]): FleetPlace[] {
    return places.filter((place) => !this.#attempted.has(place.tenant_id) && pendingFor(place, this.#files).length > 0)
  }

  plan(places: readonly FleetPlace[]) {
    for (const place of places) {
      this.report.plan.push({ place: titleOf(place), strategy: place.strategy, migrations: pendingFor(place, this.#files).map(({ name }) => name) })
    }
  }

  async #open(database: string): Promise<pg.Client> {
    const client = await this.#server.connect(database)
    // A connection that breaks fails its query; without a listener it would also end the process.
    client.on('error', () => {})
    return client
  }

  async #applyAll(control: pg.Client, place: FleetPlace): Promise<void> {
    let besides: pg.Client | undefined
    const beside = async () => {
      besides ??= await this.#open(place.strategy === 'DB_PER_TENANT' ? await databaseOf(control, place) : this.#database)
      return besides
    }
    const { lockTimeout = 3_000, acceptChanged = [] } = this.#options
    const applying: Applying = { control, beside, managed: this.#managed, lockTimeout, acceptChanged: new Set(acceptChanged) }
    try {
      for (const file of pendingFor(place, this.#files)) {
        await this.#server.step(`${titleOf(place)} ${file.name}`)
        const apply = () => applyFile(applying, place, file)
        if (!file.transaction && place.strategy !== 'DB_PER_TENANT') {
          const turn = this.#alone.then(apply, apply)
          this.#alone = turn
          await turn
        } else await apply()
        place.migration = file.name
      }
    } finally {
      await besides?.end().catch(() => {})
    }
  }

  async #fail(control: pg.Client, place: FleetPlace, thrown: unknown) {
    const error = describeFailure(thrown)
    // It was purged, or moved: what it is now is seen when the places are listed again.
    if (error.code === 'TENANT_NOT_FOUND') return
    if (error.code === 'ISOLATION_CHANGE_RUNNING' && !isShared(place)) {
      this.report.left.push({ place: titleOf(place), reason: error.message })
      return
    }
    const migration = pendingFor(place, this.#files)[0]?.name ?? ''
    this.report.failed.push({ place: titleOf(place), migration, error })
    await control.query('select stratum.fail_place_migration($1, $2)', [place.tenant_id, JSON.stringify({ migration, ...error })])
  }

  /** Take places from the queue until it is empty or the run has stopped. */
  async #work(stage: FleetProgress['stage'], queue: FleetPlace[], total: number) {
    let control = await this.#open(this.#database)
    try {
      for (let taken = 1; !this.stopped; taken++) {
        const place = queue.shift()
        if (!place) return
        this.#attempted.add(place.tenant_id)
        try {
          await this.#applyAll(control, place)
          this.report.migrated++
        } catch (error) {
          await this.#fail(control, place, error)
        }
        this.#options.onProgress?.({ stage, place: titleOf(place), done: total - queue.length, total, failed: this.report.failed.length })
        if (taken % PLACES_A_CONNECTION === 0) {
          await control.end()
          control = await this.#open(this.#database)
        }
      }
    } finally {
      await control.end().catch(() => {})
    }
  }

  /** Migrate some places, so many at once in the control database and as many databases. */
  async stage(stage: FleetProgress['stage'], places: readonly FleetPlace[]): Promise<void> {
    const concurrency = this.#options.concurrency ?? 4
    const databases = places.filter((place) => place.strategy === 'DB_PER_TENANT')
    const here = places.filter((place) => place.strategy !== 'DB_PER_TENANT')
    const workers = [here, databases].flatMap((queue) =>
      Array.from({ length: Math.min(concurrency, queue.length) }, () => this.#work(stage, queue, queue.length)),
    )
    const ended = await Promise.allSettled(workers)
    for (const worker of ended) if (worker.status === 'rejected') throw worker.reason
  }
}

async function carryOut(run: Run, client: pg.Client, canary: FleetPlace | undefined, places: FleetPlace[]) {
  // Neither of the first two may fail, however many of the others may.
  const sound = () => run.report.failed.length === 0 && !run.stopped
  if (canary) await run.stage('canary', run.pending([canary]))
  if (sound()) await run.stage('shared', run.pending(places.filter(isShared)))
  // A place made meanwhile was made from before the shared tables were migrated, and is seen now, or from after.
  if (sound()) {
    for (let rest = run.pending(await listPlaces(client)); rest.length > 0 && !run.stopped; rest = run.pending(await listPlaces(client))) {
      await run.stage('rest', rest)
    }
  }
  const reason = run.report.failed.length > 0 ? 'the run stopped before it, as another place failed' : 'the run was stopped before it'
  for (const place of run.pending(await listPlaces(client))) run.report.left.push({ place: titleOf(place), reason })
}

/**
 * Apply the SQL files of a folder, in the order of their names, to the shared tables and to every tenant's schema and
 * database. A file is one transaction with its line in the ledger, and must not change once applied. One place goes
 * first, then the shared tables; if either fails, nothing else is touched. Of the others the run stops at
 * `maxFailures`. Run it again to resume.
 *
 * @returns what was done; `failed` and `left` are empty where every place is current
 * @throws FLEET_MIGRATION_RUNNING, MIGRATION_INVALID, CONFIGURATION_INVALID; nothing was done then
 */
export async function migrateFleet(server: Server, folder: string, options: FleetOptions = {}): Promise<FleetReport> {
  const files = await readMigrations(folder)
  const { rows } = await server.pool.query<{ database: string; managed: string[] }>(
    'select current_database() as database, array(select table_name from stratum.managed_tables) as managed',
  )
  const control = rows[0] ?? { database: '', managed: [] }
  const client = await server.connect(control.database)
  client.on('error', () => {})
  try {
    if (!options.dryRun) {
      const { rows: lock } = await client.query<{ got: boolean }>(`select pg_try_advisory_lock(${RUN_LOCK}) as got`)
      if (!lock[0]?.got) throw stratumError('FLEET_MIGRATION_RUNNING')
    }
    await checkFiles(client, files, new Set(options.dryRun ? [] : options.acceptChanged))
    if (!options.dryRun) await refreshSummary(client)
    const run = new Run(server, files, options, control)
    const places = await listPlaces(client)
    const canary = chooseCanary(places, options.canary)
    const inOrder = [...(canary ? [canary] : []), ...places.filter((place) => place !== canary)]
    run.plan(run.pending(inOrder))
    if (!options.dryRun) await carryOut(run, client, canary, places)
    return run.report
  } finally {
    await client.end().catch(() => {})
  }
}
