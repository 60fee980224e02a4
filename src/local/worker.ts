/** The Worker under `wrangler dev`, as a child process. */
import { type ChildProcess, spawn } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { ConfigurationInvalidError, stratumError } from '../core/error-classes.ts'
import { createClient } from '../sdk/client.ts'
import { onceWeAreGone } from './watchdog.ts'

export interface WorkerOptions {
  port: number
  /** Where the variables are kept for wrangler to read; its own state goes there too. */
  directory: string
  variables: Record<string, string>
  /** An admin's key, to see that the Worker reaches the database. */
  apiKey: string
  /** Receives each line the Worker writes once it is up. */
  log: (line: string) => void
}

export interface RunningWorker {
  readonly url: string
  /** Resolves if the Worker ends by itself, with what it last said. */
  readonly failed: Promise<Error>
  stop(): Promise<void>
}

const PROJECT = fileURLToPath(new URL('../../', import.meta.url))
const KEPT_OUTPUT = 4_000
const START_TIMEOUT = 60_000
const POLL_INTERVAL = 100

/** As dotenv reads it: what stands behind `$` would be put in, and nothing escapes a quote. */
function variableLine([name, value]: [string, string]): string {
  const quote = ["'", '`'].find((each) => !value.includes(each))
  if (quote === undefined)
    throw stratumError('CONFIGURATION_INVALID', { reason: `The variable ${name} holds both ' and \`, which wrangler dev cannot be given.` })
  return `${name}=${quote}${value.replaceAll('$', '\\$')}${quote}\n`
}

function spawnWrangler({ port, directory, variables }: WorkerOptions, variablesFile: string): ChildProcess {
  const require = createRequire(import.meta.url)
  const wrangler = join(dirname(require.resolve('wrangler/package.json')), 'bin/wrangler.js')
  // wrangler lets its own environment override the file: a DATABASE_URL of the shell would be the Worker's.
  const environment = Object.fromEntries(Object.entries(process.env).filter(([name]) => !(name in variables)))
  const flags = ['--port', String(port), '--inspector-port', '0', '--env-file', variablesFile, '--persist-to', join(directory, 'wrangler')]
  return spawn(process.execPath, [wrangler, 'dev', ...flags, '--show-interactive-dev-session=false', '--log-level', 'log'], {
    cwd: PROJECT,
    // A group of its own: Ctrl-C in the terminal must reach this process alone, which then stops all in order.
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...environment, WRANGLER_SEND_METRICS: 'false', WRANGLER_HIDE_BANNER: 'true', CLOUDFLARE_CF_FETCH_ENABLED: 'false' },
  })
}

const killGroup = (child: ChildProcess, signal: NodeJS.Signals) => {
  try {
    if (child.pid !== undefined) process.kill(-child.pid, signal)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

/** What a misconfigured Worker writes into its log, as it tells no caller. */
function complaintIn(output: string): string | undefined {
  const [, message] = /"code":"CONFIGURATION_INVALID","message":("(?:[^"\\]|\\.)*")/.exec(output) ?? []
  return message === undefined ? undefined : JSON.parse(message)
}

/** Start the Worker and wait until it answers with the database behind it. */
export async function startWorker(options: WorkerOptions): Promise<RunningWorker> {
  const variablesFile = join(options.directory, 'worker.env')
  await writeFile(variablesFile, Object.entries(options.variables).map(variableLine).join(''), { mode: 0o600 })
  const child = spawnWrangler(options, variablesFile)
  let output = ''
  let up = false
  for (const input of [child.stdout, child.stderr]) {
    if (input === null) continue
    createInterface({ input }).on('line', (line) => {
      output = `${output}${line}\n`.slice(-KEPT_OUTPUT)
      // wrangler's own line for each request says less than the Worker's
      if (up && line.trim() !== '' && !line.includes('[wrangler:info]')) options.log(line)
    })
  }
  // wrangler outlives its parent otherwise, and keeps the port.
  const callOff = onceWeAreGone(`kill -s KILL -- -${child.pid}`, { log: options.log })
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve())).then(callOff)
  const failed = ended.then(() => stratumError('CONFIGURATION_INVALID', { reason: `wrangler dev has stopped. It last said:\n${output.trim()}` }))
  const stop = async () => {
    killGroup(child, 'SIGTERM')
    const deadline = setTimeout(() => killGroup(child, 'SIGKILL'), 5_000)
    await ended
    clearTimeout(deadline)
    killGroup(child, 'SIGKILL')
  }
  const url = `http://localhost:${options.port}`
  try {
    await Promise.race([waitUntilUp(url, options.apiKey), failed.then((error) => Promise.reject(error))])
    up = true
  } catch (error) {
    await stop()
    if (error instanceof ConfigurationInvalidError) throw stratumError('CONFIGURATION_INVALID', { reason: complaintIn(output) ?? error.message })
    throw error
  }
  return { url, failed, stop }
}

async function waitUntilUp(url: string, apiKey: string): Promise<void> {
  const client = createClient({ baseUrl: url, apiKey })
  for (const deadline = Date.now() + START_TIMEOUT; ; ) {
    try {
      await client.getHealth()
      return
    } catch (error) {
      // Waiting does not help a Worker that cannot use what it was given.
      if (Date.now() > deadline || error instanceof ConfigurationInvalidError) throw error
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_INTERVAL))
  }
}
