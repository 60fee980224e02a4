/** A pool of pg that serves one tenant at a time: drizzle, Kysely, Prisma and plain pg use it as any other. */
import type { EventEmitter } from 'node:events'
import type pg from 'pg'
import { DatabaseConnections } from './connections.ts'
import { readTenant } from './door.ts'
import { Doorway } from './doorway.ts'
import { roleCheck } from './role.ts'
import { Statement } from './statement.ts'
import { asConfig, TenantClient } from './tenant-client.ts'

export interface TenantPoolOptions {
  /** Connections to one tenant's own database, at most. Default: the given pool's `max`. */
  connectionsPerDatabase?: number
  /** Connections to all tenants' own databases together, at most. Default 50. */
  databaseConnections?: number
  /** Milliseconds that a batch waits for a tenant which is being made or moved. Default 5000. */
  waitMillis?: number
}

export interface TransactionOptions {
  isolationLevel?: 'read committed' | 'repeatable read' | 'serializable'
  readOnly?: boolean
}

/** A `pg.Pool` whose every query and transaction is the current tenant's. */
export interface TenantPool extends pg.Pool {
  /**
   * Run `work` in one transaction of the tenant: committed when it resolves, rolled back when it throws.
   * @throws an Error with code 25P02 when `work` kept silent about a statement that failed, as nothing was committed
   */
  transaction<T>(work: (client: pg.PoolClient) => Promise<T>, options?: TransactionOptions): Promise<T>
}

const DATABASE_CONNECTIONS = 50
const WAIT_MILLIS = 5000
const KNOWN_TENANTS = 10_000

type Callback = (error: unknown, answer?: unknown, release?: unknown) => void

/** A promise, or pg's older form of the same. */
function answered<T>(result: Promise<T>, callback: unknown): Promise<T> | undefined {
  if (typeof callback !== 'function') return result
  result.then(
    (answer) => (callback as Callback)(null, answer),
    (error) => (callback as Callback)(error),
  )
  return undefined
}

/**
 * A pool that serves the tenant which `tenantId` answers at the start of each query or transaction:
 *
 * ```ts
 * const tenantPool = createTenantPool(pool, () => getTenantContext().tenant_id)
 * const orders = await tenantPool.query('select * from orders') // the current tenant's
 * ```
 *
 * A query outside of a transaction is one round trip and a transaction of its own. A client of `connect()` enters
 * right behind its caller's `begin`, whatever its options. Tenants with a schema of their own find their tables by the
 * search path; for tenants with a database of their own connections are opened like the pool's, with the other
 * database's name. Named statements are sent without their names. `end()` closes those connections, not the given pool.
 *
 * @param pool connected to the control database, directly or through a transaction pooler, as `stratum_app` or a role
 *   like it: no superuser, no BYPASSRLS, owner of none of the tables
 * @param tenantId answers the tenant's id, a UUID
 * @returns a pool whose errors are pg's own, except for these, which are StratumErrors: TENANT_REQUIRED (nothing was
 *   sent), VALIDATION_FAILED (no UUID), DATA_ROLE_REFUSED, TENANT_NOT_FOUND, TENANT_SUSPENDED, TENANT_ARCHIVED,
 *   TENANT_UNAVAILABLE (after `waitMillis`; retry), TENANT_CONTEXT_REQUIRED (a second transaction within one text)
 */
export function createTenantPool(pool: pg.Pool, tenantId: () => string, options: TenantPoolOptions = {}): TenantPool {
  const TenantPoolClass = extend(pool.constructor as PoolClass)
  return new TenantPoolClass(pool, tenantId, options) as unknown as TenantPool
}

// Of the given pool's own class, as drizzle and Prisma tell a pool by `instanceof`. What it inherits never connects.
type PoolClass = new (options: pg.PoolOptions) => EventEmitter
const extend = (Base: PoolClass) =>
  class TenantPool extends Base {
    readonly #pool: pg.Pool
    readonly #databases: DatabaseConnections
    readonly #doorway: Doorway
    readonly #tenantId: () => string

    constructor(pool: pg.Pool, tenantId: () => string, options: TenantPoolOptions) {
      super(pool.options)
      this.#pool = pool
      this.#tenantId = tenantId
      const limits = {
        perDatabase: options.connectionsPerDatabase ?? pool.options.max,
        overall: options.databaseConnections ?? DATABASE_CONNECTIONS,
      }
      this.#databases = new DatabaseConnections(pool, limits, (error) => {
        if (this.listenerCount('error') > 0) this.emit('error', error)
      })
      this.#doorway = new Doorway(pool, this.#databases, {
        waitMillis: options.waitMillis ?? WAIT_MILLIS,
        knownTenants: KNOWN_TENANTS,
        checkRole: roleCheck(),
      })
    }

    get totalCount() {
      return this.#pool.totalCount + this.#databases.counts.open
    }
    get idleCount() {
      return this.#pool.idleCount + this.#databases.counts.idle
    }
    get waitingCount() {
      return this.#pool.waitingCount + this.#databases.counts.waiting
    }

    // biome-ignore lint/suspicious/noExplicitAny: pg describes each form of its arguments by an overload.
    query(query: any, values?: any, callback?: any): any {
      return answered(this.#queryOnce(query, values), typeof values === 'function' ? values : callback)
    }

    async #queryOnce(query: unknown, values: unknown): Promise<unknown> {
      const tenant = readTenant(this.#tenantId)
      if (typeof (query as { submit?: unknown } | null)?.submit === 'function') {
        throw new TypeError('Cursors, streams and COPY need a client: connect(), send begin, then start it.')
      }
      const config = asConfig(query, values)
      const { held, result } = await this.#doorway.enter(tenant, undefined, (door) => new Statement(config, { door, tenantId: tenant, preamble: [] }))
      // A text that began a transaction and left it open takes its connection with it.
      held.release(held.client.getTransactionStatus() !== 'I')
      return result
    }

    // biome-ignore lint/suspicious/noExplicitAny: as above.
    connect(callback?: any): any {
      const client = new TenantClient(this.#doorway, this.#tenantId)
      if (typeof callback !== 'function') return Promise.resolve(client)
      queueMicrotask(() => callback(undefined, client, (error?: Error) => client.release(error)))
      return undefined
    }

    async transaction<T>(work: (client: pg.PoolClient) => Promise<T>, options: TransactionOptions = {}): Promise<T> {
      const client = new TenantClient(this.#doorway, this.#tenantId)
      const level = options.isolationLevel ? ` isolation level ${options.isolationLevel}` : ''
      try {
        await client.query(`begin${level}${options.readOnly ? ' read only' : ''}`)
        const result = await work(client as unknown as pg.PoolClient)
        const { command } = (await client.query('commit')) as pg.QueryResult
        if (command === 'ROLLBACK') {
          throw Object.assign(new Error('Nothing was committed: a statement of this transaction failed, and its error was not passed on.'), { code: '25P02' })
        }
        return result
      } catch (error) {
        if (client.getTransactionStatus() !== 'I') await (client.query('rollback') as Promise<unknown>).catch(() => {})
        throw error
      } finally {
        client.release()
      }
    }

    // biome-ignore lint/suspicious/noExplicitAny: as above.
    end(callback?: any): any {
      return answered(this.#databases.end(), callback)
    }
  }
