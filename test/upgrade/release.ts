/** The kept release, unpacked beside what it depends on, and how to reach a Worker of it or of today. */
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, symlink } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import type * as migrate from '../../src/db/migrate.ts'
import type * as roles from '../../src/db/roles.ts'
import type * as endpoints from '../../src/features/endpoints.ts'
import type * as sdk from '../../src/sdk/browser.ts'
import type * as embedded from '../../src/stratum.ts'

export interface WorkerModule {
  default: { fetch(request: Request, env: Record<string, unknown>, context: never): Response | Promise<Response> }
}

/** Modules of the release, called as today's types have them: where these no longer fit is where a caller of the release breaks. */
export interface Release {
  commit: string
  sdk: typeof sdk
  endpoints: typeof endpoints
  embedded: typeof embedded
  runner: typeof migrate
  roles: typeof roles
  worker: WorkerModule
  remove(): Promise<void>
}

export async function unpackRelease(): Promise<Release> {
  const directory = await mkdtemp(join(tmpdir(), 'stratum-release-'))
  await promisify(execFile)('tar', ['-xzf', fileURLToPath(new URL('baseline/release.tar.gz', import.meta.url)), '-C', directory])
  await symlink(fileURLToPath(new URL('../../node_modules', import.meta.url)), join(directory, 'node_modules'))
  const load = (path: string) => import(/* @vite-ignore */ pathToFileURL(join(directory, path)).href)
  const [commit, sdk, endpoints, embedded, runner, roles, worker] = await Promise.all([
    readFile(join(directory, 'COMMIT'), 'utf8'),
    ...['src/sdk/browser.js', 'src/features/endpoints.js', 'src/stratum.js', 'src/db/migrate.js', 'src/db/roles.js', 'workers/edge.js'].map(load),
  ])
  return { commit: commit.trim(), sdk, endpoints, embedded, runner, roles, worker, remove: () => rm(directory, { recursive: true }) }
}

const CONTEXT = { waitUntil: () => {}, passThroughOnException: () => {}, props: {} }

/** A Worker with its environment, as the platform calls it. */
export const serve =
  ({ default: worker }: WorkerModule, env: Record<string, string>) =>
  (request: Request): Response | Promise<Response> =>
    worker.fetch(request, env, CONTEXT as never)
