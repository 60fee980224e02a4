/** What `connect()` of a tenant pool lends: a client whose every transaction, and every query outside of one, is a tenant's. */
import { EventEmitter } from 'node:events'
import type pg from 'pg'
import { stratumError } from '../../core/error-classes.ts'
import { leavesConnectionUsable } from '../../db/errors.ts'
import { divideBegin, isSetTransaction } from './begin.ts'
import type { Held } from './connections.ts'
import { readTenant, translated } from './door.ts'
import type { Doorway } from './doorway.ts'
import { type QueryConfig, Statement } from './statement.ts'

const FORWARDED = ['notice', 'notification'] as const

/** Query arguments in any of pg's forms, callback aside. */
export function asConfig(query: unknown, values?: unknown): QueryConfig {
  if (query === null || query === undefined) throw new TypeError('Client was passed a null or undefined query')
  if (typeof query === 'string') return Array.isArray(values) ? { text: query, values } : { text: query }
  // Property by property, as some libraries keep them on a prototype.
  const config = query as QueryConfig
  const { text, rowMode, types, binary, rows, portal, queryMode, query_timeout } = config
  return { text, values: Array.isArray(values) ? values : config.values, rowMode, types, binary, rows, portal, queryMode, query_timeout }
}

const isSubmittable = (query: unknown) => typeof (query as { submit?: unknown } | null)?.submit === 'function'
const last = (result: unknown) => (Array.isArray(result) ? result.at(-1) : result)

export class TenantClient extends EventEmitter {
  readonly #doorway: Doorway
  readonly #tenantId: () => string
  #held: Held | undefined
  #broken = false
  #released = false
  /** Queries run one after the other, as the tenant and the connection depend on the one before. */
  #tail: Promise<unknown> = Promise.resolve()
  #queued = 0
  /** What began the open transaction, as long as nothing else ran in it. */
  #preamble: string[] | undefined

  constructor(doorway: Doorway, tenantId: () => string) {
    super()
    this.#doorway = doorway
    this.#tenantId = tenantId
  }

  get #open(): boolean {
    return this.#held !== undefined && this.#held.client.getTransactionStatus() !== 'I'
  }

  getTransactionStatus(): ReturnType<pg.ClientBase['getTransactionStatus']> {
    return this.#held?.client.getTransactionStatus() ?? 'I'
  }

  /** As pg's: text or config, values, and a callback in place of the promise. */
  query(query: unknown, values?: unknown, callback?: unknown): unknown {
    if (this.#released) throw new Error('Client was released to the pool and can run no more queries.')
    if (isSubmittable(query)) return this.#submit(query as pg.Submittable)
    const done = typeof values === 'function' ? values : callback
    // Read now, in the caller's context; whether it is needed is known when its turn comes.
    const tenant = attempt(() => readTenant(this.#tenantId))
    const config = attempt(() => asConfig(query, values))
    const result = this.#inTurn(async () => this.#run(config(), tenant))
    if (typeof done !== 'function') return result
    result.then(
      (answer) => done(null, answer),
      (error) => done(error),
    )
    return undefined
  }

  release(error?: Error | boolean) {
    if (this.#released) throw new Error('Release called on client which has already been released to the pool.')
    this.#released = true
    const giveBack = () => {
      const held = this.#held
      this.#held = undefined
      this.#listen(held, 'off')
      // With a transaction open it would carry one tenant's context to whoever gets it next.
      held?.release(Boolean(error) || this.#broken || held.client.getTransactionStatus() !== 'I')
    }
    if (this.#queued === 0) giveBack()
    else void this.#tail.then(giveBack)
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    this.#queued++
    const result = this.#tail.then(work)
    this.#tail = result.then(
      () => this.#queued--,
      () => this.#queued--,
    )
    return result
  }

  async #run(config: QueryConfig, tenant: () => string): Promise<unknown> {
    if (!this.#open) return this.#runOutside(config, tenant())
    const preamble = this.#preamble
    this.#preamble = undefined
    if (preamble && isSetTransaction(config.text)) return this.#beginAgain([...preamble, config.text.replace(/;\s*$/, '')], tenant())
    try {
      return await new Statement(config).run(this.#client)
    } catch (error) {
      this.#broken ||= !leavesConnectionUsable(error)
      throw translated(error)
    }
  }

  async #runOutside(config: QueryConfig, tenant: string): Promise<unknown> {
    const begin = typeof config.text === 'string' ? divideBegin(config.text) : undefined
    if (!begin) return this.#enter(tenant, config, [])
    const result = await this.#enter(tenant, { ...config, text: begin.rest }, [begin.begin])
    if (begin.rest.trim() === '') this.#preamble = [begin.begin]
    return result
  }

  /** `set transaction` may come before any query only: undo the begin and do both again, `enter` last. */
  async #beginAgain(preamble: string[], tenant: string): Promise<unknown> {
    await this.#client.query('rollback')
    const result = await this.#enter(tenant, { text: '' }, preamble)
    this.#preamble = preamble
    return last(result)
  }

  async #enter(tenant: string, config: QueryConfig, preamble: string[]): Promise<unknown> {
    const before = this.#held
    this.#held = undefined
    this.#listen(before, 'off')
    const { held, result } = await this.#doorway.enter(tenant, before, (door) => new Statement(config, { door, tenantId: tenant, preamble }))
    this.#held = held
    this.#listen(held, 'on')
    return result
  }

  get #client(): pg.ClientBase {
    if (!this.#held) throw new Error('Client has encountered a connection error and is not queryable')
    return this.#held.client
  }

  /** Cursors, streams and COPY go to the server as they are, so their transaction must be open. */
  #submit(query: pg.Submittable): unknown {
    if (this.#queued > 0 || !this.#open) {
      const message = 'A cursor, a stream or COPY needs a transaction: send begin on this client and await it, then start it.'
      throw stratumError('TENANT_CONTEXT_REQUIRED', {}, { message })
    }
    this.#preamble = undefined
    return this.#client.query(query)
  }

  readonly #forward = {
    notice: (message: unknown) => this.emit('notice', message),
    notification: (message: unknown) => this.emit('notification', message),
  }
  readonly #failed = (error: Error) => {
    this.#broken = true
    if (this.listenerCount('error') > 0) this.emit('error', error)
  }
  #listen(held: Held | undefined, change: 'on' | 'off') {
    if (!held) return
    const client = held.client as EventEmitter
    client[change]('error', this.#failed)
    for (const event of FORWARDED) client[change](event, this.#forward[event])
  }
}

/** Run now, and answer or throw its outcome later. */
function attempt<T>(work: () => T): () => T {
  try {
    const value = work()
    return () => value
  } catch (error) {
    return () => {
      throw error
    }
  }
}
