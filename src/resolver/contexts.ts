/**
 * Answers to "which tenant is this, who asks, what holds there", kept in the isolate and as fresh as was promised.
 *
 * A kept answer is served while the feed was polled within the allowed staleness; polls run beside requests, as a
 * Worker has no timer between them. A request that has to see a certain change waits for a poll that does.
 */
import { stratumError } from '../core/error-classes.ts'
import { StratumError } from '../core/errors.ts'
import { Breaker } from './breaker.ts'
import { ChangeFeed, type ReadChanges } from './change-feed.ts'
import { ContextCache, type Tags } from './context-cache.ts'

/** Milliseconds and bytes. */
export interface ContextsOptions {
  /** How old what is served may be. 0: every request waits for a poll. */
  maximumStaleness?: number
  /** A request later than this after the last poll has another one made beside it. */
  pollInterval?: number
  /** While the database is away or too busy, how old what is served may get. */
  grace?: number
  maximumEntries?: number
  maximumBytes?: number
  /** No answer is kept longer, whatever the feed says. */
  maximumAge?: number
  /** How long a request waits for what another one has asked for, before it asks by itself. */
  followerTimeout?: number
  now?: () => number
}

const DEFAULTS = {
  maximumStaleness: 2_000,
  pollInterval: 1_000,
  grace: 60_000,
  maximumEntries: 5_000,
  maximumBytes: 16 * 1_048_576,
  maximumAge: 600_000,
  followerTimeout: 3_000,
  now: () => Date.now(),
}

/** What the loader of an answer brings. */
export interface Loaded<T> {
  value: T
  tags: Tags
  /** Where the feed stands, as SQL's `feed_position`. */
  feed: unknown
  /** Milliseconds since 1970 after which it no longer holds, e.g. as its API key expires. */
  until?: number
}

/** What a request says of how it wants to be answered. */
export interface Asking {
  /** Id of a transaction whose changes the answer has to hold: `Stratum-Min-Version`. */
  minimumVersion?: string | undefined
  /** Keeps what goes on beside the request alive after its answer. */
  waitUntil?: ((work: Promise<unknown>) => void) | undefined
}

/** `stale`: the database is away, and the answer may be older than promised. */
export type Outcome = 'hit' | 'miss' | 'stale'

export interface Resolved<T> {
  value: T
  outcome: Outcome
}

const COUNTED = { hit: 'hits', miss: 'misses', stale: 'stale' } as const

/** Refusals that say something of tenant or credential, and so may be kept like an answer. */
const KEPT_REFUSALS = ['TENANT_NOT_FOUND', 'TENANT_SUSPENDED', 'TENANT_ARCHIVED', 'TENANT_MISMATCH', 'TENANT_REQUIRED', 'API_KEY_INVALID']
/** Milliseconds after which a poll under way is not waited for any more: the request that began it may have been cut off, and then it never ends. */
const PATIENCE = 1_000
const ANY_CHANGE: Tags = { path: null, names: [], principal: null, issuers: [] }

/** What was waited for took too long. */
class Late extends Error {}

type Answer<T> = { value: T } | { refusal: StratumError }

export class Contexts<T> {
  readonly #options: Required<ContextsOptions>
  readonly #cache: ContextCache<Answer<T>>
  readonly #feed: ChangeFeed
  readonly #breaker: Breaker
  readonly #loading = new Map<string, { answer: Promise<Answer<T>>; began: number }>()
  #polling: { ended: Promise<void>; began: number } | undefined
  readonly #counts = { hits: 0, misses: 0, stale: 0, polls: 0, waited: 0 }

  constructor(read: ReadChanges, options: ContextsOptions = {}) {
    this.#options = { ...DEFAULTS, ...options }
    const { now, maximumEntries, maximumBytes } = this.#options
    this.#feed = new ChangeFeed(read, now)
    this.#cache = new ContextCache({ entries: maximumEntries, bytes: maximumBytes })
    this.#breaker = new Breaker(now)
  }

  /** Since the isolate began; for those who watch it. */
  get counts() {
    const { changed, room } = this.#cache.dropped
    return { ...this.#counts, evictions: changed, dropped_for_room: room, entries: this.#cache.size, bytes: this.#cache.bytes }
  }

  /**
   * The kept answer of this key, else what `load` brings.
   * @throws what `load` throws, a refusal as if it had been asked for now; DATABASE_UNAVAILABLE when there is neither
   */
  async resolve(key: string, load: () => Promise<Loaded<T>>, asking: Asking = {}): Promise<Resolved<T>> {
    const served = this.served(key, asking)
    if (served) return served
    const came = this.#options.now()
    const kept = this.#cache.get(key, came)
    const found = kept && (await this.#polled(key, kept.value, asking, came))
    if (found) return this.#answer(found.answer, found.outcome)
    return this.#answer(await this.#loaded(key, load, asking), 'miss')
  }

  /**
   * The kept answer of this key where it may be served as it is, at once.
   * @throws the refusal that is kept
   */
  served(key: string, asking: Asking = {}): Resolved<T> | undefined {
    const { now, maximumStaleness, pollInterval } = this.#options
    const came = now()
    if (maximumStaleness === 0 || !this.#isFresh(asking, came)) return undefined
    const kept = this.#cache.get(key, came)
    if (!kept) return undefined
    // So that the next one may be served, too. One that is under way is another request's own affair.
    if (came - this.#feed.sentAt > pollInterval && !this.#isPolling(came)) void this.#poll(asking.waitUntil)
    return this.#answer(kept.value, 'hit')
  }

  #answer(answer: Answer<T>, outcome: Outcome): Resolved<T> {
    this.#counts[COUNTED[outcome]]++
    if ('refusal' in answer) throw answer.refusal
    return { value: answer.value, outcome }
  }

  /** Is what is known fresh enough for a request that came at this moment? */
  #isFresh({ minimumVersion }: Asking, came: number): boolean {
    return came - this.#feed.sentAt <= this.#options.maximumStaleness && (minimumVersion === undefined || this.#feed.sees(minimumVersion))
  }

  /** What is still kept of this key once the feed was asked; while the database is away, what was kept before. */
  async #polled(key: string, kept: Answer<T>, asking: Asking, came: number): Promise<{ answer: Answer<T>; outcome: Outcome } | undefined> {
    const { now, grace } = this.#options
    try {
      await this.#pollUntilFresh(asking, came)
    } catch (error) {
      // Who must see its own change is not served without it.
      if (asking.minimumVersion === undefined && came - this.#feed.sentAt <= grace && givesNoAnswer(error)) return { answer: kept, outcome: 'stale' }
      throw error
    }
    // A version that nobody has seen, made up perhaps, is no reason to drop what others are served.
    if (asking.minimumVersion !== undefined && !this.#feed.sees(asking.minimumVersion)) return undefined
    const still = this.#cache.get(key, now())
    return still && { answer: still.value, outcome: 'hit' }
  }

  async #pollUntilFresh(asking: Asking, came: number): Promise<void> {
    this.#counts.waited++
    // A poll under way may have been sent too early; the one after it was not.
    for (let round = 0; round < 3; round++) {
      const joined = this.#isPolling(this.#options.now())
      const poll = this.#poll(asking.waitUntil)
      try {
        await this.#inTime(poll)
      } catch (error) {
        if (!(error instanceof Late)) throw error
        if (this.#polling?.ended === poll) this.#polling = undefined
        if (!joined) throw stratumError('DATABASE_UNAVAILABLE', {}, { cause: error })
      }
      if (this.#isFresh(asking, came) || this.#feed.sentAt >= came) return
    }
  }

  #isPolling(now: number): boolean {
    return this.#polling !== undefined && now - this.#polling.began < PATIENCE
  }

  /** One poll at a time; who comes meanwhile waits for the same, and who begins it keeps it alive. */
  #poll(waitUntil: Asking['waitUntil']): Promise<void> {
    const began = this.#options.now()
    if (this.#polling && this.#isPolling(began)) return this.#polling.ended
    const ended = this.#breaker
      .guard(async () => {
        this.#counts.polls++
        this.#cache.evict(await this.#feed.poll())
      })
      .finally(() => {
        if (this.#polling === own) this.#polling = undefined
      })
    const own = { ended, began }
    this.#polling = own
    const settled = ended.catch(() => undefined)
    waitUntil?.(settled)
    return ended
  }

  /** What another request has begun may never end for us, where that one was cut off: wait for so long and no longer. @throws {Late} */
  async #inTime<R>(shared: Promise<R>): Promise<R> {
    let timer: ReturnType<typeof setTimeout> | undefined
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Late()), this.#options.followerTimeout)
    })
    try {
      return await Promise.race([shared, late])
    } finally {
      clearTimeout(timer)
    }
  }

  async #loaded(key: string, load: () => Promise<Loaded<T>>, asking: Asking): Promise<Answer<T>> {
    const shared = this.#loading.get(key)
    const began = this.#options.now()
    // What was asked for before this request came need not hold a change that it has to see, nor one too old to be missing.
    if (shared && asking.minimumVersion === undefined && began - shared.began < this.#options.maximumStaleness) {
      try {
        return await this.#inTime(shared.answer)
      } catch (error) {
        if (!(error instanceof Late) && (!isAway(error) || this.#breaker.open)) throw error
      }
    }
    const answer = this.#load(key, load)
    const own = { answer, began }
    this.#loading.set(key, own)
    const done = () => {
      if (this.#loading.get(key) === own) this.#loading.delete(key)
    }
    const ended = answer.then(done, done)
    asking.waitUntil?.(ended)
    return answer
  }

  async #load(key: string, load: () => Promise<Loaded<T>>): Promise<Answer<T>> {
    const { now, maximumAge } = this.#options
    const [since, sentAt, begun] = [this.#cache.clock, now(), this.#feed.begun]
    const keep = (answer: Answer<T>, tags: Tags, until = Number.POSITIVE_INFINITY) => {
      const bytes = 'value' in answer ? JSON.stringify(answer.value).length : 200
      this.#cache.set(key, { value: answer, tags, until: Math.min(until, sentAt + maximumAge), bytes }, since)
    }
    try {
      const { value, tags, feed, until } = await this.#breaker.guard(load)
      // An answer that was on its way when the feed began elsewhere may lack what that beginning holds.
      if (this.#feed.begin(feed, sentAt) || begun) keep({ value }, tags, until)
      return { value }
    } catch (error) {
      if (!(error instanceof StratumError) || !KEPT_REFUSALS.includes(error.code)) throw error
      const answer = { refusal: error }
      if (begun) keep(answer, ANY_CHANGE)
      return answer
    }
  }
}

/** Busy with somebody else's requests, perhaps, for which nobody else is to pay. */
const givesNoAnswer = (error: unknown): boolean => isAway(error) || (error instanceof StratumError && error.code === 'DATABASE_BUSY')

const isAway = (error: unknown): boolean => error instanceof StratumError && error.code === 'DATABASE_UNAVAILABLE'
