/** The Next.js example as an application of its own: copied, with what it depends on beside it, built and started by Next.js. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { access, cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const PROJECT = fileURLToPath(new URL('../../', import.meta.url))
export const EXAMPLE = join(PROJECT, 'docs/examples/next')
const PACKAGE = 'stratum-edge'
const NEXT = 'node_modules/next/dist/bin/next'

interface Manifest {
  dependencies?: Record<string, string>
  devDependencies?: Record<string, string>
  optionalDependencies?: Record<string, string>
}

const exists = (path: string) =>
  access(path).then(
    () => true,
    () => false,
  )
const manifestOf = async (directory: string): Promise<Manifest> => JSON.parse(await readFile(join(directory, 'package.json'), 'utf8'))

/** Copy installed packages, and all that they depend on. A copy, as Turbopack follows no link out of an application. */
async function install(names: string[], application: string, done = new Set<string>()): Promise<void> {
  for (const name of names) {
    const installed = join(PROJECT, 'node_modules', name)
    // What depends on the platform may not be there.
    if (done.has(name) || !(await exists(installed))) continue
    done.add(name)
    await cp(installed, join(application, 'node_modules', name), { recursive: true })
    const { dependencies, optionalDependencies } = await manifestOf(installed)
    await install(Object.keys({ ...dependencies, ...optionalDependencies }), application, done)
  }
}

/** This package as its tarball holds it, compiled from the sources as they are now. */
async function installPackage(application: string): Promise<void> {
  const installed = join(application, 'node_modules', PACKAGE)
  await mkdir(installed, { recursive: true })
  for (const name of ['package.json', 'migrations']) await cp(join(PROJECT, name), join(installed, name), { recursive: true })
  await promisify(execFile)(join(PROJECT, 'node_modules/.bin/tsc'), ['-p', join(PROJECT, 'tsconfig.build.json'), '--outDir', join(installed, 'dist')])
}

/** Of what this process is told an application knows nothing, least of all that it is being tested. */
const environment = (own: Record<string, string>) => ({
  ...{ PATH: process.env['PATH'], HOME: process.env['HOME'] },
  ...{ NODE_ENV: 'production' as const, NEXT_TELEMETRY_DISABLED: '1' },
  ...own,
})

export interface NextServer {
  port: number
  /** What it has printed so far. */
  printed(): string
  stop(): Promise<void>
}

export interface NextApp {
  /** What `next build` printed. */
  built: string
  start(variables: Record<string, string>): Promise<NextServer>
  remove(): Promise<void>
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const exit = once(child, 'exit')
  child.kill('SIGKILL')
  await exit
}

async function startServer(cwd: string, variables: Record<string, string>): Promise<NextServer> {
  const child = spawn(process.execPath, [NEXT, 'start', '-p', '0', '-H', '127.0.0.1'], { cwd, env: environment(variables) })
  const kill = () => void child.kill('SIGKILL')
  process.once('exit', kill)
  let output = ''
  const port = await new Promise<number>((listening, failed) => {
    const read = (part: Buffer) => {
      output += part
      const [, port] = /http:\/\/127\.0\.0\.1:(\d+)/.exec(output) ?? []
      if (port !== undefined) listening(Number(port))
    }
    child.stdout.on('data', read)
    child.stderr.on('data', read)
    child.once('exit', () => failed(new Error(`next start ended: ${output}`)))
  })
  const stop = async () => {
    await ended(child)
    process.off('exit', kill)
  }
  return { port, printed: () => output, stop }
}

/**
 * Build the example in a directory of its own.
 * @param beyond more files of the application, by their paths, or changed ones
 */
export async function buildNextApp(beyond: Record<string, string>): Promise<NextApp> {
  const application = await mkdtemp(join(tmpdir(), 'stratum-next-'))
  const remove = () => rm(application, { recursive: true, force: true })
  try {
    const isSource = (path: string) => !/\/(node_modules|\.next|next-env\.d\.ts)$/.test(path)
    await cp(EXAMPLE, application, { recursive: true, filter: isSource })
    for (const [path, source] of Object.entries(beyond)) {
      await mkdir(dirname(join(application, path)), { recursive: true })
      await writeFile(join(application, path), source)
    }
    const [example, own] = await Promise.all([manifestOf(EXAMPLE), manifestOf(PROJECT)])
    await install(Object.keys({ ...example.dependencies, ...example.devDependencies, ...own.dependencies, '@types/pg': '' }), application)
    await installPackage(application)
    const { stdout, stderr } = await promisify(execFile)(process.execPath, [NEXT, 'build'], { cwd: application, env: environment({}), timeout: 300_000 })
    return { built: stdout + stderr, start: (variables) => startServer(application, variables), remove }
  } catch (error) {
    await remove()
    throw error
  }
}
