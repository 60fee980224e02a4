/** Resolved contexts, kept until a change touches them. Secrets are not in a context, so none are kept in clear. */
import type { Credential, NamedTenant } from '../core/actor.ts'
import { onceFor } from '../core/once-for.ts'
import type { Change } from './change-feed.ts'

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

/** A kept answer, and whether it was asked for since it last might have made room. */
type Entry<T> = Kept<T> & { used: boolean }

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

  constructor(changes: readonly Change[] | 'everything') {
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

/** One answer may take the sixteenth part of the room and no more, or it would drive out all others. */
const LARGEST_SHARE = 16

/** Evictions that are remembered for answers on their way. */
const REMEMBERED = 64

/**
 * Answers by key, bounded in number and weight. The oldest makes room, unless it was used since: then it becomes the newest
 * once more (the second-chance algorithm, which lets a hit move nothing). Refusals have a room of their own.
 */
export class ContextCache<T> {
  readonly #rooms = { answers: new Map<string, Entry<T>>(), refusals: new Map<string, Entry<T>>() }
  readonly #maximum: { entries: number; bytes: number }
  #bytes = 0
  #evictions: Array<{ at: number; touched: Touched }> = []
  #clock = 0
  /** Answers dropped because of a change, and because of room. */
  readonly dropped = { changed: 0, room: 0 }

  constructor(maximum: { entries: number; bytes: number }) {
    this.#maximum = maximum
  }

  get size(): number {
    return this.#rooms.answers.size + this.#rooms.refusals.size
  }

  get bytes(): number {
    return this.#bytes
  }

  /** The moment to note before an answer is asked for. */
  get clock(): number {
    return this.#clock
  }

  get(key: string, now: number): Kept<T> | undefined {
    const kept = this.#rooms.answers.get(key) ?? this.#rooms.refusals.get(key)
    if (!kept) return undefined
    if (kept.until <= now) {
      this.delete(key)
      return undefined
    }
    kept.used = true
    return kept
  }

  /**
   * Keep an answer that was asked for at `since`, unless a change has touched it meanwhile: it may have been read
   * before that change, which will not be told of again.
   */
  set(key: string, kept: Kept<T>, since: number): void {
    const missed = this.#clock - since > this.#evictions.length
    if (missed || this.#evictions.some(({ at, touched }) => at > since && touched.has(kept.tags))) return
    this.delete(key)
    if (kept.bytes > this.#maximum.bytes / LARGEST_SHARE) return
    const room = kept.tags.path === null ? this.#rooms.refusals : this.#rooms.answers
    this.#insert(room, key, { ...kept, used: false })
    this.#makeRoom(room)
  }

  delete(key: string): void {
    for (const room of Object.values(this.#rooms)) {
      const kept = room.get(key)
      if (kept) this.#delete(room, key, kept)
    }
  }

  /** Drop what these changes touch, here and on its way. */
  evict(changes: readonly Change[] | 'everything'): void {
    if (changes.length === 0) return
    const touched = new Touched(changes)
    this.#clock++
    this.#evictions.push({ at: this.#clock, touched })
    if (this.#evictions.length > REMEMBERED) this.#evictions.shift()
    for (const room of Object.values(this.#rooms)) {
      for (const [key, kept] of room) {
        if (!touched.has(kept.tags)) continue
        this.#delete(room, key, kept)
        this.dropped.changed++
      }
    }
  }

  #insert(room: Map<string, Entry<T>>, key: string, kept: Entry<T>): void {
    room.set(key, kept)
    this.#bytes += kept.bytes + key.length
  }

  #delete(room: Map<string, Entry<T>>, key: string, kept: Entry<T>): void {
    room.delete(key)
    this.#bytes -= kept.bytes + key.length
  }

  #makeRoom(room: Map<string, Entry<T>>): void {
    // A Map keeps the order of insertion, so the first entry is the oldest; what is put back is met again, unused by then.
    for (const [key, kept] of room) {
      if (room.size <= this.#maximum.entries && this.#bytes <= this.#maximum.bytes) return
      this.#delete(room, key, kept)
      if (kept.used) this.#insert(room, key, { ...kept, used: false })
      else this.dropped.room++
    }
  }
}
