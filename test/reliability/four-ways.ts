/**
 * What holds for tenants, found in four ways that share nothing: the SQL operations, the API through the SDK,
 * the model, and a plain query along parent_id. Each answers lines of tenant, kind, key and what holds, in one
 * shape for both kinds: a config entry holds as LOCKED or, unlocked, as DELEGATED.
 */
import { expect } from 'vitest'
import type { Json } from '../../src/core/json.ts'
import type { StratumClient } from '../../src/sdk/client.ts'
import type { Mode, Model } from '../support/model.ts'
import { type Connection, RACER } from './operations.ts'

/** The real ids by the model's numbers, and the ways to the real thing. */
export interface Asked {
  ids: readonly string[]
  control: Connection
  owner: Connection
  client: StratumClient
}

interface Resolved {
  config: Record<string, { value: unknown; locked: boolean; source_tenant_id: string | null }>
  permissions: Record<string, { value: unknown; mode: string; source_tenant_id: string }>
}

const OPERATIONS = `
select stratum.resolve_config($1, jsonb_build_object('id', id, 'reveal', false)) || stratum.resolve_permissions($1, jsonb_build_object('id', id)) as resolved
from unnest($2::uuid[]) with ordinality as wanted (id, place) order by place`

/** Step by step from the root along parent_id: no path, no window. */
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
select id::text as tenant, kind, key, value, mode, source::text as source from fold where mode is not null`

const line = (tenant: number, kind: 'config' | 'policy', key: string, value: unknown, mode: string, source: number) =>
  `${tenant} ${kind} ${key} ${JSON.stringify([value, mode, source])}`

const configMode = (locked: boolean): Mode => (locked ? 'LOCKED' : 'DELEGATED')

const linesOf = (ids: readonly string[], tenant: number, { config, permissions }: Resolved): string[] => [
  ...Object.entries(config).map(([key, e]) => line(tenant, 'config', key, e.value, configMode(e.locked), ids.indexOf(e.source_tenant_id ?? ''))),
  ...Object.entries(permissions).map(([key, p]) => line(tenant, 'policy', key, p.value, p.mode, ids.indexOf(p.source_tenant_id))),
]

export async function byOperations({ ids, control }: Pick<Asked, 'ids' | 'control'>): Promise<string[]> {
  const { rows } = await control.query(OPERATIONS, [JSON.stringify(RACER), ids])
  return rows.flatMap(({ resolved }, tenant) => linesOf(ids, tenant, resolved as Resolved))
}

async function throughTheSdk({ ids, client }: Asked): Promise<string[]> {
  const lines: string[] = []
  for (const [tenant, id] of ids.entries()) {
    const [{ config }, { permissions }] = await Promise.all([client.resolveConfig({ id }), client.resolvePermissions({ id })])
    lines.push(...linesOf(ids, tenant, { config, permissions }))
  }
  return lines
}

export async function alongParents({ ids, owner }: Pick<Asked, 'ids' | 'owner'>): Promise<string[]> {
  const { rows } = await owner.query(PLAIN_FOLD, [ids])
  const number = (id: unknown) => ids.indexOf(String(id))
  return rows.map((row) =>
    line(number(row['tenant']), row['kind'] as 'config' | 'policy', String(row['key']), row['value'] as Json, String(row['mode']), number(row['source'])),
  )
}

export const inTheModel = (model: Model): string[] =>
  model.tenants.flatMap((_, tenant) => [
    ...[...model.config(tenant)].map(([key, { value, locked, source }]) => line(tenant, 'config', key, value, configMode(locked), source)),
    ...[...model.permissions(tenant)].map(([key, { value, mode, source }]) => line(tenant, 'policy', key, value, mode, source)),
  ])

/** All four say the same of every tenant. */
export async function expectFourWaysAgree(model: Model, asked: Asked): Promise<void> {
  const [operations, sdk, plain] = await Promise.all([byOperations(asked), throughTheSdk(asked), alongParents(asked)])
  const modelled = inTheModel(model).toSorted()
  expect({ operations: operations.toSorted(), sdk: sdk.toSorted(), plain: plain.toSorted() }).toEqual({ operations: modelled, sdk: modelled, plain: modelled })
}
