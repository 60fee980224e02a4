/**
 * Races: several connections start their calls at the same moment, round after round. They wait together at
 * a gate inside the database, so that they meet within microseconds of its opening.
 */
import pg from 'pg'
import { callStatement } from '../../src/db/errors.ts'
import type { Installation } from '../support/installation.ts'
import { currentMark, faults } from './invariants.ts'
import { type Call, type Connection, type Outcome, outcomeOf, RACER, run } from './operations.ts'

const GATE = 4_711
const MAX_CONTENDERS = 4

/** How often each combination of outcomes came up, and what the port's retry swallowed. */
export interface Tally {
  rounds: number
  outcomes: Record<string, number>
  retried: Record<string, number>
  blemishes: string[]
}

export interface Definition<C> {
  name: string
  /** Rounds share tenants, so all since the first are looked at after each. */
  lasting?: boolean
  /** What a round races over; made before the gate opens. */
  prepare(arena: Arena, round: number): Promise<C>
  calls(context: C): Call[]
  /** What is wrong with how a round ended, beyond what must hold always; null when nothing is. */
  judge(context: C, outcomes: Outcome[], arena: Arena): Promise<string | null> | string | null
  /** Codes that may come back besides `ok`. */
  codes: string[]
}

type Verdict = string | null

/** A race, ready to be played round by round. */
export interface Race {
  name: string
  lasting: boolean
  codes: string[]
  round(arena: Arena, round: number): Promise<{ calls: Call[]; judge(outcomes: Outcome[]): Promise<Verdict> | Verdict }>
}

export const race = <C>({ name, lasting = false, codes, prepare, calls, judge }: Definition<C>): Race => ({
  name,
  lasting,
  codes,
  round: async (arena, round) => {
    const context = await prepare(arena, round)
    return { calls: calls(context), judge: (outcomes) => judge(context, outcomes, arena) }
  },
})

export class Arena {
  readonly owner: pg.Pool
  readonly #pool: pg.Pool
  readonly #contenders: pg.Client[]
  readonly #starter: pg.Client
  #slug = 0

  private constructor(installation: Installation) {
    const { control } = installation.urls
    this.owner = installation.owner
    this.#pool = new pg.Pool({ connectionString: control, max: 2 })
    this.#pool.on('error', () => {})
    const client = () => new pg.Client(control).on('error', () => {})
    this.#contenders = Array.from({ length: MAX_CONTENDERS }, client)
    this.#starter = client()
  }

  static async open(installation: Installation): Promise<Arena> {
    const arena = new Arena(installation)
    await Promise.all([arena.#starter, ...arena.#contenders].map((client) => client.connect()))
    return arena
  }

  async close(): Promise<void> {
    await Promise.all([this.#pool.end(), this.#starter.end(), ...this.#contenders.map((client) => client.end())])
  }

  /** Run one call, which must succeed. */
  call<T = { id: string }>(operation: string, input: Record<string, unknown>): Promise<T> {
    return run(this.#pool, { operation, input }) as Promise<T>
  }

  /** For what is asked and must not be raced over. */
  get control(): Connection {
    return this.#pool
  }

  slug = (): string => `t${++this.#slug}`

  async tenant(parentId: string | null = null, slug = this.slug()): Promise<string> {
    return (await this.call('create_tenant', tenantInput(parentId, slug))).id
  }

  /** A line of tenants, each under the one before; the ids from the top down. */
  async line(length: number, parentId: string | null = null): Promise<string[]> {
    const ids: string[] = []
    for (let level = 0; level < length; level++) ids.push(await this.tenant(ids.at(-1) ?? parentId))
    return ids
  }

  async #waiting(): Promise<number> {
    const { rows } = await this.#starter.query(
      `select count(*)::int as waiting from pg_locks where locktype = 'advisory' and objid = ${GATE} and not granted
       and database = (select oid from pg_database where datname = current_database())`,
    )
    return Number(rows[0]?.['waiting'])
  }

  /** Run all calls at once, each on its own connection. `reversed` changes who queues first. */
  async race(calls: Call[], reversed = false): Promise<Outcome[]> {
    await this.#starter.query(`select pg_advisory_lock(${GATE})`)
    const order = calls.map((_, index) => index)
    if (reversed) order.reverse()
    const outcomes: Array<Promise<Outcome>> = []
    for (const index of order) {
      const call = calls[index]
      const contender = this.#contenders[index]
      if (!call || !contender) throw new RangeError(`at most ${MAX_CONTENDERS} contenders`)
      outcomes[index] = outcomeOf(gated(contender, call))
    }
    // Looked for, not waited for: the moment all stand at the gate, it opens.
    while ((await this.#waiting()) < calls.length);
    await this.#starter.query(`select pg_advisory_unlock(${GATE})`)
    return Promise.all(outcomes)
  }

  /** Play `rounds` rounds; after each, what must hold is looked up for the round's own tenants. */
  async play({ round: startRound, codes: allowed, lasting }: Race, rounds: number): Promise<Tally> {
    const tally: Tally = { rounds, outcomes: {}, retried: {}, blemishes: [] }
    const start = await currentMark(this.owner)
    for (let round = 0; round < rounds; round++) {
      const mark = lasting ? start : await currentMark(this.owner)
      const { calls, judge } = await startRound(this, round)
      const outcomes = await this.race(calls, round % 2 === 1)
      const codes = outcomes.map(({ code }) => code)
      count(tally.outcomes, codes.join(' + '))
      // A lock that was not had in time once may be a machine that stood still; twice in a row it is DATABASE_BUSY.
      for (const state of outcomes.flatMap(({ retried }) => retried).filter((each) => each !== '55P03')) count(tally.retried, state)
      const unexpected = codes.filter((code) => code !== 'ok' && !allowed.includes(code))
      const complaint = await judge(outcomes)
      const broken = (await faults(this.owner, mark)).map(({ fault, subject }) => `${fault} (${subject})`)
      tally.blemishes.push(...[...unexpected, ...(complaint ? [complaint] : []), ...broken].map((text) => `round ${round} [${codes.join(' + ')}]: ${text}`))
    }
    return tally
  }
}

export const tenantInput = (parentId: string | null, slug: string) => ({
  parent_id: parentId,
  slug,
  name: slug,
  isolation_strategy: 'SHARED_RLS',
  metadata: {},
})

const count = (counts: Record<string, number>, key: string) => {
  counts[key] = (counts[key] ?? 0) + 1
}

/** First through the gate, then as any call. One implicit transaction, as the port's statement is. */
function gated(client: pg.Client, call: Call): () => Promise<unknown> {
  let first = true
  return async () => {
    if (!first) return run(client, call)
    first = false
    const text = (value: unknown) => client.escapeLiteral(JSON.stringify(value))
    const statement = callStatement(call.operation)
      .replace('$1', () => text(call.actor ?? RACER))
      .replace('$2', () => text(call.input))
    // Without parameters the driver sends both statements at once, and answers a list.
    const results: unknown = await client.query(`select pg_advisory_xact_lock_shared(${GATE}); ${statement}`)
    const [, answered] = results as [pg.QueryResult, pg.QueryResult<{ answer: unknown }>]
    return answered.rows[0]?.answer
  }
}
