/**
 * A random walk that shows whether kept contexts ever differ from what SQL answers: after each change every question is
 * asked of an isolate that keeps what it was answered, and of a process that keeps nothing. Isolates with a fault each may
 * be tried beside the sound one, to show that the walk would notice it.
 */
import type { Database } from '../../../src/db/database.ts'
import { keepContexts } from '../../../src/features/context/kept.ts'
import { endpointList } from '../../../src/features/endpoints.ts'
import type { Services } from '../../../src/features/operation.ts'
import { resolveArrivals } from '../../../src/gateway/resolve.ts'
import { createApp } from '../../../src/http/app.ts'
import { RateLimiter } from '../../../src/http/rate-limit.ts'
import type { Installation } from '../../support/installation.ts'
import { BESIDE } from './beside.ts'
import { type Answer, contextQuestion, drawQuestions, type Question, type Service } from './questions.ts'
import { type Input, OPERATIONS, type Step } from './steps.ts'
import { type Difference, sum, type Walked, type WalkOptions } from './walked.ts'
import { AT_ONCE, World } from './world.ts'

/** All that a walk does. */
export const STEPS: Record<string, Step> = { ...OPERATIONS, ...BESIDE }

/** Ids of the API's operations that change something: what is no GET, but for the one that reads by POST. */
export const changingOperations = (): string[] => endpointList.flatMap(({ method, id }) => (method === 'GET' || id === 'resolve' ? [] : [id]))

/** Milliseconds. No answer is to go because of its age, and the next step comes later than what is kept may be served unseen. */
const OPTIONS = { maximumAge: Number.POSITIVE_INFINITY, maximumStaleness: 2_000 }
const STEP = 2_001
/** Longer than an issuer that was not there is taken to be missing. */
const TOKEN_STEP = 6_000
/** Questions renewed after each step, and what share of them may be refused. */
const RENEWED = 3
const REFUSED = 0.3

function serve(services: Services): Service {
  return { app: createApp({ services, version: 'test' }), arrive: resolveArrivals(services, new RateLimiter()) }
}

/** The database as it is between two changes: what several isolates ask alike is asked once. */
class Shared implements Database {
  readonly #db: Database
  #answers = new Map<string, Promise<unknown>>()

  constructor(db: Database) {
    this.#db = db
  }

  changed(): void {
    this.#answers = new Map()
  }

  call: Database['call'] = (operation, actor, input) => {
    const question = JSON.stringify([operation, actor.credential, actor.named, input])
    const answer = this.#answers.get(question) ?? this.#db.call(operation, actor, input)
    this.#answers.set(question, answer)
    return answer
  }
}

const idsOf = (things: ReadonlyArray<{ id: string }>): string[] => things.map(({ id }) => id)

/** In the order of the questions, some at a time. */
async function askAll(service: Service, questions: readonly Question[], version?: string): Promise<Answer[]> {
  const answers: Answer[] = []
  for (let from = 0; from < questions.length; from += AT_ONCE) {
    answers.push(...(await Promise.all(questions.slice(from, from + AT_ONCE).map((question) => question.ask(service, version)))))
  }
  return answers
}

class Walk {
  readonly #world: World
  readonly #shared: Shared
  readonly #sound: Service
  readonly #options: Required<WalkOptions>
  #tokenTime = Date.now()
  /** The last step, and whether it brought an issuer or took one away. */
  #after = 'nothing'
  #issuers = { come: false, gone: false }
  /** A question that is never renewed, so that there is one that has been asked before. */
  readonly #always: Question
  #questions: Question[] = []
  /** Those that were refused when they were last asked. */
  #refused = new Set<Question>()
  #nothingKept: Service
  #deck: string[] = []
  readonly walked: Walked = { done: {}, refused: {}, comparisons: 0, kept: 0, contexts: 0, differences: [], noticed: {} }

  constructor(world: World, options: WalkOptions) {
    this.#world = world
    this.#options = { faults: [], evenly: false, ...options }
    this.#shared = new Shared(world.directly)
    this.#sound = this.#isolate(this.#shared)
    this.#nothingKept = serve(world.services(world.directly))
    this.#always = contextQuestion(world.admin, {})
  }

  get ended(): boolean {
    const { faults } = this.#options
    return this.walked.differences.length > 0 || (faults.length > 0 && faults.every(({ name }) => this.walked.noticed[name]))
  }

  async begin(): Promise<void> {
    await this.#renew(this.#options.questions)
    await this.#warm([this.#sound])
  }

  /** A change, and then every question. */
  async step(): Promise<void> {
    const { version, trials } = await this.#change()
    this.#shared.changed()
    const before = idsOf(this.#world.known.issuers)
    await this.#world.look()
    const now = idsOf(this.#world.known.issuers)
    this.#issuers = { come: now.some((id) => !before.includes(id)), gone: before.some((id) => !now.includes(id)) }
    this.#tokenTime += TOKEN_STEP
    // Who knows of the change can say so, and time need not pass.
    const told = version !== null && this.#world.random.chance(0.3)
    if (!told) this.#world.time += STEP
    await this.#compare(told ? version : undefined, trials)
    await this.#renew(this.#options.questions - RENEWED)
    await this.#renew(this.#options.questions)
  }

  #isolate(db: Database): Service {
    const services = this.#world.services(db, () => this.#tokenTime)
    const contexts = keepContexts(db, { ...OPTIONS, now: () => this.#world.time, onChanges: (changes) => services.tokens.changed(changes) })
    return serve({ ...services, contexts })
  }

  /** Let isolates keep all they may. Twice, as none keeps a refusal before its feed has begun, and no refusal begins that. */
  async #warm(isolates: readonly Service[]): Promise<void> {
    for (let round = 0; round < 2; round++) await Promise.all(isolates.map((isolate) => askAll(isolate, [...this.#questions, this.#always])))
  }

  /** So many questions: others go or new ones come. Most are to be answered with a context. */
  async #renew(count: number): Promise<void> {
    const { random } = this.#world
    while (this.#questions.length > count) {
      const refused = this.#questions.filter((question) => this.#refused.has(question))
      const gone = random.any(refused.length > count * REFUSED ? refused : this.#questions)
      this.#questions = this.#questions.filter((question) => question !== gone)
    }
    while (this.#questions.length < count) {
      const drawn = await drawQuestions(this.#world)
      const answers = await askAll(this.#nothingKept, drawn)
      if (answers.every(({ refused }) => refused) && !random.chance(REFUSED)) continue
      this.#questions.push(...drawn.filter(({ text }) => this.#questions.every((other) => other.text !== text)))
    }
  }

  /** @returns the version to read the change at, where there is one, and isolates with a fault that should show now */
  async #change(): Promise<{ version: string | null; trials: Map<string, Service> }> {
    for (;;) {
      const [name, step, input] = this.#draw()
      this.#after = name
      const trials = await this.#trials(name)
      if (step.run) {
        await step.run(this.#world, input)
        this.#count('done', name)
        return { version: null, trials }
      }
      const reach = step.reach?.(this.#world, input) ?? [(input['id'] ?? null) as string | null]
      const { code, version, answer } = await this.#world.call(name, input, this.#world.adminOf(reach, step.bound))
      this.#count(code === 'ok' ? 'done' : 'refused', code === 'ok' ? name : `${name} ${code}`)
      if (code !== 'ok') continue
      step.learn?.(this.#world, answer)
      return { version, trials }
    }
  }

  /**
   * As from a deck of cards, so that each comes as often as it is meant to; what cannot be done yet is put back to its
   * bottom. Every other one is where a fault has still to be noticed.
   */
  #draw(): [name: string, step: Step, input: Input] {
    const sought = this.#world.random.any(this.#options.faults.filter(({ name }) => !this.walked.noticed[name]))
    if (sought && this.#world.random.chance(0.5)) this.#deck.push(this.#world.random.any(sought.at) ?? '')
    for (let put = 0; ; put++) {
      if (put >= this.#deck.length) {
        const cards = Object.entries(STEPS).flatMap(([name, { weight }]) => Array<string>(this.#options.evenly ? 1 : weight).fill(name))
        this.#deck.push(...this.#world.random.shuffled(cards))
        put = 0
      }
      const name = this.#deck.pop() ?? ''
      const step = STEPS[name]
      const input = step?.input(this.#world)
      if (step && input) return [name, step, input]
      this.#deck.unshift(name)
    }
  }

  #count(kind: 'done' | 'refused', name: string): void {
    const counts = this.walked[kind]
    counts[name] = (counts[name] ?? 0) + 1
  }

  async #trials(name: string): Promise<Map<string, Service>> {
    const pending = this.#options.faults.filter((fault) => fault.at.includes(name) && !this.walked.noticed[fault.name])
    const trials = new Map(
      pending.map((fault) => {
        const call: Database['call'] = async (operation, ...rest) => fault.corrupt(operation, await this.#shared.call(operation, ...rest))
        return [fault.name, this.#isolate({ call })]
      }),
    )
    await this.#warm([...trials.values()])
    return trials
  }

  async #compare(version: string | undefined, trials: Map<string, Service>): Promise<void> {
    const { walked } = this
    const shuffled = this.#world.random.shuffled([...this.#questions, this.#always])
    // Those that cannot ask for a version come after those that do.
    const asked = version === undefined ? shuffled : shuffled.sort((a, b) => Number(a.forwarded) - Number(b.forwarded))
    // Begun just now, so that the issuers it knows are those that there are.
    this.#nothingKept = serve(this.#world.services(this.#world.directly))
    const expected = await askAll(this.#nothingKept, asked)
    const answers = await this.#ask(this.#sound, asked, version)
    walked.differences.push(...this.#differences(asked, expected, answers))
    for (const [name, isolate] of trials) {
      const [difference] = this.#differences(asked, expected, await this.#ask(isolate, asked, version))
      if (difference) walked.noticed[name] = difference
    }
    this.#refused = new Set(asked.filter((_, index) => expected[index]?.refused))
    this.#world.claims = asked.flatMap((question) => (this.#refused.has(question) ? [] : question.bearers.flatMap((bearer) => bearer?.claim ?? [])))
    walked.comparisons += asked.length
    walked.kept += answers.filter(({ kept }) => kept).length
    walked.contexts += answers.filter(({ kept, refused }) => kept && !refused).length
  }

  async #ask(isolate: Service, asked: readonly Question[], version?: string): Promise<Answer[]> {
    // A new issuer may count for tokens that another has verified. The request which hears of it has read its own token
    // before, so here that one has none, and comes first.
    await askAll(isolate, this.#issuers.come ? [this.#always] : [], version)
    return askAll(isolate, asked, version)
  }

  #differences(asked: readonly Question[], expected: readonly Answer[], answers: readonly Answer[]): Difference[] {
    const step = sum(this.walked.done)
    return asked.flatMap(({ text }, index) => {
      const [answer, fresh] = [answers[index] as Answer, expected[index] as Answer]
      // Which of two refusals comes first hangs on whether the process has heard that the issuer of the token is gone.
      const same = answer.text === fresh.text || (answer.refused && fresh.refused && this.#issuers.gone)
      return same ? [] : [{ step, after: this.#after, question: text, answer, expected: fresh }]
    })
  }
}

export async function walk(installation: Installation, options: WalkOptions): Promise<Walked> {
  const world = new World(installation, options.seed)
  try {
    await world.plant()
    const walk = new Walk(world, options)
    await walk.begin()
    for (let step = 0; step < options.steps && !walk.ended; step++) await walk.step()
    return walk.walked
  } finally {
    await world.close()
  }
}
