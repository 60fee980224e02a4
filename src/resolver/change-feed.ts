/**
 * What an isolate knows of the database's changes, so that it can keep answers and drop exactly those that a change
 * touched. Every change writes rows of `stratum.changes` in its own transaction, with that transaction's id. Neither
 * a sequence nor a time tells which of them a reader has seen, as transactions do not commit in the order in which
 * they begin; a whole snapshot (`pg_current_snapshot()`) does. Each poll hands in the last one and gets the rows that
 * it did not hold.
 */
import * as z from 'zod'

const Position = z.object({
  /** `xmin:xmax:xip,xip,…` */
  snapshot: z.string().regex(/^\d+:\d+:(\d+(,\d+)*)?$/),
  /** Server, timeline and epoch. A restored database has another, and rewinds its transaction ids. */
  identity: z.string(),
  /** The newest row there is: `[id, xid, nonce]`. */
  anchor: z.tuple([z.number(), z.string(), z.string()]).nullable(),
})
/** A place in the feed. */
export type FeedPosition = z.infer<typeof Position>

const Poll = Position.extend({
  rows: z.array(z.tuple([z.string(), z.string()])),
  /** False where rows that were not seen may be gone, or the anchor is. */
  complete: z.boolean(),
})

/** A line of the feed: what kind of thing changed, and which. */
export interface Change {
  kind: string
  ref: string
}

/** What changed, or that it cannot be told. */
export type Changes = readonly Change[] | 'everything'

/** More rows than this are not told apart: everything goes. */
const MAXIMUM_ROWS = 1_000

/** A snapshot, readable: which transactions it holds. */
export class Snapshot {
  readonly #xmin: bigint
  readonly xmax: bigint
  readonly #running: ReadonlySet<bigint>

  constructor(text: string) {
    const [xmin = '0', xmax = '0', running = ''] = text.split(':')
    this.#xmin = BigInt(xmin)
    this.xmax = BigInt(xmax)
    this.#running = new Set(running === '' ? [] : running.split(',').map(BigInt))
  }

  /** True when it holds what the transaction of this id did. */
  sees(version: bigint): boolean {
    return version < this.#xmin || (version < this.xmax && !this.#running.has(version))
  }
}

/** What a position has seen, or null for what is none. */
export function snapshotOf(position: unknown): Snapshot | null {
  const parsed = Position.safeParse(position)
  return parsed.success ? new Snapshot(parsed.data.snapshot) : null
}

/** Asks the database for changes since a position, or for where it is now; answers what `stratum.read_changes` does. */
export type ReadChanges = (since: FeedPosition | null) => Promise<unknown>

/**
 * One isolate's place in the feed. It begins at the position that the first answer came with, and every later
 * poll tells what changed since. Milliseconds throughout; `sentAt` is when the poll behind it was sent, as what
 * was committed after that may be missing.
 */
export class ChangeFeed {
  readonly #read: ReadChanges
  readonly #now: () => number
  #position: FeedPosition | undefined
  #snapshot: Snapshot | undefined
  #sentAt = Number.NEGATIVE_INFINITY

  constructor(read: ReadChanges, now: () => number) {
    this.#read = read
    this.#now = now
  }

  /** False until there is a position: nothing may be kept before. */
  get begun(): boolean {
    return this.#position !== undefined
  }

  /** When the poll was sent that this knowledge is from. */
  get sentAt(): number {
    return this.#sentAt
  }

  /** True when the last poll found that no transaction had this id yet. */
  isAhead(version: string): boolean {
    return this.#snapshot !== undefined && BigInt(version) >= this.#snapshot.xmax
  }

  /** True when what is known holds this transaction's changes. */
  sees(version: string): boolean {
    return this.#snapshot?.sees(BigInt(version)) ?? false
  }

  /** Begin where an answer stands; false for what is no position, or where there is one already. */
  begin(position: unknown, sentAt: number): boolean {
    if (this.#position) return false
    const parsed = Position.safeParse(position)
    if (!parsed.success) return false
    this.#stand(parsed.data, sentAt)
    return true
  }

  /** Ask where the feed is, and begin there. */
  async open(): Promise<void> {
    const sentAt = this.#now()
    this.begin(await this.#read(null), sentAt)
  }

  /**
   * Ask for the changes since the position and move it on.
   * @param take gets them before they count as seen: nothing that runs in between finds what is kept of before them fresh
   * @returns what changed, or 'everything' where that cannot be told
   */
  async poll(take: (changes: Changes) => void = () => {}): Promise<Changes> {
    const since = this.#position
    if (!since) return 'everything' // of nothing, as nothing may be kept yet
    const sentAt = this.#now()
    const poll = Poll.parse(await this.#read(since))
    // A poll that was overtaken by a later one tells nothing new, and must not move the position back.
    if (this.#position !== since) return []
    const rewound = poll.identity !== since.identity || new Snapshot(poll.snapshot).xmax < new Snapshot(since.snapshot).xmax
    const unknown = rewound || !poll.complete || poll.rows.length > MAXIMUM_ROWS
    const changes = unknown ? 'everything' : poll.rows.map(([kind, ref]) => ({ kind, ref }))
    take(changes)
    this.#stand(poll, sentAt)
    return changes
  }

  #stand({ snapshot, identity, anchor }: FeedPosition, sentAt: number): void {
    this.#position = { snapshot, identity, anchor }
    this.#snapshot = new Snapshot(snapshot)
    this.#sentAt = sentAt
  }
}
