/** How old answers of other isolates are while one writes: what bench/freshness.ts counts, and holds against the bound. */
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Answer, Connection, rawRequest } from './load.ts'
import { API_HOST, HOST, type startDatabase, type Workerd } from './workerd.ts'

/** Milliseconds that an answer may be old: STRATUM_MAXIMUM_STALENESS_MS. */
export const BOUND = 2_000
const LOAD_SECONDS = 40
const VERSION_SECONDS = 15
const CONNECTIONS = 6
const ROUNDS = 20
const EDGES = [0, 500, 1_000, 1_250, 1_500, 1_750, BOUND]

export interface Bench {
  database: Awaited<ReturnType<typeof startDatabase>>
  /** An admin's. */
  apiKey: string
  /** A user's of the tenant. */
  authorization: string
  /** Another isolate, which has answered `first`. */
  start(first: string): Promise<Workerd>
}

/** A gap between requests of a Poisson process, in milliseconds. */
export const poissonGap = (perSecond: number) => (-Math.log(1 - Math.random()) * 1000) / perSecond

const askForContext = ({ authorization }: Bench, version?: string) =>
  rawRequest('/api/v1/context', { host: HOST, authorization, ...(version === undefined ? {} : { 'stratum-min-version': version }) })

async function write(connection: Connection, { apiKey }: Bench, method: string, path: string, body: object): Promise<string> {
  const answer = await connection.ask(rawRequest(`/api/v1${path}`, { host: API_HOST, 'x-api-key': apiKey }, { method, body }))
  const version = answer.headers.get('stratum-version')
  if (answer.status !== 200 || version === undefined) throw new Error(`${method} ${path} was answered ${answer.status}: ${answer.body}`)
  return version
}

/** Counts a config value of the tenant up, and remembers when each value was sent and when it was acknowledged. */
class Writer {
  readonly sent: number[] = []
  readonly acknowledged: number[] = []
  /** Of the write that was acknowledged last. */
  version = ''
  readonly #bench: Bench
  readonly #connection: Connection

  constructor(bench: Bench, { port }: Workerd) {
    this.#bench = bench
    this.#connection = new Connection(port)
  }

  async count(): Promise<void> {
    this.sent.push(performance.now())
    const path = `/tenants/${this.#bench.database.tenant}/config/counter`
    this.version = await write(this.#connection, this.#bench, 'PUT', path, { value: this.sent.length })
    this.acknowledged.push(performance.now())
  }

  async countUntil(until: number): Promise<void> {
    while (performance.now() < until) await this.count()
    this.#connection.close()
  }
}

/** What readers found, in milliseconds. */
class Findings {
  readonly staleness: number[] = []
  /** The same, counted from when the missing write was sent, which is before it was committed. */
  mostSinceSent = 0
  /** Answers that said themselves that they may be too old. */
  marked = 0
  /** Answers without a write that was acknowledged before they were asked for. */
  lacking = 0

  note({ sent, acknowledged }: Writer, answer: Answer, asked: number): void {
    if (answer.status !== 200) throw new Error(`The context was answered ${answer.status}: ${answer.body}`)
    if (answer.headers.has('stratum-stale')) this.marked++
    const { counter } = (JSON.parse(answer.body) as { config: { counter: { value: number } } }).config
    // Values count from 1, so the first write that the answer lacks is the one at this index.
    const missing = acknowledged[counter.value]
    if (missing !== undefined && missing <= asked) this.lacking++
    this.staleness.push(Math.max(0, asked - (missing ?? asked)))
    this.mostSinceSent = Math.max(this.mostSinceSent, asked - (sent[counter.value] ?? asked))
  }

  print(who: string): void {
    const sorted = this.staleness.toSorted((a, b) => a - b)
    const at = (share: number) => (sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN).toFixed(0)
    const buckets = [...EDGES, Number.POSITIVE_INFINITY].map((edge, index) => {
      const count = sorted.filter((age) => age <= edge && age > (EDGES[index - 1] ?? -1)).length
      return `${edge === Number.POSITIVE_INFINITY ? `> ${BOUND}` : `≤ ${edge}`}: ${count}`
    })
    console.log(`${who}: ${sorted.length} answers, p50 ${at(0.5)}, p90 ${at(0.9)}, p99 ${at(0.99)}, max ${at(1)} ms (target ≤ ${BOUND})`)
    console.log(
      `  from when the missing write was sent: max ${this.mostSinceSent.toFixed(0)} ms; marked stale: ${this.marked}; histogram: ${buckets.join(', ')}`,
    )
  }

  /** Answers that were older than the bound without saying so. */
  get tooOld(): number {
    return this.staleness.filter((age) => age > BOUND).length
  }
}

/** Ask an isolate until then, pausing as told between requests. */
async function readUntil(
  bench: Bench,
  { port }: Workerd,
  writer: Writer,
  findings: Findings,
  until: number,
  asking: { pause?: () => number; newest?: boolean },
) {
  const connection = new Connection(port)
  while (performance.now() < until) {
    if (asking.pause) await sleep(asking.pause())
    const asked = performance.now()
    findings.note(writer, await connection.ask(askForContext(bench, asking.newest ? writer.version : undefined)), asked)
  }
  connection.close()
}

/** @returns answers that broke what was promised */
export async function measureStaleness(bench: Bench, [own, ...others]: Workerd[]): Promise<number> {
  if (!own) throw new Error('There has to be an isolate that writes.')
  const writer = new Writer(bench, own)
  await writer.count()
  for (const { port } of others) await new Connection(port).ask(askForContext(bench, writer.version))
  const [busy, quiet, newest] = [new Findings(), new Findings(), new Findings()]
  const delay = monitorEventLoopDelay({ resolution: 5 })
  delay.enable()
  const loaded = others.slice(0, 2).flatMap((isolate) => Array.from({ length: CONNECTIONS }, () => isolate))
  const until = performance.now() + LOAD_SECONDS * 1000
  await Promise.all([
    writer.countUntil(until),
    ...loaded.map((isolate) => readUntil(bench, isolate, writer, busy, until, {})),
    ...others.slice(2).map((isolate) => readUntil(bench, isolate, writer, quiet, until, { pause: () => poissonGap(1) })),
  ])
  const written = writer.acknowledged.length
  console.log(`\nStaleness while one isolate writes without a pause (${(written / LOAD_SECONDS).toFixed(0)} writes/s) and others read:`)
  busy.print('2 isolates under load')
  quiet.print(`${others.length - 2} isolates at 1 request/s (Poisson)`)
  const end = performance.now() + VERSION_SECONDS * 1000
  await Promise.all([writer.countUntil(end), ...loaded.map((isolate) => readUntil(bench, isolate, writer, newest, end, { newest: true }))])
  delay.disable()
  const more = writer.acknowledged.length - written
  console.log(
    `With Stratum-Min-Version, ${(more / VERSION_SECONDS).toFixed(0)} writes/s: ${newest.staleness.length} answers, ${newest.lacking} without a write acknowledged before (target 0)`,
  )
  console.log(`This process itself was late by ${(delay.max / 1e6).toFixed(0)} ms at most: acknowledgements may have come that much before they were noted.`)
  return busy.tooOld + quiet.tooOld + newest.lacking
}

/** Ask until refused. @returns when the refusal was there, and when the last request was sent that was still served */
async function untilRefused(bench: Bench, { port }: Workerd, pause: () => number, from: () => number) {
  const connection = new Connection(port)
  let lastServed = 0
  try {
    for (;;) {
      await sleep(pause())
      const asked = performance.now()
      const { status, body } = await connection.ask(askForContext(bench))
      if (status !== 200 && !body.includes('TENANT_SUSPENDED')) throw new Error(`The context was answered ${status}: ${body}`)
      if (status !== 200) return { refused: performance.now() - from(), lastServed: Math.max(0, lastServed) }
      lastServed = asked - from()
    }
  } finally {
    connection.close()
  }
}

/** @returns answers that came for longer than the bound after the suspension */
export async function measureSuspensions(bench: Bench, [own, steady, ...others]: Workerd[]): Promise<number> {
  if (!own || !steady) throw new Error('There have to be isolates to ask.')
  const writing = new Connection(own.port)
  const quiet = others.slice(0, 3)
  const steadily: Array<{ refused: number; lastServed: number }> = []
  const rarely: typeof steadily = []
  for (let round = 0; round < ROUNDS; round++) {
    // Until it is acknowledged, nothing is late.
    let acknowledged = Number.POSITIVE_INFINITY
    const asking = [
      untilRefused(
        bench,
        steady,
        () => 20,
        () => acknowledged,
      ),
      ...quiet.map((isolate) =>
        untilRefused(
          bench,
          isolate,
          () => poissonGap(1),
          () => acknowledged,
        ),
      ),
    ]
    const suspended = sleep(Math.random() * BOUND).then(async () => {
      await write(writing, bench, 'POST', `/tenants/${bench.database.tenant}/suspend`, {})
      acknowledged = performance.now()
    })
    const [first, ...rest] = await Promise.all(asking)
    await suspended
    if (first) steadily.push(first)
    rarely.push(...rest)
    const version = await write(writing, bench, 'POST', `/tenants/${bench.database.tenant}/resume`, {})
    for (const { port } of [steady, ...quiet]) await new Connection(port).ask(askForContext(bench, version))
  }
  writing.close()
  const most = (list: typeof steadily, what: 'refused' | 'lastServed') => Math.max(...list.map((one) => one[what])).toFixed(0)
  const sorted = steadily.map(({ refused }) => refused).toSorted((a, b) => a - b)
  console.log(`\nA suspension, ${ROUNDS} times, from its acknowledgement, at other isolates:`)
  console.log(`asked every 20 ms: refused after ${sorted[ROUNDS / 2]?.toFixed(0)} ms (median), ${most(steadily, 'refused')} ms at most (target ≤ ${BOUND})`)
  console.log(
    `asked once a second (Poisson, ${quiet.length} isolates): the last request that was served came ${most(rarely, 'lastServed')} ms after it (target ≤ ${BOUND})`,
  )
  return [...steadily, ...rarely].filter(({ lastServed }) => lastServed > BOUND).length
}
