/** The application's tables that hold rows of tenants, as far as copying their rows needs to know them. */
import type pg from 'pg'

export interface Column {
  name: string
  /** As `format_type` writes it. */
  type: string
  /** Postgres computes it: it is not written. */
  generated: boolean
  identity: 'always' | 'by default' | null
}

export interface ManagedTable {
  name: string
  columns: Column[]
  /** In the order of the key. */
  primaryKey: string[]
  /** Managed tables that its foreign keys point at, itself left out. */
  references: string[]
  /** In a cycle of foreign keys, or pointing at itself. */
  cyclic: boolean
}

type Row = Omit<ManagedTable, 'cyclic'> & { self: boolean }

const MANAGED = `
  select c.relname as name,
    (select jsonb_agg(jsonb_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod), 'generated', a.attgenerated <> '',
        'identity', case a.attidentity when 'a' then 'always' when 'd' then 'by default' end) order by a.attnum)
      from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as columns,
    (select jsonb_agg(a.attname order by n.place) from pg_constraint k, unnest(k.conkey) with ordinality n (number, place)
      join pg_attribute a on a.attnum = n.number where k.conrelid = c.oid and k.contype = 'p' and a.attrelid = c.oid) as "primaryKey",
    (select coalesce(jsonb_agg(distinct r.relname), '[]') from pg_constraint k join pg_class r on r.oid = k.confrelid
      where k.conrelid = c.oid and k.contype = 'f' and r.oid <> c.oid
        and r.relnamespace = c.relnamespace and r.relname in (select table_name from stratum.managed_tables)) as "references",
    exists (select from pg_constraint k where k.conrelid = c.oid and k.contype = 'f' and k.confrelid = c.oid) as self
  from stratum.managed_tables m join pg_class c on c.relname = m.table_name and c.relkind = 'r' and c.relnamespace = to_regnamespace('public')
  order by m.table_name`

/** Tables from which a walk along the references comes back to where it began. */
export function inCycles(references: ReadonlyMap<string, readonly string[]>): Set<string> {
  const reaches = (start: string): boolean => {
    const seen = new Set<string>()
    const open = [...(references.get(start) ?? [])]
    for (let next = open.pop(); next !== undefined; next = open.pop()) {
      if (next === start) return true
      if (seen.has(next)) continue
      seen.add(next)
      open.push(...(references.get(next) ?? []))
    }
    return false
  }
  return new Set([...references.keys()].filter(reaches))
}

/**
 * Tables in an order in which each comes after those it references; tables of one cycle stay together, in the order
 * of their names.
 */
export function inReferenceOrder<T extends { name: string; references: readonly string[] }>(tables: readonly T[]): T[] {
  const byName = new Map(tables.map((table) => [table.name, table]))
  const reachable = new Map<string, Set<string>>()
  const reach = (name: string): Set<string> => {
    const known = reachable.get(name)
    if (known) return known
    const seen = new Set<string>()
    const open = [...(byName.get(name)?.references ?? [])]
    for (let next = open.pop(); next !== undefined; next = open.pop()) {
      if (seen.has(next) || !byName.has(next)) continue
      seen.add(next)
      open.push(...(byName.get(next)?.references ?? []))
    }
    reachable.set(name, seen)
    return seen
  }
  // What a table reaches outside its cycle is reached by all of the cycle: the size of the reach orders cycles whole.
  const inCycle = (name: string) => reach(name).has(name)
  const cycleOf = (name: string) => (inCycle(name) ? ([...reach(name)].filter((other) => reach(other).has(name)).sort()[0] ?? name) : name)
  const weight = (name: string) => reach(name).size + (inCycle(name) ? 0 : 1)
  return [...tables].sort(
    (a, b) => weight(a.name) - weight(b.name) || cycleOf(a.name).localeCompare(cycleOf(b.name), 'en') || a.name.localeCompare(b.name, 'en'),
  )
}

/**
 * The managed tables as they are in the control database's schema public, each after those it references.
 *
 * @param client of the owner, in the control database
 */
export async function readManagedTables(client: pg.ClientBase): Promise<ManagedTable[]> {
  const { rows } = await client.query<Row>(MANAGED)
  const cycles = inCycles(new Map(rows.map((row) => [row.name, row.references])))
  return inReferenceOrder(rows.map(({ self, ...table }) => ({ ...table, primaryKey: table.primaryKey ?? [], cyclic: self || cycles.has(table.name) })))
}
