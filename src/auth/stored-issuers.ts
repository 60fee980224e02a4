/** Issuers that were added while the service runs: asked for when first met, kept until one is known to be gone. */
import type { JWTVerifyGetKey } from 'jose'
import * as z from 'zod'
import { BoundedMap } from '../crypto/bounded-map.ts'
import { type Issuer, storedIssuerSchema } from './issuers.ts'

/** Asks for the stored issuer of tokens with one of these audiences: its id beside its fields, or null. */
export type AskForIssuer = (issuer: string, audiences: readonly string[]) => Promise<unknown>

/** An issuer whose tokens are trusted, and where its keys are. A stored one has an id, and a changed one another. */
export interface Trusted {
  id?: string
  issuer: Issuer
  keys: JWTVerifyGetKey
}

/** How a request may wait for an issuer that has to be asked for. */
export interface VerifyOptions {
  /** Called before a stored issuer is asked for that is not known yet; what it throws ends that. */
  beforeAsking?: (() => void) | undefined
  /**
   * Says, of an issuer that was not there, whether what is known of the database still holds: then it need not be asked for
   * again so soon. For who is told of changes ({@link StoredIssuers.forgetNamed}) and meets many tokens that are none of ours.
   */
  noneStands?: (() => Promise<boolean>) | undefined
}

const MAXIMUM_KEPT = 1_000
/** Issuers with their keys: a hundred keys take a quarter of a MiB once they are imported. */
const MAXIMUM_TRUSTED = 200
/** An issuer that was not there is asked for again no sooner, nor is one whose token failed, or bad tokens could flood the database. */
const COOLDOWN_MS = 5_000
/** So long that an issuer was not there stands for who is told of changes. */
const STANDS_MS = 600_000
/** So long one request waits for what another has asked: it may have ended early, and its answer never come. */
const FOLLOW_MS = 2_000

const Identified = z.looseObject({ id: z.uuid() })

/** What a promise of another request comes to, or null where that takes too long. */
async function within<T>(shared: Promise<T>, milliseconds: number): Promise<{ value: T } | null> {
  let timer: ReturnType<typeof setTimeout> | undefined
  const late = new Promise<null>((resolve) => {
    timer = setTimeout(() => resolve(null), milliseconds)
  })
  try {
    return await Promise.race([shared.then((value) => ({ value })), late])
  } finally {
    clearTimeout(timer)
  }
}

interface StoredIssuersOptions {
  ask: AskForIssuer
  open: (issuer: Issuer) => JWTVerifyGetKey
  now: () => number
  development: boolean
}

export class StoredIssuers {
  readonly #options: StoredIssuersOptions
  readonly #schema: ReturnType<typeof storedIssuerSchema>
  /** By issuer and audiences. */
  readonly #answers = new BoundedMap<string, { issuer: string; trusted: Trusted | null; at: number }>(MAXIMUM_KEPT)
  /** By id, so that one issuer has one set of keys whatever audiences it was met with. */
  readonly #trusted = new BoundedMap<string, Trusted>(MAXIMUM_TRUSTED)
  readonly #asking = new BoundedMap<string, Promise<Trusted | null>>(MAXIMUM_KEPT)
  /** How often something was forgotten: what was asked for before may be from before the reason for it, and is not kept. */
  #forgotten = 0

  constructor(options: StoredIssuersOptions) {
    this.#options = options
    this.#schema = storedIssuerSchema(options.development)
  }

  /** The issuer of tokens of these audiences, or null. @throws what asking throws, and what `beforeAsking` does */
  async find(issuer: string, audiences: readonly string[], { beforeAsking, noneStands }: VerifyOptions = {}): Promise<Trusted | null> {
    const place = JSON.stringify([issuer, ...audiences])
    const known = this.#answers.get(place)
    if (known && (known.trusted !== null || this.#isWithin(COOLDOWN_MS, known.at))) return known.trusted
    // Where a change has been told of meanwhile, it is not known any more.
    if (known && noneStands && this.#isWithin(STANDS_MS, known.at) && (await noneStands()) && this.#answers.get(place) === known) return null
    beforeAsking?.()
    return this.#askOnce(place, issuer, audiences)
  }

  /** The issuer as it is now, for a token that the one known refused; null where that is the same, or was asked just now. */
  async findOther(than: Trusted, audiences: readonly string[]): Promise<Trusted | null> {
    const { issuer } = than.issuer
    const place = JSON.stringify([issuer, ...audiences])
    const known = this.#answers.get(place)
    const other = known && this.#isWithin(COOLDOWN_MS, known.at) ? known.trusted : await this.#askOnce(place, issuer, audiences)
    return other?.id === than.id ? null : other
  }

  /** Drop what is kept of an issuer that is gone. */
  forget(id: string): void {
    this.#trusted.delete(id)
    this.#forgetWhere(({ trusted }) => trusted?.id === id)
  }

  /** Ask again for all issuers of a name, whether there are some or none. One that is the same then has the keys that it had. */
  forgetNamed(issuer: string): void {
    this.#forgetWhere((answer) => answer.issuer === issuer)
  }

  forgetAll(): void {
    this.#trusted.deleteWhere(() => true)
    this.#forgetWhere(() => true)
  }

  #forgetWhere(matches: (answer: { issuer: string; trusted: Trusted | null }) => boolean): void {
    this.#forgotten++
    this.#answers.deleteWhere(matches)
    this.#asking.deleteWhere(() => true)
  }

  #isWithin(milliseconds: number, at: number): boolean {
    const age = this.#options.now() - at
    return age >= 0 && age < milliseconds
  }

  async #askOnce(place: string, issuer: string, audiences: readonly string[]): Promise<Trusted | null> {
    const shared = this.#asking.get(place)
    const answered = shared === undefined ? null : await within(shared, FOLLOW_MS)
    if (answered) return answered.value
    const own = this.#ask(place, issuer, audiences)
    this.#asking.set(place, own)
    try {
      return await own
    } finally {
      if (this.#asking.get(place) === own) this.#asking.delete(place)
    }
  }

  async #ask(place: string, issuer: string, audiences: readonly string[]): Promise<Trusted | null> {
    const forgotten = this.#forgotten
    const trusted = this.#trust(await this.#options.ask(issuer, audiences))
    if (forgotten === this.#forgotten) this.#answers.set(place, { issuer, trusted, at: this.#options.now() })
    return trusted
  }

  /** What the database holds is judged by this process's own rules: another's may have let more through. */
  #trust(answer: unknown): Trusted | null {
    const identified = Identified.safeParse(answer)
    if (!identified.success) return null
    const { id, ...fields } = identified.data
    const known = this.#trusted.get(id)
    if (known) return known
    const parsed = this.#schema.safeParse(fields)
    if (!parsed.success) return null
    // without the keys as they are stored, which may carry much that verifying does not need
    const { keys: _, ...issuer } = parsed.data
    const trusted = { id, issuer, keys: this.#options.open(parsed.data) }
    this.#trusted.set(id, trusted)
    return trusted
  }
}
