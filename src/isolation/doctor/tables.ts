/** The managed tables as they are now, after whatever was done to them since they became managed. */
import { CURRENT_TENANT, isComposite, POLICY } from '../definitions.ts'
import { type Company, companyOf, ledByTenant, obstacles, viewObstacles, viewsReading } from '../obstacles.ts'
import type { TableFacts } from '../table-facts.ts'
import { error, type Finding, warning } from './finding.ts'

const remake = (name: string) => `Run stratum migrate --remove ${name} and stratum migrate ${name}, or put back what was changed.`

function checkRowSecurity(table: TableFacts): Finding[] {
  const found: Finding[] = []
  const { name } = table
  if (!table.row_security)
    found.push(error('row_security_off', name, 'Row security is off: every tenant sees the rows of all.', `ALTER TABLE ${name} ENABLE ROW LEVEL SECURITY.`))
  if (!table.forced)
    found.push(
      error('row_security_not_forced', name, 'Row security does not hold for the owner of the table.', `ALTER TABLE ${name} FORCE ROW LEVEL SECURITY.`),
    )
  if (!table.policies.some((policy) => policy.name === POLICY)) found.push(error('policy_missing', name, `It has no policy ${POLICY}.`, remake(name)))
  return found
}

function checkColumn(table: TableFacts): Finding[] {
  const column = table.columns.find(({ name }) => name === 'tenant_id')
  const advice = `ALTER TABLE ${table.name} ALTER COLUMN tenant_id SET NOT NULL, ALTER COLUMN tenant_id SET DEFAULT ${CURRENT_TENANT}.`
  if (!column) return [error('tenant_id_missing', table.name, 'It has no column tenant_id.', remake(table.name))]
  const found: Finding[] = []
  if (!column.not_null) found.push(error('tenant_id_nullable', table.name, 'tenant_id may be null: such rows are nobody’s.', advice))
  if (column.default !== CURRENT_TENANT)
    found.push(warning('tenant_id_default', table.name, 'tenant_id has not the default that gives new rows their tenant.', advice))
  if (!table.indexes.some(ledByTenant)) {
    found.push(
      error(
        'tenant_index_missing',
        table.name,
        'No index begins with tenant_id: each query reads the rows of all tenants.',
        `CREATE INDEX ON ${table.name} (tenant_id).`,
      ),
    )
  }
  return found
}

function checkForeignKeys(table: TableFacts, registered: ReadonlySet<string>): Finding[] {
  return table.foreign_keys
    .filter((key) => registered.has(key.references.table) && !isComposite(key))
    .map((key) => {
      const columns = (names: readonly string[]) => ['tenant_id', ...names].join(', ')
      return error(
        'foreign_key_plain',
        table.name,
        `The foreign key ${key.name} lacks tenant_id: a tenant can reference a row of another, and so learn that it is there.`,
        `Replace it by FOREIGN KEY (${columns(key.columns)}) REFERENCES ${key.references.table} (${columns(key.references.columns)}) DEFERRABLE, in a transaction that begins with NO FORCE ROW LEVEL SECURITY and ends with FORCE for both tables, as the check reads the rows of all tenants.`,
      )
    })
}

function checkManaged(table: TableFacts, company: Company, owner: string): Finding[] {
  const { registered } = company
  // told on their own, in other words
  const ignored = { ...table, policies: [], foreign_keys: table.foreign_keys.filter((key) => isComposite(key) || !registered.has(key.references.table)) }
  const advice = 'Put it right in the shared tables and in every copy, with stratum tenants migrate.'
  return [
    ...checkRowSecurity(table),
    ...checkColumn(table),
    ...checkForeignKeys(table, registered),
    ...obstacles(ignored, company, []).map((reason) =>
      error('not_manageable', table.name, `Something was changed since it became managed: ${reason}.`, advice),
    ),
    ...(table.owner === owner
      ? []
      : [error('owner', table.name, `It belongs to ${table.owner}, who can drop its policy.`, `ALTER TABLE ${table.name} OWNER TO ${owner}.`)]),
  ]
}

function checkViews(all: readonly TableFacts[], registered: ReadonlySet<string>): Finding[] {
  const views = all.filter(({ kind }) => kind === 'v' || kind === 'm')
  const over = viewsReading(registered, views)
  const isCopied = (name: string) => registered.has(name) || over.some((view) => view.name === name)
  return over.flatMap((view) =>
    viewObstacles(view, isCopied).map((reason) =>
      error(
        'view',
        view.name,
        `This view over managed tables cannot be copied: ${reason}.`,
        'Until then tenants with a place of their own read the shared tables by it, or more than their own rows.',
      ),
    ),
  )
}

export interface Subjects {
  /** Tables and views of schema public. */
  all: readonly TableFacts[]
  registered: ReadonlySet<string>
  owner: string
}

export function checkTables({ all, registered, owner }: Subjects): Finding[] {
  const tables = all.filter(({ kind }) => kind === 'r' || kind === 'p')
  const company = companyOf(registered, registered, all)
  const missing = [...registered].filter((name) => !tables.some((table) => table.name === name))
  const stray = tables.filter((table) => !registered.has(table.name) && table.columns.some(({ name }) => name === 'tenant_id'))
  return [
    ...missing.map((name) =>
      error(
        'managed_table_missing',
        name,
        'It is managed, and there is no such table in schema public.',
        `Make it again, or run stratum migrate --remove ${name}.`,
      ),
    ),
    ...tables.filter(({ name }) => registered.has(name)).flatMap((table) => checkManaged(table, company, owner)),
    ...stray.map(({ name }) => warning('unmanaged', name, 'It has a column tenant_id and is not managed.', `Run stratum migrate ${name}.`)),
    ...checkViews(all, registered),
  ]
}
