/** What config was: each key's changes, and what held at a past moment, with the tree as it was then. */
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Json } from '../../src/core/json.ts'
import type { StratumClient } from '../../src/sdk/client.ts'
import { ask, expectRefusal } from '../support/answers.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { contents } from '../support/record.ts'
import { plantTree, refusal, walk } from '../support/tree.ts'

let installation: Installation
let admin: StratumClient
beforeAll(async () => {
  installation = await createInstallation()
  admin = await installation.clientFor(null)
})
afterAll(() => installation.close())

const tree = { root: null, mid: 'root', leaf: 'mid', other: 'root' } as const
const now = async () => {
  const { rows } = await installation.owner.query<{ at: Date }>(`select date_trunc('milliseconds', clock_timestamp()) as at`)
  return rows[0]?.at ?? new Date(Number.NaN)
}

/** This moment, by the database's clock; what comes next comes a millisecond later at the least. */
async function moment(): Promise<string> {
  const at = await now()
  while (Number(await now()) <= Number(at));
  return at.toISOString()
}

const history = (id: string, key: string) => walk((page) => admin.getConfigHistory({ id, key, limit: 2, ...page }))
const valueAt = async (id: string, key: string, at: string) => (await admin.resolveConfig({ id, at })).config[key]?.value
const shift = (at: string, milliseconds: number) => new Date(Date.parse(at) + milliseconds).toISOString()

describe("a key's history", () => {
  it('holds every change of the own entry, newest first, with who made it, page by page', async () => {
    const { root } = await plantTree(admin, tree)
    const key = await installation.stratum.createApiKey(root.id, { scopes: ['write'] })
    const writer = installation.client({ apiKey: key.key })
    await admin.setConfig({ id: root.id, key: 'k', value: 1 })
    await writer.setConfig({ id: root.id, key: 'k', value: 1, locked: true })
    await admin.setConfig({ id: root.id, key: 'k', value: null })
    await writer.deleteConfig({ id: root.id, key: 'k' })
    await admin.setConfig({ id: root.id, key: 'k', value: 'hush', sensitive: true })

    const states = [
      { value: null, locked: false, sensitive: true },
      null,
      { value: null, locked: false, sensitive: false },
      { value: 1, locked: true, sensitive: false },
      { value: 1, locked: false, sensitive: false },
      null,
    ]
    const changes = await history(root.id, 'k')
    expect(changes.map((change) => change.new)).toEqual(states.slice(0, -1))
    expect(changes.map((change) => change.old)).toEqual(states.slice(1))
    expect(changes.map(({ actor }) => actor['id'] === key.id)).toEqual([false, true, false, true, false])
    expect(changes[1]?.actor).toMatchObject({ type: 'api_key', id: key.id, tenant_id: root.id })
    const times = changes.map(({ changed_at }) => changed_at)
    expect(times).toEqual([...times].sort().reverse())
    expect(JSON.stringify(changes)).not.toContain('hush')
    expect((await installation.stratum.getConfigHistory(root.id, 'k', { limit: 100 })).data).toEqual(changes)
  })

  it('of a tenant or key is its own, and writes that failed or were only shown are not in it', async () => {
    const { root, mid } = await plantTree(admin, tree)
    await admin.setConfig({ id: root.id, key: 'k', value: 1, locked: true })
    await refusal(admin.setConfig({ id: mid.id, key: 'k', value: 2 }), 'CONFIG_LOCKED')
    await admin.dryRun.setConfig({ id: root.id, key: 'k', value: 3 })
    expect(await history(mid.id, 'k')).toEqual([])
    expect(await history(root.id, 'other')).toEqual([])
    expect(await history(root.id, 'k')).toHaveLength(1)
    const bound = await installation.clientFor(mid.id, ['read'])
    expect((await bound.getConfigHistory({ id: mid.id, key: 'k' })).data).toEqual([])
    await refusal(bound.getConfigHistory({ id: root.id, key: 'k' }), 'TENANT_NOT_FOUND')
  })

  it('goes on where a page ended though changes came in between, and takes no cursor of another', async () => {
    const { root } = await plantTree(admin, tree)
    for (const value of [1, 2, 3]) await admin.setConfig({ id: root.id, key: 'k', value })
    const first = await admin.getConfigHistory({ id: root.id, key: 'k', limit: 2 })
    await admin.setConfig({ id: root.id, key: 'k', value: 4 })
    const cursor = first.next_cursor ?? ''
    const second = await admin.getConfigHistory({ id: root.id, key: 'k', limit: 2, cursor })
    expect([...first.data, ...second.data].map((change) => change.new?.value)).toEqual([3, 2, 1])
    expect(second).toMatchObject({ next_cursor: null, has_more: false })
    await refusal(admin.getConfigHistory({ id: root.id, key: 'other', cursor }), 'INVALID_CURSOR')
  })
})

describe('config at a past moment', () => {
  it('is what held then: values, locks and deletions', async () => {
    const { root, leaf } = await plantTree(admin, tree)
    const moments = [await moment()]
    for (const change of [
      () => admin.setConfig({ id: root.id, key: 'k', value: 'root' }),
      () => admin.setConfig({ id: leaf.id, key: 'k', value: 'leaf' }),
      () => admin.setConfig({ id: root.id, key: 'k', value: 'locked', locked: true }),
      () => admin.deleteConfig({ id: leaf.id, key: 'k' }),
      () => admin.setConfig({ id: root.id, key: 'k', value: null }),
      () => admin.deleteConfig({ id: root.id, key: 'k' }),
    ]) {
      await change()
      moments.push(await moment())
    }
    const values = await Promise.all(moments.map((at) => valueAt(leaf.id, 'k', at)))
    expect(values).toEqual([undefined, 'root', 'leaf', 'locked', 'locked', null, undefined])
    const third = moments[3] ?? ''
    expect((await admin.resolveConfig({ id: leaf.id, at: third })).config['k']).toEqual({
      key: 'k',
      value: 'locked',
      source_tenant_id: root.id,
      inherited: true,
      locked: true,
      sensitive: false,
    })
    expect((await installation.stratum.resolveConfig(leaf.id, { at: third }))['k']?.value).toBe('locked')
    expect((await admin.resolveConfig({ id: leaf.id, at: '9999-12-31T23:59:59Z' })).config).toEqual({})
  })

  it('follows the tree as it was, above a move and from a time before', async () => {
    const { root, mid, leaf, other } = await plantTree(admin, tree)
    for (const { id, name } of [root, mid, other]) await admin.setConfig({ id, key: 'k', value: name })
    const before = await moment()
    await admin.moveTenant({ id: leaf.id, new_parent_id: other.id })
    const moved = await moment()
    await admin.moveTenant({ id: other.id, new_parent_id: null })
    await admin.deleteConfig({ id: other.id, key: 'k' })
    const alone = await moment()
    await admin.moveTenant({ id: leaf.id, new_parent_id: mid.id })

    expect(await Promise.all([before, moved, alone].map((at) => valueAt(leaf.id, 'k', at)))).toEqual(['mid', 'other', undefined])
    expect(await valueAt(leaf.id, 'k', await moment())).toBe('mid')
    // of a tenant that came to be above it only later, nothing held before
    const young = await admin.createTenant({ slug: 'young', name: 'young' })
    await admin.setConfig({ id: young.id, key: 'k', value: 'young' })
    await admin.moveTenant({ id: root.id, new_parent_id: young.id })
    await admin.setConfig({ id: young.id, key: 'k', value: 'young', locked: true })
    expect(await valueAt(leaf.id, 'k', await moment())).toBe('young')
    expect(await valueAt(leaf.id, 'k', before)).toBe('mid')
  })

  it('has the defaults of then, which are the history of no tenant', async () => {
    const { root, leaf } = await plantTree(admin, tree)
    const put = (value?: Json) =>
      admin.putConfigDefinitions({ definitions: [{ key: 'seats', schema: {}, ...(value === undefined ? {} : { default: value }) }] })
    const changes = [
      () => put('first'),
      () => admin.setConfig({ id: root.id, key: 'seats', value: 'root' }),
      () => put('second'),
      () => admin.deleteConfig({ id: root.id, key: 'seats' }),
      // the same once more, and beside another
      () => admin.putConfigDefinitions({ definitions: [{ key: 'seats', schema: { type: 'string' }, default: 'second' }] }),
      () => admin.putConfigDefinitions({ definitions: [{ key: 'shape', schema: {}, default: { a: [null] } }] }),
      () => put(),
      () => put(false),
      () => admin.putConfigDefinitions({ definitions: [], remove: ['seats', 'shape'] }),
    ]
    const moments = [await moment()]
    for (const change of changes) {
      await change()
      moments.push(await moment())
    }
    const values = await Promise.all(moments.map((at) => valueAt(leaf.id, 'seats', at)))
    expect(values).toEqual([undefined, 'first', 'root', 'root', 'second', 'second', 'second', undefined, false, undefined])
    const others = await Promise.all(moments.map((at) => valueAt(leaf.id, 'shape', at)))
    expect(others).toEqual([...Array(6).fill(undefined), { a: [null] }, { a: [null] }, { a: [null] }, undefined])
    const standing = { key: 'seats', value: 'first', source_tenant_id: null, inherited: true, locked: false, sensitive: false }
    expect((await admin.resolveConfig({ id: leaf.id, at: moments[1] ?? '' })).config['seats']).toEqual(standing)
    expect((await history(root.id, 'seats')).map((change) => change.new?.value)).toEqual([undefined, 'root'])
    const { rows } = await installation.owner.query(
      `select key, value, actor ->> 'type' as type from stratum.config_history where tenant_id is null and key in ('seats', 'shape') order by key, id`,
    )
    expect(rows.map(({ value }) => value)).toEqual(['first', 'second', null, false, null, { a: [null] }, null])
    expect(rows.every(({ type }) => type === 'api_key')).toBe(true)
  })

  it('has the defaults of then after a purge, too', async () => {
    const { root, other } = await plantTree(admin, tree)
    await admin.putConfigDefinitions({ definitions: [{ key: 'k', schema: {}, default: 1 }] })
    const then = await moment()
    await admin.putConfigDefinitions({ definitions: [], remove: ['k'] })
    await admin.purgeTenant({ id: other.id })
    expect(await valueAt(root.id, 'k', then)).toBe(1)
  })

  it('opens the secrets of then to who may reveal them, and writes it down', async () => {
    const { root, leaf } = await plantTree(admin, tree)
    await admin.setConfig({ id: root.id, key: 'token', value: 'first', sensitive: true })
    const first = await moment()
    await admin.setConfig({ id: root.id, key: 'token', value: 'in clear' })
    const clear = await moment()
    await admin.setConfig({ id: root.id, key: 'token', value: 'second', sensitive: true })
    await admin.deleteConfig({ id: root.id, key: 'token' })

    expect((await admin.resolveConfig({ id: leaf.id, at: first })).config['token']).toMatchObject({ value: null, sensitive: true })
    expect((await admin.resolveConfig({ id: leaf.id, at: clear })).config['token']).toMatchObject({ value: 'in clear', sensitive: false })
    expect((await admin.resolveConfig({ id: leaf.id, at: first, reveal: true })).config['token']).toMatchObject({ value: 'first', sensitive: true })
    const { rows } = await installation.owner.query<{ payload: string }>(
      `select payload from stratum.audit_entries where tenant_id = $1 order by seq desc limit 1`,
      [leaf.id],
    )
    expect(JSON.parse(rows[0]?.payload ?? '')).toMatchObject({ action: 'config.revealed', after: { secrets: [{ key: 'token', source_tenant_id: root.id }] } })
    const reader = await installation.clientFor(leaf.id, ['read'])
    await refusal(reader.resolveConfig({ id: leaf.id, at: first, reveal: true }), 'SCOPE_REQUIRED')
  })

  it('hides what a tenant set that is neither within reach nor above any more', async () => {
    const { north, south, alpha, root } = await plantTree(admin, { root: null, north: 'root', south: 'root', alpha: 'north' })
    await admin.setConfig({ id: root.id, key: 'above', value: 'root', sensitive: true })
    await admin.setConfig({ id: north.id, key: 'secret', value: 'north', sensitive: true, locked: true })
    await admin.setConfig({ id: north.id, key: 'plain', value: 'north' })
    await admin.setConfig({ id: alpha.id, key: 'own', value: 'alpha', sensitive: true })
    const at = await moment()
    await admin.moveTenant({ id: alpha.id, new_parent_id: south.id })

    const hidden = { value: null, source_tenant_id: null, inherited: true, sensitive: true }
    const open = { sensitive: true, locked: false }
    for (const reader of [await installation.clientFor(south.id), await installation.clientFor(alpha.id)]) {
      const { config } = await reader.resolveConfig({ id: alpha.id, at, reveal: true })
      expect(config).toEqual({
        above: { ...open, key: 'above', value: 'root', source_tenant_id: root.id, inherited: true },
        secret: { ...hidden, key: 'secret', locked: true },
        plain: { ...hidden, key: 'plain', locked: false },
        own: { ...open, key: 'own', value: 'alpha', source_tenant_id: alpha.id, inherited: false },
      })
      expect((await reader.resolveConfig({ id: alpha.id, at })).config).toMatchObject({ secret: { ...hidden, locked: true }, plain: hidden })
    }
    const { rows } = await installation.owner.query<{ payload: string }>(
      `select payload from stratum.audit_entries where tenant_id = $1 and payload like '%config.revealed%'`,
      [alpha.id],
    )
    for (const { payload } of rows) {
      const { secrets } = (JSON.parse(payload) as { after: { secrets: Array<{ key: string }> } }).after
      expect(secrets.map(({ key }) => key).sort()).toEqual(['above', 'own'])
    }
    expect(rows).toHaveLength(2)
    // who reaches it, and who has it above again, sees it as it was
    const seen = { secret: { value: 'north', source_tenant_id: north.id }, plain: { value: 'north', source_tenant_id: north.id } }
    for (const reader of [admin, await installation.clientFor(root.id)]) {
      expect((await reader.resolveConfig({ id: alpha.id, at, reveal: true })).config).toMatchObject(seen)
    }
    await admin.moveTenant({ id: alpha.id, new_parent_id: north.id })
    expect((await (await installation.clientFor(alpha.id)).resolveConfig({ id: alpha.id, at, reveal: true })).config).toMatchObject(seen)
  })

  it('begins when the tenant does, to the millisecond, and a change counts from the one it is told by', async () => {
    const { root } = await plantTree(admin, tree)
    await moment()
    await admin.setConfig({ id: root.id, key: 'k', value: 1 })
    const changed = (await history(root.id, 'k'))[0]?.changed_at ?? ''

    expect(await valueAt(root.id, 'k', changed)).toBe(1)
    expect(await valueAt(root.id, 'k', shift(changed, -1))).toBeUndefined()
    expect(await valueAt(root.id, 'k', root.created_at)).toBeUndefined()
    const { details, message } = await refusal(admin.resolveConfig({ id: root.id, at: shift(root.created_at, -1) }), 'MOMENT_BEFORE_TENANT')
    expect(details).toMatchObject({ at: shift(root.created_at, -1), created_at: root.created_at })
    expect(message).toContain(root.created_at)
  })

  it('is asked for in any offset and fraction', async () => {
    const { root } = await plantTree(admin, tree)
    await moment()
    await admin.setConfig({ id: root.id, key: 'k', value: 1 })
    const changed = (await history(root.id, 'k'))[0]?.changed_at ?? ''
    const inOffset = (at: string, minutes: number, sign: '+' | '-') => {
      const local = new Date(Date.parse(at) + (sign === '+' ? 1 : -1) * minutes * 60_000).toISOString().slice(0, -1)
      return `${local}${sign}${String(Math.floor(minutes / 60)).padStart(2, '0')}:${String(minutes % 60).padStart(2, '0')}`
    }
    for (const [minutes, sign] of [
      [0, '+'],
      [345, '+'],
      [840, '+'],
      [720, '-'],
      [1_439, '-'],
    ] as const) {
      expect(await valueAt(root.id, 'k', inOffset(changed, minutes, sign))).toBe(1)
      expect(await valueAt(root.id, 'k', inOffset(shift(changed, -1), minutes, sign))).toBeUndefined()
    }
    expect(await valueAt(root.id, 'k', changed.replace('Z', '999999Z'))).toBe(1)
    expect(await valueAt(root.id, 'k', shift(changed, -1).replace('Z', '999999Z'))).toBeUndefined()
  })

  it('is refused for what is no moment, without asking more of the database than who asks', async () => {
    const { root } = await plantTree(admin, tree)
    const apiKey = await installation.apiKey(null)
    const before = await contents(installation.owner)
    const texts = ['', 'now', '2026-01-01', '2026-01-01T00:00:00', '2026-02-30T00:00:00Z', '2026-01-01T25:00:00Z', '2026-01-01T00:00:00+24:00', '1700000000']
    const ends = ['0000-01-01T00:00:00Z', '0001-01-01T00:00:00+01:00', '9999-12-31T23:59:59-01:00', '+012026-01-01T00:00:00Z']
    for (const at of [...texts, ...ends]) {
      const answer = await ask(installation.fetch, `/api/v1/tenants/${root.id}/config?at=${encodeURIComponent(at)}`, { apiKey })
      expectRefusal(answer, 'INVALID_REQUEST')
    }
    expectRefusal(await ask(installation.fetch, `/api/v1/tenants/${root.id}/config?at=0001-01-01T00:00:00Z`, { apiKey }), 'MOMENT_BEFORE_TENANT')
    expect(await contents(installation.owner)).toEqual(before)
  })

  it('is refused alike for a tenant that is not there and one out of reach', async () => {
    const { mid, other } = await plantTree(admin, tree)
    const bound = await installation.clientFor(mid.id)
    const at = '2001-01-01T00:00:00Z'
    await refusal(bound.resolveConfig({ id: other.id, at }), 'TENANT_NOT_FOUND')
    await refusal(admin.resolveConfig({ id: '00000000-0000-4000-8000-000000000000', at }), 'TENANT_NOT_FOUND')
    await refusal(bound.resolveConfig({ id: mid.id, at }), 'MOMENT_BEFORE_TENANT')
  })
})

describe('whatever was set, deleted, locked, moved and defined', () => {
  const tenant = fc.nat(4)
  const key = fc.constantFrom('a', 'b')
  const change = fc.oneof(
    {
      weight: 5,
      arbitrary: fc.record({ op: fc.constant('set' as const), tenant, key, value: fc.nat(9), locked: fc.boolean(), sensitive: fc.constant(false) }),
    },
    { weight: 1, arbitrary: fc.record({ op: fc.constant('set' as const), tenant, key, value: fc.nat(9), locked: fc.boolean(), sensitive: fc.constant(true) }) },
    { weight: 2, arbitrary: fc.record({ op: fc.constant('delete' as const), tenant, key }) },
    { weight: 3, arbitrary: fc.record({ op: fc.constant('move' as const), tenant, to: fc.option(tenant) }) },
    { weight: 2, arbitrary: fc.record({ op: fc.constant('define' as const), key, value: fc.option(fc.nat(9)) }) },
    { weight: 1, arbitrary: fc.record({ op: fc.constant('undefine' as const), key }) },
  )

  it('resolving at each moment answers what resolving answered then', async () => {
    const { stratum } = installation
    const resolveAll = (ids: string[], options: { at?: string } = {}) => Promise.all(ids.map((id) => stratum.resolveConfig(id, { ...options, reveal: false })))
    await fc.assert(
      fc.asyncProperty(fc.array(change, { minLength: 12, maxLength: 18 }), async (changes) => {
        const planted = await plantTree(admin, { one: null, two: 'one', three: 'two', four: 'one', five: null })
        const ids = Object.values(planted).map(({ id }) => id)
        const at = (index: number) => ids[index] ?? ''
        const seen: Array<[at: string, answers: unknown]> = []
        for (const each of changes) {
          const id = 'tenant' in each ? at(each.tenant) : ''
          // one that is refused changes nothing, which is to be seen too
          if (each.op === 'define') await stratum.putConfigDefinitions([{ key: each.key, schema: {}, default: each.value }])
          else if (each.op === 'undefine') await stratum.putConfigDefinitions([], { remove: [each.key] })
          else if (each.op === 'set')
            await stratum.setConfig(id, each.key, { value: each.value, locked: each.locked, sensitive: each.sensitive }).catch(() => null)
          else if (each.op === 'delete') await stratum.deleteConfig(id, each.key).catch(() => null)
          else await stratum.moveTenant(id, each.to === null ? null : at(each.to)).catch(() => null)
          seen.push([await moment(), await resolveAll(ids)])
        }
        for (const [then, answers] of seen) expect(await resolveAll(ids, { at: then })).toEqual(answers)
        await stratum.putConfigDefinitions([], { remove: ['a', 'b'] })
      }),
      { numRuns: 4 },
    )
  }, 60_000)
})
