/** Why a table cannot hold rows of tenants as it is. Each reason says what stands in the way and what to do. */
import { inCycles } from './catalog.ts'
import { CURRENT_TENANT, isComposite, POLICY } from './definitions.ts'
import type { ForeignKeyFacts, IndexFacts, TableFacts } from './table-facts.ts'

export interface ManageOptions {
  /** Whose the rows are that are there already: the id of a tenant in the shared tables. */
  backfill?: string
  /** Put tenant_id in front of unique and primary keys that lack it. */
  rewriteKeys?: boolean
}

const KINDS: Record<string, string> = { p: 'a partitioned table', f: 'a foreign table', v: 'a view', m: 'a materialized view' }

const RANDOM_UUID = /^(public\.)?(gen_random_uuid|uuidv4|uuidv7|uuid_generate_v4|stratum\.uuid_v7)\(\)$/

/** The tables that are managed with the one in question, and those that are already. */
export interface Company {
  together: ReadonlySet<string>
  registered: ReadonlySet<string>
  /** Of them, those that reference each other in a circle, or themselves. */
  circles: ReadonlySet<string>
}

/** The company of tables, from the facts of those that are managed or are to be. */
export function companyOf(together: ReadonlySet<string>, registered: ReadonlySet<string>, all: readonly TableFacts[]): Company {
  const tables = all.filter(({ name }) => together.has(name) || registered.has(name))
  return { together, registered, circles: inCycles(new Map(tables.map((table) => [table.name, table.foreign_keys.map((key) => key.references.table)]))) }
}

/** A key that is random tells nobody anything, and two tenants never have the same. */
const isRandomKey = (columns: readonly string[], table: TableFacts): boolean => {
  const [only, ...more] = columns.filter((name) => name !== 'tenant_id')
  const column = table.columns.find(({ name }) => name === only)
  return more.length === 0 && column?.type === 'uuid' && RANDOM_UUID.test(column.default ?? '')
}

/** Unique over all tenants: it tells one what another has, or collides when rows come back from a place of their own. */
export const lacksTenant = (columns: ReadonlyArray<string | null>): boolean => !columns.includes('tenant_id')

function shape(table: TableFacts): string[] {
  const kind = KINDS[table.kind]
  if (kind) return [`it is ${kind}; only an ordinary table can be copied`]
  if (table.persistence === 't') return ['it is temporary']
  if (table.inherits) return ['it takes part in inheritance or partitioning; make it a table of its own']
  return []
}

/** A tenant_id that is there already. */
function tenantColumn(table: TableFacts): string[] {
  const column = table.columns.find(({ name }) => name === 'tenant_id')
  if (!column) return []
  const problems: string[] = []
  if (column.type !== 'uuid') problems.push(`its column tenant_id is of type ${column.type}; make it uuid`)
  if (column.generated !== '') problems.push('its column tenant_id is generated; make it an ordinary column')
  if (column.default !== null && column.default !== CURRENT_TENANT)
    problems.push(`its column tenant_id has the default ${column.default}; drop that, as another is set`)
  return problems
}

function keys(table: TableFacts, rewriteKeys: boolean): string[] {
  const primary = table.constraints.find(({ kind }) => kind === 'p')
  if (!primary) return ['it has no primary key; give it one, such as id uuid default gen_random_uuid()']
  if (rewriteKeys) return []
  const shared = (what: string, columns: string) =>
    `${what} (${columns}) holds over all tenants: rewrite it to begin with tenant_id (--rewrite-keys, rewriteKeys: true), or drop it`
  const problems: string[] = []
  if (lacksTenant(primary.columns) && !isRandomKey(primary.columns, table)) problems.push(shared(`the primary key ${primary.name}`, primary.columns.join(', ')))
  for (const { name, columns } of table.constraints.filter(({ kind }) => kind === 'u')) {
    if (lacksTenant(columns) && !isRandomKey(columns, table)) problems.push(shared(`the unique constraint ${name}`, columns.join(', ')))
  }
  for (const index of table.indexes.filter(({ unique, constraint }) => unique && !constraint)) {
    if (lacksTenant(index.columns)) problems.push(shared(`the unique index ${index.name}`, index.columns.map((column) => column ?? 'an expression').join(', ')))
  }
  return problems
}

function exclusions(table: TableFacts): string[] {
  return table.constraints
    .filter(({ kind, columns, operators }) => kind === 'x' && operators[columns.indexOf('tenant_id')] !== '=')
    .map(({ name }) => `the exclusion constraint ${name} holds over all tenants: add tenant_id with = to it`)
}

const UNMANAGED = 'which is not managed, references it: name both tables in one call, or drop the key'

function foreignKey(table: TableFacts, key: ForeignKeyFacts, isManaged: (name: string) => boolean, circles: ReadonlySet<string>): string[] {
  const { schema, table: target } = key.references
  if (schema !== 'public' || !isManaged(target)) {
    return [`its foreign key ${key.name} references ${schema}.${target}, which is not managed: name both tables in one call, or drop the key`]
  }
  if (key.temporal) return [`its foreign key ${key.name} is temporal (PERIOD), which has no form with tenant_id here; drop it`]
  const problems: string[] = []
  const action = (what: string, instead: string) => problems.push(`its foreign key ${key.name} is ${what}; make it ${instead}`)
  if (!isComposite(key)) {
    if (key.match === 'f' && key.columns.length > 1) action('MATCH FULL', 'MATCH SIMPLE')
    if (key.on_update === 'n' || key.on_update === 'd') action('ON UPDATE SET NULL or SET DEFAULT, which would reach tenant_id', 'ON UPDATE CASCADE')
  }
  if (key.on_delete === 'r' && circles.has(table.name) && circles.has(target))
    action('ON DELETE RESTRICT in a circle, so that rows cannot be removed together', 'NO ACTION')
  return problems
}

function foreignKeys(table: TableFacts, { together, registered, circles }: Company): string[] {
  const inbound = table.referenced_by.flatMap(([schema, name, key]) => {
    if (schema === 'public' && together.has(name)) return []
    const how = schema === 'public' && registered.has(name) ? 'which is managed already, references it: drop the key and add it again afterwards' : UNMANAGED
    return [`the foreign key ${key} of ${schema}.${name}, ${how}`]
  })
  return [...table.foreign_keys.flatMap((key) => foreignKey(table, key, (name) => together.has(name) || registered.has(name), circles)), ...inbound]
}

const EXPRESSION = 'a copy in another database could not have it'

function behaviour(table: TableFacts): string[] {
  return [
    ...table.triggers
      .filter((trigger) => !trigger.of_server)
      .map((trigger) => `its trigger ${trigger.name} calls ${trigger.function}, and ${EXPRESSION}; drop the trigger`),
    ...table.rules.map((rule) => `it has the rule ${rule}, which a policy does not see; use a trigger of the server's or an extension's`),
    ...table.policies.filter(({ name }) => name !== POLICY).map(({ name }) => `it has the policy ${name}, which is OR-ed with the tenants' own; drop it`),
    ...(table.policies.some((policy) => policy.name === POLICY && !isOurs(policy))
      ? [`its policy ${POLICY} is another than the one that is due; drop it`]
      : []),
  ]
}

/** True for the policy as it is made here. */
export const isOurs = (policy: TableFacts['policies'][number]): boolean => {
  const due = `(tenant_id = ( SELECT ${CURRENT_TENANT} AS current_tenant_id))`
  return policy.permissive && policy.command === '*' && policy.to_public && policy.using === due && policy.check === due
}

function dependencies(table: TableFacts): string[] {
  return table.dependencies.flatMap((dependency) => {
    if (dependency.schema === 'stratum') return [`it uses ${dependency.description} of schema stratum, which tenants' databases do not have`]
    if (dependency.extension !== null || dependency.enum !== null || dependency.own_sequence) return []
    return [`it uses ${dependency.description}, and ${EXPRESSION}: only what Postgres, an extension or an enum gives can be copied`]
  })
}

/** An index that finds a tenant's rows. */
export const ledByTenant = (index: IndexFacts): boolean => index.valid && !index.partial && index.columns[0] === 'tenant_id'

const hasInvoker = (view: TableFacts) => view.options.some((option) => /^security_invoker=(true|on|1|yes)$/i.test(option))

/**
 * Why a view over managed tables cannot be copied. It must be: under the search path of a tenant with a place of its
 * own, the one view over the shared tables would silently find nothing. And it must read as whoever asks: as its owner,
 * it may read the rows of all.
 */
export function viewObstacles(view: TableFacts, isCopied: (name: string) => boolean): string[] {
  if (view.kind === 'm') return ['it is materialized, and would hold the rows of all tenants without a policy; drop it']
  const others = view.reads.filter(([schema, name]) => schema !== 'pg_catalog' && !(schema === 'public' && isCopied(name)))
  return [
    ...(hasInvoker(view) ? [] : [`it reads as its owner; run ALTER VIEW ${view.name} SET (security_invoker = true)`]),
    ...others.map(([schema, name]) => `it also reads ${schema}.${name}, which is not managed`),
    ...behaviour(view),
    ...dependencies(view),
  ]
}

/** Views that read a table, by way of other views too. */
export function viewsReading(names: ReadonlySet<string>, views: readonly TableFacts[]): TableFacts[] {
  const reading = new Set<string>()
  for (let before = -1; before !== reading.size; ) {
    before = reading.size
    for (const view of views) if (view.reads.some(([schema, name]) => schema === 'public' && (names.has(name) || reading.has(name)))) reading.add(view.name)
  }
  return views.filter((view) => reading.has(view.name))
}

function viewsOver(table: TableFacts, { together, registered }: Company, views: readonly TableFacts[]): string[] {
  const over = viewsReading(new Set([table.name]), views)
  const isCopied = (name: string) => together.has(name) || registered.has(name) || views.some((view) => view.name === name)
  return over.flatMap((view) => viewObstacles(view, isCopied).map((reason) => `the view ${view.name} over it cannot be copied: ${reason}`))
}

/**
 * All that stands in the way of managing a table, by its definition alone; its rows are not looked at.
 *
 * @param views the views of the database, as facts
 */
export function obstacles(table: TableFacts, company: Company, views: readonly TableFacts[], options: ManageOptions = {}): string[] {
  const wrongShape = shape(table)
  if (wrongShape.length > 0) return wrongShape
  return [
    ...tenantColumn(table),
    ...keys(table, options.rewriteKeys ?? false),
    ...exclusions(table),
    ...foreignKeys(table, company),
    ...behaviour(table),
    ...dependencies(table),
    ...viewsOver(table, company, views),
  ]
}
