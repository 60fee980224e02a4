/** Reading what an operation left behind, and verifying an audit chain by the formula of 20_record.sql. */
import type { Pool } from 'pg'

export interface AuditEntry {
  tenant_id: string
  seq: number
  payload: string | null
  salt: string | null
  payload_hash: string
  previous_hash: string
  hash: string
}

export const SYSTEM_CHAIN = '00000000-0000-0000-0000-000000000000'

const CHAIN = 'tenant_id, seq::int, payload, salt, payload_hash, previous_hash, hash'

type Queryable = Pick<Pool, 'query'>

export const readChain = async (db: Queryable, tenant_id: string): Promise<AuditEntry[]> =>
  (await db.query<AuditEntry>(`select ${CHAIN} from stratum.audit_entries where tenant_id = $1 order by seq`, [tenant_id])).rows

const sha256 = async (text: string): Promise<string> => Buffer.from(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(text))).toString('hex')

/** What is wrong with a chain, or null. `head` is its end as the database keeps it. */
export async function faultOf(chain: readonly AuditEntry[], head: { seq: number; hash: string }): Promise<string | null> {
  let previous = { seq: 0, hash: '0'.repeat(64) }
  for (const entry of chain) {
    if (entry.seq !== previous.seq + 1) return `entry ${previous.seq + 1} is missing`
    if (entry.previous_hash !== previous.hash) return `entry ${entry.seq} does not follow the one before`
    const erased = entry.payload === null && entry.salt === null
    if (!erased && entry.payload_hash !== (await sha256(`${entry.salt}${entry.payload}`))) return `entry ${entry.seq} was altered`
    if (entry.hash !== (await sha256(`${entry.previous_hash}:${entry.seq}:${entry.payload_hash}`))) return `entry ${entry.seq} was resealed`
    previous = entry
  }
  return previous.seq === head.seq && previous.hash === head.hash ? null : 'the end is missing'
}

/** Read a chain and verify it. */
export async function verifyChain(db: Queryable, tenant_id: string): Promise<string | null> {
  const { rows } = await db.query<{ seq: number; hash: string }>('select seq::int, hash from stratum.audit_heads where tenant_id = $1', [tenant_id])
  return rows[0] ? faultOf(await readChain(db, tenant_id), rows[0]) : 'there is no such chain'
}

export const tablesOf = async (db: Queryable): Promise<string[]> =>
  (await db.query<{ name: string }>(`select tablename as name from pg_tables where schemaname = 'stratum' order by 1`)).rows.map(({ name }) => name)

/** Every table of the schema with the number and a digest of its rows: equal when nothing was written. */
export async function contents(db: Queryable): Promise<Record<string, unknown>> {
  const parts = (await tablesOf(db)).map(
    (table) => `select '${table}' as name, count(*) as rows, md5(string_agg(t::text, ' ' order by t::text)) as digest from stratum.${table} t`,
  )
  const { rows } = await db.query<{ name: string }>(parts.join(' union all '))
  return Object.fromEntries(rows.map(({ name, ...content }) => [name, content]))
}

export interface Recorded {
  audit: Array<{ chain: string; payload: Record<string, unknown> }>
  outbox: Array<{ tenant_id: string | null; type: string; payload: Record<string, unknown> }>
  feed: Array<[kind: string, ref: string]>
  /** The transactions that wrote these rows. */
  transactions: Set<string>
}

/** What an operation recorded: audit entries, events and feed rows that were not there before. */
export async function recordedBy(db: Queryable, operation: () => Promise<unknown>): Promise<Recorded> {
  const ids = async (table: string, id: string) =>
    new Set((await db.query<{ id: string }>(`select ${id} as id from stratum.${table}`)).rows.map((row) => row.id))
  const [audit, outbox, changes] = [await ids('audit_entries', 'hash'), await ids('outbox', 'id::text'), await ids('changes', 'id::text')]
  await operation()
  const added = async <Row extends { xmin: string }>(table: string, id: string, before: Set<string>) =>
    (
      await db.query<Row & { id: string }>(
        `select *, ${id} as id, xmin::text from stratum.${table} order by ${table === 'changes' ? 'changes.id' : 'created_at'}`,
      )
    ).rows.filter((row) => !before.has(row.id))
  const entries = await added<{ tenant_id: string; payload: string; xmin: string }>('audit_entries', 'hash', audit)
  const events = await added<{ tenant_id: string | null; type: string; payload: Record<string, unknown>; xmin: string }>('outbox', 'id::text', outbox)
  const feed = await added<{ kind: string; ref: string; xmin: string }>('changes', 'id::text', changes)
  return {
    audit: entries.map(({ tenant_id, payload }) => ({ chain: tenant_id, payload: JSON.parse(payload) })),
    outbox: events.map(({ tenant_id, type, payload }) => ({ tenant_id, type, payload })),
    feed: feed.map(({ kind, ref }) => [kind, ref]),
    transactions: new Set([...entries, ...events, ...feed].map(({ xmin }) => xmin)),
  }
}
