/**
 * A real PostgreSQL server for development and tests, run from packaged binaries: nothing to
 * install, nothing shared with other servers of the machine. Linux and macOS.
 */
import type { ChildProcess } from 'node:child_process'
import { access } from 'node:fs/promises'
import { createServer } from 'node:net'
import { dirname, resolve } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import {
  type Binaries,
  chooseIdentity,
  chooseLaunch,
  ensureCluster,
  findBinaries,
  findRunningServer,
  type Identity,
  isErrno,
  type Launch,
  tail,
} from './postgres-cluster.ts'
import { onceWeAreGone } from './watchdog.ts'

/** A running server. */
export interface LocalPostgres {
  /** The TCP port on 127.0.0.1. */
  readonly port: number
  /** Connection string of the cluster's administrator over TCP; `database` defaults to `postgres`. */
  url(database?: string): string
  /**
   * Ends all sessions, rolls open transactions back, writes everything out and resolves when the
   * server process is gone. May be called again; the data directory stays.
   */
  stop(): Promise<void>
}

/** How to start a server. */
export interface LocalPostgresOptions {
  /** The data directory: initialised when missing or empty, else reused as it is. */
  directory: string
  /** TCP port; 0 or absent: a free one. */
  port?: number
  /** The administrator's password. It is set when the directory is initialised, and not changed later. */
  password: string
  /** The administrator's name, set when the directory is initialised. Default `postgres`. */
  user?: string
  /** Default true. False trades safety of the data in a power cut for speed: for tests. */
  durable?: boolean
  /** Server settings by name, over the defaults here. */
  settings?: Record<string, string>
  /** Receives each line the server logs. */
  log?: (line: string) => void
}

// A replica accepts read-only ones.
const READY = /database system is ready to accept (?:read-only )?connections/
// What is left of a killed server may work for a moment longer; the new one has to wait for it.
const ORPHANS_LEFT = 'pre-existing shared memory block'
const ORPHAN_RETRIES = 100
const ORPHAN_RETRY_MS = 100
const FREE_PORT_TRIES = 5

/**
 * Starts PostgreSQL on a data directory and resolves when it accepts connections.
 *
 * As root the server runs as the system user `postgres` (made if missing). If this process dies
 * without `stop()`, even by SIGKILL, the server shuts down by itself.
 *
 * @throws Error in one sentence when the port is taken, a server already runs on the directory,
 * or the directory is unusable; else with the last lines of the server's own log.
 */
export async function startPostgres(options: LocalPostgresOptions): Promise<LocalPostgres> {
  const directory = resolve(options.directory)
  const user = options.user ?? 'postgres'
  const running = await findRunningServer(directory)
  if (running !== undefined) throw alreadyRuns(running, directory)
  if (options.port) await assertFree(options.port)
  const binaries = await findBinaries()
  const identity = await chooseIdentity(directory)
  const launch = await chooseLaunch(identity, [dirname(binaries.postgres), await existingAncestor(directory)])
  await ensureCluster({ directory, binaries, launch, identity, user, password: options.password, durable: options.durable ?? true })
  const { server, port } = await startServer({ ...options, directory }, binaries, launch)
  const stop = superviseServer(server, identity, options.log)
  return {
    port,
    url: (database = 'postgres') =>
      `postgresql://${encodeURIComponent(user)}:${encodeURIComponent(options.password)}@127.0.0.1:${port}/${encodeURIComponent(database)}`,
    stop,
  }
}

interface Server {
  readonly child: ChildProcess
  readonly exited: Promise<void>
}

async function startServer(options: LocalPostgresOptions, binaries: Binaries, launch: Launch): Promise<{ server: Server; port: number }> {
  let orphanTries = 0
  let portTries = 0
  for (;;) {
    const port = options.port || (await findFreePort())
    const attempt = await tryStart(launch(binaries.postgres, serverArguments(options, port)), options.log)
    if ('child' in attempt) return { server: attempt, port }
    if (attempt.output.includes(ORPHANS_LEFT) && orphanTries++ < ORPHAN_RETRIES) {
      // The orphans are not our children, so there is no event to wait for.
      await delay(ORPHAN_RETRY_MS)
    } else if (/could not bind .*Address already in use/.test(attempt.output)) {
      if (options.port) throw portTaken(options.port)
      // Somebody took the free port between our look and the start.
      if (++portTries >= FREE_PORT_TRIES) throw new Error(`PostgreSQL found no free port in ${FREE_PORT_TRIES} tries.`)
    } else {
      // Somebody else may have started one on this directory since we looked.
      const rival = await findRunningServer(options.directory)
      if (rival !== undefined) throw alreadyRuns(rival, options.directory)
      throw new Error(`PostgreSQL did not start on ${options.directory}:\n${tail(attempt.output)}`)
    }
  }
}

function serverArguments(options: LocalPostgresOptions, port: number): string[] {
  const fast = { fsync: 'off', synchronous_commit: 'off', full_page_writes: 'off' }
  const settings: Record<string, string> = {
    max_connections: '200',
    ...(options.durable === false ? fast : {}),
    ...options.settings,
    listen_addresses: '127.0.0.1',
    port: String(port),
    // No socket files: they would collide in /tmp and outlive a crash.
    unix_socket_directories: '',
    // The log must come to us: it says when the server is ready, or why it is not.
    logging_collector: 'off',
    log_destination: 'stderr',
  }
  return ['-D', options.directory, ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])]
}

/** Resolves to the server when it is ready, or to its output when it ended before. */
function tryStart(child: ChildProcess, log: ((line: string) => void) | undefined): Promise<Server | { output: string }> {
  return new Promise((settle) => {
    let output = ''
    let ready = false
    let rest = ''
    const exited = new Promise<void>((done) => {
      child.once('close', () => done())
      child.once('error', (error) => {
        output += error.message
        done()
      })
    })
    const read = (text: string): void => {
      const lines = (rest + text).split('\n')
      rest = lines.pop() ?? ''
      for (const line of lines) {
        log?.(line)
        if (ready) continue
        output += `${line}\n`
        if (READY.test(line)) {
          ready = true
          settle({ child, exited })
        }
      }
    }
    child.stdout?.setEncoding('utf8').on('data', read)
    child.stderr?.setEncoding('utf8').on('data', read)
    // No effect when the server has been handed over as ready.
    void exited.then(() => settle({ output: output + rest }))
  })
}

/** Ties the server's life to ours and returns the function that stops it. */
function superviseServer({ child, exited }: Server, identity: Identity, log: ((line: string) => void) | undefined): () => Promise<void> {
  const callOff = onceWeAreGone(`kill -INT ${child.pid}`, { user: identity, log })
  const gone = exited.then(callOff)
  return () => {
    // SIGINT is PostgreSQL's "fast shutdown". False when it is gone already.
    child.kill('SIGINT')
    return gone
  }
}

function alreadyRuns(pid: number, directory: string): Error {
  return new Error(`A PostgreSQL server (process ${pid}) already runs on ${directory}: stop it, or choose another directory with --data.`)
}

function portTaken(port: number): Error {
  return new Error(`Port ${port} is already in use: choose another for PostgreSQL with --port.`)
}

function listenOnce(port: number): Promise<number> {
  return new Promise((done, fail) => {
    const server = createServer()
    server.once('error', fail)
    server.listen(port, '127.0.0.1', () => {
      const address = server.address()
      server.close(() => done(typeof address === 'object' && address !== null ? address.port : port))
    })
  })
}

const findFreePort = (): Promise<number> => listenOnce(0)

async function assertFree(port: number): Promise<void> {
  await listenOnce(port).catch((error: unknown) => {
    throw isErrno(error, 'EADDRINUSE') ? portTaken(port) : error
  })
}

/** The nearest directory above `path` that exists already. */
async function existingAncestor(path: string): Promise<string> {
  let parent = dirname(path)
  while (parent !== dirname(parent)) {
    const exists = await access(parent).then(
      () => true,
      () => false,
    )
    if (exists) return parent
    parent = dirname(parent)
  }
  return parent
}
