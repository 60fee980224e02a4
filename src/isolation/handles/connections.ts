/**
 * Connections to the tenants' own databases: made like those of the given pool, with another database's name. One
 * ceiling for each database and one over all, so that many tenants cannot use up what the server allows.
 */
import type pg from 'pg'

/** A connection lent for one batch or one caller's client. */
export interface Held {
  readonly client: pg.ClientBase
  /** The database it is connected to; null is the control database. */
  readonly database: string | null
  /** Give it back; `broken` closes it. */
  release(broken: boolean): void
}

export interface ConnectionLimits {
  perDatabase: number
  overall: number
}

interface Idle {
  client: pg.Client
  since: number
  timer: NodeJS.Timeout | undefined
}
interface Lane {
  /** Connections there are, lent and idle. */
  open: number
  /** The one used last is lent first, so that the others grow old. */
  idle: Idle[]
}
interface Waiter {
  database: string
  resolve(held: Held): void
  reject(error: unknown): void
  timer: NodeJS.Timeout | undefined
}

export class DatabaseConnections {
  readonly #pool: pg.Pool
  readonly #limits: ConnectionLimits
  readonly #onError: (error: Error) => void
  readonly #lanes = new Map<string, Lane>()
  #waiting: Waiter[] = []
  #open = 0
  #drained: Array<() => void> = []
  readonly #closing = new Set<Promise<unknown>>()
  #ended = false

  constructor(pool: pg.Pool, limits: ConnectionLimits, onError: (error: Error) => void) {
    this.#pool = pool
    this.#limits = limits
    this.#onError = onError
  }

  get counts(): { open: number; idle: number; waiting: number; databases: number } {
    const idle = [...this.#lanes.values()].reduce((sum, lane) => sum + lane.idle.length, 0)
    return { open: this.#open, idle, waiting: this.#waiting.length, databases: this.#lanes.size }
  }

  /** Lend a connection; waits while the ceilings are reached, at most the pool's own `connectionTimeoutMillis`. */
  acquire(database: string): Promise<Held> {
    return new Promise((resolve, reject) => {
      if (this.#ended) return reject(new Error('Cannot use a pool after calling end on the pool'))
      const waiter: Waiter = { database, resolve, reject, timer: undefined }
      const limit = this.#pool.options.connectionTimeoutMillis
      if (limit) {
        waiter.timer = setTimeout(() => {
          this.#waiting = this.#waiting.filter((other) => other !== waiter)
          reject(new Error('timeout exceeded when trying to connect'))
        }, limit)
      }
      this.#waiting.push(waiter)
      this.#serve()
    })
  }

  /** Close what is idle in a database that its tenant has left. */
  forget(database: string) {
    const lane = this.#lanes.get(database)
    for (const idle of lane?.idle.splice(0) ?? []) this.#close(database, idle)
  }

  /** Close all that is idle, and what is lent as it comes back. Resolves when nothing is open. */
  async end(): Promise<void> {
    this.#ended = true
    for (const waiter of this.#waiting.splice(0)) {
      clearTimeout(waiter.timer)
      waiter.reject(new Error('Cannot use a pool after calling end on the pool'))
    }
    for (const database of [...this.#lanes.keys()]) this.forget(database)
    while (this.#closing.size > 0 || this.#open > 0) {
      if (this.#closing.size > 0) await Promise.all(this.#closing)
      else await new Promise<void>((resolve) => this.#drained.push(resolve))
    }
  }
  /** First come, first served, past those whose database has all it may have. */
  #serve() {
    this.#waiting = this.#waiting.filter((waiter) => !this.#tryServe(waiter))
  }

  #tryServe(waiter: Waiter): boolean {
    const lane = this.#lanes.get(waiter.database) ?? { open: 0, idle: [] }
    const idle = lane.idle.pop()
    if (!idle && lane.open >= this.#limits.perDatabase) return false
    if (!idle && this.#open >= this.#limits.overall && !this.#closeOldestIdle()) return false
    // From here on the client's own limit holds.
    clearTimeout(waiter.timer)
    if (idle) {
      clearTimeout(idle.timer)
      waiter.resolve(this.#lend(waiter.database, idle.client))
      return true
    }
    this.#lanes.set(waiter.database, lane)
    lane.open++
    this.#open++
    this.#connect(waiter.database).then(
      (client) => waiter.resolve(this.#lend(waiter.database, client)),
      (error) => {
        this.#closed(waiter.database)
        waiter.reject(error)
      },
    )
    return true
  }

  async #connect(database: string): Promise<pg.Client> {
    const { Client, options } = this.#pool as unknown as { Client: new (options: object) => pg.Client; options: pg.PoolConfig }
    const client = new Client(options)
    // After the client has read its options, so that a connection string and PGDATABASE are overruled alike.
    client.database = database
    ;(client as unknown as { connectionParameters: { database: string } }).connectionParameters.database = database
    // A connection that breaks fails its query; without a listener it would also end the process.
    client.on('error', (error: Error) => this.#onError(error))
    client.once('end', () => this.#lost(database, client))
    try {
      await client.connect()
      await options.onConnect?.(client)
    } catch (error) {
      void client.end().catch(() => {})
      throw error
    }
    return client
  }

  #lend(database: string, client: pg.Client): Held {
    let released = false
    return {
      client,
      database,
      release: (broken) => {
        if (released) return
        released = true
        const usable = (client as unknown as { _queryable?: boolean })._queryable !== false
        if (broken || this.#ended || !usable) this.#close(database, { client, since: 0, timer: undefined })
        else this.#keep(database, client)
        this.#serve()
      },
    }
  }

  #keep(database: string, client: pg.Client) {
    const idle: Idle = { client, since: Date.now(), timer: undefined }
    const limit = this.#pool.options.idleTimeoutMillis
    if (limit) {
      idle.timer = setTimeout(() => {
        const lane = this.#lanes.get(database)
        if (!lane?.idle.includes(idle)) return
        lane.idle = lane.idle.filter((other) => other !== idle)
        this.#close(database, idle)
      }, limit)
      if (this.#pool.options.allowExitOnIdle) idle.timer.unref()
    }
    this.#lanes.get(database)?.idle.push(idle)
  }

  #closeOldestIdle(): boolean {
    let oldest: { database: string; idle: Idle } | undefined
    for (const [database, lane] of this.#lanes) {
      const [idle] = lane.idle
      if (idle && (oldest === undefined || idle.since < oldest.idle.since)) oldest = { database, idle }
    }
    if (!oldest) return false
    this.#lanes.get(oldest.database)?.idle.shift()
    this.#close(oldest.database, oldest.idle)
    return true
  }

  #close(database: string, { client, timer }: Idle) {
    clearTimeout(timer)
    const closing = client.end().catch(() => {})
    this.#closing.add(closing)
    void closing.then(() => this.#closing.delete(closing))
    this.#closed(database)
  }

  /** An idle connection that the server closed. A lent one is found broken when it comes back. */
  #lost(database: string, client: pg.Client) {
    const lane = this.#lanes.get(database)
    const idle = lane?.idle.find((other) => other.client === client)
    if (!lane || !idle) return
    lane.idle = lane.idle.filter((other) => other !== idle)
    this.#close(database, idle)
    this.#serve()
  }

  #closed(database: string) {
    const lane = this.#lanes.get(database)
    this.#open--
    if (lane && --lane.open === 0) this.#lanes.delete(database)
    if (this.#open === 0) for (const resolve of this.#drained.splice(0)) resolve()
    queueMicrotask(() => this.#serve())
  }
}
