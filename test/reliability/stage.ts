/**
 * Two calls interleaved by hand: each stops where it is told to and goes on when it is told to, so what a
 * guard prevents happens every time the guard is taken out, and never by luck.
 */
import { createInstallation, type Installation } from '../support/installation.ts'
import { tenantInput } from './arena.ts'
import { type Fault, faults } from './invariants.ts'
import { BackendClient, type Call, type InFlight, isBlocked, run, start } from './operations.ts'

const PAUSE = 4_712

export class Stage {
  readonly installation: Installation
  readonly first: BackendClient
  readonly second: BackendClient
  readonly #observer: BackendClient
  #slug = 0

  private constructor(installation: Installation, [observer, first, second]: readonly [BackendClient, BackendClient, BackendClient]) {
    this.installation = installation
    this.#observer = observer
    this.first = first
    this.second = second
  }

  static async open(): Promise<Stage> {
    const installation = await createInstallation()
    const { owner, control } = installation.urls
    return new Stage(installation, [await BackendClient.open(owner), await BackendClient.open(control), await BackendClient.open(control)])
  }

  async close(): Promise<void> {
    await Promise.all([this.#observer.end(), this.first.end(), this.second.end()])
    await this.installation.close()
  }

  /** Change a function's own text: to take a guard out, or to put a pause in. */
  async edit(name: string, from: string | RegExp, to: string): Promise<void> {
    const { rows } = await this.#observer.query('select pg_get_functiondef($1::regproc) as text', [`stratum.${name}`])
    const text = String(rows[0]?.text)
    const edited = text.replace(from, () => to)
    if (edited === text) throw new Error(`${name} does not hold ${from}`)
    await this.#observer.query(edited)
  }

  sql = (text: string): Promise<unknown> => this.#observer.query(text)

  withoutStructureLock = () => this.edit('lock_structure', /\bbegin\n.*end \$function\$/s, 'begin\nend $function$')
  withoutTreeChecks = () => this.sql('drop trigger check_tree_on_insert on stratum.tenants; drop trigger check_tree_on_update on stratum.tenants')

  /** Let calls stop at the beginning of this function while `hold` holds them. */
  pauseAt = (name: string) => this.edit(name, /\bbegin\n/, `begin\n  perform pg_advisory_xact_lock_shared(${PAUSE}, pg_backend_pid());\n`)
  hold = (client: BackendClient) => this.sql(`select pg_advisory_lock(${PAUSE}, ${client.backend})`)
  release = (client: BackendClient) => this.sql(`select pg_advisory_unlock(${PAUSE}, ${client.backend})`)

  /** Start a call; it is over, or waits for someone, when this resolves. */
  async start(client: BackendClient, call: Call): Promise<InFlight & { waits: boolean }> {
    const inFlight = start(client, call)
    return { ...inFlight, waits: await isBlocked(this.#observer, inFlight) }
  }

  /** The first call runs in a transaction that stays open until the second is over or waits for it. */
  async overlap(first: Call, second: Call): Promise<{ codes: string[]; waited: boolean; faults: Fault[] }> {
    await this.first.query('begin')
    const one = await start(this.first, first).outcome
    const two = await this.start(this.second, second)
    await this.first.query('commit')
    const codes = [one.code, (await two.outcome).code]
    return { codes, waited: two.waits, faults: await faults(this.#observer) }
  }

  /** Both calls run up to the pause, the second or the wait it meets before; then both go on. */
  async meet(first: Call, second: Call): Promise<{ codes: string[]; faults: Fault[] }> {
    await this.hold(this.first)
    await this.hold(this.second)
    const one = await this.start(this.first, first)
    const two = await this.start(this.second, second)
    await this.release(this.first)
    await this.release(this.second)
    const codes = [(await one.outcome).code, (await two.outcome).code]
    return { codes, faults: await faults(this.#observer) }
  }

  call<T = { id: string }>(operation: string, input: Record<string, unknown>): Promise<T> {
    return run(this.installation.owner, { operation, input }) as Promise<T>
  }

  async line(length: number, parentId: string | null = null): Promise<string[]> {
    const ids: string[] = []
    for (let level = 0; level < length; level++) {
      ids.push((await this.call('create_tenant', tenantInput(ids.at(-1) ?? parentId, `t${++this.#slug}`))).id)
    }
    return ids
  }
}

/** The calls of these tests, by what they do. */
export const calls = {
  create: (parentId: string | undefined, slug: string): Call => ({ operation: 'create_tenant', input: tenantInput(parentId ?? null, slug) }),
  move: (id: string | undefined, to: string | undefined | null): Call => ({ operation: 'move_tenant', input: { id, new_parent_id: to ?? null } }),
  suspend: (id: string | undefined): Call => ({ operation: 'suspend_tenant', input: { id } }),
  resume: (id: string | undefined): Call => ({ operation: 'resume_tenant', input: { id } }),
  setConfig: (id: string | undefined, key = 'limit'): Call => ({ operation: 'set_config', input: { id, key, value: 1, locked: false } }),
  give: (id: string | undefined, mode: string, revocation_mode: string, value: unknown): Call => ({
    operation: 'create_permission',
    input: { id, key: 'edit', mode, revocation_mode, value },
  }),
  revoke: (id: string | undefined, policyId: string): Call => ({ operation: 'delete_permission', input: { id, policy_id: policyId } }),
}
