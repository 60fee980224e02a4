/** Is every place current? One query, whatever the number of tenants. */
import type pg from 'pg'
import { SHARED } from './places.ts'

/** `provisioning`: being made, and then current. */
export type PlaceState = 'current' | 'behind' | 'failed' | 'provisioning'

export interface FleetStatus {
  /** Every place has had the last migration. */
  current: boolean
  /** Name of the last migration that any place has had; null before the first. */
  latest: string | null
  counts: Record<PlaceState, number>
  /** Those that are not current, or all if asked for. `slug` is null for the shared tables. */
  places: Array<{ slug: string | null; isolation_strategy: string; state: PlaceState; migration: string; error: { code: string; message: string } | null }>
}

const STATUS = `
  with latest as (select (select m.name from stratum.fleet_migrations m order by m.position desc limit 1) as name),
  places as (
    select null as slug, 'SHARED_RLS' as strategy, true as ready, '${SHARED}'::uuid as id, null::stratum.ltree as path
    union all
    select t.slug, t.isolation_strategy, t.provisioning_status = 'ready', t.id, t.path from stratum.tenants t where t.isolation_strategy <> 'SHARED_RLS'),
  states as (
    select s.slug, s.strategy, s.path, p.error, coalesce(p.migration, '') as migration,
      case when p.status = 'failed' then 'failed' when not s.ready and p.tenant_id is null then 'provisioning'
        when l.name is null or p.migration = l.name then 'current' else 'behind' end as state
    from places s cross join latest l left join stratum.fleet_places p on p.tenant_id = s.id)
  select (select name from latest) as latest, (select jsonb_object_agg(c.state, c.number) from (select state, count(*) as number from states group by state) as c) as counts,
    coalesce((select jsonb_agg(jsonb_build_object('slug', s.slug, 'isolation_strategy', s.strategy, 'state', s.state, 'migration', s.migration, 'error', s.error)
      order by s.path nulls first) from states s where $1 or s.state <> 'current'), '[]') as places`

/** How far every place is. `all` lists the current ones too. `client`: the owner's, in the control database. */
export async function fleetStatus(client: Pick<pg.ClientBase, 'query'>, { all = false } = {}): Promise<FleetStatus> {
  const { rows } = await client.query<Pick<FleetStatus, 'latest' | 'counts' | 'places'>>(STATUS, [all])
  const { latest = null, counts: counted, places = [] } = rows[0] ?? {}
  const counts = { current: 0, behind: 0, failed: 0, provisioning: 0, ...counted }
  return { current: counts.behind + counts.failed === 0, latest, counts, places }
}
