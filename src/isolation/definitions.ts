/** Statements that make a copy of a managed table in whatever schema is first in the search path. */
import { boundedName, identifier, identifiers, literal } from './identifiers.ts'
import type { ColumnFacts, ConstraintFacts, ForeignKeyFacts, TableFacts } from './table-facts.ts'

/** The function that every policy and every tenant_id asks. */
export const CURRENT_TENANT = 'stratum_guard.current_tenant_id()'
export const POLICY = 'tenant_isolation'

/** What makes a copy of one table. Statements name no schema of the tables. */
export interface TableDefinition {
  name: string
  /** Table, keys, checks, indexes, row security: all but the foreign keys. A view's is one. */
  statements: string[]
  /** Primary and unique keys, which `statements` has as well: what a foreign key made later may point at. */
  keys: Array<{ name: string; statement: string }>
  foreignKeys: Array<{ name: string; statement: string }>
  /** Names of what `statements` uses outside pg_catalog. */
  extensions: string[]
  enums: Array<{ schema: string; name: string }>
}

const sequenceOf = (column: ColumnFacts) => (column.identity === '' && column.sequence ? column.sequence : null)

export function columnDefinition(column: ColumnFacts): string {
  const parts = [identifier(column.name), column.type]
  if (column.collation) parts.push(`collate ${column.collation}`)
  if (column.generated !== '') parts.push(`generated always as (${column.default}) ${column.generated === 's' ? 'stored' : 'virtual'}`)
  else if (column.identity !== '') {
    const { name, options } = column.sequence ?? { name: '', options: '' }
    const sequence = name === '' ? '' : ` (sequence name ${identifier(name)} ${options.replace(/^as \S+ /, '')})`
    parts.push(`generated ${column.identity === 'a' ? 'always' : 'by default'} as identity${sequence}`)
  } else if (column.default !== null) parts.push(`default ${column.default}`)
  if (column.not_null) parts.push('not null')
  return parts.join(' ')
}

/** The one policy, and that nobody is exempt from it. */
export const rowSecurity = (table: string): string[] => [
  `alter table ${identifier(table)} enable row level security`,
  `alter table ${identifier(table)} force row level security`,
  `create policy ${POLICY} on ${identifier(table)} for all to public
     using (tenant_id = (select ${CURRENT_TENANT})) with check (tenant_id = (select ${CURRENT_TENANT}))`,
]

/** Of a table or a view. */
export const grantRows = (relation: string, role: string): string => `grant select, insert, update, delete on ${identifier(relation)} to ${identifier(role)}`

/** The data plane's role reads and writes rows, and numbers them where the column is a serial. */
export const grants = (table: TableFacts, role: string): string[] => [
  grantRows(table.name, role),
  ...table.columns.flatMap((column) => {
    const sequence = sequenceOf(column)
    return sequence ? [`grant usage on sequence ${identifier(sequence.name)} to ${identifier(role)}`] : []
  }),
]

function sequences(table: TableFacts): { before: string[]; after: string[] } {
  const own = table.columns.flatMap((column) => {
    const sequence = sequenceOf(column)
    return sequence ? [{ column: column.name, ...sequence }] : []
  })
  return {
    before: own.map((sequence) => `create sequence ${identifier(sequence.name)} ${sequence.options}`),
    after: own.map((sequence) => `alter sequence ${identifier(sequence.name)} owned by ${identifier(table.name)}.${identifier(sequence.column)}`),
  }
}

function comments(table: TableFacts): string[] {
  const name = identifier(table.name)
  const comment = (what: string, text: string | null) => (text === null ? [] : [`comment on ${what} is ${literal(text)}`])
  return [
    ...comment(`table ${name}`, table.comment),
    ...table.columns.flatMap((column) => comment(`column ${name}.${identifier(column.name)}`, column.comment)),
    ...table.constraints.flatMap((constraint) => comment(`constraint ${identifier(constraint.name)} on ${name}`, constraint.comment)),
    ...table.indexes.filter((index) => !index.constraint).flatMap((index) => comment(`index ${identifier(index.name)}`, index.comment)),
  ]
}

/**
 * What makes a copy of a managed table.
 *
 * @param role the data plane's, which is granted the rows; null where there is none
 */
export function defineTable(table: TableFacts, role: string | null): TableDefinition {
  const name = identifier(table.name)
  const { before, after } = sequences(table)
  const addConstraint = (constraint: { name: string; definition: string }) =>
    `alter table ${name} add constraint ${identifier(constraint.name)} ${constraint.definition}`
  const isKey = ({ kind }: ConstraintFacts) => kind === 'p' || kind === 'u'
  const options = table.options.length > 0 ? ` with (${table.options.join(', ')})` : ''
  return {
    name: table.name,
    statements: [
      ...before,
      `create ${table.persistence === 'u' ? 'unlogged ' : ''}table ${name} (\n  ${table.columns.map(columnDefinition).join(',\n  ')}\n)${options}`,
      ...after,
      ...table.constraints.map(addConstraint),
      ...table.indexes.filter((index) => !index.constraint && index.valid).map((index) => index.definition),
      ...table.triggers.map((trigger) => trigger.definition),
      ...rowSecurity(table.name),
      ...(role === null ? [] : grants(table, role)),
      ...comments(table),
    ],
    keys: table.constraints.filter(isKey).map((key) => ({ name: key.name, statement: addConstraint(key) })),
    foreignKeys: table.foreign_keys.map((key) => ({ name: key.name, statement: addConstraint(key) })),
    ...prerequisites(table),
  }
}

function prerequisites({ dependencies }: TableFacts): Pick<TableDefinition, 'extensions' | 'enums'> {
  return {
    extensions: [...new Set(dependencies.flatMap(({ extension }) => (extension === null ? [] : [extension])))],
    enums: dependencies.flatMap((dependency) =>
      dependency.enum !== null && dependency.schema !== null && dependency.extension === null ? [{ schema: dependency.schema, name: dependency.enum }] : [],
    ),
  }
}

/** What makes a copy of a view over managed tables. Its rows are those that whoever asks may see. */
export function defineView(view: TableFacts, role: string | null): TableDefinition {
  const name = identifier(view.name)
  return {
    name: view.name,
    statements: [
      `create view ${name} with (${view.options.join(', ')}) as ${(view.query ?? '').replace(/;\s*$/, '')}`,
      ...(role === null ? [] : [grantRows(view.name, role)]),
      ...comments(view).map((comment) => comment.replace(/^comment on table/, 'comment on view')),
    ],
    keys: [],
    foreignKeys: [],
    ...prerequisites(view),
  }
}

const ACTIONS = { a: 'no action', r: 'restrict', c: 'cascade', n: 'set null', d: 'set default' } as const

/** A foreign key whose two ends are of one tenant, and that may be checked at the end of a transaction. */
export function compositeForeignKey(table: string, key: ForeignKeyFacts): string {
  const onDelete =
    key.on_delete === 'n' || key.on_delete === 'd' ? ` (${identifiers(key.on_delete_columns.length > 0 ? key.on_delete_columns : key.columns)})` : ''
  return `alter table ${identifier(table)} add constraint ${identifier(key.name)}
    foreign key (${identifiers(['tenant_id', ...key.columns])})
    references ${identifier(key.references.table)} (${identifiers(['tenant_id', ...key.references.columns])})
    on delete ${ACTIONS[key.on_delete]}${onDelete} on update ${ACTIONS[key.on_update]} deferrable initially ${key.deferred ? 'deferred' : 'immediate'}`
}

/** True when both ends of a foreign key begin with the tenant. */
export const isComposite = (key: ForeignKeyFacts): boolean =>
  key.columns.some((column, index) => column === 'tenant_id' && key.references.columns[index] === 'tenant_id')

/** Name of the index led by tenant_id that is made where a table has none. */
export const tenantIndexName = (table: string): string => boundedName([table], 'tenant_id_idx')
