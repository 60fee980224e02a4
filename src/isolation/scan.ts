/** Every table of the application: managed, fit to be, or what stands in the way. */
import type pg from 'pg'
import { atomically } from './authority.ts'
import { readRegistered } from './copies.ts'
import { companyOf, isOurs, obstacles } from './obstacles.ts'
import { readTableFacts, type TableFacts } from './table-facts.ts'

export interface TableState {
  table: string
  /** `managed`; `ready` to be; `ready_with_options`, which are `rewriteKeys` and `backfill`; `blocked`. */
  state: 'managed' | 'ready' | 'ready_with_options' | 'blocked'
  row_security: boolean
  /** Foreign keys tie it to these: they become managed in one call. */
  together_with: string[]
  /** Options it takes. */
  needs: Array<'rewriteKeys' | 'backfill'>
  /** What stands in the way, or of a managed table what is wrong with it. */
  reasons: string[]
}

/** The tables that foreign keys tie to one, by way of others too, itself included. */
function tied(name: string, tables: ReadonlyMap<string, TableFacts>): Set<string> {
  const found = new Set([name])
  for (const next of found) {
    const table = tables.get(next)
    for (const key of table?.foreign_keys ?? []) if (key.references.schema === 'public' && tables.has(key.references.table)) found.add(key.references.table)
    for (const [schema, other] of table?.referenced_by ?? []) if (schema === 'public' && tables.has(other)) found.add(other)
  }
  return found
}

async function holdsRowsOfNobody(client: pg.ClientBase, table: TableFacts): Promise<boolean> {
  const hasColumn = table.columns.some(({ name }) => name === 'tenant_id')
  const name = `public."${table.name.replaceAll('"', '""')}"`
  const readable = await client.query<{ may: boolean }>(`select has_table_privilege($1, 'select') as may`, [name])
  if (!readable.rows[0]?.may || (table.row_security && table.forced)) return false
  const { rows } = await client.query<{ some: boolean }>(`select exists (select from ${name}${hasColumn ? ' where tenant_id is null' : ''}) as some`)
  return rows[0]?.some ?? false
}

const managedState = (table: TableFacts): TableState => {
  const due = table.row_security && table.forced && table.policies.length === 1 && table.policies.every(isOurs)
  return {
    table: table.name,
    state: 'managed',
    row_security: table.row_security,
    together_with: [],
    needs: [],
    reasons: due ? [] : ['its row security is not what is due: see stratum doctor'],
  }
}

async function stateOf(
  client: pg.ClientBase,
  table: TableFacts,
  tables: Map<string, TableFacts>,
  all: TableFacts[],
  registered: Set<string>,
): Promise<TableState> {
  const views = all.filter(({ kind }) => kind === 'v' || kind === 'm')
  const together = tied(table.name, tables)
  const company = companyOf(together, registered, all)
  const within = (name: string, rewriteKeys: boolean) => {
    const facts = tables.get(name)
    return facts ? obstacles(facts, company, views, { rewriteKeys }) : []
  }
  const asItIs = within(table.name, false)
  const rewritten = within(table.name, true)
  const others = [...together].filter((name) => name !== table.name).sort()
  const blocking = others.filter((name) => within(name, true).length > 0).map((name) => `foreign keys tie it to ${name}, which cannot be managed as it is`)
  const reasons = [...rewritten, ...blocking]
  const needs: TableState['needs'] = []
  if ([...together].some((name) => within(name, false).length > within(name, true).length)) needs.push('rewriteKeys')
  if (table.kind === 'r' && (await holdsRowsOfNobody(client, table))) needs.push('backfill')
  const state = reasons.length > 0 ? 'blocked' : needs.length > 0 ? 'ready_with_options' : 'ready'
  return { table: table.name, state, row_security: table.row_security, together_with: others, needs, reasons: reasons.length > 0 ? reasons : asItIs }
}

/**
 * The state of every table of schema public. Nothing is changed.
 *
 * @param client of stratum_owner or a member of that role, in the control database
 * @returns in the order of their names
 */
export function scan(client: pg.ClientBase): Promise<TableState[]> {
  return atomically(client, '', async () => {
    const all = await readTableFacts(client)
    const registered = await readRegistered(client)
    const candidates = all.filter(({ kind, name }) => kind !== 'v' && kind !== 'm' && !registered.has(name))
    const tables = new Map(candidates.map((table) => [table.name, table]))
    const states: TableState[] = []
    for (const table of all.filter(({ kind }) => kind !== 'v' && kind !== 'm')) {
      states.push(registered.has(table.name) ? managedState(table) : await stateOf(client, table, tables, all, registered))
    }
    return states
  })
}
