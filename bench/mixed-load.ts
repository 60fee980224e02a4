/**
 * Mixed load at the machine's limit: `node bench/mixed-load.ts --minutes 15`. One workerd with the Worker as it is deployed,
 * asked over many connections without a pause; half-way the database goes away for 30 seconds and comes back. It ends
 * with code 1 when an answer was wrong, or when memory grew.
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { loadavg, tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { startNeonEndpoint } from '../src/local/neon-endpoint.ts'
import { type Answer, Connection, rawRequest } from './load.ts'
import { type Kind, mixedRequests } from './mixed-requests.ts'
import { API_HOST, bundle, startDatabase, startWorkerd, type Workerd } from './workerd.ts'

const { values } = parseArgs({ options: { minutes: { type: 'string', default: '15' }, connections: { type: 'string', default: '24' } } })
const DURATION = Number(values.minutes) * 60_000
/** Milliseconds that the database is away, within the grace of 60 seconds in which what is kept is served. */
const AWAY = Math.min(30_000, DURATION / 4)
const SAMPLE = Math.min(60_000, DURATION / 15)
/** How much more memory the last third may take than the first one after the warm-up, which is a sixth of all. */
const GROWTH = 1.15
const LONGEST_ANSWER = 60_000

type Phase = 'before' | 'away' | 'after'

/** Milliseconds, counted in tenths up to 20 seconds. */
class Latencies {
  readonly #counts = new Uint32Array(200_001)
  total = 0

  add(milliseconds: number): void {
    const tenth = Math.min(this.#counts.length - 1, Math.floor(milliseconds * 10))
    this.#counts[tenth] = (this.#counts[tenth] ?? 0) + 1
    this.total++
  }

  at(share: number): string {
    let left = this.total * share
    const tenth = this.#counts.findIndex((count) => {
      left -= count
      return left <= 0
    })
    return (tenth / 10).toFixed(1)
  }
}

/** What came back. */
class Tally {
  readonly statuses = new Map<string, number>()
  readonly latencies = new Map<string, Latencies>()
  readonly wrong: string[] = []
  answers = 0
  wrongAnswers = 0
  phase: Phase = 'before'
  /** No more requests are wanted. */
  ended = false
  window = new Latencies()
  readonly all = new Latencies()
  /** Resolves that were served past the promised staleness, saying so. */
  stale: Record<Phase, number> = { before: 0, away: 0, after: 0 }
  /** When the database came back, when a write was first done again and when an answer was last marked stale. */
  readonly recovery = { back: 0, firstWrite: 0, lastStale: 0 }

  note(kind: Kind, phase: Phase, answer: Answer, took: number): void {
    const { status, headers, body } = answer
    const code = status < 400 ? '' : ` ${/"code":"(\w+)"/.exec(body)?.[1]}`
    const line = `${kind.name} | ${phase} | ${status}${code}`
    this.statuses.set(line, (this.statuses.get(line) ?? 0) + 1)
    const latencies = this.latencies.get(kind.name) ?? new Latencies()
    this.latencies.set(kind.name, latencies)
    this.window.add(took)
    this.answers++
    // A refusal for want of a database takes less than what was asked for.
    if (phase !== 'away') for (const each of [latencies, this.all]) each.add(took)
    const expected = kind.expected.includes(status)
    if (expected) kind.note?.(answer)
    const excused = (status === 503 || status === 429) && headers.has('retry-after') && !kind.sure
    if (!expected && !excused) this.fail(`${line}: ${body.slice(0, 300)}`)
    if (headers.has('stratum-stale')) {
      this.stale[phase]++
      this.recovery.lastStale = performance.now()
    }
    if (phase === 'after' && kind.name === 'config write' && status === 200) this.recovery.firstWrite ||= performance.now()
  }

  fail(what: string): void {
    this.wrongAnswers++
    if (this.wrong.length < 20) this.wrong.push(what)
  }
}

function picker(kinds: Kind[]): () => Kind {
  const tickets = kinds.flatMap((kind) => Array.from({ length: kind.share }, () => kind))
  return () => tickets[Math.floor(Math.random() * tickets.length)] as Kind
}

async function drive(port: number, pick: () => Kind, tally: Tally, until: number) {
  const connection = new Connection(port)
  while (!tally.ended && performance.now() < until) {
    const [kind, phase, sent] = [pick(), tally.phase, performance.now()]
    try {
      tally.note(kind, phase, await connection.ask(kind.make()), performance.now() - sent)
    } catch (error) {
      tally.fail(`${kind.name} | ${phase} | ${error}`)
    }
  }
  connection.close()
}

/** Resident memory of a process in MiB. */
async function memoryOf(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8')
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) / 1024
}

/** A line for each minute. @returns resident memory by minute */
async function watch({ pid }: Workerd, tally: Tally, until: number): Promise<number[]> {
  const memory: number[] = []
  const started = performance.now()
  console.log('minute | requests/s | p50 ms | p99 ms | workerd MiB | load of the machine')
  while (performance.now() < until - SAMPLE / 2) {
    tally.window = new Latencies()
    const began = performance.now()
    await sleep(Math.min(SAMPLE, until - began))
    const { window } = tally
    const rate = (window.total / (performance.now() - began)) * 1000
    memory.push(await memoryOf(pid))
    const minute = ((performance.now() - started) / 60_000).toFixed(1)
    console.log([minute, rate.toFixed(0), window.at(0.5), window.at(0.99), memory.at(-1)?.toFixed(0), loadavg()[0]?.toFixed(1)].join(' | '))
  }
  return memory
}

/** The database goes away in the middle of all. @returns the endpoint that it comes back with */
async function takeAway(database: Awaited<ReturnType<typeof startDatabase>>, tally: Tally) {
  await sleep((DURATION - AWAY) / 2)
  await database.neon.close()
  tally.phase = 'away'
  await sleep(AWAY)
  const back = await startNeonEndpoint({ postgresPort: database.postgres.port, port: database.neon.port })
  tally.phase = 'after'
  tally.recovery.back = performance.now()
  return back
}

const mean = (list: number[]) => list.reduce((a, b) => a + b, 0) / list.length

/** @returns how many times the memory of the beginning the end takes */
function growthOf(memory: number[]): number {
  const warm = memory.slice(Math.ceil(memory.length / 6))
  const third = Math.max(1, Math.floor(warm.length / 3))
  return mean(warm.slice(-third)) / mean(warm.slice(0, third))
}

function print(tally: Tally, growth: number, contexts: string) {
  console.log('\nrequest | database | status | answers')
  for (const [line, count] of [...tally.statuses].sort(([a], [b]) => (a < b ? -1 : 1))) console.log(`${line} | ${count}`)
  console.log('\nrequest, with the database | p50 ms | p99 ms')
  for (const [name, latencies] of tally.latencies) console.log([name, latencies.at(0.5), latencies.at(0.99)].join(' | '))
  const { back, firstWrite, lastStale } = tally.recovery
  const seconds = (at: number) => (at === 0 ? 'never' : `${((at - back) / 1000).toFixed(1)} s after it was back`)
  console.log(`\n${tally.answers} answers, ${tally.wrongAnswers} wrong (target 0); with the database p50 ${tally.all.at(0.5)} ms, p99 ${tally.all.at(0.99)} ms`)
  for (const what of tally.wrong) console.log(`  ${what}`)
  console.log(`Database away for ${AWAY / 1000} s: ${tally.stale.away} resolves served from what is kept and marked stale (${tally.stale.before} before)`)
  console.log(`  first write done ${seconds(firstWrite)}, last answer marked stale ${seconds(lastStale)}`)
  console.log(`Memory of the last third against the first after the warm-up: ${growth.toFixed(2)}× (target ≤ ${GROWTH}×, over 15 minutes)`)
  console.log(`The isolate's own counts: ${contexts}`)
}

const directory = await mkdtemp(join(tmpdir(), 'stratum-bench-'))
const database = await startDatabase(directory)
const closers: Array<() => unknown> = [() => rm(directory, { recursive: true, force: true }), () => database.stop()]
try {
  const { key } = await database.stratum.createApiKey(null, { name: 'bench', scopes: ['admin'] })
  const kinds = await mixedRequests(database, key)
  const script = await bundle(directory, 'workers/edge.ts')
  // Callers are counted, so that what that takes is there, and none is ever refused for it.
  const settings = { STRATUM_LOG: 'off', STRATUM_PRINCIPAL_LIMIT: '100000000/60', STRATUM_TENANT_LIMIT: '100000000/60' }
  const workerd = await startWorkerd(script, { ...database.environment, ...settings }, rawRequest('/api/v1/health', { host: API_HOST }))
  closers.push(() => workerd.stop())
  const tally = new Tally()
  closers.push(() => {
    tally.ended = true
  })
  const until = performance.now() + DURATION
  const driving = Array.from({ length: Number(values.connections) }, () => drive(workerd.port, picker(kinds), tally, until))
  const away = takeAway(database, tally).then((back) => closers.push(() => back.close()))
  const late = sleep(DURATION + LONGEST_ANSWER, null, { ref: false }).then(() => Promise.reject(new Error('Requests are still unanswered.')))
  const [memory] = await Promise.race([Promise.all([watch(workerd, tally, until), away, ...driving]), late])
  const { body } = await new Connection(workerd.port).ask(rawRequest('/api/v1/health', { host: API_HOST, 'x-api-key': key }))
  const growth = growthOf(memory)
  print(tally, growth, JSON.stringify((JSON.parse(body) as { contexts?: object }).contexts ?? body))
  if (tally.wrongAnswers > 0 || (DURATION >= 600_000 && growth > GROWTH)) process.exitCode = 1
} finally {
  for (let close = closers.pop(); close !== undefined; close = closers.pop()) await close()
}
