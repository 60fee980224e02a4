/** The command line as a process of its own, the way people run it. */
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const MAIN = fileURLToPath(new URL('../../src/cli/main.ts', import.meta.url))

export interface Ran {
  code: number
  output: string
  errors: string
}

interface RunOptions {
  env?: Record<string, string>
  /** Where it looks for the local stack. */
  cwd?: string
  /** Told what it writes, as it writes it. */
  onOutput?: (text: string) => void
}

/** Run `stratum` without a terminal. */
export const stratum = (args: readonly string[], { env = {}, cwd = '/', onOutput = () => {} }: RunOptions = {}): Promise<Ran> =>
  new Promise((done) => {
    const { DATABASE_URL: _, ...rest } = process.env
    const child = execFile(process.execPath, [MAIN, ...args], { env: { ...rest, ...env }, cwd }, (error, output, errors) =>
      done({ code: typeof error?.code === 'number' ? error.code : error ? -1 : 0, output, errors }),
    )
    child.stdout?.on('data', onOutput)
  })

/** Its output, a JSON value for each line. */
export const linesOf = ({ output }: Ran): Array<Record<string, unknown>> =>
  output
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>)
