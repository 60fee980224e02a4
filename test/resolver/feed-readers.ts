/** Readers of the change feed side by side: three that look right and are not, and ours. */
import type pg from 'pg'
import type { Actor } from '../../src/core/actor.ts'
import type { Database } from '../../src/db/database.ts'
import { ChangeFeed, type Changes, type FeedPosition, Snapshot } from '../../src/resolver/change-feed.ts'

/** As the process asks for itself. */
export const ITSELF: Actor = { credential: { type: 'nobody' }, named: [], exposed: true, request_id: null, source_ip: null }

type Queryable = Pick<pg.Pool, 'query'>

/** A reader: each poll answers the refs that it takes for new. */
export interface Reader {
  poll(): Promise<readonly string[]>
}

const refsOf = async (db: Queryable, condition: string, values: unknown[]) =>
  (await db.query<{ id: string; ref: string; at: string }>(`select id, ref, created_at::text as at from stratum.changes where ${condition}`, values)).rows

/** Asks for what is behind the greatest id it has met. */
export function readerOfIds(db: Queryable): Reader {
  let last = 0
  return {
    async poll() {
      const rows = await refsOf(db, 'id > $1', [last])
      last = Math.max(last, ...rows.map(({ id }) => Number(id)))
      return rows.map(({ ref }) => ref)
    },
  }
}

/** Asks for what is later than the latest time it has met. */
export function readerOfTimes(db: Queryable): Reader {
  let last = '-infinity'
  return {
    async poll() {
      const rows = await refsOf(db, 'created_at > $1 order by created_at', [last])
      last = rows.at(-1)?.at ?? last
      return rows.map(({ ref }) => ref)
    },
  }
}

/** Asks for what the oldest transaction that ran at its last poll, and all younger ones, have written; saw what is older than that. */
export async function readerOfXmin(db: Queryable): Promise<Reader & { sees(version: string): boolean }> {
  const xmin = async () => (await db.query<{ xmin: string }>('select pg_snapshot_xmin(pg_current_snapshot())::text as xmin')).rows[0]?.xmin ?? ''
  let last = await xmin()
  return {
    async poll() {
      // Before the rows are read, so that it misses none.
      const next = await xmin()
      const rows = await refsOf(db, 'xid >= $1::xid8', [last])
      last = next
      return rows.map(({ ref }) => ref)
    },
    sees: (version) => BigInt(version) < BigInt(last),
  }
}

/** Ours, begun where the feed stands. */
export async function beginFeed(db: Database, position: unknown): Promise<ChangeFeed> {
  const feed = new ChangeFeed((since) => db.call('read_changes', ITSELF, since), Date.now)
  if (!feed.begin(position, Date.now())) throw new Error('this is no position')
  return feed
}

export const positionIn = async (db: Queryable): Promise<FeedPosition> =>
  (await db.query<{ position: FeedPosition }>('select stratum.feed_position() as position')).rows[0]?.position as FeedPosition

/** Ours without what makes it throw everything away: the rows alone, at the snapshot alone. */
export function readerOfSnapshots(db: Database, begin: FeedPosition): Reader & { readonly xmax: bigint } {
  let position = begin
  return {
    async poll() {
      const answer = (await db.call('read_changes', ITSELF, position)) as FeedPosition & { rows: Array<[string, string]> }
      position = answer
      return answer.rows.map(([, ref]) => ref)
    },
    get xmax() {
      return new Snapshot(position.snapshot).xmax
    },
  }
}

/** What a poll told, by ref; `['everything']` where it told that. */
export const refs = (told: Changes): readonly string[] => (told === 'everything' ? ['everything'] : told.map(({ ref }) => ref))
