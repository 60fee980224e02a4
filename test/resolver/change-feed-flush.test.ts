/**
 * When a reader cannot tell what it has missed and throws everything away: a trimmed feed, and databases that were really
 * restored, from files. Each guard is also taken out, to see what is missed without it.
 */
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { FeedPosition } from '../../src/resolver/change-feed.ts'
import { Contexts } from '../../src/resolver/contexts.ts'
import { tenantInput } from '../reliability/arena.ts'
import { RACER } from '../reliability/operations.ts'
import { createInstallation } from '../support/installation.ts'
import { OwnServer } from '../support/own-server.ts'
import { beginFeed, ITSELF, positionIn, readerOfSnapshots, refs } from './feed-readers.ts'

let server: OwnServer
let guarded: string
beforeAll(async () => {
  server = await OwnServer.start()
  guarded = (await server.admin.query(`select pg_get_functiondef('stratum.read_changes'::regproc) as text`)).rows[0].text
})
afterAll(() => server.close())

const begin = async () => beginFeed(server.db, await positionIn(server.admin))
const WRITE = `insert into stratum.changes (kind, ref) values ('host', $1) returning id, xid::text, nonce`
const change = async (ref: string): Promise<{ id: string; xid: string; nonce: string }> => (await server.admin.query(WRITE, [ref])).rows[0]
/** A connection with a transaction that has an id. */
async function open() {
  const client = new pg.Client(server.url())
  await client.connect()
  await client.query('begin; select pg_current_xact_id()')
  return client
}
/** Transactions of others use up ids until a snapshot is no longer behind this one. */
async function passBy(xmax: bigint) {
  const next = async () => BigInt((await server.admin.query('select pg_current_xact_id()::text as xid')).rows[0].xid)
  while ((await next()) < xmax);
}
const xmaxNow = async () => BigInt((await server.admin.query('select pg_snapshot_xmax(pg_current_snapshot())::text as xmax')).rows[0].xmax)
const toldSince = async (position: FeedPosition) => refs(await (await beginFeed(server.db, position)).poll())
/** What is told where a condition of read_changes is taken out. */
async function toldWithout(guard: RegExp, position: FeedPosition) {
  const edited = guarded.replace(guard, 'true')
  expect(edited).not.toBe(guarded)
  await server.admin.query(edited)
  const told = await toldSince(position)
  await server.admin.query(guarded)
  return told
}
const GUARDS = {
  trimmed: /i\.changes_trimmed_to < pg_snapshot_xmax\(seen\)/,
  trimmedWhileRunning: /not exists \(select from pg_snapshot_xip.*?pg_current_snapshot\(\)\)\)/s,
  nonce: /c\.nonce = \(anchor ->> 2\)::uuid/,
  anchor: /\(anchor is null or .*?\(anchor ->> 2\)::uuid\)\)/s,
  usedAgain: /not exists \(select from \(select c\.xid .*?later\.xid, seen\)\)/s,
}

describe('a reader of a feed that was trimmed', () => {
  /** As the provisioner does it, with a feed so old. */
  async function trim() {
    await server.admin.query(`update stratum.changes set created_at = created_at - interval '2 hours'`)
    await server.admin.query(`select stratum.trim_changes('1 hour')`)
  }

  it('throws everything away where it had not seen what is gone, and nothing where it had', async () => {
    const [behind, abreast] = [await begin(), await begin()]
    await change('gone')
    expect(refs(await abreast.poll())).toEqual(['gone'])
    await trim()
    expect({ behind: refs(await behind.poll()), abreast: refs(await abreast.poll()) }).toEqual({ behind: ['everything'], abreast: [] })
    await change('after')
    expect({ behind: refs(await behind.poll()), abreast: refs(await abreast.poll()) }).toEqual({ behind: ['after'], abreast: ['after'] })
  })

  it('is told to, and not without its guard, where a change that began after its snapshot is gone', async () => {
    const position = await positionIn(server.admin)
    await change('gone')
    await trim()
    expect(await toldSince(position)).toEqual(['everything'])
    expect(await toldWithout(GUARDS.trimmed, position)).toEqual([])
  })

  it('is told to, and not without its guard, where a change is gone that was not committed when it last asked', async () => {
    const held = await open()
    await held.query(WRITE, ['by the one that ran'])
    await change('seen')
    const position = await positionIn(server.admin)
    await held.query('commit')
    await held.end()
    await trim()
    expect(await toldSince(position)).toEqual(['everything'])
    expect(await toldWithout(GUARDS.trimmedWhileRunning, position)).toEqual([])
  })

  it('keeps all while a transaction of another database runs for longer than the feed is kept', async () => {
    const held = await open()
    const feed = await begin()
    for (const ref of ['one', 'two']) {
      await change(ref)
      expect(refs(await feed.poll())).toEqual([ref])
      await trim()
      expect(refs(await feed.poll())).toEqual([])
    }
    await held.query('rollback')
    await held.end()
    // Whether that one wrote any of what is gone, nobody can tell by now.
    expect(await feed.poll()).toBe('everything')
    expect(await feed.poll()).toEqual([])
  })
})

describe('a database that was restored from its files', () => {
  it('is noticed as ids went back, and once they are passed by, as the change seen last is gone; a reader of snapshots notices neither', async () => {
    const copy = await server.backUp()
    const lost = await change('lost')
    const [position, xmax] = [await positionIn(server.admin), await xmaxNow()]
    await server.restore(copy)
    const instead = await change('instead')
    // Nothing but the nonce tells the two apart.
    expect([instead.id, instead.xid]).toEqual([lost.id, lost.xid])
    expect(instead.nonce).not.toBe(lost.nonce)
    expect(await toldSince(position)).toEqual(['everything'])
    await passBy(xmax)
    expect(await toldSince(position)).toEqual(['everything'])
    expect(await readerOfSnapshots(server.db, position).poll()).toEqual([])
    for (const guard of [GUARDS.nonce, GUARDS.anchor]) expect(await toldWithout(guard, position)).toEqual([])
  })

  it('is noticed though the change seen last is still there, or there was none: an id that was seen is used again', async () => {
    await change('kept')
    const copy = await server.backUp()
    await passBy((await xmaxNow()) + 3n)
    const [position, xmax] = [await positionIn(server.admin), await xmaxNow()]
    await server.restore(copy)
    await change('instead')
    await passBy(xmax)
    for (const anchor of [position.anchor, null]) {
      expect(await toldSince({ ...position, anchor })).toEqual(['everything'])
      expect(await toldWithout(GUARDS.usedAgain, { ...position, anchor })).toEqual([])
    }
  })

  it('of a moment in which a transaction ran is noticed while ids are behind; once they are not, by the renewed epoch alone', async () => {
    const held = await open()
    await held.query(WRITE, ['older, and lost'])
    await change('younger, and kept')
    const copy = await server.snapshotVolume()
    await held.query('commit')
    await held.end()
    await passBy((await xmaxNow()) + 3n)
    const [position, xmax] = [await positionIn(server.admin), await xmaxNow()]
    await server.restore(copy)
    expect((await positionIn(server.admin)).identity).toBe(position.identity)
    expect(await toldSince(position)).toEqual(['everything'])
    expect(await readerOfSnapshots(server.db, position).poll()).toEqual([])

    await passBy(xmax)
    const feed = await beginFeed(server.db, position)
    expect(await feed.poll()).toEqual([])
    await server.admin.query('update stratum.installation set feed_epoch = gen_random_uuid()')
    expect(await feed.poll()).toBe('everything')
    expect(await feed.poll()).toEqual([])
  })

  it('is not what an isolate serves that had kept what is lost', async () => {
    const { id } = (await server.db.call('create_tenant', RACER, tenantInput(null, 'restored'))) as { id: string }
    const set = (value: number) => server.db.call('set_config', RACER, { id, key: 'max_users', value, locked: false, sensitive: false })
    let time = 0
    const contexts = new Contexts<unknown>((since) => server.db.call('read_changes', ITSELF, since), { now: () => time })
    const visitor = { ...RACER, credential: { type: 'visitor' as const }, named: [{ source: 'subdomain' as const, tenant: 'restored' }] }
    const load = async () => {
      const { config, keeping } = (await server.db.call('visit_tenant', visitor, { keep: true })) as Record<string, Record<string, { value: unknown }>>
      const tags = { path: String(keeping?.['path']), names: ['restored'], principal: null, issuers: [] }
      return { value: config?.['max_users']?.value, tags, feed: keeping?.['feed'] }
    }
    const ask = async () => {
      time += 2_001
      return (await contexts.resolve('restored', load)).value
    }
    await set(1)
    const copy = await server.backUp()
    await set(2)
    expect([await ask(), await ask()]).toEqual([2, 2])
    const xmax = await xmaxNow()
    await server.restore(copy)
    await set(3)
    await passBy(xmax)
    expect(await ask()).toBe(3)
  })
})

describe('a database that was copied into another server', () => {
  it('is noticed by the identity of that server', async () => {
    const elsewhere = await createInstallation()
    try {
      await change('in both')
      const position = await positionIn(server.admin)
      const { rows: changes } = await server.admin.query('select * from stratum.changes')
      const { rows: installation } = await server.admin.query('select feed_epoch, changes_trimmed_to from stratum.installation')
      await elsewhere.owner.query('insert into stratum.changes overriding system value select * from jsonb_populate_recordset(null::stratum.changes, $1)', [
        JSON.stringify(changes),
      ])
      await elsewhere.owner.query('update stratum.installation set feed_epoch = $1, changes_trimmed_to = $2', Object.values(installation[0]))
      const there = elsewhere.services.db
      // All else fits, as that server has used up more ids than ours.
      expect(await there.call('read_changes', ITSELF, position)).toMatchObject({ complete: true, rows: [] })
      expect(await (await beginFeed(there, position)).poll()).toBe('everything')
    } finally {
      await elsewhere.close()
    }
  })
})
