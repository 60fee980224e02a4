/**
 * How a batch gets to where its tenant is. The control database is asked first and says when the rows are in a
 * database of the tenant's own; that is remembered until the door there says otherwise. Where a tenant is just being
 * made or moved, the batch waits a little. All of it happens before anything of the caller's has run.
 */
import { stratumError } from '../../core/error-classes.ts'
import type { StratumError } from '../../core/errors.ts'
import { BoundedMap } from '../../crypto/bounded-map.ts'
import { fromDriver, isTransient } from '../../db/errors.ts'

/** What a tenant's own database may answer when it is not, or not yet, what the control database says. */
const ASK_AGAIN = ['TENANT_ELSEWHERE', 'TENANT_UNAVAILABLE', 'TENANT_NOT_FOUND', 'TENANT_SUSPENDED', 'TENANT_ARCHIVED']

/** Where a tenant's rows are, as far as a connection needs it: null is the control database. */
export interface Door {
  database: string | null
  /** The routing version that a database of the tenant's own must be at; null at the control database. */
  version: number | null
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i
/** True for what may be written into SQL as a tenant id. */
export const isTenantId = (value: unknown): value is string => typeof value === 'string' && UUID.test(value)

const CONTROL: Door = { database: null, version: null }
const FIRST_WAIT = 10
const LONGEST_WAIT = 250

/** Errors of the guard become the catalogue's; all others stay as the driver made them. */
export const translated = (error: unknown): unknown => ((error as { code?: unknown } | null)?.code === 'STRAT' ? fromDriver(error) : error)

/** The tenant that a handle's function answers. @throws TENANT_REQUIRED, VALIDATION_FAILED */
export function readTenant(tenantId: () => string): string {
  let answer: unknown
  try {
    answer = tenantId()
  } catch (cause) {
    throw required(cause)
  }
  if (answer === undefined || answer === null || answer === '') throw required()
  if (isTenantId(answer)) return answer
  throw stratumError('VALIDATION_FAILED', { reason: 'the tenant of a handle is given by its id, a UUID' })
}
const required = (cause?: unknown) =>
  stratumError('TENANT_REQUIRED', {}, { cause, message: 'This query ran for no tenant. Run it inside runWithTenant, or give the handle the id of one.' })

/** Where tenants with a database of their own are. All others are found at the control database, which is asked anyway. */
export class Doors {
  readonly #known: BoundedMap<string, Door>
  constructor(maximum: number) {
    this.#known = new BoundedMap(maximum)
  }
  of(tenantId: string): Door {
    return this.#known.get(tenantId) ?? CONTROL
  }
  /** @returns the database that the tenant is known to be in no more */
  forget(tenantId: string): string | null {
    const { database } = this.of(tenantId)
    this.#known.delete(tenantId)
    return database
  }
  learn(tenantId: string, refusal: StratumError) {
    const { database_name: database, routing_version: version } = refusal.details
    if (typeof database === 'string') this.#known.set(tenantId, { database, version: Number(version) })
  }
}

/** Decides, for one batch, what follows a refusal: another try at once, one after a wait, or none. */
export class Attempts {
  readonly #doors: Doors
  readonly #tenantId: string
  readonly #until: number
  #askedControl = false
  #wait = FIRST_WAIT

  constructor(doors: Doors, tenantId: string, waitMillis: number) {
    this.#doors = doors
    this.#tenantId = tenantId
    this.#until = Date.now() + waitMillis
  }

  /** After a refusal at `door`: resolves when to try again, or throws what the caller gets. */
  async after(door: Door, error: unknown): Promise<void> {
    const refusal = translated(error)
    const code = (refusal as StratumError).code
    const atControl = door.database === null
    if (atControl && code === 'TENANT_ELSEWHERE') {
      this.#askedControl = true
      return this.#doors.learn(this.#tenantId, refusal as StratumError)
    }
    // A session that was given a tenant by hand: it is closed, and another will do.
    if (code === 'TENANT_MISMATCH' && Date.now() < this.#until) return
    const again = atControl ? code === 'TENANT_UNAVAILABLE' : ASK_AGAIN.includes(code)
    // Also what a wait for a cutover ends with: the lock was not had in time, or what it left is newer than the snapshot.
    const busy = isTransient(error)
    if (!again && !busy) throw refusal
    if (!atControl) {
      this.#doors.forget(this.#tenantId)
      // What was remembered is out of date: that takes no time to pass.
      if (!this.#askedControl) return
    }
    if (Date.now() + this.#wait > this.#until) throw busy ? stratumError('TENANT_UNAVAILABLE', { tenant_id: this.#tenantId }, { cause: error }) : refusal
    await new Promise((resolve) => setTimeout(resolve, this.#wait))
    this.#wait = Math.min(this.#wait * 2, LONGEST_WAIT)
  }

  /** Whether a database that cannot be reached may be one that the tenant has left. */
  mayHaveMoved(door: Door): boolean {
    if (door.database === null || this.#askedControl) return false
    this.#doors.forget(this.#tenantId)
    return true
  }
}
