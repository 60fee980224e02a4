/** Tenants' places: that each is there, is marked as its tenant's, and holds copies that are as the shared tables. */
import type pg from 'pg'
import { guardOf } from '../guard.ts'
import { identifier } from '../identifiers.ts'
import { isKept } from '../marked-places.ts'
import { markOf } from '../place.ts'
import { readTableFacts, type TableFacts } from '../table-facts.ts'
import { differences } from './copies.ts'
import { error, type Finding, warning } from './finding.ts'

interface PlaceState {
  tenant_id: string
  kind: 'schema' | 'database'
  name: string
  /** undefined: there is none */
  present: boolean
  mark: string | null
  /** It is where the tenant's rows are now. */
  current: boolean
  /** Being made, filled, or kept after a change. */
  passing: boolean
  /** The tenant has left it, and it is kept for the rollback window. */
  kept: boolean
  ready: boolean
  open_to_public: boolean
  routing_version: string | null
}

// Places that tenants say they have, and places that say they are a tenant's.
const PLACES = `
  with wanted as (
      select t.id as tenant_id, case t.isolation_strategy when 'DB_PER_TENANT' then 'database' else 'schema' end as kind, t.isolation_name as name,
        t.provisioning_status = 'ready' as ready
      from stratum.tenants t where t.isolation_name is not null),
    marked as (
      select substring(obj_description(n.oid, 'pg_namespace') from '^stratum tenant ([0-9a-f-]{36})$')::uuid as tenant_id, 'schema' as kind, n.nspname::text as name from pg_namespace n
      union all select l.tenant_id, 'database', l.database_name from stratum.tenant_databases l),
    every as (select tenant_id, kind, name from wanted union select tenant_id, kind, name from marked where tenant_id is not null)
  select e.tenant_id, e.kind, e.name, coalesce(n.oid, d.oid) is not null as present,
    coalesce(obj_description(n.oid, 'pg_namespace'), shobj_description(d.oid, 'pg_database')) as mark,
    w.name is not null as current, coalesce(w.ready, false) as ready,
    exists (select from stratum.isolation_changes c where c.tenant_id = e.tenant_id and c.source_dropped_at is null and e.name in (c.from_name, c.to_name)) as passing,
    ${isKept('e.tenant_id', 'e.name')} as kept,
    d.oid is not null and (d.datacl is null or exists (select from aclexplode(d.datacl) a where a.grantee = 0 and a.privilege_type = 'CONNECT')) as open_to_public,
    (select r.routing_version from stratum_guard.route r where r.tenant_id = e.tenant_id) as routing_version
  from every e left join wanted w using (tenant_id, kind, name)
    left join pg_namespace n on e.kind = 'schema' and n.nspname = e.name left join pg_database d on e.kind = 'database' and d.datname = e.name
  order by e.kind, e.name`

function checkPresence(place: PlaceState): Finding[] {
  const { kind, name, tenant_id: tenant } = place
  if (!place.present) {
    if (place.current && place.ready)
      return [error('place_missing', name, `Tenant ${tenant} is said to be in this ${kind}, which is not there.`, 'Restore it from a backup.')]
    return place.current || place.passing
      ? []
      : [
          warning(
            'place_unfinished',
            name,
            `The ledger has this ${kind} of tenant ${tenant}, which was never finished.`,
            'Retry the tenant’s job, or purge the tenant.',
          ),
        ]
  }
  if (place.mark !== markOf(tenant)) {
    return [
      error(
        'place_unmarked',
        name,
        `This ${kind} does not carry the mark of tenant ${tenant}: it is neither used further nor dropped.`,
        `If it is that tenant’s: COMMENT ON ${kind.toUpperCase()} ${name} IS '${markOf(tenant)}'.`,
      ),
    ]
  }
  if (!place.current && !place.passing) {
    return [
      warning(
        'place_left_over',
        name,
        `This ${kind} carries the mark of tenant ${tenant}, whose rows are elsewhere or gone.`,
        `See that nothing in it is needed, and drop the ${kind}.`,
      ),
    ]
  }
  return place.open_to_public
    ? [error('place_open', name, 'Every role of the server may connect to this database.', `REVOKE CONNECT ON DATABASE ${name} FROM PUBLIC.`)]
    : []
}

/** What matters of how a copy differs. What is only kept is as it was left, but keeps tenants apart all the same. */
function thatMatter(place: PlaceState, found: string[]): string[] {
  if (place.kept) return found.filter((difference) => difference.startsWith('row security'))
  // foreign keys come last to a place that is being filled
  return place.current ? found : found.filter((difference) => !difference.startsWith('foreign key'))
}

function checkCopies(place: PlaceState, shared: readonly TableFacts[], copies: readonly TableFacts[]): Finding[] {
  const found: Finding[] = []
  const advice =
    'Run the application’s migrations over all places (stratum tenants migrate), stratum migrate again where the copy is missing, or alter the copy.'
  for (const table of shared) {
    const copy = copies.find(({ name }) => name === table.name)
    const differing = thatMatter(place, copy ? differences(table, copy) : ['it is missing'])
    if (differing.length > 0)
      found.push(error('copy_differs', `${place.name}.${table.name}`, `The copy is not as the shared table: ${differing.slice(0, 10).join('; ')}.`, advice))
  }
  const stray = copies.filter(({ kind, name }) => !place.kept && kind === 'r' && !shared.some((table) => table.name === name))
  for (const { name } of stray)
    found.push(
      warning(
        'copy_of_unmanaged',
        `${place.name}.${name}`,
        'This table is in a tenant’s place and is not managed.',
        'Manage it (stratum migrate), or drop it there if it is empty.',
      ),
    )
  return found
}

/** The tables of a database of a tenant's own, its guard, and what its route says. */
async function checkDatabase(place: PlaceState, shared: readonly TableFacts[], there: pg.ClientBase, guard: string | null | undefined): Promise<Finding[]> {
  await there.query('begin read only')
  const copies = await readTableFacts(there)
  const { rows } = await there.query<{ routing_version: string }>('select routing_version from stratum_guard.route where tenant_id = $1', [place.tenant_id])
  const outdated = (await guardOf(there)) !== guard
  await there.query('rollback')
  const stale = place.current && place.ready && rows[0]?.routing_version !== place.routing_version
  const found = checkCopies(place, shared, copies)
  if (outdated)
    found.push(
      error(
        'guard_differs',
        place.name,
        'The guard in this database is not as in the control database.',
        'Start a provisioner of this version: it renews the guard of every database.',
      ),
    )
  if (stale)
    found.push(
      error(
        'route_differs',
        place.name,
        'The route in this database is not at the version that the control database sends batches with.',
        'Retry the tenant’s last job.',
      ),
    )
  return found
}

/** Without a way to connect, tenants' databases are not looked into. */
export type Connect = (database: string) => Promise<pg.ClientBase & { end(): Promise<void> }>

export async function checkPlaces(client: pg.ClientBase, shared: readonly TableFacts[], connect: Connect): Promise<Finding[]> {
  const { rows } = await client.query<PlaceState>(PLACES)
  const guard = await guardOf(client)
  const found: Finding[] = []
  for (const place of rows) {
    found.push(...checkPresence(place))
    if (!place.present || place.mark !== markOf(place.tenant_id) || !(place.current || place.passing)) continue
    if (place.kind === 'schema') {
      found.push(...checkCopies(place, shared, await readTableFacts(client, place.name)))
      continue
    }
    const there = await connect(place.name).catch(() => null)
    if (there === null) {
      found.push(
        error(
          'place_unreachable',
          place.name,
          'This database cannot be connected to.',
          `GRANT CONNECT ON DATABASE ${identifier(place.name)} TO its owner, or restore it.`,
        ),
      )
      continue
    }
    try {
      found.push(...(await checkDatabase(place, shared, there, guard)))
    } finally {
      await there.end()
    }
  }
  return found
}
