/**
 * Prints the size of the Worker as Cloudflare receives it and counts it: bundled by wrangler, gzipped. Fails above the target.
 */
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { gzipSync } from 'node:zlib'

/** KiB, gzipped. */
const TARGET = 150
const PROJECT = fileURLToPath(new URL('../', import.meta.url))
const QUIET = { WRANGLER_SEND_METRICS: 'false', CLOUDFLARE_CF_FETCH_ENABLED: 'false', WRANGLER_HIDE_BANNER: 'true' }

/** Bundle the Worker as a deployment would, and answer the path of its one module. Nothing is sent anywhere. */
export async function bundleWorker(directory: string): Promise<string> {
  const wrangler = join(dirname(createRequire(import.meta.url).resolve('wrangler/package.json')), 'bin/wrangler.js')
  await promisify(execFile)(process.execPath, [wrangler, 'deploy', '--dry-run', '--outdir', directory], { cwd: PROJECT, env: { ...process.env, ...QUIET } })
  return join(directory, 'edge.js')
}

async function main() {
  const directory = await mkdtemp(join(tmpdir(), 'stratum-bundle-'))
  const bundle = await readFile(await bundleWorker(directory)).finally(() => rm(directory, { recursive: true }))
  const kibibytes = gzipSync(bundle).byteLength / 1024
  console.log(`Worker bundle: ${(bundle.byteLength / 1024).toFixed(1)} KiB, gzipped ${kibibytes.toFixed(1)} KiB of ${TARGET}`)
  if (kibibytes > TARGET) process.exitCode = 1
}

if (import.meta.main) await main()
