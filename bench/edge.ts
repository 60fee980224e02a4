/**
 * What resolving adds to a request: `node bench/edge.ts`. Two things that are compared run in one workerd, driven
 * directly and in turn, and the figure is the CPU that workerd spent on each request: a busy machine slows both and
 * changes little. Figures are medians of the rounds; ratios are to the bare thing.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { signDevToken } from '../src/local/dev.ts'
import { rawRequest } from './load.ts'
import { bundle, compare, HOST, startDatabase, startWorkerd, TOKEN_SECRET, type Workerd } from './workerd.ts'

const directory = await mkdtemp(join(tmpdir(), 'stratum-bench-'))
const database = await startDatabase(directory)
let workerd: Workerd | undefined
try {
  const script = await bundle(directory, 'bench/edge-worker.ts')
  workerd = await startWorkerd(
    script,
    { ...database.environment, STRATUM_LOG: 'off', STRATUM_PRINCIPAL_LIMIT: 'off', STRATUM_TENANT_LIMIT: 'off' },
    rawRequest('/bare', { host: 'bench' }),
  )
  const authorization = `Bearer ${await signDevToken(TOKEN_SECRET, { tenant: 'bench_client', scope: 'read' }, 'user')}`
  const get = (path: string) => rawRequest(path, { host: HOST, authorization })
  await compare(workerd, { name: 'warm resolve', ours: get('/warm'), bare: get('/bare'), requests: 8_000, target: '≥ 0.80× the requests/s' })
  await compare(workerd, { name: 'warm resolve with one line of log', ours: get('/warm-logged'), bare: get('/bare'), requests: 8_000, target: 'none' })
  await compare(workerd, { name: "the API's own GET /context, kept", ours: get('/api/v1/context'), bare: get('/bare'), requests: 4_000, target: 'none' })
  await compare(workerd, { name: 'cold resolve against one bare query', ours: get('/cold'), bare: get('/query'), requests: 800, target: '≤ 1.5× the CPU' })
} finally {
  workerd?.stop()
  await database.stop()
  await rm(directory, { recursive: true, force: true })
}
