/** What a dry run costs has a bound, and what is beyond it is told before the work is done. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { StratumClient } from '../../src/sdk/client.ts'
import { ask, expectRefusal } from '../support/answers.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { contents } from '../support/record.ts'
import { type Call, dryRun, run } from '../support/showable.ts'
import { idsOf, plantTree, refusal, uniqueSlug } from '../support/tree.ts'

let installation: Installation
let admin: StratumClient
beforeAll(async () => {
  installation = await createInstallation()
  admin = await installation.clientFor(null)
})
afterAll(() => installation.close())

/** A root with so many tenants below. */
async function plantMany(count: number) {
  const { root } = await plantTree(admin, { root: null })
  const ids: string[] = []
  while (ids.length < count) {
    const tenants = Array.from({ length: Math.min(100, count - ids.length) }, () => ({ slug: uniqueSlug('many'), name: 'Many', parent_id: root.id }))
    ids.push(...idsOf((await admin.batchCreateTenants({ tenants })).tenants))
  }
  return { root, ids }
}
/** Refused both as a dry run and with a version. */
async function expectTooLarge(call: Call, details: object) {
  expect((await refusal(dryRun(admin, call), 'DRY_RUN_TOO_LARGE')).details).toMatchObject(details)
  await refusal(run(admin, call, 'any-version'), 'DRY_RUN_TOO_LARGE')
}

describe('the bound', () => {
  it('is on tenants times keys that can change, and the operation itself has none', async () => {
    const { root } = await plantMany(250)
    const { other } = await plantTree(admin, { other: null })
    const entries = Array.from({ length: 200 }, (_, index) => ({ key: `key_${index}`, value: index }))
    const batch: Call = { operation: 'batchSetConfig', input: { id: root.id, entries } }
    const before = await contents(installation.owner)
    await expectTooLarge(batch, { what: 'entries', maximum: 50_000 })
    expect(await contents(installation.owner)).toEqual(before)
    await run(admin, batch)
    await admin.batchSetConfig({ id: other.id, entries })

    const move: Call = { operation: 'moveTenant', input: { id: root.id, new_parent_id: other.id } }
    await expectTooLarge(move, { what: 'entries' })
    await run(admin, move)
    // parents that differ in no key change none
    const { twin } = await plantTree(admin, { twin: null })
    await admin.batchSetConfig({ id: twin.id, entries })
    expect(await admin.dryRun.moveTenant({ id: root.id, new_parent_id: twin.id })).toMatchObject({ total: 0 })
    // one key, or only statuses, are compared as such, whatever else there is
    expect(await admin.dryRun.setConfig({ id: root.id, key: 'key_0', value: 'new' })).toMatchObject({ total: 251, truncated: false })
    expect(await admin.dryRun.suspendTenant({ id: root.id, cascade: true })).toMatchObject({ total: 251, truncated: false })
  })

  it('is on the bytes of values of those keys; of fewer it shows what has room and counts all', async () => {
    const { root, ids } = await plantMany(300)
    await admin.setConfig({ id: ids[0] ?? '', key: 'large', value: 'x'.repeat(65_000) })
    await installation.owner.query(
      `insert into stratum.config_entries (tenant_id, key, value, locked)
       select id, 'large_' || n, e.value, false from unnest($1::uuid[]) as id, generate_series(1, 15) as n, stratum.config_entries e where e.key = 'large'`,
      [ids],
    )
    const lock = (count: number): Call => ({
      operation: 'batchSetConfig',
      input: { id: root.id, entries: Array.from({ length: count }, (_, index) => ({ key: `large_${index + 1}`, value: 'mine', locked: true })) },
    })
    await expectTooLarge(lock(15), { what: 'bytes of values', maximum: 268_435_456 })
    const shown = await dryRun(admin, lock(1))
    expect(shown).toMatchObject({ total: 301, truncated: true })
    expect(shown.changes.length).toBeGreaterThan(50)
    expect(shown.changes.length).toBeLessThan(100)
    // the version stands for those not shown too
    const unseen = ids.findLast((id) => !shown.changes.some(({ tenant_id }) => tenant_id === id)) ?? ''
    await admin.setConfig({ id: unseen, key: 'large_1', value: 'changed' })
    await refusal(run(admin, lock(1), shown.version), 'VERSION_MISMATCH')
    await run(admin, lock(1), (await dryRun(admin, lock(1))).version)
    expect((await admin.resolveConfig({ id: unseen })).config['large_1']).toMatchObject({ value: 'mine', locked: true })
    expect(await admin.dryRun.archiveTenant({ id: root.id, cascade: true })).toMatchObject({ total: 301, truncated: false })
  })

  it("of Postgres's own is told as an answer that would be too large", async () => {
    const { rows } = await installation.owner.query<{ text: string }>(`select pg_get_functiondef('stratum.get_tenant'::regproc) as text`)
    await installation.owner.query((rows[0]?.text ?? '').replace('select * into strict t', `raise exception using errcode = '54000'; select * into strict t`))
    const { root } = await plantTree(admin, { root: null })
    const answer = await ask(installation.fetch, `/api/v1/tenants/${root.id}`, { apiKey: await installation.apiKey(null) })
    await installation.owner.query(rows[0]?.text ?? '')
    expectRefusal(answer, 'ANSWER_TOO_LARGE')
  })
})
