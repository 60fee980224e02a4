/** The provisioner as a process: its log is JSON, a line each, on standard output; SIGTERM and SIGINT stop it. */
import { StratumError } from '../core/errors.ts'
import { parseProvisionerEnvironment } from './environment.ts'
import type { Log } from './run-job.ts'
import { type ProvisionerOptions, startProvisioner } from './runner.ts'

export const jsonLog: Log = (level, event, fields) => {
  process.stdout.write(`${JSON.stringify({ time: new Date().toISOString(), level, event, ...fields })}\n`)
}

const signalled = () =>
  new Promise<string>((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => resolve(signal))
  })

/**
 * Run until a signal. What keeps it from starting is one line of the log. The exit code is 0 when it stopped in order.
 * @param env as `docs` describe it: DATABASE_URL, STRATUM_MASTER_KEYS, STRATUM_API_KEY_SECRETS, …
 */
export async function runProvisioner(env: Record<string, unknown>, overrides: Partial<ProvisionerOptions> = {}): Promise<void> {
  const stopped = signalled()
  try {
    const provisioner = await startProvisioner({ ...parseProvisionerEnvironment(env), log: jsonLog, ...overrides })
    jsonLog('info', 'provisioner.stopping', { signal: await stopped })
    const clean = await provisioner.stop()
    // what had to be left as it was would keep the process alive
    if (!clean) process.exit(1)
  } catch (error) {
    if (!(error instanceof StratumError)) throw error
    jsonLog('error', 'provisioner.refused', { code: error.code, message: error.message })
    process.exitCode = 1
  }
}
