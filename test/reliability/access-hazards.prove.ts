/** The guards of reach and of permissions taken out and put back, as in hazards.prove.ts. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { boundTo } from './operations.ts'
import { calls, Stage } from './stage.ts'

const { create, move, setConfig, give, revoke } = calls

let stage: Stage
beforeEach(async () => {
  stage = await Stage.open()
})
afterEach(() => stage.close())

describe('judging a locked tenant again', () => {
  const scene = async () => {
    const [top = '', child] = await stage.line(2)
    const [elsewhere] = await stage.line(1)
    const rename = { operation: 'update_tenant', input: { id: child, name: 'renamed' }, actor: boundTo(top) }
    return { leave: move(child, elsewhere), comeBack: move(child, top), write: { ...setConfig(child), actor: boundTo(top) }, rename }
  }

  it('refuses a write to a tenant that left the reach while it waited', async () => {
    const { leave, comeBack, write, rename } = await scene()
    expect((await stage.overlap(leave, write)).codes).toEqual(['ok', 'TENANT_NOT_FOUND'])
    await stage.call(comeBack.operation, comeBack.input)
    expect((await stage.overlap(leave, rename)).codes).toEqual(['ok', 'TENANT_NOT_FOUND'])
  })

  it('without it, both are written to a stranger', async () => {
    await stage.edit('require_active_within', /if .*?end if;/s, '')
    const { leave, comeBack, write, rename } = await scene()
    expect((await stage.overlap(leave, write)).codes).toEqual(['ok', 'ok'])
    await stage.call(comeBack.operation, comeBack.input)
    expect((await stage.overlap(leave, rename)).codes).toEqual(['ok', 'ok'])
  })
})

describe('reading the principal again after the structure lock', () => {
  const scene = async () => {
    const [top = '', child] = await stage.line(2)
    const [elsewhere] = await stage.line(1)
    return [move(top, elsewhere), { ...create(child, 'late'), actor: boundTo(top) }] as const
  }

  it('lets an admin go on whose own tenant moved while it waited', async () => {
    expect(await stage.overlap(...(await scene()))).toEqual({ codes: ['ok', 'ok'], waited: true, faults: [] })
  })

  it('without it, the admin no longer finds its own tenants', async () => {
    await stage.edit('authorize', /who := stratum\.principal\(actor\); --.*/, '')
    expect((await stage.overlap(...(await scene()))).codes).toEqual(['ok', 'TENANT_NOT_FOUND'])
  })
})

describe('revoking', () => {
  const policyIds = async (line: string[], revocation: string) => {
    const ids: string[] = []
    for (const id of line) ids.push((await stage.call('create_permission', give(id, 'DELEGATED', revocation, 'above').input)).id)
    return ids
  }
  const held = async (id: string | undefined) =>
    (await stage.call<{ permissions: Record<string, { value: unknown }> }>('resolve_permissions', { id })).permissions['edit']?.value

  it('SOFT waits for a policy that is being created in a child, and leaves it', async () => {
    const [parent, child] = await stage.line(2)
    const [above = ''] = await policyIds([parent ?? ''], 'SOFT')
    const { codes } = await stage.overlap(give(child, 'INHERITED', 'CASCADE', 'own'), revoke(parent, above))
    expect({ codes, held: await held(child) }).toEqual({ codes: ['ok', 'ok'], held: 'own' })
  })

  it('CASCADE waits for a revoke below it', async () => {
    await stage.pauseAt('revoke_below')
    const line = await stage.line(3)
    const ids = await policyIds(line, 'CASCADE')
    await stage.hold(stage.first)
    const below = await stage.start(stage.first, revoke(line[1], ids[1] ?? ''))
    const above = await stage.start(stage.second, revoke(line[0], ids[0] ?? ''))
    expect([below.waits, above.waits]).toEqual([true, true])
    await stage.release(stage.first)
    expect([(await below.outcome).code, (await above.outcome).code, await held(line[2])]).toEqual(['ok', 'ok', undefined])
  })

  it('CASCADE that does not go from the top down, ends in a raw deadlock with a revoke below it', async () => {
    await stage.edit('revoke_below', 'order by d.path', 'order by d.path desc')
    await stage.pauseAt('revoke_below')
    const line = await stage.line(3)
    const ids = await policyIds(line, 'CASCADE')
    await stage.hold(stage.first)
    const below = await stage.start(stage.first, revoke(line[1], ids[1] ?? ''))
    const above = await stage.start(stage.second, revoke(line[0], ids[0] ?? ''))
    await stage.release(stage.first)
    expect([(await below.outcome).code, (await above.outcome).code].toSorted()).toEqual(['40P01', 'ok'])
  })

  // A plan that follows the rows as they lie, the parent's behind the children's: its new slug made a new version.
  const revokeUnderMove = async () => {
    await stage.pauseAt('hand_down')
    const [top, parent, ...children] = await stage.line(2)
    for (let index = 0; index < 3; index++) children.push(...(await stage.line(1, parent)))
    const [elsewhere] = await stage.line(1)
    await stage.call('update_tenant', { id: parent, slug: 'behind' })
    const [above = ''] = await policyIds([parent ?? ''], 'SOFT')
    await stage.second.query('set enable_indexscan = off; set enable_bitmapscan = off')
    await stage.hold(stage.first)
    const revoking = await stage.start(stage.first, revoke(parent, above))
    const moving = await stage.start(stage.second, move(top, elsewhere))
    await stage.release(stage.first)
    return { codes: [(await revoking.outcome).code, (await moving.outcome).code], held: await held(children[0]) }
  }

  it('SOFT lets a move of what stands above wait', async () => {
    expect(await revokeUnderMove()).toEqual({ codes: ['ok', 'ok'], held: 'above' })
  })

  it('SOFT without the structure lock, ends in a raw deadlock with such a move', async () => {
    await stage.edit('delete_permission', "'shared'", "'none'")
    expect((await revokeUnderMove()).codes.toSorted()).toEqual(['40P01', 'ok'])
  })
})
