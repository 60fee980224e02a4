import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { StratumClient } from '../../src/sdk/client.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { readChain, SYSTEM_CHAIN, tablesOf, verifyChain } from '../support/record.ts'
import { plantTree } from '../support/tree.ts'

let installation: Installation
let admin: StratumClient
beforeAll(async () => {
  installation = await createInstallation()
  admin = await installation.clientFor(null)
})
afterAll(() => installation.close())

/** A tenant with a chain of some length. */
async function busyTenant(): Promise<string> {
  const { tenant } = await plantTree(admin, { tenant: null })
  for (let value = 0; value < 5; value++) await admin.setConfig({ id: tenant.id, key: 'k', value: `naïve 😀 ${value}` })
  return tenant.id
}

describe('an audit chain', () => {
  it('verifies by the published formula, from the first entry to its head', async () => {
    const id = await busyTenant()

    const chain = await readChain(installation.owner, id)
    expect(chain.map(({ seq }) => seq)).toEqual([1, 2, 3, 4, 5, 6])
    expect(chain.map(({ payload }) => JSON.parse(payload ?? '').action)).toEqual(['tenant.created', ...Array(5).fill('config.set')])
    expect(new Set(chain.map(({ salt }) => salt)).size).toBe(6)
    expect(await verifyChain(installation.owner, id)).toBeNull()
    expect(await verifyChain(installation.owner, SYSTEM_CHAIN)).toBeNull()
  })

  it('has no gap and no fork after many writers at once, failing ones among them', async () => {
    const id = await busyTenant()
    const writes = Array.from({ length: 24 }, (_, n) =>
      n % 3 === 0 ? admin.deleteConfig({ id, key: `missing_${n}` }) : admin.setConfig({ id, key: `k${n}`, value: n }),
    )
    const outcomes = await Promise.allSettled(writes)

    expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(16)
    expect(await readChain(installation.owner, id)).toHaveLength(6 + 16)
    expect(await verifyChain(installation.owner, id)).toBeNull()
  })

  it('still verifies when a payload was erased with its salt', async () => {
    const id = await busyTenant()
    await installation.owner.query('update stratum.audit_entries set payload = null, salt = null where tenant_id = $1 and seq = 3', [id])

    expect(await verifyChain(installation.owner, id)).toBeNull()
  })

  const update = (change: string, where = 'seq = 3') => `update stratum.audit_entries set ${change} where tenant_id = :id and ${where}`
  const remove = (seq: number) => `delete from stratum.audit_entries where tenant_id = :id and seq = ${seq}`
  const everything = '(payload, salt, payload_hash, previous_hash, hash)'
  const foreign = `(select payload, salt, payload_hash, previous_hash, hash from stratum.audit_entries where tenant_id = '${SYSTEM_CHAIN}' and seq = 1)`

  it.each([
    ['a changed payload', update(`payload = replace(payload, 'config.set', 'config.got')`), 'entry 3 was altered'],
    ['a payload erased without its salt', update('payload = null'), 'entry 3 was altered'],
    ['a payload changed with its hash', update(`payload = 'x', salt = '', payload_hash = encode(sha256('x'), 'hex')`), 'entry 3 was resealed'],
    ['a missing entry', remove(3), 'entry 3 is missing'],
    ['a missing first entry', remove(1), 'entry 1 is missing'],
    ['a missing last entry', remove(6), 'the end is missing'],
    [
      'entries that changed places',
      `${update('seq = case seq when 3 then -4 else -3 end', 'seq in (3, 4)')}; ${update('seq = -seq', 'seq < 0')}`,
      'entry 3 does not follow the one before',
    ],
    ['an entry of another chain', update(`${everything} = ${foreign}`), 'entry 3 does not follow the one before'],
  ])('shows %s', async (_, tamper, fault) => {
    const id = await busyTenant()
    await installation.owner.query(tamper.replaceAll(':id', `'${id}'`))

    expect(await verifyChain(installation.owner, id)).toBe(fault)
  })
})

describe('the role of the service', () => {
  const pools: Record<string, pg.Pool> = {}
  const asRole = async (url: string, sql: string): Promise<unknown> => {
    pools[url] ??= new pg.Pool({ connectionString: url, max: 1 })
    return pools[url].query(sql).then(
      () => 'allowed',
      (error: { code?: string }) => error.code,
    )
  }
  afterAll(() => Promise.all(Object.values(pools).map((pool) => pool.end())))
  const DENIED = '42501'

  it('neither reads nor changes any table, the audit trail least of all', async () => {
    const tables = await tablesOf(installation.owner)
    expect(tables).toEqual(expect.arrayContaining(['audit_entries', 'audit_heads', 'tenants', 'config_entries', 'outbox', 'changes']))
    const { rows: columns } = await installation.owner.query<{ table_name: string; name: string }>(
      `select table_name, min(column_name) as name from information_schema.columns where table_schema = 'stratum' and is_identity = 'NO' group by 1`,
    )
    for (const table of tables) {
      const column = columns.find(({ table_name }) => table_name === table)?.name ?? ''
      for (const statement of [
        `select from stratum.${table}`,
        `update stratum.${table} set "${column}" = null`,
        `delete from stratum.${table}`,
        `insert into stratum.${table} default values`,
        `truncate stratum.${table} cascade`,
      ]) {
        for (const url of [installation.urls.control, installation.urls.app]) expect(await asRole(url, statement), statement).toBe(DENIED)
      }
    }
  })

  it('calls operations, and none of the functions they are made of', async () => {
    const { control, app } = installation.urls
    const id = await busyTenant()
    const nothing = `'{}'::jsonb`

    for (const call of [
      `stratum.append_audit(${nothing}, '${id}', 'forged', ${nothing}, null, null)`,
      `stratum.record(${nothing}, '${id}', 'forged', ${nothing}, null, null, '[]')`,
      `stratum.lock_chain('${id}')`,
      `stratum.change_status(${nothing}, ${nothing}, 'archived', '{active}', 'forged')`,
      `stratum.resolved_config('${id}', 'x', true)`,
    ]) {
      expect(await asRole(control, `set search_path = stratum; select ${call}`), call).toBe(DENIED)
    }
    // may be called, and asks who it is
    expect(await asRole(control, `select stratum.get_tenant(${nothing}, ${nothing})`)).toBe('STRAT')
    expect(await asRole(app, `select stratum.get_tenant(${nothing}, ${nothing})`)).toBe(DENIED)
    expect(await verifyChain(installation.owner, id)).toBeNull()
  })
})
