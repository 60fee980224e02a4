/** The Hono example bundled as a Worker and run in workerd. */
import { execFile } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { convertV4MiniflareOptions, Miniflare } from 'miniflare'

const PROJECT = fileURLToPath(new URL('../../', import.meta.url))
const QUIET = { WRANGLER_SEND_METRICS: 'false', CLOUDFLARE_CF_FETCH_ENABLED: 'false', WRANGLER_HIDE_BANNER: 'true' }
const COMPATIBILITY = { compatibilityDate: '2026-11-09', compatibilityFlags: ['nodejs_compat'] }

async function bundle(directory: string): Promise<string> {
  const config = join(directory, 'wrangler.json')
  const { compatibilityDate: compatibility_date, compatibilityFlags: compatibility_flags } = COMPATIBILITY
  const alias = { 'stratum-edge/hono': join(PROJECT, 'src/integrations/hono.ts') }
  const main = join(PROJECT, 'docs/examples/hono/app.ts')
  await writeFile(config, JSON.stringify({ name: 'example', main, compatibility_date, compatibility_flags, alias }))
  const wrangler = join(dirname(createRequire(import.meta.url).resolve('wrangler/package.json')), 'bin/wrangler.js')
  const args = ['deploy', '--dry-run', '--config', config, '--outdir', join(directory, 'out')]
  await promisify(execFile)(process.execPath, [wrangler, ...args], { cwd: PROJECT, env: { ...process.env, ...QUIET } })
  return join(directory, 'out/app.js')
}

/** One Worker for each environment; the ports in that order. */
export async function startHonoWorkers(environments: ReadonlyArray<Record<string, string>>): Promise<{ ports: number[]; stop(): Promise<void> }> {
  const directory = await mkdtemp(join(tmpdir(), 'stratum-hono-'))
  const scriptPath = await bundle(directory)
  const workers = environments.map((bindings, index) => ({
    ...{ name: `example-${index}`, modules: true, scriptPath, modulesRoot: dirname(scriptPath), bindings, ...COMPATIBILITY },
    unsafeDirectSockets: [{ host: '127.0.0.1', port: 0 }],
  }))
  const miniflare = new Miniflare(convertV4MiniflareOptions({ host: '127.0.0.1', port: 0, cf: false, workers }))
  await miniflare.ready
  const ports = await Promise.all(workers.map(async ({ name }) => Number((await miniflare.unsafeGetDirectURL(name)).port)))
  return {
    ports,
    async stop() {
      await miniflare.dispose()
      await rm(directory, { recursive: true })
    },
  }
}
