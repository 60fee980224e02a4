/** Lets batches in over connections of pg. */
import type pg from 'pg'
import { leavesConnectionUsable } from '../../db/errors.ts'
import type { DatabaseConnections, Held } from './connections.ts'
import { Attempts, type Door, Doors, translated } from './door.ts'
import type { Statement } from './statement.ts'

export interface Entered {
  held: Held
  result: unknown
}

export class Doorway {
  readonly #pool: pg.Pool
  readonly #databases: DatabaseConnections
  readonly #doors: Doors
  readonly #waitMillis: number
  readonly #checkRole: (client: pg.ClientBase) => Promise<void>

  constructor(
    pool: pg.Pool,
    databases: DatabaseConnections,
    options: { waitMillis: number; knownTenants: number; checkRole: (client: pg.ClientBase) => Promise<void> },
  ) {
    this.#pool = pool
    this.#databases = databases
    this.#doors = new Doors(options.knownTenants)
    this.#waitMillis = options.waitMillis
    this.#checkRole = options.checkRole
  }

  /**
   * Run a statement that enters, where the tenant is. `held` is used if it is connected there, else given back. The
   * connection it ran on is answered, or none is held when this throws.
   */
  async enter(tenantId: string, held: Held | undefined, statementAt: (door: Door) => Statement): Promise<Entered> {
    const attempts = new Attempts(this.#doors, tenantId, this.#waitMillis)
    let lent = held
    for (;;) {
      const door = this.#doors.of(tenantId)
      lent = await this.#connect(door, lent).catch((error) => {
        if (attempts.mayHaveMoved(door)) return undefined
        throw error
      })
      if (!lent) continue
      const statement = statementAt(door)
      try {
        return { held: lent, result: await statement.run(lent.client) }
      } catch (error) {
        const usable = await settle(lent, error)
        if (!usable) {
          lent.release(true)
          lent = undefined
        }
        if (statement.entered) {
          lent?.release(false)
          throw translated(error)
        }
        const left = door.database
        await attempts.after(door, error).catch((refusal) => {
          lent?.release(false)
          throw refusal
        })
        if (left !== null && this.#doors.of(tenantId).database !== left) this.#databases.forget(left)
      }
    }
  }

  /** A connection to the database of the door whose role may be there; `held` itself, where it is one. */
  async #connect(door: Door, held: Held | undefined): Promise<Held> {
    if (held && held.database === door.database) return held
    held?.release(false)
    const lent = door.database === null ? await borrow(this.#pool) : await this.#databases.acquire(door.database)
    try {
      await this.#checkRole(lent.client)
    } catch (error) {
      lent.release(!leavesConnectionUsable(error))
      throw translated(error)
    }
    return lent
  }
}

const ignore = () => {}

/** A connection of the given pool to the control database. */
async function borrow(pool: pg.Pool): Promise<Held> {
  const client = await pool.connect()
  // While it is lent the pool does not listen, and a connection that breaks would end the process; its query fails, too.
  client.on('error', ignore)
  let released = false
  return {
    client,
    database: null,
    release(broken) {
      if (released) return
      released = true
      client.off('error', ignore)
      client.release(broken)
    },
  }
}

/** After a failure: no transaction stays open. @returns whether the connection can be used again */
async function settle({ client }: Held, error: unknown): Promise<boolean> {
  const code = (error as { message?: unknown }).message
  if (!leavesConnectionUsable(error) || code === 'TENANT_MISMATCH') return false
  if (client.getTransactionStatus() === 'I') return true
  return client.query('rollback').then(
    () => client.getTransactionStatus() === 'I',
    () => false,
  )
}
