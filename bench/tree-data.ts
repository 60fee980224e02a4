/** A generated tree of any size, its shapes at known places: a line of 20 levels, a large and a middling subtree. */

/** What it takes to run a statement. */
export interface Client {
  query(text: string, values?: unknown[]): Promise<{ rows: Array<Record<string, unknown>> }>
}

export const LEVELS = 20
export const KEYS_A_LEVEL = 50

export interface GeneratedTree {
  tenants: number
  root: string
  /** The lowest of 20 levels, each with 50 config keys and 10 permissions. */
  deepest: string
  /** The top of up to 10,000 tenants. */
  large: string
  largeSize: number
  /** The top of up to 1,000 tenants. */
  middling: string
  middlingSize: number
  /** A root elsewhere, to move under. */
  elsewhere: string
  /** A slug, its subdomain and the hash of an API key that exist. */
  slug: string
  subdomain: string
  keyHash: string
}

/** Ids are made from numbers, so that they need not be looked up. */
const idOf = (number: number) => `00000000-0000-7000-8000-${number.toString(16).padStart(12, '0')}`
const ID = `('00000000-0000-7000-8000-' || lpad(to_hex(number), 12, '0'))::uuid`

/** Who is below whom, by number; the line is 1 to 20, the root being 1. */
const parents = (total: number, large: number, largeSize: number, middling: number, middlingSize: number, rest: number) => `
  select n as number, case
    when n = 1 then null
    when n <= ${LEVELS} then n - 1
    when n in (${large}, ${middling}) then 1
    when n < ${large + 101} then ${large}
    when n < ${large + largeSize} then ${large + 1} + n % 100
    when n < ${middling + 11} then ${middling}
    when n < ${middling + middlingSize} then ${middling + 1} + n % 10
    when n < ${rest + 100} then null
    else ${rest} + (n - ${rest} - 100) / 8
  end as parent
  from generate_series(1, ${total}) as n`

/** Fill an empty database, as its owner. Writes past the operations and the checks, so nothing else may be there. */
export async function generateTree(owner: Client, tenants: number): Promise<GeneratedTree> {
  const large = LEVELS + 1
  const largeSize = Math.min(10_000, Math.floor(tenants / 4))
  const middling = large + largeSize
  const middlingSize = Math.min(1_000, Math.floor(tenants / 4))
  const rest = middling + middlingSize
  const statements = [
    'set statement_timeout = 0',
    'alter table stratum.tenants disable trigger user',
    `create temporary table plan as ${parents(tenants, large, largeSize, middling, middlingSize, rest)}`,
    'create index on plan (parent)',
    'analyze plan',
    `with recursive placed as (
       select number, parent, to_hex(number) as path from plan where parent is null
       union all
       select p.number, p.parent, q.path || '.' || to_hex(p.number) from plan p join placed q on p.parent = q.number
     )
     insert into stratum.tenants (id, number, parent_id, path, slug, name)
     select ${ID}, number, ${ID.replace('number', 'parent')}, path::stratum.ltree, 'tenant_' || number, 'Tenant ' || number from placed`,
    'alter table stratum.tenants enable trigger user',
    `select setval('stratum.tenants_number_seq', ${tenants})`,
    'insert into stratum.audit_heads (tenant_id) select id from stratum.tenants',
    `insert into stratum.config_entries (tenant_id, key, value) select id, 'own', to_jsonb(number) from stratum.tenants`,
    `insert into stratum.config_entries (tenant_id, key, value)
     select ${ID}, 'key_' || key, to_jsonb(number) from generate_series(1, ${LEVELS}) as number, generate_series(1, ${KEYS_A_LEVEL}) as key`,
    `insert into stratum.data_keys (tenant_id, id, master_key_id, wrapped) select id, id, 'bench', 'wrapped' from stratum.tenants where number % 4 = 0`,
    `insert into stratum.config_entries (tenant_id, key, ciphertext, data_key_id) select id, 'secret', 'sealed', id from stratum.tenants where number % 4 = 0`,
    `insert into stratum.permission_policies (id, tenant_id, key, value, mode, revocation_mode)
     select gen_random_uuid(), id, 'edit', 'true', 'DELEGATED', 'CASCADE' from stratum.tenants where number % 5 = 0`,
    `insert into stratum.permission_policies (id, tenant_id, key, value, mode, revocation_mode)
     select gen_random_uuid(), ${ID}, 'permission_' || key, 'true', 'DELEGATED', 'CASCADE' from generate_series(1, ${LEVELS}) as number, generate_series(1, 10) as key`,
    `insert into stratum.api_keys (id, tenant_id, name, key_hash, hint, scopes)
     select gen_random_uuid(), id, '', 'hash-' || number, '', '{admin}' from stratum.tenants where number % 10 = 0`,
    'vacuum analyze stratum.tenants, stratum.config_entries, stratum.permission_policies, stratum.api_keys, stratum.audit_heads, stratum.data_keys',
    'reset statement_timeout',
  ]
  for (const statement of statements) await owner.query(statement)
  return {
    tenants,
    ...{ root: idOf(1), deepest: idOf(LEVELS), large: idOf(large), largeSize, middling: idOf(middling), middlingSize, elsewhere: idOf(rest) },
    ...{ slug: `tenant_${LEVELS}`, subdomain: `tenant-${LEVELS}`, keyHash: `hash-${LEVELS}` },
  }
}
