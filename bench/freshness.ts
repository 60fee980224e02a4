/**
 * How fresh kept contexts are, and what that costs: `node bench/freshness.ts`, with `--seconds 30` for a quick look.
 * Against the Worker as it is deployed, each isolate a workerd of its own, all on one database. It ends with code 1
 * when an answer was older than the bound, or lacked a version that it was to have.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { signDevToken } from '../src/local/dev.ts'
import { Connection, rawRequest, send } from './load.ts'
import { type Bench, BOUND, measureStaleness, measureSuspensions, poissonGap } from './staleness.ts'
import { API_HOST, bundle, HOST, startDatabase, startWorkerd, TOKEN_SECRET, type Workerd } from './workerd.ts'

/** Milliseconds after the last poll from which a request has another one made beside it. */
const POLL_INTERVAL = 1_000
/** Requests a second for each isolate, and how many isolates are asked so: the fewer the requests, the more to count any. */
const RATES = [
  { rate: 0.1, isolates: 12 },
  { rate: 1, isolates: 4 },
  { rate: 10, isolates: 2 },
]
const ISOLATES = 8

const { values } = parseArgs({ options: { seconds: { type: 'string', default: '150' } } })
const seconds = Number(values.seconds)

interface Counts {
  polls: number
  waited: number
}

async function countsOf({ port }: Workerd, { apiKey }: Bench): Promise<Counts> {
  const connection = new Connection(port)
  const { body } = await connection.ask(rawRequest('/api/v1/health', { host: API_HOST, 'x-api-key': apiKey }))
  connection.close()
  return (JSON.parse(body) as { contexts: Counts }).contexts
}

/** Requests whose gaps are exponential: a Poisson process. @returns how many there were */
async function arrive({ port }: Workerd, request: string, rate: number, until: number): Promise<number> {
  const answers: Array<Promise<unknown>> = []
  for (let next = performance.now() + poissonGap(rate); next < until; next += poissonGap(rate)) {
    await sleep(Math.max(0, next - performance.now()))
    answers.push(
      send(port, request, 1, 1).then(
        () => null,
        (error: unknown) => error,
      ),
    )
  }
  const failed = (await Promise.all(answers)).find((error) => error !== null)
  if (failed) throw failed
  return answers.length
}

const percent = (share: number) => `${(share * 100).toFixed(1)} %`

/**
 * A poll is followed by the first request after a second, which makes the next one beside itself, or, more than two
 * seconds after the last, waits for it: so of the 1 + r requests from one poll to the next e^-r waits, and an isolate polls
 * r / (1 + r) times a second.
 */
function expected(rate: number) {
  const between = 1 + (rate * POLL_INTERVAL) / 1000
  return { waiting: Math.exp((-rate * (BOUND - POLL_INTERVAL)) / 1000) / between, polls: rate / between }
}

async function startMany(count: number, bench: Bench, first: string): Promise<Workerd[]> {
  const isolates: Workerd[] = []
  while (isolates.length < count) isolates.push(await bench.start(first))
  return isolates
}

async function measureWaits(bench: Bench) {
  const request = rawRequest('/api/v1/context', { host: HOST, authorization: bench.authorization })
  const fleets = await Promise.all(RATES.map(async ({ rate, isolates }) => ({ rate, isolates: await startMany(isolates, bench, request) })))
  const until = performance.now() + seconds * 1000
  const rows = fleets.map(async ({ rate, isolates }) => {
    for (const { port } of isolates) await send(port, request, 1, 1)
    const before = await Promise.all(isolates.map((isolate) => countsOf(isolate, bench)))
    const requests = await Promise.all(isolates.map((isolate) => arrive(isolate, request, rate, until)))
    const after = await Promise.all(isolates.map((isolate) => countsOf(isolate, bench)))
    const sum = (what: keyof Counts) => after.reduce((total, counts, index) => total + counts[what] - (before[index]?.[what] ?? 0), 0)
    const total = requests.reduce((a, b) => a + b, 0)
    const { waiting, polls } = expected(rate)
    const pollsPerSecond = sum('polls') / seconds / isolates.length
    return [rate, isolates.length, total, sum('waited'), percent(sum('waited') / total), percent(waiting), pollsPerSecond.toFixed(3), polls.toFixed(3)]
  })
  console.log(`Requests that wait for a poll, Poisson arrivals for ${seconds} s, ${BOUND} ms allowed staleness:`)
  console.log('requests/s an isolate | isolates | requests | waited | share | expected | polls/s an isolate | expected')
  for (const row of await Promise.all(rows)) console.log(row.join(' | '))
  for (const { isolates } of fleets) for (const isolate of isolates) isolate.stop()
}

const directory = await mkdtemp(join(tmpdir(), 'stratum-bench-'))
const database = await startDatabase(directory)
const running: Workerd[] = []
try {
  const script = await bundle(directory, 'workers/edge.ts')
  const settings = { STRATUM_LOG: 'off', STRATUM_PRINCIPAL_LIMIT: 'off', STRATUM_TENANT_LIMIT: 'off', STRATUM_MAXIMUM_STALENESS_MS: String(BOUND) }
  const bench: Bench = {
    database,
    apiKey: (await database.stratum.createApiKey(null, { name: 'bench', scopes: ['admin'] })).key,
    authorization: `Bearer ${await signDevToken(TOKEN_SECRET, { tenant: 'bench_client', scope: 'read' }, 'user')}`,
    async start(first) {
      const isolate = await startWorkerd(script, { ...database.environment, ...settings }, first)
      running.push(isolate)
      return isolate
    },
  }
  if (seconds > 0) await measureWaits(bench)
  const first = rawRequest('/api/v1/health', { host: API_HOST })
  const isolates = await startMany(ISOLATES, bench, first)
  const broken = (await measureStaleness(bench, isolates)) + (await measureSuspensions(bench, isolates))
  if (broken > 0) {
    console.error(`${broken} answers broke what was promised.`)
    process.exitCode = 1
  }
} finally {
  for (const isolate of running) isolate.stop()
  await database.stop()
  await rm(directory, { recursive: true, force: true })
}
