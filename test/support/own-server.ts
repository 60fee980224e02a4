/** A server of a test's own with our schema in it: what is stopped, copied as files and put back must not be the one that all tests share. */
import { execFile } from 'node:child_process'
import { appendFile, mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import pg from 'pg'
import type { Database } from '../../src/db/database.ts'
import { migrate, overPostgres } from '../../src/db/migrate.ts'
import { postgresDatabase } from '../../src/db/postgres.ts'
import { ensureRoles } from '../../src/db/roles.ts'
import { type LocalPostgres, startPostgres } from '../../src/local/postgres.ts'
import { tolerateBreaks } from '../../src/provisioning/queue.ts'
import { PASSWORDS } from './names.ts'

// Its owner, who may read them, differs where this process is root's.
const copyFiles = (from: string, to: string) => promisify(execFile)('cp', ['-a', from, to])

/** A server that answers. */
class Running {
  readonly postgres: LocalPostgres
  readonly admin: pg.Pool
  readonly #control: pg.Pool

  constructor(postgres: LocalPostgres) {
    const url = new URL(postgres.url())
    const poolOf = (user: string, password: string) =>
      tolerateBreaks(new pg.Pool({ host: url.hostname, port: postgres.port, database: 'postgres', user, password, max: 4 }))
    this.postgres = postgres
    this.admin = poolOf('postgres', 'admin')
    this.#control = poolOf('stratum_control', PASSWORDS.control)
  }

  static start = async (directory: string, port = 0): Promise<Running> =>
    new Running(await startPostgres({ directory, port, password: 'admin', durable: false }))

  /** The port as the edge's role, whatever server stands here by then. */
  static port = (running: () => Running): Database => postgresDatabase({ connect: () => running().#control.connect() })

  async stop(): Promise<void> {
    await Promise.all([this.admin.end(), this.#control.end()])
    await this.postgres.stop()
  }
}

/** Options of a table that autovacuum comes to at once when rows were deleted, and then is busy with for long. */
export const SLOW_VACUUM = `autovacuum_vacuum_threshold = 1, autovacuum_vacuum_scale_factor = 0,
  autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1`

export class OwnServer {
  readonly #directory: string
  #running: Running
  readonly #replicas: Running[] = []
  #copies = 0
  /** As the Worker asks it: the address stays, whatever is put behind it. */
  readonly db: Database = Running.port(() => this.#running)

  private constructor(directory: string, running: Running) {
    this.#directory = directory
    this.#running = running
  }

  static async start(): Promise<OwnServer> {
    const directory = await mkdtemp(join(tmpdir(), 'stratum-server-'))
    const server = new OwnServer(directory, await Running.start(join(directory, 'data')))
    const client = await server.admin.connect()
    const connection = overPostgres(client)
    await ensureRoles(connection, PASSWORDS)
    await migrate(connection, { owner: 'stratum_owner' })
    client.release()
    return server
  }

  /** The administrator's connections; others after each start. */
  get admin(): pg.Pool {
    return this.#running.admin
  }

  /** The administrator's connection string. */
  url(): string {
    return this.#running.postgres.url()
  }

  /** Sets a parameter of the server, for sessions too once they have noticed. */
  async set(name: string, value: string): Promise<void> {
    await this.admin.query(`alter system set ${name} = '${value}'`)
    await this.admin.query('select pg_reload_conf()')
  }

  get #data(): string {
    return join(this.#directory, 'data')
  }

  /** Stop, copy the files, go on. Answers the copy's place. */
  async backUp(): Promise<string> {
    const copy = join(this.#directory, `copy-${++this.#copies}`)
    await this.#running.stop()
    await copyFiles(this.#data, copy)
    await this.#start()
    return copy
  }

  /** Copy the files while transactions go on, as a snapshot of the volume does: whoever starts on it recovers from the log that was copied. */
  async snapshotVolume(): Promise<string> {
    const copy = join(this.#directory, `copy-${++this.#copies}`)
    const client = await this.admin.connect()
    try {
      await client.query(`select pg_backup_start('snapshot', true)`)
      await copyFiles(this.#data, copy)
      const { rows } = await client.query<{ label: string }>('select labelfile as label from pg_backup_stop(false)')
      await writeFile(join(copy, 'backup_label'), rows[0]?.label ?? '')
    } finally {
      client.release()
    }
    // The log up to the backup's end belongs to it, and is only now written.
    await copyFiles(`${join(this.#data, 'pg_wal')}/.`, join(copy, 'pg_wal'))
    await rm(join(copy, 'postmaster.pid'))
    return copy
  }

  /** Stop, put a copy in place of the files, start at the same port: the edge sees the same server, at an earlier moment. The copy is used up. */
  async restore(copy: string): Promise<void> {
    await this.#running.stop()
    await rm(this.#data, { recursive: true })
    await rename(copy, this.#data)
    await this.#start()
  }

  /** Begin to follow this server, from a copy of it. */
  async follow(copy: string): Promise<{ db: Database; admin: pg.Pool }> {
    const directory = `${copy}-replica`
    await copyFiles(copy, directory)
    await writeFile(join(directory, 'standby.signal'), '')
    const primary = `host=127.0.0.1 port=${this.#running.postgres.port} user=postgres password=admin`
    await appendFile(join(directory, 'postgresql.auto.conf'), `primary_conninfo = '${primary}'\nwal_retrieve_retry_interval = 100\n`)
    const replica = await Running.start(directory)
    this.#replicas.push(replica)
    return { db: Running.port(() => replica), admin: replica.admin }
  }

  /** Resolves when a replica has all that was written here. */
  async untilFollowed(replica: { admin: pg.Pool }): Promise<void> {
    // Commits do not wait to be written out here, nor does what was not written out travel: such a message forces it.
    const { rows } = await this.admin.query(`select (pg_logical_emit_message(false, 'test', '', true))::text as position`)
    const ask = () => replica.admin.query<{ there: boolean | null }>('select pg_last_wal_replay_lsn() >= $1::pg_lsn as there', [rows[0].position])
    while ((await ask()).rows[0]?.there !== true);
  }

  /** Stop, as when the machine is lost. */
  async stop(): Promise<void> {
    await this.#running.stop()
  }

  async close(): Promise<void> {
    await Promise.all([this.#running, ...this.#replicas].map((running) => running.stop().catch(() => {})))
    await rm(this.#directory, { recursive: true, force: true })
  }

  async #start(): Promise<void> {
    this.#running = await Running.start(this.#data, this.#running.postgres.port)
  }
}
