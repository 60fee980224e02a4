import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Tenant } from '../../src/features/tenants/contract.ts'
import type { StratumClient } from '../../src/sdk/client.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { plantTree, refusal, uniqueSlug } from '../support/tree.ts'

let installation: Installation
let admin: StratumClient
beforeAll(async () => {
  installation = await createInstallation()
  admin = await installation.clientFor(null)
})
afterAll(() => installation.close())

type Status = Tenant['status']
const bring = async (id: string, status: Status) => {
  if (status === 'suspended') await admin.suspendTenant({ id })
  if (status === 'archived') await admin.archiveTenant({ id })
}

describe('transitions', () => {
  const verbs = { suspend: 'suspendTenant', resume: 'resumeTenant', archive: 'archiveTenant', delete: 'deleteTenant' } as const
  const table: Array<[Status, keyof typeof verbs, Status | 'refused']> = [
    ['active', 'suspend', 'suspended'],
    ['active', 'archive', 'archived'],
    ['active', 'delete', 'archived'],
    ['active', 'resume', 'refused'],
    ['suspended', 'suspend', 'refused'],
    ['suspended', 'archive', 'archived'],
    ['suspended', 'delete', 'archived'],
    ['suspended', 'resume', 'active'],
    ['archived', 'suspend', 'refused'],
    ['archived', 'archive', 'refused'],
    ['archived', 'delete', 'refused'],
    ['archived', 'resume', 'active'],
  ]

  it.each(table)('%s, %s: %s', async (from, verb, to) => {
    const { parent, child } = await plantTree(admin, { parent: null, child: 'parent' })
    for (const { id } of [child, parent]) {
      await bring(id, from)
      const before = await admin.getTenant({ id })
      if (to === 'refused') {
        const error = await refusal(admin[verbs[verb]]({ id }), 'TENANT_INVALID_STATE')
        expect(error.details).toMatchObject({ tenant_id: id, status: from })
        expect(await admin.getTenant({ id })).toEqual(before)
      } else {
        const after = await admin[verbs[verb]]({ id })
        const deleted_at = to === 'archived' ? after.updated_at : null
        expect(after).toEqual({ ...before, status: to, updated_at: after.updated_at, deleted_at })
        expect(await admin.getTenant({ id })).toEqual(after)
        // the parent may only leave its state once the child has
        if (to === 'active') await bring(id, 'suspended')
      }
    }
  })

  it('need reach of the parent: a bound principal cannot change its own tenant, but those below it', async () => {
    const { root, mine, child } = await plantTree(admin, { root: null, mine: 'root', child: 'mine' })
    const bound = await installation.clientFor(mine.id)

    for (const change of [bound.suspendTenant, bound.archiveTenant, bound.deleteTenant, bound.resumeTenant]) {
      await refusal(change({ id: mine.id }), 'TENANT_NOT_FOUND')
      await refusal(change({ id: root.id }), 'TENANT_NOT_FOUND')
    }
    expect((await bound.suspendTenant({ id: child.id })).status).toBe('suspended')
    expect((await bound.resumeTenant({ id: child.id })).status).toBe('active')
  })

  it('of a root need a global admin', async () => {
    const { root } = await plantTree(admin, { root: null })
    const writer = await installation.clientFor(null, ['write'])

    await refusal(writer.suspendTenant({ id: root.id }), 'GLOBAL_ADMIN_REQUIRED')
    await refusal((await installation.clientFor(root.id)).suspendTenant({ id: root.id }), 'TENANT_NOT_FOUND')
    expect((await admin.suspendTenant({ id: root.id })).status).toBe('suspended')
  })
})

describe('the parent of an active tenant is always active', () => {
  it('so a tenant with active children is neither suspended nor archived', async () => {
    const { parent, child } = await plantTree(admin, { parent: null, child: 'parent' })

    for (const change of [admin.suspendTenant, admin.archiveTenant, admin.deleteTenant]) await refusal(change({ id: parent.id }), 'TENANT_HAS_CHILDREN')
    expect((await admin.getTenant({ id: parent.id })).status).toBe('active')
    await admin.suspendTenant({ id: child.id })
    expect((await admin.suspendTenant({ id: parent.id })).status).toBe('suspended')
    expect((await admin.archiveTenant({ id: parent.id })).status).toBe('archived')
  })

  it.each(['suspended', 'archived'] as const)('so nothing is resumed, created or moved active under a %s one', async (status) => {
    const { parent, off, gone, elsewhere } = await plantTree(admin, { parent: null, off: 'parent', gone: 'parent', elsewhere: null })
    await admin.suspendTenant({ id: off.id })
    await admin.archiveTenant({ id: gone.id })
    await bring(parent.id, status)

    const refusals = [
      await refusal(admin.resumeTenant({ id: off.id }), 'TENANT_INVALID_STATE'),
      await refusal(admin.resumeTenant({ id: gone.id }), 'TENANT_INVALID_STATE'),
      await refusal(admin.createTenant({ slug: uniqueSlug(), name: 'X', parent_id: parent.id }), 'TENANT_INVALID_STATE'),
      await refusal(admin.moveTenant({ id: elsewhere.id, new_parent_id: parent.id }), 'TENANT_INVALID_STATE'),
    ]
    for (const { details } of refusals) expect(details).toMatchObject({ tenant_id: parent.id, status, required: 'an active parent' })
    await admin.resumeTenant({ id: parent.id })
    expect((await admin.resumeTenant({ id: off.id })).status).toBe('active')
    expect((await admin.resumeTenant({ id: gone.id })).status).toBe('active')
  })

  it('but one that is not active moves under any', async () => {
    const { off, target } = await plantTree(admin, { off: null, target: null })
    await admin.suspendTenant({ id: off.id })
    await admin.archiveTenant({ id: target.id })

    expect(await admin.moveTenant({ id: off.id, new_parent_id: target.id })).toMatchObject({ parent_id: target.id, status: 'suspended' })
    await refusal(admin.resumeTenant({ id: off.id }), 'TENANT_INVALID_STATE')
  })
})

describe('a tenant that is not active', () => {
  const cases = [
    ['suspended', 'TENANT_SUSPENDED'],
    ['archived', 'TENANT_ARCHIVED'],
  ] as const

  it.each(cases)('when %s answers its own keys and tokens, and those of tenants below, with %s', async (status, code) => {
    const { parent, mine, child } = await plantTree(admin, { parent: null, mine: 'parent', child: 'mine' })
    const byToken = async (tenant: string) => installation.client({ token: await installation.token({ tenant, scope: 'admin' }) })
    const key = await installation.apiKey(mine.id)
    const clients = [
      installation.client({ apiKey: key }),
      await byToken(mine.id),
      await byToken(mine.slug),
      await installation.clientFor(child.id),
      await byToken(child.slug),
    ]
    for (const client of clients) expect((await client.getContext()).tenant.status).toBe('active')
    await bring(child.id, status)
    await bring(mine.id, status)

    for (const client of clients) {
      await refusal(client.getContext(), code)
      await refusal(client.getTenant({ id: mine.id }), code)
      await refusal(client.listTenants(), code)
      await refusal(client.setConfig({ id: child.id, key: 'k', value: 1 }), code)
    }
    await refusal(installation.stratum.validateApiKey(key), code)
    // an ancestor's principal is as free as before
    const above = await installation.clientFor(parent.id)
    expect((await above.getTenant({ id: mine.id })).status).toBe(status)
    expect((await above.getTenantContext({ id: child.id })).tenant.status).toBe(status)
    expect((await above.resolveConfig({ id: mine.id })).config).toEqual({})
    await above.resumeTenant({ id: mine.id })
    await above.resumeTenant({ id: child.id })
    for (const client of clients) expect((await client.getContext()).tenant.status).toBe('active')
  })

  it.each(cases)('when %s does not resolve: %s, and only to who reaches it', async (status, code) => {
    const { parent, mine, other } = await plantTree(admin, { parent: null, mine: 'parent', other: null })
    await bring(mine.id, status)
    const named = { 'x-tenant-id': mine.slug }
    const onHost = { baseUrl: `http://${mine.subdomain}.stratum.test` }

    for (const options of [{ headers: named }, onHost, { baseUrl: `http://stratum.test/t/${mine.slug}` }]) {
      await refusal((await installation.clientFor(parent.id, ['read'], options)).getContext(), code)
      await refusal((await installation.clientFor(null, ['read'], options)).getContext(), code)
      await refusal((await installation.clientFor(other.id, ['read'], options)).getContext(), 'TENANT_NOT_FOUND')
    }
    const server = await installation.clientFor(parent.id, ['read'])
    await refusal(server.resolve({ host: `${mine.subdomain}.stratum.test` }), code)
    await refusal((await installation.clientFor(other.id, ['read'])).resolve({ host: `${mine.subdomain}.stratum.test` }), 'TENANT_NOT_FOUND')
  })

  it.each(cases)('when %s refuses every write to it with 409', async (status) => {
    const { tenant } = await plantTree(admin, { tenant: null })
    const id = tenant.id
    await admin.setConfig({ id, key: 'kept', value: 1 })
    const policy = await admin.createPermission({ id, key: 'kept' })
    await bring(id, status)

    const writes = [
      () => admin.updateTenant({ id, name: 'X' }),
      () => admin.setConfig({ id, key: 'k', value: 1 }),
      () => admin.setConfig({ id, key: 'k', value: 1, sensitive: true }),
      () => admin.deleteConfig({ id, key: 'kept' }),
      () => admin.createPermission({ id, key: 'p' }),
      () => admin.updatePermission({ id, policy_id: policy.id, value: false }),
      () => admin.deletePermission({ id, policy_id: policy.id }),
      () => admin.createApiKey({ tenant_id: id }),
    ]
    for (const write of writes) expect((await refusal(write(), 'TENANT_INVALID_STATE')).details).toMatchObject({ tenant_id: id, status })
    expect((await admin.resolveConfig({ id })).config).toMatchObject({ kept: { value: 1 } })
    expect((await admin.resolvePermissions({ id })).permissions).toMatchObject({ kept: { policy_id: policy.id, value: true } })
  })
})
