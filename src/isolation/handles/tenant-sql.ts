/** A tenant's queries over Neon's HTTP protocol. Knows only Web APIs, so it runs at the edge. */
import { type HTTPQueryOptions, type HTTPTransactionOptions, type NeonQueryFunction, NeonQueryPromise, neon } from '@neondatabase/serverless'
import { sendToEndpoint } from '../../db/neon.ts'
import { Attempts, type Door, Doors, readTenant } from './door.ts'
import { CHECK_ROLE, roleRefusal } from './role.ts'

type QueryOptions = HTTPQueryOptions<boolean, boolean>
type TransactionOptions = HTTPTransactionOptions<boolean, boolean>
type Query = NeonQueryPromise<boolean, boolean>
type QueryData = Query['queryData']

export interface TenantSqlOptions<ArrayMode extends boolean = boolean, FullResults extends boolean = boolean>
  extends Omit<HTTPTransactionOptions<ArrayMode, FullResults>, ConnectionOption> {
  /** Where the protocol is spoken, if not at Neon: the local stack's `neon_url`. */
  endpoint?: string
  /** Milliseconds that a batch waits for a tenant which is being made or moved. Default 5000. */
  waitMillis?: number
}

/** What neon() takes to go elsewhere for a single query. A handle goes where its tenant is, and nowhere else. */
const CONNECTION_OPTIONS = ['connectionString', 'user', 'username', 'password', 'host', 'hostname', 'port', 'database'] as const
type ConnectionOption = (typeof CONNECTION_OPTIONS)[number]

/**
 * What a database answers that is gone, or closed to be dropped: it let nobody in, so nothing ran. That is status 500,
 * of which the driver keeps but the text; a statement that fails by the same codes is status 400.
 */
const DATABASE_LEFT = /^Server error \(HTTP status 500\).*"code":"(?:3D000|55000)"/s

const WAIT_MILLIS = 5000
const KNOWN_TENANTS = 10_000

const without = <T extends object>(options: T | undefined, names: readonly string[]): T =>
  Object.fromEntries(Object.entries(options ?? {}).filter(([name, value]) => value !== undefined && !names.includes(name))) as T

/** One HTTP request for each batch, which is a transaction: the role is checked, the tenant enters, the queries run. */
class TenantBatches {
  readonly #base: NeonQueryFunction<boolean, boolean>
  readonly #tenantId: () => string
  readonly #waitMillis: number
  readonly #doors = new Doors(KNOWN_TENANTS)
  /** Databases where the role was found fit. */
  readonly #checked = new Set<string | null>()

  constructor(base: NeonQueryFunction<boolean, boolean>, tenantId: () => string, waitMillis: number) {
    this.#base = base
    this.#tenantId = tenantId
    this.#waitMillis = waitMillis
  }

  /** @returns what each query answers, in their order */
  async run(queries: Query[], options: TransactionOptions | undefined): Promise<unknown[]> {
    const tenant = readTenant(this.#tenantId)
    const attempts = new Attempts(this.#doors, tenant, this.#waitMillis)
    for (;;) {
      const door = this.#doors.of(tenant)
      try {
        return await this.#attempt(door, tenant, queries, options)
      } catch (error) {
        // Whatever refused, the whole batch was rolled back, so it may be sent again.
        if (DATABASE_LEFT.test((error as Error).message) && attempts.mayHaveMoved(door)) continue
        await attempts.after(door, error)
      }
    }
  }

  async #attempt(door: Door, tenant: string, queries: Query[], options: TransactionOptions | undefined): Promise<unknown[]> {
    const enter = this.#base.query('select stratum_guard.enter($1, $2)', [tenant, door.version])
    const opening = this.#checked.has(door.database) ? [enter] : [this.#base.query(CHECK_ROLE), enter]
    const to = door.database === null ? {} : { database: door.database }
    const results = await this.#base.transaction([...opening, ...queries], { ...without(options, CONNECTION_OPTIONS), ...to }).catch((error: unknown) => {
      throw this.#checked.has(door.database) ? error : roleRefusal(error)
    })
    this.#checked.add(door.database)
    return results.slice(opening.length)
  }
}

/**
 * What `neon()` answers, for one tenant at a time: a tagged template with `query`, `unsafe` and `transaction`. Each is
 * one HTTP request and one transaction (a tenant with a database of its own costs one more, once):
 *
 * ```ts
 * const sql = createTenantSql(env.APP_DATABASE_URL, () => context.tenant_id)
 * const orders = await sql`select * from orders where amount > ${10}`
 * const db = drizzle(sql) // drizzle-orm/neon-http
 * ```
 *
 * Isolation levels of `transaction` are kept. Options that would send a query to another server or database are not
 * heeded.
 *
 * @param connectionString of the control database, as `stratum_app` or a role like it
 * @param tenantId answers the tenant's id, a UUID, whenever a query is sent
 * @param options those of `neon()`, connection options aside, and `endpoint`, `waitMillis`
 * @throws NeonDbError as `neon()` does, except for StratumErrors: TENANT_REQUIRED and VALIDATION_FAILED (nothing was
 *   sent), DATA_ROLE_REFUSED, TENANT_NOT_FOUND, TENANT_SUSPENDED, TENANT_ARCHIVED, TENANT_UNAVAILABLE (after
 *   `waitMillis`; retry). A batch that fails has changed nothing.
 */
export function createTenantSql<ArrayMode extends boolean = false, FullResults extends boolean = false>(
  connectionString: string,
  tenantId: () => string,
  options: TenantSqlOptions<ArrayMode, FullResults> = {},
): NeonQueryFunction<ArrayMode, FullResults> {
  if (options.endpoint) sendToEndpoint(connectionString, options.endpoint)
  const base = neon<boolean, boolean>(connectionString, without(options, [...CONNECTION_OPTIONS, 'endpoint', 'waitMillis']) as TransactionOptions)
  const batches = new TenantBatches(base, tenantId, options.waitMillis ?? WAIT_MILLIS)
  const execute = async (queryData: QueryData | QueryData[], given?: QueryOptions | QueryOptions[]) => {
    const queryOptions = without(given as QueryOptions | undefined, CONNECTION_OPTIONS)
    const [result] = await batches.run([new NeonQueryPromise(execute, queryData as QueryData, queryOptions)], queryOptions)
    return result
  }
  const lazily = ({ queryData, opts }: Query): Query => new NeonQueryPromise(execute, queryData, opts && without(opts, CONNECTION_OPTIONS))
  const sql = (strings: TemplateStringsArray, ...values: unknown[]) => lazily(base(strings, ...values))
  const parts = {
    query: (text: string, values?: unknown[], queryOptions?: QueryOptions) => lazily(base.query(text, values, queryOptions)),
    unsafe: base.unsafe,
    transaction: async (queries: Query[] | ((transaction: unknown) => Query[]), transactionOptions?: TransactionOptions) => {
      const list: unknown = typeof queries === 'function' ? queries(Object.assign(sql, parts)) : queries
      if (!Array.isArray(list) || !list.every((query) => query instanceof NeonQueryPromise)) {
        throw new Error('transaction() expects an array of queries, or a function returning an array of queries')
      }
      return batches.run(list.map(lazily), transactionOptions)
    },
  }
  return Object.assign(sql, parts) as unknown as NeonQueryFunction<ArrayMode, FullResults>
}
