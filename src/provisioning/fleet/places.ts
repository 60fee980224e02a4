/** The places that the application's migrations run in, and how far each is. */
import type pg from 'pg'
import { stratumError } from '../../core/error-classes.ts'
import { type Place, schemaOf } from '../../isolation/place.ts'
import type { FleetMigration } from './files.ts'

/** Stands for the shared tables where a tenant's id would. */
export const SHARED = '00000000-0000-0000-0000-000000000000'

/** The shared tables, or a tenant's schema or database. */
export interface FleetPlace extends Place {
  /** {@link SHARED} for the shared tables. */
  tenant_id: string
  /** The tenant's slug; null for the shared tables. */
  slug: string | null
  /** Name of the last file it has had, '' before the first. */
  migration: string
}

/** As people read of it. */
export const titleOf = ({ slug }: Pick<FleetPlace, 'slug'>): string => slug ?? 'the shared tables'
export const isShared = (place: FleetPlace): boolean => place.tenant_id === SHARED
/** Its name in the ledger of its database. */
export const ledgerOf = (place: FleetPlace): string => (place.strategy === 'SCHEMA_PER_TENANT' ? schemaOf(place) : '')

// Schemas are told by their ledger, which is here; databases by the summary, which may be behind theirs and is never ahead.
// A tenant still being provisioned counts once it has something to migrate.
const PLACES = `
  with ledger as (select schema_name, max(name collate "C") as last from stratum_guard.applied_migrations group by schema_name)
  select '${SHARED}'::uuid as tenant_id, null as slug, 'SHARED_RLS' as strategy, null as name, coalesce((select l.last from ledger l where l.schema_name = ''), '') as migration
  union all
  (select t.id, t.slug, t.isolation_strategy, t.isolation_name, coalesce(case t.isolation_strategy when 'SCHEMA_PER_TENANT' then l.last else p.migration end, '')
   from stratum.tenants t left join stratum.fleet_places p on p.tenant_id = t.id
   left join ledger l on t.isolation_strategy = 'SCHEMA_PER_TENANT' and l.schema_name = t.isolation_name
   where t.isolation_strategy <> 'SHARED_RLS' and (t.provisioning_status = 'ready' or p.tenant_id is not null)
   order by t.isolation_strategy desc, t.path)`

// What the summary says of places of this database follows their ledgers: a place that was made anew has one of its own.
const SUMMARY = `
  insert into stratum.fleet_places as p (tenant_id, migration)
  select s.id, l.last from (select schema_name, max(name collate "C") as last from stratum_guard.applied_migrations group by schema_name) as l
  join (select '${SHARED}'::uuid as id, '' as name union all select t.id, t.isolation_name from stratum.tenants t where t.isolation_strategy = 'SCHEMA_PER_TENANT') as s
    on s.name = l.schema_name
  on conflict (tenant_id) do update set migration = excluded.migration, updated_at = now() where p.migration <> excluded.migration`

/** Let the summary say what the ledgers say. */
export const refreshSummary = async (client: pg.ClientBase): Promise<void> => void (await client.query(SUMMARY))

/** The shared tables first, then schemas, then databases. */
export const listPlaces = async (client: pg.ClientBase): Promise<FleetPlace[]> => (await client.query<FleetPlace>(PLACES)).rows

/** The files that a place has not had, in their order. */
export const pendingFor = (place: FleetPlace, files: readonly FleetMigration[]): FleetMigration[] => files.filter(({ name }) => name > place.migration)

/** The place that goes first: the one asked for, else the first schema, else the first database. @throws CONFIGURATION_INVALID */
export function chooseCanary(places: readonly FleetPlace[], slug: string | undefined): FleetPlace | undefined {
  const own = places.filter((place) => !isShared(place))
  if (slug === undefined) return own[0]
  const canary = own.find((place) => place.slug === slug)
  if (canary) return canary
  throw stratumError('CONFIGURATION_INVALID', { reason: `No tenant ${slug} with a schema or database of its own is there to go first.` })
}

/** The name that a tenant's database has now: while it is made, the working name. */
export async function databaseOf(control: pg.ClientBase, place: FleetPlace): Promise<string> {
  const { rows } = await control.query<{ name: string | null }>(
    `select case when exists (select from pg_database where datname = $1) then $1
       else (select d.working_name from stratum.tenant_databases d where d.database_name = $1 and d.tenant_id = $2) end as name`,
    [place.name, place.tenant_id],
  )
  return rows[0]?.name ?? place.name ?? ''
}
