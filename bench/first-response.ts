/**
 * How long a cold start takes: `node bench/first-response.ts`. From the start of workerd to its first answer, for the
 * Worker as it is deployed and for a bare handler of hono, started in turn. The difference is what the Worker itself takes,
 * to be read, evaluated and built; a platform that starts an isolate in a running process has no more than that to do.
 */
import { mkdtemp, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { signDevToken } from '../src/local/dev.ts'
import { cpuOf, rawRequest } from './load.ts'
import { API_HOST, bundle, HOST, median, startDatabase, startWorkerd, TOKEN_SECRET } from './workerd.ts'

const STARTS = 10
/** Milliseconds. */
const TARGET = 80

const directory = await mkdtemp(join(tmpdir(), 'stratum-bench-'))
const database = await startDatabase(directory)
try {
  const [ours, bare] = await Promise.all([bundle(directory, 'workers/edge.ts'), bundle(directory, 'bench/bare-worker.ts')])
  const authorization = `Bearer ${await signDevToken(TOKEN_SECRET, { tenant: 'bench_client', scope: 'read' }, 'user')}`
  const health = rawRequest('/api/v1/health', { host: API_HOST })
  const kinds = [
    { name: 'bare hono', script: bare, first: health },
    { name: 'the Worker: health, nobody known', script: ours, first: health },
    { name: 'the Worker: a context, by token and host', script: ours, first: rawRequest('/api/v1/context', { host: HOST, authorization }) },
  ].map((kind) => ({ ...kind, took: [] as number[], cpu: [] as number[] }))
  // Once unmeasured: what is on the disk is read, and the database has seen its question.
  for (let start = -1; start < STARTS; start++) {
    for (const { script, first, took, cpu } of kinds) {
      const workerd = await startWorkerd(script, database.environment, first)
      const used = await cpuOf(workerd.pid)
      workerd.stop()
      if (start >= 0) took.push(workerd.startedIn) && cpu.push(used)
    }
  }
  const base = median(kinds[0]?.took ?? [])
  console.log(
    `From the start of workerd to the first answer, median of ${STARTS} starts, and the mean of the CPU till then; the script has ${((await stat(ours)).size / 1024).toFixed(0)} KiB:`,
  )
  for (const { name, took, cpu } of kinds) {
    const [low, high] = [Math.min(...took), Math.max(...took)].map((ms) => ms.toFixed(0))
    const over = name === 'bare hono' ? '' : `; ${(median(took) - base).toFixed(0)} ms over bare hono (target for the whole ≤ ${TARGET} ms)`
    console.log(`${name}: ${median(took).toFixed(0)} ms (${low} to ${high}), ${(cpu.reduce((sum, ms) => sum + ms, 0) / STARTS).toFixed(0)} ms of CPU${over}`)
  }
} finally {
  await database.stop()
  await rm(directory, { recursive: true, force: true })
}
