/** The real thing beside the model: the same tenants in a database, and what there is to compare of them. */
import { expect } from 'vitest'
import type { Json } from '../../src/core/json.ts'
import type { StratumClient } from '../../src/sdk/client.ts'
import type { Model, Status } from '../support/model.ts'
import { expectFourWaysAgree } from './four-ways.ts'
import { type Call, type Connection, type Outcome, outcomeOf, RACER, run } from './operations.ts'

interface Context {
  tenant: {
    parent_id: string | null
    slug: string
    name: string
    status: string
    depth: number
    ancestor_ids: string[]
    sort_order: number
    deleted_at: string | null
  }
  ancestors: Array<{ id: string }>
  config: Record<string, { value: Json; source_tenant_id: string; inherited: boolean; locked: boolean; sensitive: boolean }>
  permissions: Record<string, { value: Json; source_tenant_id: string; mode: string; locked: boolean; delegated: boolean }>
}

interface Seen {
  context: Context
  children: Array<{ id: string }>
  counts: { children: number; descendants: number; by_status: Record<Status, number> }
}

const SEEN = `
select stratum.get_tenant_context($1, input) as context, stratum.get_tenant_counts($1, input) as counts,
  stratum.get_children($1, input || '{"limit": 1000, "include_archived": true}') -> 'data' as children
from (
  select place, jsonb_build_object('id', id) as input from unnest($2::uuid[]) with ordinality as wanted (id, place)
) as wanted order by place`

/** What no answer shows whole: entries and policies that are shadowed too, slugs given up, and who resumes with whom. */
const STORED = `select tenant_id::text as tenant, key, jsonb_build_array(value, locked) as fields, 'config' as kind from stratum.config_entries where tenant_id = any ($1)
  union all select tenant_id::text, key, jsonb_build_array(value, mode, revocation_mode), 'policy' from stratum.permission_policies where tenant_id = any ($1)
  union all select tenant_id::text, substr(slug, 1 + $2::integer), '[]', 'slug' from stratum.tenant_slugs where tenant_id = any ($1)
  union all select id::text, '', jsonb_build_array(coalesce(suspended_with, archived_with)), 'remembers' from stratum.tenants
  where id = any ($1) and coalesce(suspended_with, archived_with) is not null`

export class World {
  /** Real ids by the model's numbers. */
  readonly ids: string[] = []
  readonly prefix: string
  readonly #control: Connection
  readonly #owner: Connection
  readonly #client: StratumClient

  constructor(control: Connection, owner: Connection, client: StratumClient, prefix: string) {
    this.#control = control
    this.#owner = owner
    this.#client = client
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
    const { rows } = await this.#control.query(SEEN, [JSON.stringify(RACER), wanted.map((number) => this.idOf(number))])
    const real = rows.map((row, index) => [wanted[index], this.#seen(row as unknown as Seen)])
    expect(real).toEqual(wanted.map((number) => [number, expected(model, number)]))
  }

  #seen({ context: { tenant, ancestors, config, permissions }, children, counts }: Seen) {
    const source = (id: string | null) => this.#numberOf(id)
    return {
      ...{ parent: source(tenant.parent_id), slug: tenant.slug.slice(this.prefix.length), name: tenant.name, status: tenant.status },
      archived: tenant.deleted_at !== null,
      depth: tenant.depth,
      above: tenant.ancestor_ids.map(source),
      ancestors: ancestors.map(({ id }) => source(id)),
      place: tenant.sort_order,
      children: children.map(({ id }) => source(id)),
      counts,
      config: Object.fromEntries(Object.entries(config).map(([key, e]) => [key, [e.value, e.locked, source(e.source_tenant_id), e.inherited, e.sensitive]])),
      permissions: Object.fromEntries(
        Object.entries(permissions).map(([key, p]) => [key, [p.value, p.mode, source(p.source_tenant_id), p.locked, p.delegated]]),
      ),
    }
  }

  /** Compare every tenant, what is stored, every subtree, and what four ways say of what holds. */
  async compareAll(model: Model): Promise<void> {
    const all = model.tenants.map((_, number) => number)
    for (let from = 0; from < all.length; from += 100) await this.compare(model, all.slice(from, from + 100))
    expect(await this.#stored()).toEqual(storedIn(model))
    await expectFourWaysAgree(model, { ids: this.ids, control: this.#control, owner: this.#owner, client: this.#client })
    for (const root of model.children(null)) expect(await this.#below(root)).toEqual(model.subtree(root).slice(1).sort(byNumber))
  }

  /** Lines of tenant, kind, key and fields, the ids in them as numbers. */
  async #stored(): Promise<string[]> {
    const { rows } = await this.#owner.query(STORED, [this.ids, this.prefix.length])
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
  const { parent, slug, name, status, place } = model.at(number)
  const above = model.lineage(number).slice(0, -1)
  const children = model.children(number)
  const below = model.subtree(number).slice(1)
  const having = (wanted: Status) => below.filter((each) => model.at(each).status === wanted).length
  return {
    ...{ parent, slug, name, status, archived: status === 'archived', depth: model.depth(number), above, ancestors: above, place, children },
    counts: {
      ...{ children: children.length, descendants: below.length },
      by_status: { active: having('active'), suspended: having('suspended'), archived: having('archived') },
    },
    config: Object.fromEntries([...model.config(number)].map(([key, e]) => [key, [e.value, e.locked, e.source, e.source !== number, false]])),
    permissions: Object.fromEntries(
      [...model.permissions(number)].map(([key, p]) => [key, [p.value, p.mode, p.source, p.mode === 'LOCKED', p.mode === 'DELEGATED']]),
    ),
  }
}

const storedIn = (model: Model): string[] =>
  model.tenants
    .flatMap(({ config, policies, slugs, remembers }, number) => [
      ...[...config].map(([key, { value, locked }]) => line(number, 'config', key, [value, locked])),
      ...[...policies].map(([key, { value, mode, revocation_mode }]) => line(number, 'policy', key, [value, mode, revocation_mode])),
      ...[...slugs].map((slug) => line(number, 'slug', slug, [])),
      ...(remembers === null ? [] : [line(number, 'remembers', '', [remembers])]),
    ])
    .toSorted()
