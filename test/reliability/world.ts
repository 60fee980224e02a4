/** The real thing beside the model: the same tenants in a database, and what there is to compare of them. */
import { expect } from 'vitest'
import type { Json } from '../../src/core/json.ts'
import type { Model } from '../support/model.ts'
import { type Call, type Connection, type Outcome, outcomeOf, RACER, run } from './operations.ts'

interface Context {
  tenant: { parent_id: string | null; slug: string; name: string; status: string; depth: number; ancestor_ids: string[]; deleted_at: string | null }
  ancestors: Array<{ id: string }>
  config: Record<string, { value: Json; source_tenant_id: string; inherited: boolean; locked: boolean; sensitive: boolean }>
  permissions: Record<string, { value: Json; source_tenant_id: string; mode: string; locked: boolean; delegated: boolean }>
}

const CONTEXTS = `select stratum.get_tenant_context($1, jsonb_build_object('id', id)) as context
  from unnest($2::uuid[]) with ordinality as wanted (id, place) order by place`

const STORED = `select tenant_id::text as tenant, key, jsonb_build_array(value, locked) as fields, 'config' as kind from stratum.config_entries where tenant_id = any ($1)
  union all select tenant_id::text, key, jsonb_build_array(value, mode, revocation_mode), 'policy' from stratum.permission_policies where tenant_id = any ($1)`

/**
 * The folds once more, step by step from the root along parent_id: no path, no window. Both kinds in one
 * shape: a config entry holds as LOCKED or, unlocked, as DELEGATED.
 */
const PLAIN_FOLD = `
with recursive stored as (
  select tenant_id, 'config' as kind, key, value, case when locked then 'LOCKED' else 'DELEGATED' end as mode from stratum.config_entries where tenant_id = any ($1)
  union all select tenant_id, 'policy', key, value, mode from stratum.permission_policies where tenant_id = any ($1)
), keys as (
  select distinct kind, key from stored
), fold as (
  select t.id, k.kind, k.key, s.value, s.mode, s.tenant_id as source
  from stratum.tenants t cross join keys k left join stored s on s.tenant_id = t.id and s.kind = k.kind and s.key = k.key
  where t.id = any ($1) and t.parent_id is null
  union all
  select t.id, f.kind, f.key, 
    case when s.mode is null or f.mode = 'LOCKED' then f.value else s.value end,
    case when s.mode is null or f.mode in ('LOCKED', 'INHERITED') then f.mode else s.mode end,
    case when s.mode is null or f.mode = 'LOCKED' then f.source else s.tenant_id end
  from fold f join stratum.tenants t on t.parent_id = f.id left join stored s on s.tenant_id = t.id and s.kind = f.kind and s.key = f.key
)
select id::text as tenant, kind, key, jsonb_build_array(value, mode, source) as fields from fold where mode is not null`

export class World {
  /** Real ids by the model's numbers. */
  readonly ids: string[] = []
  readonly prefix: string
  readonly #control: Connection
  readonly #owner: Connection

  constructor(control: Connection, owner: Connection, prefix: string) {
    this.#control = control
    this.#owner = owner
    this.prefix = prefix
  }

  call = (call: Call): Promise<Outcome> => outcomeOf(() => run(this.#control, call))

  idOf(number: number): string {
    const id = this.ids[number]
    if (id === undefined) throw new RangeError(`no tenant ${number}`)
    return id
  }

  #numberOf = (id: string | null) => (id === null ? null : this.ids.indexOf(id))

  async policyId(number: number, key: string): Promise<string | undefined> {
    const { rows } = await this.#owner.query('select id from stratum.permission_policies where tenant_id = $1 and key = $2', [this.idOf(number), key])
    return rows[0]?.['id'] as string | undefined
  }

  /** Compare what these tenants are and what holds for them. */
  async compare(model: Model, numbers: number[]): Promise<void> {
    const wanted = [...new Set(numbers)]
    const { rows } = await this.#control.query(CONTEXTS, [JSON.stringify(RACER), wanted.map((number) => this.idOf(number))])
    const real = rows.map((row, index) => [wanted[index], this.#seen(row['context'] as Context)])
    expect(real).toEqual(wanted.map((number) => [number, expected(model, number)]))
  }

  #seen({ tenant, ancestors, config, permissions }: Context) {
    const source = (id: string | null) => this.#numberOf(id)
    return {
      ...{ parent: source(tenant.parent_id), slug: tenant.slug.slice(this.prefix.length), name: tenant.name, status: tenant.status },
      archived: tenant.deleted_at !== null,
      depth: tenant.depth,
      above: tenant.ancestor_ids.map(source),
      ancestors: ancestors.map(({ id }) => source(id)),
      config: Object.fromEntries(Object.entries(config).map(([key, e]) => [key, [e.value, e.locked, source(e.source_tenant_id), e.inherited, e.sensitive]])),
      permissions: Object.fromEntries(
        Object.entries(permissions).map(([key, p]) => [key, [p.value, p.mode, source(p.source_tenant_id), p.locked, p.delegated]]),
      ),
    }
  }

  /** Compare every tenant, what is stored, every subtree, and the folds with a plain query's. */
  async compareAll(model: Model): Promise<void> {
    const all = model.tenants.map((_, number) => number)
    for (let from = 0; from < all.length; from += 100) await this.compare(model, all.slice(from, from + 100))
    expect(await this.#read(STORED)).toEqual(storedIn(model))
    expect(await this.#read(PLAIN_FOLD)).toEqual(foldedIn(model))
    for (const root of all.filter((number) => model.at(number).parent === null))
      expect(await this.#below(root)).toEqual(model.subtree(root).slice(1).sort(byNumber))
  }

  /** Lines of tenant, kind, key and fields, the ids in them as numbers. */
  async #read(text: string): Promise<string[]> {
    const { rows } = await this.#owner.query(text, [this.ids])
    const numbered = (text: string) => text.replaceAll(/"([0-9a-f-]{36})"/g, (_, id: string) => String(this.ids.indexOf(id)))
    return rows.map(({ tenant, kind, key, fields }) => numbered(line(this.ids.indexOf(String(tenant)), String(kind), String(key), fields))).toSorted()
  }

  /** All below, a page at a time. */
  async #below(number: number): Promise<number[]> {
    const found: number[] = []
    let next: unknown = null
    do {
      const input = { id: this.idOf(number), limit: 50, include_archived: true, ...(next === null ? {} : { after: next }) }
      const page = (await run(this.#control, { operation: 'get_descendants', input })) as { data: Array<{ id: string }>; next: unknown }
      found.push(...page.data.map(({ id }) => this.ids.indexOf(id)))
      next = page.next
    } while (next !== null)
    return found.sort(byNumber)
  }
}

const byNumber = (a: number, b: number) => a - b

const line = (tenant: number, kind: string, key: string, fields: unknown) => `${tenant} ${kind} ${key} ${JSON.stringify(fields)}`

/** What the database must answer of a tenant, in the same shape as what it does answer. */
function expected(model: Model, number: number) {
  const { parent, slug, name, status } = model.at(number)
  const above = model.lineage(number).slice(0, -1)
  return {
    ...{ parent, slug, name, status, archived: status === 'archived', depth: model.depth(number), above, ancestors: above },
    config: Object.fromEntries([...model.config(number)].map(([key, e]) => [key, [e.value, e.locked, e.source, e.source !== number, false]])),
    permissions: Object.fromEntries(
      [...model.permissions(number)].map(([key, p]) => [key, [p.value, p.mode, p.source, p.mode === 'LOCKED', p.mode === 'DELEGATED']]),
    ),
  }
}

const storedIn = (model: Model): string[] =>
  model.tenants
    .flatMap(({ config, policies }, number) => [
      ...[...config].map(([key, { value, locked }]) => line(number, 'config', key, [value, locked])),
      ...[...policies].map(([key, { value, mode, revocation_mode }]) => line(number, 'policy', key, [value, mode, revocation_mode])),
    ])
    .toSorted()

const foldedIn = (model: Model): string[] =>
  model.tenants
    .flatMap((_, number) => [
      ...[...model.config(number)].map(([key, { value, locked, source }]) => line(number, 'config', key, [value, locked ? 'LOCKED' : 'DELEGATED', source])),
      ...[...model.permissions(number)].map(([key, { value, mode, source }]) => line(number, 'policy', key, [value, mode, source])),
    ])
    .toSorted()
