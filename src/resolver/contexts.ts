/**
 * Answers to "which tenant is this, who asks, what holds there", kept in the isolate and as fresh as was promised.
 *
 * A kept answer is served while the feed was polled within the allowed staleness; polls run beside requests, as a
 * Worker has no timer between them. A request that has to see a certain change waits for a poll that does.
 */
import { stratumError } from '../core/error-classes.ts'
import { StratumError } from '../core/errors.ts'
import { Breaker } from './breaker.ts'
import { ChangeFeed, type Changes, type ReadChanges, snapshotOf } from './change-feed.ts'
import { ContextCache, type Tags, weightOf } from './context-cache.ts'

/** Milliseconds, and bytes by an estimate from above: what an isolate of 128 MiB may spend on this. */
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
  /** No refusal either, nor longer than this: what it hangs on is not known. */
  maximumRefusalAge?: number
  /** How long a request waits for what another one has asked for, before it asks by itself. */
  followerTimeout?: number
  /** Told of the changes that the feed tells of, for what else is kept of the database. */
  onChanges?: (changes: Changes) => void
  now?: () => number
}

const DEFAULTS = {
  maximumStaleness: 2_000,
  pollInterval: 1_000,
  grace: 60_000,
  maximumEntries: 10_000,
  maximumBytes: 48 * 1_048_576,
  maximumAge: 600_000,
  maximumRefusalAge: 60_000,
  followerTimeout: 3_000,
  onChanges: () => {},
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
  /** Told where the answer came from, a refusal too. */
  tell?: ((outcome: Outcome) => void) | undefined
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
/** Bytes for what hangs on an answer besides: an error's text, the contexts that were signed of it. */
const ALLOWANCE = 2_048
const ANY_CHANGE: Tags = { path: null, names: [], principal: null, issuers: [] }

/** What was waited for took too long. */
class Late extends Error {}

type Answer<T> = { value: T } | { refusal: StratumError }

/** An answer as SQL has just given it. */
interface Ended<T> {
  answer: Answer<T>
  /** Does it hold what the transaction of this id did, for sure? */
  sees: (version: string) => boolean
}

export class Contexts<T> {
  readonly #options: Required<ContextsOptions>
  readonly #cache: ContextCache<Answer<T>>
  readonly #feed: ChangeFeed
  readonly #breaker: Breaker
  readonly #loading = new Map<string, { ended: Promise<Ended<T>>; began: number }>()
  #beginsSince = Number.NEGATIVE_INFINITY
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
    const { changed, room, large } = this.#cache.dropped
    return { ...this.#counts, evictions: changed, dropped_for_room: room, too_large: large, entries: this.#cache.size, bytes: this.#cache.bytes }
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
    const found = kept && (await this.#polled(key, asking, came))
    if (found) return this.#answer(found.answer, found.outcome, asking)
    return this.#answer(await this.#loaded(key, load, asking, came), 'miss', asking)
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
    return this.#answer(kept.value, 'hit', asking)
  }

  /**
   * Does what is known of the database hold now, as far as was promised? The feed is asked where that is not known. While it
   * gives no answer, what was known holds for the grace.
   * @throws what the feed is refused with
   */
  async isCurrent(asking: Asking = {}): Promise<boolean> {
    const { now, maximumStaleness, grace } = this.#options
    const came = now()
    if (!this.#feed.begun) return false
    if (maximumStaleness > 0 && this.#isFresh(asking, came)) return true
    try {
      await this.#pollUntilFresh(asking, came)
      return true
    } catch (error) {
      if (givesNoAnswer(error)) return came - this.#feed.sentAt <= grace
      throw error
    }
  }

  #answer(answer: Answer<T>, outcome: Outcome, { tell }: Asking): Resolved<T> {
    this.#counts[COUNTED[outcome]]++
    tell?.(outcome)
    if ('refusal' in answer) throw answer.refusal
    return { value: answer.value, outcome }
  }

  /** Is what is known fresh enough for a request that came at this moment? */
  #isFresh({ minimumVersion }: Asking, came: number): boolean {
    return came - this.#feed.sentAt <= this.#options.maximumStaleness && (minimumVersion === undefined || this.#feed.sees(minimumVersion))
  }

  /** What is still kept of this key once the feed was asked; while the database is away, what was kept before. */
  async #polled(key: string, asking: Asking, came: number): Promise<{ answer: Answer<T>; outcome: Outcome } | undefined> {
    const { now, grace } = this.#options
    try {
      await this.#pollUntilFresh(asking, came)
    } catch (error) {
      // Not what an earlier poll has dropped meanwhile, nor to who must see its own change.
      const left = this.#cache.get(key, now())
      if (left && asking.minimumVersion === undefined && came - this.#feed.sentAt <= grace && givesNoAnswer(error)) {
        return { answer: left.value, outcome: 'stale' }
      }
      throw error
    }
    const version = asking.minimumVersion
    // Asked after this request came, the database had not given out that version yet: no answer of its can hold it.
    if (version !== undefined && !this.#feed.sees(version) && !this.#feed.isAhead(version)) return undefined
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
        this.#breaker.failed()
        if (!joined) throw stratumError('DATABASE_UNAVAILABLE', {}, { cause: error })
      }
      if (this.#isFresh(asking, came) || this.#feed.sentAt >= came) return
    }
    throw stratumError('DATABASE_UNAVAILABLE')
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
        await this.#feed.poll((changes) => {
          this.#cache.evict(changes)
          this.#options.onChanges(changes)
        })
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

  async #loaded(key: string, load: () => Promise<Loaded<T>>, asking: Asking, came: number): Promise<Answer<T>> {
    const { maximumStaleness, now } = this.#options
    const version = asking.minimumVersion
    let waitedFor: { ended: Promise<Ended<T>>; began: number } | undefined
    for (let round = 0; round < 2; round++) {
      const shared = this.#loading.get(key)
      // What was asked for before this request came must not be so old that it may lack more than was promised.
      if (!shared || shared === waitedFor || came - shared.began >= maximumStaleness) break
      waitedFor = shared
      try {
        const { answer, sees } = await this.#inTime(shared.ended)
        if (version === undefined || shared.began > came || sees(version)) return answer
      } catch (error) {
        if (!(error instanceof Late) && (!isAway(error) || this.#breaker.open)) throw error
      }
    }
    const own = { ended: this.#load(key, load, asking), began: now() }
    this.#loading.set(key, own)
    const done = () => {
      if (this.#loading.get(key) === own) this.#loading.delete(key)
    }
    const settled = own.ended.then(done, done)
    asking.waitUntil?.(settled)
    return (await own.ended).answer
  }

  async #load(key: string, load: () => Promise<Loaded<T>>, asking: Asking): Promise<Ended<T>> {
    const { now, maximumAge, maximumRefusalAge } = this.#options
    const [since, sentAt, begun] = [this.#cache.clock, now(), this.#feed.begun]
    const keep = (answer: Answer<T>, tags: Tags, { until, bytes }: { until: number; bytes: number }) =>
      this.#cache.set(key, { value: answer, tags, until, bytes }, since)
    try {
      const { value, tags, feed, until = Number.POSITIVE_INFINITY } = await this.#breaker.guard(load)
      const answer = { value }
      // An answer that was on its way when the feed began elsewhere may lack what that beginning holds.
      if (this.#feed.begin(feed, sentAt) || begun) keep(answer, tags, { until: Math.min(until, sentAt + maximumAge), bytes: weightOf(value) + ALLOWANCE })
      return { answer, sees: (version) => snapshotOf(feed)?.sees(BigInt(version)) ?? false }
    } catch (error) {
      if (!(error instanceof StratumError) || !KEPT_REFUSALS.includes(error.code)) throw error
      const answer = { refusal: error }
      if (begun) keep(answer, ANY_CHANGE, { until: sentAt + Math.min(maximumAge, maximumRefusalAge), bytes: ALLOWANCE })
      else this.#begin(asking)
      return { answer, sees: () => false }
    }
  }

  /** Only an answer tells where the feed is; where there are none but refusals, it is asked, so that these can be kept. */
  #begin({ waitUntil }: Asking): void {
    const began = this.#options.now()
    if (this.#feed.begun || began - this.#beginsSince < PATIENCE) return
    this.#beginsSince = began
    const work = this.#breaker.guard(() => this.#feed.open()).catch(() => undefined)
    waitUntil?.(work)
  }
}

/** Busy with somebody else's requests, perhaps, for which nobody else is to pay. */
const givesNoAnswer = (error: unknown): boolean => isAway(error) || (error instanceof StratumError && error.code === 'DATABASE_BUSY')

const isAway = (error: unknown): boolean => error instanceof StratumError && error.code === 'DATABASE_UNAVAILABLE'
