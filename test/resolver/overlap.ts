import type pg from 'pg'

interface Running {
  version: string
  refs: string[]
}

/** Connections whose transactions overlap, and what they have committed since somebody last asked. */
export class Overlap {
  readonly #clients: readonly pg.Client[]
  readonly #running = new Map<number, Running>()
  #committed: string[] = []
  readonly ended: string[] = []
  #number = 0

  constructor(clients: readonly pg.Client[]) {
    this.#clients = clients
  }

  get running(): string[] {
    return [...this.#running.values()].map(({ version }) => version)
  }

  committed(): string[] {
    return this.#committed.splice(0).sort()
  }

  async write(at: number, savepoint?: 'kept' | 'undone'): Promise<void> {
    const client = this.#clients[at] as pg.Client
    if (!this.#running.has(at)) await client.query('begin')
    if (savepoint) await client.query('savepoint here')
    const ref = `change ${++this.#number}`
    const { rows } = await client.query<{ xid: string }>(`insert into stratum.changes (kind, ref) values ('host', $1) returning xid::text`, [ref])
    const running = this.#running.get(at) ?? { version: rows[0]?.xid ?? '', refs: [] }
    // The changes of a subtransaction are those of the transaction that it is part of, or of none.
    if (savepoint === 'undone') await client.query('rollback to savepoint here')
    else running.refs.push(ref)
    this.#running.set(at, running)
  }

  async end(at: number, how: 'commit' | 'rollback'): Promise<void> {
    await this.#clients[at]?.query(how)
    const running = this.#running.get(at)
    this.#running.delete(at)
    if (running && how === 'commit') {
      this.#committed.push(...running.refs)
      this.ended.push(running.version)
    }
  }

  async endAll(how: 'commit' | 'rollback'): Promise<void> {
    for (const at of this.#clients.keys()) await this.end(at, how)
  }
}
