/** What must hold of the tables whatever ran. One statement, one snapshot: it may be asked while others write. */
import { expect } from 'vitest'
import type { Connection } from './operations.ts'

/**
 * Each fault of the tenants in $1 as a row. A path equal to the parent's path and the own label for every row
 * leaves no room for a cycle, as paths grow with every step.
 */
const FAULTS = `
with looked_at as (select t.* from stratum.tenants t where t.id = any ($1)),
chains as (select unnest($1::uuid[]) as tenant_id),
linked as (
  select e.tenant_id, e.seq, e.payload, e.salt, e.payload_hash, e.previous_hash, e.hash, lag(e.hash) over w as before, row_number() over w as place
  from stratum.audit_entries e where e.tenant_id = any ($1) window w as (partition by tenant_id order by seq)
),
ends as (
  select tenant_id, max(seq) as seq, (array_agg(hash order by seq desc))[1] as hash,
    count(*) filter (where payload::jsonb ->> 'action' <> 'config.revealed') as told
  from linked group by tenant_id
),
events as (
  select coalesce(tenant_id, stratum.system_chain()) as tenant_id, count(*) as told from stratum.outbox
  where tenant_id = any ($1) or tenant_id is null and stratum.system_chain() = any ($1) group by 1
)
select 'path is not the parent''s path and the own label' as fault, t.id::text as subject
from looked_at t left join stratum.tenants p on p.id = t.parent_id
where t.path::text <> coalesce(p.path::text || '.', '') || to_hex(t.number) or t.parent_id is not null and p.id is null
union all
select 'active under ' || p.status, t.id::text from looked_at t join stratum.tenants p on p.id = t.parent_id where t.status = 'active' and p.status <> 'active'
union all
select 'deeper than 20 levels', t.id::text from looked_at t where stratum.nlevel(t.path) > 20
union all
select 'audit entries are not numbered from 1 without a gap', tenant_id::text from linked where seq <> place
union all
select 'audit entry does not name the hash before it', tenant_id::text from linked where previous_hash <> coalesce(before, repeat('0', 64))
union all
select 'audit entry does not verify', tenant_id::text from linked
where payload_hash <> encode(sha256(convert_to(salt || payload, 'UTF8')), 'hex')
   or hash <> encode(sha256(convert_to(previous_hash || ':' || seq || ':' || payload_hash, 'UTF8')), 'hex')
union all
select 'head of the audit chain is not its last entry', c.tenant_id::text
from chains c left join stratum.audit_heads h using (tenant_id) left join ends e using (tenant_id)
where h.tenant_id is null or (h.seq, h.hash) is distinct from (coalesce(e.seq, 0), coalesce(e.hash, repeat('0', 64)))
union all
select 'events and audit entries differ in number', c.tenant_id::text
from chains c left join ends e using (tenant_id) left join events o using (tenant_id) where coalesce(e.told, 0) <> coalesce(o.told, 0)`

export interface Fault {
  fault: string
  subject: string
}

/** Faults of the tenants made after `mark`; with 0 of all, and of the system's own chain. */
export async function faults(owner: Connection, mark = 0): Promise<Fault[]> {
  const subjects = await owner.query(
    'select array(select id from stratum.tenants where number > $1) || case when $1 = 0 then array[stratum.system_chain()] end as ids',
    [mark],
  )
  const { rows } = await owner.query(FAULTS, [subjects.rows[0]?.['ids']])
  return rows.map((row) => ({ fault: String(row['fault']), subject: String(row['subject']) }))
}

export const expectConsistent = async (owner: Connection, mark = 0): Promise<void> => {
  expect(await faults(owner, mark)).toEqual([])
}

/** The highest number given so far: tenants made later stand above it. */
export async function currentMark(owner: Connection): Promise<number> {
  const { rows } = await owner.query('select coalesce(max(number), 0)::int as mark from stratum.tenants', [])
  return Number(rows[0]?.['mark'])
}
