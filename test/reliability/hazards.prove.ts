/**
 * Each guard of the tree, of status and of the audit chain taken out, to see that harm follows, and put
 * back, to see that it does not. Each test has its own database, as functions are replaced in it.
 */
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { calls, Stage } from './stage.ts'

const { create, move, suspend, resume, setConfig } = calls
const STALE_PATH = "path is not the parent's path and the own label"

let stage: Stage
beforeEach(async () => {
  stage = await Stage.open()
})
afterEach(() => stage.close())

describe('the structure lock', () => {
  it('keeps a create under a moving subtree from keeping a stale path', async () => {
    const [top, middle] = await stage.line(2)
    const [target] = await stage.line(1)
    const { codes, waited, faults } = await stage.overlap(create(middle, 'late'), move(top, target))
    expect({ codes, waited, faults }).toEqual({ codes: ['ok', 'ok'], waited: true, faults: [] })
  })

  it('without it, the check of the tree turns the stale path into a raw error', async () => {
    await stage.withoutStructureLock()
    const [top, middle] = await stage.line(2)
    const [target] = await stage.line(1)
    const { codes, faults } = await stage.overlap(create(middle, 'late'), move(top, target))
    expect({ codes, faults }).toEqual({ codes: ['ok', '23000'], faults: [] })
  })

  it('without it and the check of the tree, the new tenant keeps a stale path', async () => {
    await stage.withoutStructureLock()
    await stage.withoutTreeChecks()
    const [top, middle] = await stage.line(2)
    const [target] = await stage.line(1)
    const { codes, faults } = await stage.overlap(create(middle, 'late'), move(top, target))
    expect(codes).toEqual(['ok', 'ok'])
    expect(faults.map(({ fault }) => fault)).toEqual([STALE_PATH])
  })

  it('without it and the check of the tree, what moves under a moving tenant keeps a stale path', async () => {
    await stage.withoutStructureLock()
    await stage.withoutTreeChecks()
    const [top, middle] = await stage.line(2)
    const [moving] = await stage.line(1)
    const [target] = await stage.line(1)
    const { codes, faults } = await stage.overlap(move(moving, middle), move(top, target))
    expect(codes).toEqual(['ok', 'ok'])
    expect(faults).toEqual([{ fault: STALE_PATH, subject: moving }])
  })

  it('lets one of two cross moves go first, and tells the other of the cycle', async () => {
    await stage.pauseAt('lock_chain')
    const [a, underA] = await stage.line(2)
    const [b, underB] = await stage.line(2)
    const { codes, faults } = await stage.meet(move(a, underB), move(b, underA))
    expect({ codes, faults }).toEqual({ codes: ['ok', 'TENANT_CYCLE_DETECTED'], faults: [] })
  })

  it('without it, two cross moves end in a raw deadlock', async () => {
    await stage.withoutStructureLock()
    await stage.pauseAt('lock_chain')
    const [a, underA] = await stage.line(2)
    const [b, underB] = await stage.line(2)
    const { codes, faults } = await stage.meet(move(a, underB), move(b, underA))
    expect(codes.toSorted()).toEqual(['40P01', 'ok'])
    expect(faults).toEqual([])
  })

  it.each([
    { checks: true, codes: ['ok', '23000'], cycle: false },
    { checks: false, codes: ['ok', 'ok'], cycle: true },
  ])('without it and the lock on the new parent, two cross moves make a cycle unless the tree is checked ($checks)', async ({ checks, codes, cycle }) => {
    await stage.withoutStructureLock()
    await stage.edit('move_tenant', ' for share', '')
    if (!checks) await stage.withoutTreeChecks()
    const [a = '', underA] = await stage.line(2)
    const [b = '', underB] = await stage.line(2)
    const ended = await stage.overlap(move(a, underB), move(b, underA))
    expect(ended.codes).toEqual(codes)
    expect(ended.faults.map(({ subject }) => subject).toSorted()).toEqual(cycle ? [a, b].toSorted() : [])
  })
})

describe('the check of the tree', () => {
  const wrongPath = 'update stratum.tenants set path = stratum.text2ltree(to_hex(number)) where parent_id is not null'
  const orphanStatus = "update stratum.tenants set status = 'suspended' where parent_id is null"

  it('refuses a path or a status that does not fit the parent, whoever writes it', async () => {
    await stage.line(2)
    await expect(stage.sql(wrongPath)).rejects.toMatchObject({ code: '23000' })
    await expect(stage.sql(orphanStatus)).rejects.toMatchObject({ code: '23000' })
  })

  it('without it, both are written', async () => {
    await stage.withoutTreeChecks()
    const [, child] = await stage.line(2)
    await stage.sql(wrongPath)
    await stage.sql(orphanStatus)
    const { faults } = await stage.overlap(setConfig(child), setConfig(child, 'other'))
    expect(faults.map(({ fault }) => fault)).toEqual([STALE_PATH, 'active under suspended'])
  })

  it('leaves the depth to a constraint, which holds when the operation does not look', async () => {
    const line = await stage.line(20)
    await expect(stage.call('create_tenant', create(line[19], 'deep').input)).rejects.toMatchObject({ message: 'TENANT_DEPTH_EXCEEDED' })
    await stage.edit('require_depth', 'levels > 20', 'false')
    await expect(stage.call('create_tenant', create(line[19], 'deep').input)).rejects.toMatchObject({ code: '23514', constraint: 'tenants_depth_check' })
  })
})

describe('the lock on the parent', () => {
  it('makes a create wait for the suspension of its parent, and the other way round', async () => {
    const [one] = await stage.line(1)
    const [other] = await stage.line(1)
    expect(await stage.overlap(suspend(one), create(one, 'late'))).toEqual({ codes: ['ok', 'TENANT_INVALID_STATE'], waited: true, faults: [] })
    expect(await stage.overlap(create(other, 'early'), suspend(other))).toEqual({ codes: ['ok', 'TENANT_HAS_CHILDREN'], waited: true, faults: [] })
  })

  it('without it, an active tenant comes to stand under a suspended one', async () => {
    await stage.edit('lock_active_tenant', ' for share', '')
    const [parent] = await stage.line(1)
    const { codes, faults } = await stage.overlap(suspend(parent), create(parent, 'late'))
    expect(codes).toEqual(['ok', 'ok'])
    expect(faults.map(({ fault }) => fault)).toEqual(['active under suspended'])
  })

  it('makes a resume wait for the suspension of its parent', async () => {
    const [parent, child] = await stage.line(2)
    await stage.call('suspend_tenant', { id: child })
    expect(await stage.overlap(suspend(parent), resume(child))).toEqual({ codes: ['ok', 'TENANT_INVALID_STATE'], waited: true, faults: [] })
  })

  it('without it and the structure lock, a resume brings an active tenant under a suspended one', async () => {
    await stage.withoutStructureLock()
    await stage.edit('change_status', ' for share', '')
    const [parent, child] = await stage.line(2)
    await stage.call('suspend_tenant', { id: child })
    const { codes, faults } = await stage.overlap(suspend(parent), resume(child))
    expect(codes).toEqual(['ok', 'ok'])
    expect(faults).toEqual([{ fault: 'active under suspended', subject: child }])
  })
})

describe('the lock on the audit chain', () => {
  it('lets the second writer of a tenant wait and go on', async () => {
    const [id] = await stage.line(1)
    expect(await stage.overlap(setConfig(id), setConfig(id, 'other'))).toEqual({ codes: ['ok', 'ok'], waited: true, faults: [] })
  })

  it('without it, the second writer gets a raw error', async () => {
    await stage.edit('lock_chain', /perform .*;/, '')
    const [id] = await stage.line(1)
    const { codes, faults } = await stage.overlap(setConfig(id), setConfig(id, 'other'))
    expect({ codes, faults }).toEqual({ codes: ['ok', '23505'], faults: [] })
  })

  it('without it and the primary key of the entries, the chain forks', async () => {
    await stage.edit('lock_chain', /perform .*;/, '')
    await stage.sql('alter table stratum.audit_entries drop constraint audit_entries_pkey')
    const [id] = await stage.line(1)
    const { codes, faults } = await stage.overlap(setConfig(id), setConfig(id, 'other'))
    expect(codes).toEqual(['ok', 'ok'])
    expect(faults.map(({ fault }) => fault)).toContain('audit entry does not name the hash before it')
  })
})
