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

const MAXIMUM_KEPT = 1_000
/** An issuer that was not there is asked for again no sooner, nor is one whose token failed, or bad tokens could flood the database. */
const COOLDOWN_MS = 5_000
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
  readonly #trusted = new BoundedMap<string, Trusted>(MAXIMUM_KEPT)
  readonly #asking = new BoundedMap<string, Promise<Trusted | null>>(MAXIMUM_KEPT)

  constructor(options: StoredIssuersOptions) {
    this.#options = options
    this.#schema = storedIssuerSchema(options.development)
  }

  /** The issuer of tokens of these audiences, or null. @throws what asking throws, and `beforeAsking`, which is called before */
  async find(issuer: string, audiences: readonly string[], beforeAsking: () => void): Promise<Trusted | null> {
    const place = JSON.stringify([issuer, ...audiences])
    const known = this.#answers.get(place)
    if (known && (known.trusted !== null || this.#isFresh(known.at))) return known.trusted
    beforeAsking()
    return this.#askOnce(place, issuer, audiences)
  }

  /** The issuer as it is now, for a token that the one known refused; null where that is the same, or was asked just now. */
  async findOther(than: Trusted, audiences: readonly string[]): Promise<Trusted | null> {
    const { issuer } = than.issuer
    const place = JSON.stringify([issuer, ...audiences])
    const known = this.#answers.get(place)
    const other = known && this.#isFresh(known.at) ? known.trusted : await this.#askOnce(place, issuer, audiences)
    return other?.id === than.id ? null : other
  }

  /** Drop what is kept of an issuer that is gone. */
  forget(id: string): void {
    this.#trusted.delete(id)
    this.#answers.deleteWhere(({ trusted }) => trusted?.id === id)
  }

  /** Drop what is kept of all issuers of a name, and that there were none. */
  forgetNamed(issuer: string): void {
    this.#answers.deleteWhere((answer) => answer.issuer === issuer)
  }

  #isFresh(at: number): boolean {
    const age = this.#options.now() - at
    return age >= 0 && age < COOLDOWN_MS
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
    const trusted = this.#trust(await this.#options.ask(issuer, audiences))
    this.#answers.set(place, { issuer, trusted, at: this.#options.now() })
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
    const trusted = { id, issuer: parsed.data, keys: this.#options.open(parsed.data) }
    this.#trusted.set(id, trusted)
    return trusted
  }
}
