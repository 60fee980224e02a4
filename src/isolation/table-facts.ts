/**
 * What the catalog says of the tables of one schema, with every definition as Postgres itself writes it. Read under
 * a search path that begins with the schema, so that the definitions name no schema where they mean that one: run
 * under another search path, they make the same in another schema or database.
 */
import type pg from 'pg'
import { identifier } from './identifiers.ts'

export interface SequenceFacts {
  name: string
  /** Such as `as integer start with 1 increment by 1 …`. */
  options: string
}

export interface ColumnFacts {
  name: string
  /** As `format_type` writes it. */
  type: string
  /** Where it is not the type's own. */
  collation: string | null
  not_null: boolean
  default: string | null
  generated: '' | 's' | 'v'
  identity: '' | 'a' | 'd'
  /** Of an identity or serial column. */
  sequence: SequenceFacts | null
  comment: string | null
}

export interface ConstraintFacts {
  name: string
  /** check, primary key, unique, exclusion */
  kind: 'c' | 'p' | 'u' | 'x'
  definition: string
  /** Empty for a check. */
  columns: string[]
  /** Operators of an exclusion constraint, one for each column. */
  operators: string[]
  deferrable: boolean
  comment: string | null
}

export interface ForeignKeyFacts {
  name: string
  definition: string
  columns: string[]
  references: { schema: string; table: string; columns: string[] }
  /** a no action, r restrict, c cascade, n set null, d set default */
  on_delete: 'a' | 'r' | 'c' | 'n' | 'd'
  on_update: 'a' | 'r' | 'c' | 'n' | 'd'
  /** Columns that ON DELETE SET NULL or SET DEFAULT changes; all of them where empty. */
  on_delete_columns: string[]
  match: 'f' | 'p' | 's'
  deferrable: boolean
  deferred: boolean
  temporal: boolean
}

export interface IndexFacts {
  name: string
  definition: string
  /** Key columns; null stands for an expression. */
  columns: Array<string | null>
  unique: boolean
  partial: boolean
  valid: boolean
  /** Belongs to a constraint, and comes with it. */
  constraint: boolean
  comment: string | null
}

export interface PolicyFacts {
  name: string
  permissive: boolean
  /** `*` for all. */
  command: string
  to_public: boolean
  using: string | null
  check: string | null
}

export interface TriggerFacts {
  name: string
  definition: string
  /** The function's, as `schema.name`. */
  function: string
  /** In pg_catalog or of an extension. */
  of_server: boolean
  constraint: boolean
}

/** Something outside pg_catalog that the table's definitions use. */
export interface DependencyFacts {
  description: string
  extension: string | null
  enum: string | null
  schema: string | null
  /** A sequence that belongs to a column of this table. */
  own_sequence: boolean
}

export interface TableFacts {
  name: string
  /** pg_class.relkind */
  kind: string
  persistence: 'p' | 'u' | 't'
  inherits: boolean
  owner: string
  row_security: boolean
  forced: boolean
  options: string[]
  comment: string | null
  columns: ColumnFacts[]
  constraints: ConstraintFacts[]
  foreign_keys: ForeignKeyFacts[]
  /** Tables whose foreign keys point here, `[schema, table, constraint]`. */
  referenced_by: Array<[string, string, string]>
  indexes: IndexFacts[]
  policies: PolicyFacts[]
  triggers: TriggerFacts[]
  rules: string[]
  /** A view's query, and what it reads as `[schema, name]`. */
  query: string | null
  reads: Array<[string, string]>
  dependencies: DependencyFacts[]
}

const list = (select: string) => `(select coalesce(jsonb_agg(${select}), '[]')`
const columnNames = (numbers: string, table: string) => `(
  select coalesce(jsonb_agg(na.attname order by n.place), '[]') from unnest(${numbers}) with ordinality n (number, place)
  join pg_attribute na on na.attrelid = ${table} and na.attnum = n.number)`

const SEQUENCE = `(
  select jsonb_build_object('name', s.relname, 'options', format('as %s start with %s increment by %s minvalue %s maxvalue %s cache %s %s',
    format_type(q.seqtypid, null), q.seqstart, q.seqincrement, q.seqmin, q.seqmax, q.seqcache, case when q.seqcycle then 'cycle' else 'no cycle' end))
  from pg_depend o join pg_class s on s.oid = o.objid and s.relkind = 'S' join pg_sequence q on q.seqrelid = s.oid
  where o.classid = 'pg_class'::regclass and o.refclassid = 'pg_class'::regclass and o.refobjid = c.oid and o.refobjsubid = a.attnum and o.deptype in ('a', 'i')
  limit 1)`

const COLUMNS = `${list(`jsonb_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),
    'collation', case when a.attcollation <> t.typcollation then a.attcollation::regcollation::text end, 'not_null', a.attnotnull,
    'default', pg_get_expr(d.adbin, d.adrelid), 'generated', a.attgenerated, 'identity', a.attidentity, 'sequence', ${SEQUENCE},
    'comment', col_description(c.oid, a.attnum)) order by a.attnum`)}
  from pg_attribute a join pg_type t on t.oid = a.atttypid left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
  where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped)`

const CONSTRAINTS = `${list(`jsonb_build_object('name', k.conname, 'kind', k.contype, 'definition', pg_get_constraintdef(k.oid, true),
    'columns', case when k.contype = 'c' then '[]' else ${columnNames('k.conkey', 'c.oid')} end,
    'operators', coalesce((select jsonb_agg(p.oprname order by e.place) from unnest(k.conexclop) with ordinality e (operator, place) join pg_operator p on p.oid = e.operator), '[]'),
    'deferrable', k.condeferrable, 'comment', obj_description(k.oid, 'pg_constraint')) order by k.contype = 'p' desc, k.conname`)}
  from pg_constraint k where k.conrelid = c.oid and k.contype in ('c', 'p', 'u', 'x'))`

// conperiod is new in Postgres 18
const FOREIGN_KEYS = `${list(`jsonb_build_object('name', k.conname, 'definition', pg_get_constraintdef(k.oid, true), 'columns', ${columnNames('k.conkey', 'c.oid')},
    'references', jsonb_build_object('schema', r.relnamespace::regnamespace, 'table', r.relname, 'columns', ${columnNames('k.confkey', 'r.oid')}),
    'on_delete', k.confdeltype, 'on_update', k.confupdtype, 'on_delete_columns', ${columnNames('k.confdelsetcols', 'c.oid')}, 'match', k.confmatchtype,
    'deferrable', k.condeferrable, 'deferred', k.condeferred, 'temporal', coalesce(to_jsonb(k) -> 'conperiod', 'false')) order by k.conname`)}
  from pg_constraint k join pg_class r on r.oid = k.confrelid where k.conrelid = c.oid and k.contype = 'f')`

const REFERENCED_BY = `${list(`jsonb_build_array(r.relnamespace::regnamespace, r.relname, k.conname) order by r.relname, k.conname`)}
  from pg_constraint k join pg_class r on r.oid = k.conrelid where k.confrelid = c.oid and k.contype = 'f')`

const INDEXES = `${list(`jsonb_build_object('name', x.relname, 'definition', pg_get_indexdef(i.indexrelid, 0, true),
    'columns', (select jsonb_agg(ia.attname order by n.place) from unnest(i.indkey::int2[]) with ordinality n (number, place)
      left join pg_attribute ia on ia.attrelid = c.oid and ia.attnum = n.number and n.number > 0 where n.place <= i.indnkeyatts),
    'unique', i.indisunique, 'partial', i.indpred is not null, 'valid', i.indisvalid,
    'constraint', exists (select from pg_constraint k where k.conindid = i.indexrelid and k.conrelid = c.oid and k.contype in ('p', 'u', 'x')),
    'comment', obj_description(x.oid, 'pg_class')) order by x.relname`)}
  from pg_index i join pg_class x on x.oid = i.indexrelid where i.indrelid = c.oid)`

const POLICIES = `${list(`jsonb_build_object('name', p.polname, 'permissive', p.polpermissive, 'command', p.polcmd, 'to_public', p.polroles = '{0}',
    'using', pg_get_expr(p.polqual, p.polrelid), 'check', pg_get_expr(p.polwithcheck, p.polrelid)) order by p.polname`)}
  from pg_policy p where p.polrelid = c.oid)`

const IS_OF_EXTENSION = (classOf: string, id: string) =>
  `exists (select from pg_depend e where e.classid = '${classOf}'::regclass and e.objid = ${id} and e.deptype = 'e')`

// Triggers of a running change of isolation come and go with it.
const TRIGGERS = `${list(`jsonb_build_object('name', g.tgname, 'definition', pg_get_triggerdef(g.oid, true), 'function', p.pronamespace::regnamespace || '.' || p.proname,
    'of_server', p.pronamespace = 'pg_catalog'::regnamespace or ${IS_OF_EXTENSION('pg_proc', 'p.oid')}, 'constraint', g.tgconstraint <> 0) order by g.tgname`)}
  from pg_trigger g join pg_proc p on p.oid = g.tgfoid where g.tgrelid = c.oid and not g.tgisinternal and not starts_with(g.tgname, 'stratum_capture_'))`

const RULES = `${list('w.rulename order by w.rulename')} from pg_rewrite w where w.ev_class = c.oid and w.rulename <> '_RETURN')`

const QUERY = `case when c.relkind in ('v', 'm') then pg_get_viewdef(c.oid, true) end`
const READS = `${list('distinct jsonb_build_array(v.relnamespace::regnamespace, v.relname)')}
  from pg_rewrite w join pg_depend u on u.classid = 'pg_rewrite'::regclass and u.objid = w.oid and u.refclassid = 'pg_class'::regclass
  join pg_class v on v.oid = u.refobjid and v.oid <> c.oid and v.relkind <> 'S' where w.ev_class = c.oid)`

// What is pinned is not in pg_depend, and the rest of pg_catalog is in every database too. An array type stands for its element.
const DEPENDENCIES = `(
  select coalesce(jsonb_agg(distinct jsonb_build_object(
    'description', pg_describe_object(u.class, u.id, 0),
    'extension', (select x.extname from pg_depend e join pg_extension x on x.oid = e.refobjid where e.classid = u.class and e.objid = u.id and e.deptype = 'e'),
    'enum', (select ty.typname from pg_type ty where u.class = 'pg_type'::regclass and ty.oid = u.id and ty.typtype = 'e'),
    'schema', (pg_identify_object(u.class, u.id, 0)).schema,
    'own_sequence', u.class = 'pg_class'::regclass and exists (select from pg_depend o where o.classid = u.class and o.objid = u.id
      and o.refclassid = 'pg_class'::regclass and o.refobjid = c.oid and o.deptype in ('a', 'i')))), '[]')
  from (
    select u.refclassid as class, coalesce((select el.oid from pg_type el where u.refclassid = 'pg_type'::regclass and el.typarray = u.refobjid), u.refobjid) as id
    from pg_depend u
    where (u.classid, u.objid) in (
      select 'pg_class'::regclass, c.oid
      union all select 'pg_class'::regclass, i.indexrelid from pg_index i where i.indrelid = c.oid
      union all select 'pg_attrdef'::regclass, d.oid from pg_attrdef d where d.adrelid = c.oid
      union all select 'pg_rewrite'::regclass, w.oid from pg_rewrite w where w.ev_class = c.oid
      union all select 'pg_constraint'::regclass, k.oid from pg_constraint k where k.conrelid = c.oid and k.contype <> 'f')
    and (u.refclassid in ('pg_proc'::regclass, 'pg_type'::regclass, 'pg_operator'::regclass, 'pg_opclass'::regclass, 'pg_opfamily'::regclass,
        'pg_collation'::regclass, 'pg_ts_config'::regclass, 'pg_ts_dict'::regclass, 'pg_am'::regclass)
      or (u.refclassid = 'pg_class'::regclass and exists (select from pg_class s where s.oid = u.refobjid and s.relkind = 'S')))
    and not (u.refclassid = 'pg_proc'::regclass and u.refobjid = to_regprocedure('stratum_guard.current_tenant_id()'))
  ) as u where (pg_identify_object(u.class, u.id, 0)).schema is distinct from 'pg_catalog')`

const TABLES = `
  select c.relname as name, c.relkind as kind, c.relpersistence as persistence, pg_get_userbyid(c.relowner)::text as owner,
    c.relispartition or exists (select from pg_inherits h where c.oid in (h.inhrelid, h.inhparent)) as inherits,
    c.relrowsecurity as row_security, c.relforcerowsecurity as forced, coalesce(to_jsonb(c.reloptions), '[]') as options, obj_description(c.oid, 'pg_class') as comment,
    ${COLUMNS} as columns, ${CONSTRAINTS} as constraints, ${FOREIGN_KEYS} as foreign_keys, ${REFERENCED_BY} as referenced_by, ${INDEXES} as indexes,
    ${POLICIES} as policies, ${TRIGGERS} as triggers, ${RULES} as rules,
    ${QUERY} as query, ${READS} as reads, ${DEPENDENCIES} as dependencies
  from pg_class c
  where c.relnamespace = to_regnamespace($1) and c.relkind in ('r', 'p', 'f', 'v', 'm') and ($2::text[] is null or c.relname = any ($2))
    and not ${IS_OF_EXTENSION('pg_class', 'c.oid')}
  order by c.relname`

/** Run with this search path, and put back what was there. Inside a transaction only. */
export async function underSearchPath<T>(client: pg.ClientBase, path: string, work: () => Promise<T>): Promise<T> {
  const { rows } = await client.query<{ before: string }>(`select current_setting('search_path') as before, set_config('search_path', $1, true)`, [path])
  const result = await work()
  await client.query(`select set_config('search_path', $1, true)`, [rows[0]?.before])
  return result
}

/** pg_temp last: a session's temporary table must not stand in for one of the schema's. */
export const pathTo = (schema: string): string => (schema === 'public' ? 'public, pg_temp' : `${identifier(schema)}, public, pg_temp`)

/**
 * The tables and views of a schema, those named or all, in order of their names. Inside a transaction only.
 */
export function readTableFacts(client: pg.ClientBase, schema = 'public', names: readonly string[] | null = null): Promise<TableFacts[]> {
  return underSearchPath(client, pathTo(schema), async () => (await client.query<TableFacts>(TABLES, [identifier(schema), names])).rows)
}
