/** Showing what an operation would change, and doing just that. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { endpointList } from '../../src/features/endpoints.ts'
import type { StratumClient } from '../../src/sdk/client.ts'
import { ask, expectRefusal } from '../support/answers.ts'
import { BASE, createInstallation, type Installation } from '../support/installation.ts'
import { contents } from '../support/record.ts'
import { byPlace, type Call, type Change, difference, dryRun, effective, run } from '../support/showable.ts'
import { plantTree, refusal, uniqueSlug } from '../support/tree.ts'

let installation: Installation
let admin: StratumClient
let apiKey: string
beforeAll(async () => {
  installation = await createInstallation()
  apiKey = await installation.apiKey(null)
  admin = installation.client({ apiKey })
})
afterAll(() => installation.close())

const tree = { root: null, mid: 'root', leaf: 'mid', other: 'root' } as const
describe('a dry run', () => {
  it('of each operation shows its effect, writes nothing, and running it then does just that', async () => {
    const t = await plantTree(admin, tree)
    await admin.setConfig({ id: t.root.id, key: 'k', value: 'root' })
    await admin.setConfig({ id: t.other.id, key: 'k', value: 'other' })
    const policy = await admin.createPermission({ id: t.root.id, key: 'p', value: 1, mode: 'DELEGATED', revocation_mode: 'SOFT' })
    const calls: Call[] = [
      { operation: 'setConfig', input: { id: t.mid.id, key: 'k', value: { deep: [1] } } },
      { operation: 'setConfig', input: { id: t.mid.id, key: 'k', value: { deep: [1] }, locked: true } },
      {
        operation: 'batchSetConfig',
        input: {
          id: t.root.id,
          entries: [
            { key: 'a', value: null },
            { key: 'b', value: true },
          ],
        },
      },
      { operation: 'moveTenant', input: { id: t.leaf.id, new_parent_id: t.other.id } },
      { operation: 'createPermission', input: { id: t.mid.id, key: 'p', value: 2, mode: 'LOCKED' } },
      { operation: 'updatePermission', input: { id: t.root.id, policy_id: policy.id, mode: 'INHERITED' } },
      { operation: 'deletePermission', input: { id: t.root.id, policy_id: policy.id } },
      { operation: 'deleteConfig', input: { id: t.root.id, key: 'a' } },
      { operation: 'suspendTenant', input: { id: t.root.id, cascade: true } },
      { operation: 'resumeTenant', input: { id: t.root.id } },
      { operation: 'archiveTenant', input: { id: t.mid.id } },
      { operation: 'resumeTenant', input: { id: t.mid.id } },
      { operation: 'deleteTenant', input: { id: t.root.id, cascade: true } },
    ]
    const ids = Object.values(t).map(({ id }) => id)
    for (const call of calls) {
      const [rows, before] = [await contents(installation.owner), await effective(admin, ids)]
      const shown = await dryRun(admin, call)
      expect(await contents(installation.owner), call.operation).toEqual(rows)
      await run(admin, call, shown.version)
      const changes = difference(before, await effective(admin, ids))
      expect(byPlace(shown.changes), call.operation).toEqual(changes)
      expect(shown).toMatchObject({ total: changes.length, truncated: false })
      expect(changes.length, call.operation).toBeGreaterThan(0)
    }
    const showable = endpointList.filter(({ preview }) => preview).map(({ id }) => id)
    expect(showable.sort()).toEqual([...new Set(calls.map(({ operation }) => operation))].sort())
  })

  it('of what changes nothing shows nothing', async () => {
    const { root, mid } = await plantTree(admin, tree)
    await admin.setConfig({ id: root.id, key: 'k', value: 1 })
    for (const call of [
      { operation: 'setConfig', input: { id: root.id, key: 'k', value: 1 } },
      { operation: 'moveTenant', input: { id: mid.id, new_parent_id: root.id } },
    ] satisfies Call[]) {
      expect(await dryRun(admin, call)).toMatchObject({ changes: [], total: 0, truncated: false })
    }
  })

  it('shows a lock that comes or goes, and tells null from nothing', async () => {
    const { root, mid } = await plantTree(admin, { root: null, mid: 'root' })
    await admin.setConfig({ id: root.id, key: 'k', value: null })
    const locking = await admin.dryRun.setConfig({ id: root.id, key: 'k', value: null, locked: true })
    const change = (id: string, from: unknown, to: unknown) => ({ tenant_id: id, field: 'config', key: 'k', from, to })
    const [open, locked] = [
      { value: null, locked: false },
      { value: null, locked: true },
    ]
    expect(locking.changes).toEqual([root, mid].map(({ id }) => change(id, open, locked)))
    expect((await admin.dryRun.deleteConfig({ id: root.id, key: 'k' })).changes).toEqual([root, mid].map(({ id }) => change(id, open, null)))
  })

  it('shows of a secret only that it changes, comes or goes', async () => {
    const { root } = await plantTree(admin, { root: null })
    const shownFor = async (call: Call) => {
      const { changes } = await dryRun(admin, call)
      expect(JSON.stringify(changes)).not.toContain('hush')
      return changes.map(({ key, from, to }) => [key, from, to])
    }
    const set = (value: string, sensitive: boolean): Call => ({ operation: 'setConfig', input: { id: root.id, key: 'token', value, sensitive } })
    const secret = { sensitive: true, locked: false }
    expect(await shownFor(set('hush', true))).toEqual([['token', null, secret]])
    await run(admin, set('hush', true))
    expect(await shownFor(set('hush again', true))).toEqual([['token', secret, secret]])
    expect(await shownFor(set('open', false))).toEqual([['token', secret, { value: 'open', locked: false }]])
    expect(await shownFor({ operation: 'deleteConfig', input: { id: root.id, key: 'token' } })).toEqual([['token', secret, null]])
    const shown = await dryRun(admin, set('hush again', true))
    await run(admin, set('hush again', true), shown.version)
    expect((await admin.resolveConfig({ id: root.id, reveal: true })).config['token']?.value).toBe('hush again')
  })

  it('shows a thousand changes and counts them all', async () => {
    const { source, target } = await plantTree(admin, { source: null, target: null })
    const parents = Array.from({ length: 6 }, () => ({ slug: uniqueSlug('many'), name: 'Many', parent_id: source.id }))
    await admin.batchCreateTenants({ tenants: parents })
    const entries = Array.from({ length: 200 }, (_, index) => ({ key: `key_${index}`, value: index }))
    await admin.batchSetConfig({ id: target.id, entries })
    const shown = await admin.dryRun.moveTenant({ id: source.id, new_parent_id: target.id })
    expect(shown).toMatchObject({ total: 1_400, truncated: true })
    expect(shown.changes).toHaveLength(1_000)
    // the version stands for those not shown too
    await admin.setConfig({ id: target.id, key: 'key_99', value: 'else' })
    await refusal(admin.moveTenant({ id: source.id, new_parent_id: target.id }, { ifMatch: shown.version }), 'VERSION_MISMATCH')
  })

  it('of a resumption shows what resumes with it, even where that has moved to, within reach', async () => {
    const { root, mid, leaf, other } = await plantTree(admin, { ...tree, elsewhere: null })
    await admin.suspendTenant({ id: mid.id, cascade: true })
    await admin.moveTenant({ id: leaf.id, new_parent_id: other.id })
    const change = ({ id }: { id: string }) => ({ tenant_id: id, field: 'status', key: null, from: 'suspended', to: 'active' })
    const shown = await admin.dryRun.resumeTenant({ id: mid.id })
    expect(byPlace(shown.changes)).toEqual(byPlace([mid, leaf].map(change) as Change[]))

    const bound = await installation.clientFor(root.id)
    expect((await bound.dryRun.resumeTenant({ id: mid.id })).total).toBe(2)
    await admin.moveTenant({ id: leaf.id, new_parent_id: null })
    expect((await bound.dryRun.resumeTenant({ id: mid.id })).changes).toEqual([change(mid)])
    // a root has no parent that would have to be active
    expect(byPlace((await admin.dryRun.resumeTenant({ id: mid.id })).changes)).toEqual(byPlace([mid, leaf].map(change) as Change[]))
    await bound.resumeTenant({ id: mid.id })
    expect((await admin.getTenant({ id: leaf.id })).status).toBe('suspended')
  })

  it('is refused as the operation itself is: scope, reach, state and input', async () => {
    const { root, mid, leaf } = await plantTree(admin, tree)
    await admin.setConfig({ id: root.id, key: 'k', value: 1, locked: true })
    await admin.createPermission({ id: root.id, key: 'p', mode: 'LOCKED' })
    const permanent = await admin.createPermission({ id: root.id, key: 'q', revocation_mode: 'PERMANENT' })
    const reader = await installation.clientFor(mid.id, ['read'])
    const bound = await installation.clientFor(mid.id)
    const cases: Array<[StratumClient, Call, Parameters<typeof refusal>[1]]> = [
      [reader, { operation: 'setConfig', input: { id: mid.id, key: 'x', value: 1 } }, 'SCOPE_REQUIRED'],
      [bound, { operation: 'setConfig', input: { id: root.id, key: 'x', value: 1 } }, 'TENANT_NOT_FOUND'],
      [bound, { operation: 'suspendTenant', input: { id: mid.id } }, 'TENANT_NOT_FOUND'],
      [bound, { operation: 'moveTenant', input: { id: leaf.id, new_parent_id: null } }, 'GLOBAL_ADMIN_REQUIRED'],
      [admin, { operation: 'moveTenant', input: { id: root.id, new_parent_id: leaf.id } }, 'TENANT_CYCLE_DETECTED'],
      [admin, { operation: 'suspendTenant', input: { id: root.id } }, 'TENANT_HAS_CHILDREN'],
      [admin, { operation: 'archiveTenant', input: { id: root.id } }, 'TENANT_HAS_CHILDREN'],
      [admin, { operation: 'deleteTenant', input: { id: root.id } }, 'TENANT_HAS_CHILDREN'],
      [admin, { operation: 'resumeTenant', input: { id: root.id } }, 'TENANT_INVALID_STATE'],
      [admin, { operation: 'setConfig', input: { id: mid.id, key: 'k', value: 1 } }, 'CONFIG_LOCKED'],
      [admin, { operation: 'batchSetConfig', input: { id: mid.id, atomic: true, entries: [{ key: 'k', value: 1 }] } }, 'CONFIG_LOCKED'],
      [admin, { operation: 'batchSetConfig', input: { id: mid.id, entries: [] } }, 'VALIDATION_FAILED'],
      [admin, { operation: 'deleteConfig', input: { id: mid.id, key: 'k' } }, 'CONFIG_NOT_FOUND'],
      [admin, { operation: 'createPermission', input: { id: mid.id, key: 'p' } }, 'PERMISSION_LOCKED'],
      [admin, { operation: 'updatePermission', input: { id: root.id, policy_id: permanent.id, value: 1 } }, 'PERMISSION_REVOCATION_DENIED'],
      [admin, { operation: 'deletePermission', input: { id: root.id, policy_id: permanent.id } }, 'PERMISSION_REVOCATION_DENIED'],
    ]
    const before = await contents(installation.owner)
    for (const [client, call, code] of cases) {
      const shown = await refusal(dryRun(client, call), code)
      for (const ifMatch of [undefined, 'any-version']) {
        const real = await refusal(run(client, call, ifMatch), code)
        expect({ ...real.details, request_id: '' }).toEqual({ ...shown.details, request_id: '' })
      }
    }
    expect(await contents(installation.owner)).toEqual(before)
  })
})

describe('asking for a dry run', () => {
  const at = (path: string, asked: Parameters<typeof ask>[2] = {}) => ask(installation.fetch, `/api/v1${path}`, { apiKey, ...asked })

  it('takes true or false, once', async () => {
    const { root } = await plantTree(admin, tree)
    const path = `/tenants/${root.id}/config/k`
    const put = (query: string) => at(path + query, { method: 'PUT', json: { value: 1 } })
    for (const query of ['?dry_run', '?dry_run=', '?dry_run=1', '?dry_run=TRUE', '?dry_run=yes', '?dry_run=true&dry_run=true', '?dry_run=true&dry_run=false']) {
      expect(expectRefusal(await put(query), 'INVALID_REQUEST')['issues']).toEqual([{ path: 'dry_run', message: 'must be true or false' }])
    }
    expect((await put('?dry_run=true')).body).toMatchObject({ total: 4 })
    expect((await admin.resolveConfig({ id: root.id })).config).toEqual({})
    expect((await put('?dry_run=false')).body).toMatchObject({ key: 'k', value: 1 })
    expect((await at(`${path}?dry_run=true`, { method: 'DELETE' })).body).toMatchObject({ total: 4 })
    expect((await admin.resolveConfig({ id: root.id })).config['k']?.value).toBe(1)
  })

  it('is refused where there is none to be had, and nothing is done', async () => {
    const others = endpointList.filter(({ preview }) => !preview)
    const before = await contents(installation.owner)
    for (const { method, path } of others) {
      const named = path.replace(/:(id|policy_id)/g, '00000000-0000-4000-8000-000000000000').replace(/:\w+/g, 'x')
      const answer = await at(`${named}?dry_run=true`, { method, ...(method === 'GET' || method === 'DELETE' ? {} : { json: {} }) })
      expect([400, 422], `${method} ${path}`).toContain(answer.status)
    }
    expectRefusal(await at('/tenants?dry_run=true', { method: 'POST', json: { slug: 'never', name: 'Never' } }), 'INVALID_REQUEST')
    expect(await contents(installation.owner)).toEqual(before)
    await refusal(installation.stratum.dryRun('createTenant', { slug: 'never', name: 'Never' }), 'INVALID_REQUEST')
  })
})

describe('If-Match', () => {
  it('applies what was shown, quoted, weak or bare, and refuses another version', async () => {
    const { root } = await plantTree(admin, { root: null })
    const put = (value: number, match: string) =>
      ask(installation.fetch, `/api/v1/tenants/${root.id}/config/k`, { apiKey, method: 'PUT', json: { value }, headers: { 'if-match': match } })
    for (const [value, quoted] of [
      [1, (version: string) => `"${version}"`],
      [2, (version: string) => `W/"${version}"`],
      [3, (version: string) => version],
    ] as const) {
      const { version } = await admin.dryRun.setConfig({ id: root.id, key: 'k', value })
      expect((await put(value, quoted(version))).body).toMatchObject({ value })
      expectRefusal(await put(value + 1, quoted(version)), 'VERSION_MISMATCH')
      for (const match of ['', '*', '""', `"${version}", "other"`, `"${version}`, version.toUpperCase()])
        expectRefusal(await put(value + 1, match), 'VERSION_MISMATCH')
      expect((await admin.resolveConfig({ id: root.id })).config['k']?.value).toBe(value)
    }
  })

  it('refuses when something changed since, wherever the effect is another now, and nothing is written', async () => {
    const { root, mid, leaf, other } = await plantTree(admin, tree)
    await admin.setConfig({ id: other.id, key: 'k', value: 1 })
    const call: Call = { operation: 'moveTenant', input: { id: mid.id, new_parent_id: other.id } }
    const meanwhile = [
      () => admin.setConfig({ id: other.id, key: 'k', value: 2 }),
      () => admin.setConfig({ id: leaf.id, key: 'k', value: 3 }),
      () => admin.createTenant({ slug: uniqueSlug('late'), name: 'Late', parent_id: mid.id }),
      () => admin.createPermission({ id: other.id, key: 'p' }),
    ]
    for (const change of meanwhile) {
      const { version } = await dryRun(admin, call)
      await change()
      const before = await contents(installation.owner)
      await refusal(run(admin, call, version), 'VERSION_MISMATCH')
      expect(await contents(installation.owner)).toEqual(before)
    }
    const { version } = await dryRun(admin, call)
    // what is none of its effect is no reason
    await admin.setConfig({ id: root.id, key: 'unrelated', value: 1 })
    await run(admin, call, version)
    expect((await admin.getTenant({ id: mid.id })).parent_id).toBe(other.id)
  })

  it('holds for the embedded class as it does for the API', async () => {
    const { root } = await plantTree(admin, { root: null })
    const input = { id: root.id, key: 'k', value: 1 }
    const shown = await installation.stratum.dryRun('setConfig', input)
    expect(shown).toEqual(await admin.dryRun.setConfig(input))
    await refusal(installation.stratum.applyShown('setConfig', { ...input, value: 2 }, shown.version), 'VERSION_MISMATCH')
    expect(await installation.stratum.applyShown('setConfig', input, shown.version)).toMatchObject({ value: 1 })
    await refusal(installation.stratum.applyShown('createTenant', { slug: 'never', name: 'Never' }, shown.version), 'INVALID_REQUEST')
    await refusal(installation.stratum.dryRun('setConfig', { ...input, id: 'none' }), 'VALIDATION_FAILED')
  })

  it('reads quotes around a version that the SDK was given with its own base address', async () => {
    const { root } = await plantTree(admin, { root: null })
    const client = installation.client({ apiKey, baseUrl: `${BASE}/` })
    const { version } = await client.dryRun.suspendTenant({ id: root.id })
    expect((await client.suspendTenant({ id: root.id }, { ifMatch: version })).status).toBe('suspended')
  })
})
