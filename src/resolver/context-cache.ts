/** Resolved contexts, kept until a change touches them. Secrets are not in a context, so none are kept in clear. */
import type { Credential, NamedTenant } from '../core/actor.ts'
import { onceFor } from '../core/once-for.ts'
import type { Changes } from './change-feed.ts'

/** What an answer depends on, so that a change can be matched with it. */
export interface Tags {
  /** Path of the tenant; a change of it or of any above touches the answer. Null for a refusal, which any change touches. */
  path: string | null
  /** Hosts and slugs by which the tenant was named. */
  names: readonly string[]
  /** Id of the API key, or null. */
  principal: string | null
  /** Issuers of the tokens. */
  issuers: readonly string[]
}

/** A kept answer. */
export interface Kept<T> {
  readonly value: T
  readonly tags: Tags
  /** Milliseconds since 1970 from which it is not served however fresh the feed is. */
  readonly until: number
  /** What it weighs. */
  readonly bytes: number
}

const prefixed = (part: string) => `${part.length}:${part}`

/** Who asks, apart from what tells two users of one tenant apart. */
const principalClass = onceFor((credential: Credential): string => {
  const { subject: _, ...shared } = credential as Credential & { subject?: unknown }
  const parts = Object.entries(shared)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .flatMap(([name, value]) => [name, JSON.stringify(value ?? null)])
  return parts.map(prefixed).join('')
})

/**
 * The one way to make a key: of what is asked, of who asks, and of what names the tenant. Each part carries its length,
 * so that no two lists of parts read alike.
 */
export function contextKey(credential: Credential, operation: string, named: readonly NamedTenant[]): string {
  let key = prefixed(operation) + prefixed(principalClass(credential))
  for (const { source, tenant } of named) key += prefixed(source) + prefixed(tenant)
  return key
}

/** Changes as sets, to match many answers with. */
class Touched {
  readonly #everything: boolean
  readonly #by = new Map<string, Set<string>>()

  constructor(changes: Changes) {
    // Definitions hold for every tenant, as does what is of the installation.
    this.#everything = changes === 'everything' || changes.some(({ kind }) => kind === 'definitions' || kind === 'installation')
    if (changes === 'everything') return
    for (const { kind, ref } of changes) this.#by.set(kind, (this.#by.get(kind) ?? new Set()).add(ref))
  }

  has({ path, names, principal, issuers }: Tags): boolean {
    if (this.#everything || path === null) return true
    const among = (kind: string, refs: readonly string[]) => refs.some((ref) => this.#by.get(kind)?.has(ref))
    return among('principal', principal === null ? [] : [principal]) || among('issuer', issuers) || among('host', names) || this.#hasAbove(path)
  }

  #hasAbove(path: string): boolean {
    const changed = this.#by.get('subtree')
    if (!changed) return false
    for (let end = path.length; end > 0; end = path.lastIndexOf('.', end - 1)) {
      if (changed.has(path.slice(0, end))) return true
    }
    return false
  }
}

/** Evictions that are remembered for answers on their way. */
const REMEMBERED = 64

/**
 * How many bytes an answer takes in memory, estimated from above by what its JSON holds: two bytes for each character,
 * and for each value and name what an object of its own costs. The JSON's length alone would let lists of empty lists
 * take twelve times what they weigh.
 */
export function weightOf(value: unknown): number {
  const text = JSON.stringify(value)
  let parts = 0
  for (let index = 0; index < text.length; index++) {
    const character = text.charCodeAt(index)
    // , [ {
    if (character === 44 || character === 91 || character === 123) parts++
  }
  return 2 * text.length + 32 * parts
}

interface Room {
  entries: number
  bytes: number
}

/**
 * A part of what is kept, bounded in number and weight. The oldest makes room, unless it was used since: then it becomes
 * the newest once more (the second-chance algorithm, which lets a hit move nothing).
 */
class Shelf<T> {
  readonly #kept = new Map<string, { kept: Kept<T>; used: boolean }>()
  readonly #maximum: Room
  bytes = 0

  constructor(maximum: Room) {
    this.#maximum = maximum
  }

  get size(): number {
    return this.#kept.size
  }

  get(key: string): Kept<T> | undefined {
    const entry = this.#kept.get(key)
    if (entry) entry.used = true
    return entry?.kept
  }

  /** @returns how many others made room for it */
  add(key: string, kept: Kept<T>): number {
    let dropped = 0
    // A Map keeps the order of insertion, so the first is the oldest; what is put back is met again, unused by then.
    for (const [oldest, { kept: old, used }] of this.#kept) {
      if (this.size < this.#maximum.entries && this.bytes + kept.bytes + key.length <= this.#maximum.bytes) break
      this.delete(oldest)
      if (used) this.#put(oldest, old)
      else dropped++
    }
    this.#put(key, kept)
    return dropped
  }

  delete(key: string): void {
    const entry = this.#kept.get(key)
    if (!entry) return
    this.#kept.delete(key)
    this.bytes -= entry.kept.bytes + key.length
  }

  /** @returns how many went */
  deleteWhere(matches: (kept: Kept<T>) => boolean): number {
    const before = this.size
    for (const [key, { kept }] of this.#kept) if (matches(kept)) this.delete(key)
    return before - this.size
  }

  #put(key: string, kept: Kept<T>): void {
    this.#kept.set(key, { kept, used: false })
    this.bytes += kept.bytes + key.length
  }
}

/**
 * Answers by key. Those of an ordinary size, large ones, and refusals have room of their own each, so that a tenant with
 * much config drives out none but its like, and who asks for hosts that nobody has drives out no answers.
 */
export class ContextCache<T> {
  readonly #answers: Shelf<T>
  readonly #large: Shelf<T>
  readonly #refusals: Shelf<T>
  readonly #shelves: readonly Shelf<T>[]
  /** An answer that weighs more is a large one; and one that weighs more than that is not kept. */
  readonly #limits: { ordinary: number; largest: number }
  #evictions: Array<{ at: number; touched: Touched }> = []
  #clock = 0
  /** Answers dropped because of a change, because of room, and never kept as they are too large. */
  readonly dropped = { changed: 0, room: 0, large: 0 }

  constructor({ entries, bytes }: Room) {
    this.#answers = new Shelf({ entries: entries / 2, bytes: bytes / 2 })
    this.#large = new Shelf({ entries: entries / 4, bytes: (bytes * 3) / 8 })
    this.#refusals = new Shelf({ entries: entries / 4, bytes: bytes / 8 })
    this.#shelves = [this.#answers, this.#large, this.#refusals]
    this.#limits = { ordinary: bytes / 256, largest: bytes / 8 }
  }

  get size(): number {
    return this.#shelves.reduce((sum, { size }) => sum + size, 0)
  }

  get bytes(): number {
    return this.#shelves.reduce((sum, { bytes }) => sum + bytes, 0)
  }

  /** The moment to note before an answer is asked for. */
  get clock(): number {
    return this.#clock
  }

  get(key: string, now: number): Kept<T> | undefined {
    const kept = this.#answers.get(key) ?? this.#large.get(key) ?? this.#refusals.get(key)
    if (!kept || now < kept.until) return kept
    this.delete(key)
    return undefined
  }

  /**
   * Keep an answer that was asked for at `since`, unless a change has touched it meanwhile: it may have been read
   * before that change, which will not be told of again.
   */
  set(key: string, kept: Kept<T>, since: number): void {
    const missed = this.#clock - since > this.#evictions.length
    if (missed || this.#evictions.some(({ at, touched }) => at > since && touched.has(kept.tags))) return
    this.delete(key)
    const weight = kept.bytes + key.length
    if (weight > this.#limits.largest) {
      this.dropped.large++
      return
    }
    const answers = weight > this.#limits.ordinary ? this.#large : this.#answers
    this.dropped.room += (kept.tags.path === null ? this.#refusals : answers).add(key, kept)
  }

  delete(key: string): void {
    for (const shelf of this.#shelves) shelf.delete(key)
  }

  /** Drop what these changes touch, here and on its way. */
  evict(changes: Changes): void {
    if (changes.length === 0) return
    const touched = new Touched(changes)
    this.#clock++
    this.#evictions.push({ at: this.#clock, touched })
    if (this.#evictions.length > REMEMBERED) this.#evictions.shift()
    for (const shelf of this.#shelves) this.dropped.changed += shelf.deleteWhere(({ tags }) => touched.has(tags))
  }
}
