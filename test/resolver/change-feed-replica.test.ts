/** The feed read on a replica, and kept over its promotion. */
import type pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Database } from '../../src/db/database.ts'
import { OwnServer } from '../support/own-server.ts'
import { beginFeed, ITSELF, positionIn, readerOfSnapshots, refs } from './feed-readers.ts'

let server: OwnServer
let replica: { db: Database; admin: pg.Pool }
beforeAll(async () => {
  server = await OwnServer.start()
  replica = await server.follow(await server.backUp())
})
afterAll(() => server.close())

const WRITE = `insert into stratum.changes (kind, ref) values ('host', $1) returning xid::text`
const timelineOf = (identity: string) => identity.split(':')[1]

describe('a replica', () => {
  it('tells of each change, and counts none as seen whose transaction still runs on the primary', async () => {
    const feed = await beginFeed(replica.db, await positionIn(replica.admin))
    const held = await server.admin.connect()
    const { rows: first } = await held.query('begin').then(() => held.query(WRITE, ['first']))
    const { rows: second } = await server.admin.query(WRITE, ['second'])
    const seen = () => [first, second].map(([row]) => feed.sees(row.xid))
    await server.untilFollowed(replica)
    expect([refs(await feed.poll()), seen()]).toEqual([['second'], [false, false]])
    await held.query('commit')
    held.release()
    await server.untilFollowed(replica)
    // What is there since the oldest that ran is told once more, as nothing tells it apart.
    expect([refs(await feed.poll()).toSorted(), seen()]).toEqual([
      ['first', 'second'],
      [true, true],
    ])
    expect(await feed.poll()).toEqual([])
  })

  it('that took its own snapshot for its knowledge would count one as seen that is not', async () => {
    const held = await server.admin.connect()
    const { rows } = await held.query('begin').then(() => held.query(WRITE, ['held']))
    await server.admin.query(WRITE, ['another'])
    await server.untilFollowed(replica)
    const { rows: visible } = await replica.admin.query('select pg_visible_in_snapshot($1::xid8, pg_current_snapshot()) as naive', [rows[0].xid])
    expect(visible).toEqual([{ naive: true }])
    expect((await beginFeed(replica.db, await positionIn(replica.admin))).sees(rows[0].xid)).toBe(false)
    await held.query('rollback')
    held.release()
  })

  it('that is promoted is another database from its first answer on', async () => {
    await server.untilFollowed(replica)
    const position = await positionIn(server.admin)
    const feed = await beginFeed(replica.db, position)
    await server.stop()
    await replica.admin.query('select pg_promote(true)')
    expect([timelineOf(position.identity), timelineOf((await positionIn(replica.admin)).identity)]).toEqual(['1', '2'])
    expect(await replica.db.call('read_changes', ITSELF, position)).toMatchObject({ complete: true })
    expect(await feed.poll()).toBe('everything')
    await replica.admin.query(WRITE, ['after'])
    expect([refs(await feed.poll()), await readerOfSnapshots(replica.db, position).poll()]).toEqual([['after'], ['after']])
  })
})
