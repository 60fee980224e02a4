/** A change, its audit entry, its event and its line in the change feed commit together, or not at all. */
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Tenant } from '../../src/features/tenants/contract.ts'
import type { StratumClient } from '../../src/sdk/client.ts'
import { BASE, createInstallation, type Installation } from '../support/installation.ts'
import { ownIssuer } from '../support/issuers.ts'
import { contents, recordedBy, SYSTEM_CHAIN } from '../support/record.ts'
import { plantLine, plantTree, refusal, uniqueSlug } from '../support/tree.ts'

let installation: Installation
let admin: StratumClient
beforeAll(async () => {
  installation = await createInstallation()
  admin = await installation.clientFor(null)
})
afterAll(() => installation.close())

const pathOf = async ({ id }: { id: string }): Promise<string> =>
  (await installation.owner.query<{ path: string }>('select path::text from stratum.tenants where id = $1', [id])).rows[0]?.path ?? ''

type Tree = Record<'root' | 'mid' | 'leaf' | 'off' | 'target', Tenant>
interface Expected {
  action: string
  chain: string
  resource: object
  before: unknown
  after: unknown
  feed: Array<[string, string]>
}
/** An operation, run on a tree; it answers what should have been recorded, given what there was before. */
type Case = (tree: Tree, paths: Record<keyof Tree, string>) => Promise<{ run: () => Promise<unknown>; expected: () => Promise<Expected> | Expected }>

/** How an entry lists the tenants that it changed, here one. */
const only = ({ id }: Tenant) => ({ count: 1, ids: [id] })

const status =
  (verb: 'suspendTenant' | 'resumeTenant' | 'archiveTenant' | 'deleteTenant', name: keyof Tree, action: string, from: string, to: string): Case =>
  async (tree, paths) => ({
    run: () => admin[verb]({ id: tree[name].id }),
    expected: () => ({
      ...{ action, chain: tree[name].id, resource: { type: 'tenant', id: tree[name].id } },
      ...{ before: { status: from }, after: { status: to, changed: only(tree[name]) }, feed: [['subtree', paths[name]]] },
    }),
  })

const config =
  (set: object, before: unknown, after: unknown, prepare?: object): Case =>
  async ({ mid }, paths) => {
    const entry = { id: mid.id, key: 'k', value: 1 }
    if (prepare) await admin.setConfig({ ...entry, ...prepare })
    return {
      run: () => (after === null ? admin.deleteConfig({ id: mid.id, key: 'k' }) : admin.setConfig({ ...entry, ...set })),
      expected: () => ({
        ...{ action: after === null ? 'config.deleted' : 'config.set', chain: mid.id, resource: { type: 'config', id: mid.id, key: 'k' } },
        ...{ before, after, feed: [['subtree', paths.mid]] },
      }),
    }
  }
const entry = { key: 'k', value: 1, locked: false, sensitive: false }
const redacted = { key: 'k', value: '[redacted]', locked: false, sensitive: true }

/** A claim whose record is published. */
const claim = async ({ id }: Tenant) => {
  const made = await admin.createDomain({ id, domain: `${uniqueSlug('shop').replaceAll('_', '-')}.customer.example` })
  installation.zone.publish(made)
  return made.domain
}
/** A claim as it is stored: without the record, which is computed. */
const stored = async ({ id }: Tenant, domain: string) => {
  const { txt_name: _, txt_value: _value, ...claimed } = (await admin.listDomains({ id })).data.find((each) => each.domain === domain) ?? {}
  return claimed
}

const plantJob = async (task: string, tenantId: string): Promise<string> =>
  (await installation.owner.query<{ id: string }>(`select stratum.enqueue($1, $2, '{}') as id`, [task, tenantId])).rows[0]?.id ?? ''

const cases: Record<string, Case> = {
  'creating a tenant': async ({ mid }) => {
    const slug = uniqueSlug('made')
    const run = () => admin.createTenant({ slug, name: 'Made', parent_id: mid.id, metadata: { a: 1 } })
    return {
      run,
      expected: async () => {
        const made = await admin.getTenantBySlug({ slug })
        return { action: 'tenant.created', chain: made.id, resource: { type: 'tenant', id: made.id }, before: null, after: made, feed: [['host', slug]] }
      },
    }
  },
  'renaming a tenant': async ({ mid }, paths) => {
    const slug = uniqueSlug('renamed')
    return {
      run: () => admin.updateTenant({ id: mid.id, slug }),
      expected: async () => ({
        ...{ action: 'tenant.updated', chain: mid.id, resource: { type: 'tenant', id: mid.id }, before: mid, after: await admin.getTenant({ id: mid.id }) },
        feed: [
          ['subtree', paths.mid],
          ['host', mid.slug],
          ['host', slug],
        ],
      }),
    }
  },
  'asking for a change of isolation': async ({ mid }) => ({
    run: () => admin.migrateIsolation({ id: mid.id, isolation_strategy: 'SCHEMA_PER_TENANT' }),
    expected: async () => {
      const [change] = (await admin.listIsolationChanges({ id: mid.id })).data
      const [before, after] = [
        { isolation_strategy: 'SHARED_RLS', isolation_name: null },
        { isolation_strategy: 'SCHEMA_PER_TENANT', isolation_name: change?.to_name, job_id: change?.job_id },
      ]
      return { action: 'tenant.isolation_change_requested', chain: mid.id, resource: { type: 'tenant', id: mid.id }, before, after, feed: [] }
    },
  }),
  'describing a tenant': async ({ mid }, paths) => ({
    run: () => admin.updateTenant({ id: mid.id, metadata: { b: 2 } }),
    expected: async () => ({
      ...{ action: 'tenant.updated', chain: mid.id, resource: { type: 'tenant', id: mid.id }, before: mid, after: await admin.getTenant({ id: mid.id }) },
      feed: [['subtree', paths.mid]],
    }),
  }),
  'moving a tenant': async ({ mid, leaf, off, root, target }, paths) => ({
    run: () => admin.moveTenant({ id: mid.id, new_parent_id: target.id }),
    expected: async () => ({
      ...{
        action: 'tenant.moved',
        chain: mid.id,
        resource: { type: 'tenant', id: mid.id },
        before: { parent_id: root.id },
        after: { parent_id: target.id, moved: { count: 3, ids: [mid.id, leaf.id, off.id] } },
      },
      feed: [
        ['subtree', paths.mid],
        ['subtree', await pathOf(mid)],
      ],
    }),
  }),
  'suspending a tenant': status('suspendTenant', 'leaf', 'tenant.suspended', 'active', 'suspended'),
  'resuming a tenant': status('resumeTenant', 'off', 'tenant.resumed', 'suspended', 'active'),
  'archiving a tenant': status('archiveTenant', 'off', 'tenant.archived', 'suspended', 'archived'),
  'deleting a tenant': status('deleteTenant', 'leaf', 'tenant.archived', 'active', 'archived'),
  'purging tenants': async ({ mid, leaf, off }, paths) => ({
    run: () => admin.purgeTenant({ id: mid.id, subtree: true }),
    expected: () => ({
      ...{ action: 'tenant.purged', chain: SYSTEM_CHAIN, resource: { type: 'tenant', id: mid.id }, before: null },
      after: { purged: { count: 3, ids: [mid.id, leaf.id, off.id] }, erased: expect.objectContaining({ tenants: 3 }) },
      feed: [['subtree', paths.mid], ...[mid, leaf, off].map(({ slug }): [string, string] => ['host', slug])].toSorted() as Array<[string, string]>,
    }),
  }),
  'setting config': config({}, null, entry),
  'overwriting config with a secret': config({ sensitive: true }, entry, redacted, {}),
  'deleting a secret': config({}, redacted, null, { sensitive: true }),
  'creating a permission': async ({ mid }, paths) => ({
    run: () => admin.createPermission({ id: mid.id, key: 'p', value: { max: 1 } }),
    expected: async () => {
      const id = (await admin.resolvePermissions({ id: mid.id })).permissions['p']?.policy_id
      const after = expect.objectContaining({ id, tenant_id: mid.id, key: 'p', value: { max: 1 }, mode: 'INHERITED', revocation_mode: 'CASCADE' })
      const resource = { type: 'permission', id, tenant_id: mid.id, key: 'p' }
      return { action: 'permission.created', chain: mid.id, resource, before: null, after, feed: [['subtree', paths.mid]] }
    },
  }),
  'updating a permission': async ({ mid }, paths) => {
    const before = await admin.createPermission({ id: mid.id, key: 'p' })
    const resource = { type: 'permission', id: before.id, tenant_id: mid.id, key: 'p' }
    const after = { ...before, value: false, updated_at: expect.any(String) }
    return {
      run: () => admin.updatePermission({ id: mid.id, policy_id: before.id, value: false }),
      expected: () => ({ action: 'permission.updated', chain: mid.id, resource, before, after, feed: [['subtree', paths.mid]] }),
    }
  },
  ...Object.fromEntries(
    (['CASCADE', 'SOFT'] as const).map((revocation_mode): [string, Case] => [
      `deleting a ${revocation_mode} permission`,
      async ({ mid, leaf, off }, paths) => {
        const before = await admin.createPermission({ id: mid.id, key: 'p', mode: 'DELEGATED', revocation_mode })
        const [cascade, below] = [revocation_mode === 'CASCADE', await admin.createPermission({ id: leaf.id, key: 'p' })]
        return {
          run: () => admin.deletePermission({ id: mid.id, policy_id: before.id }),
          expected: async () => {
            const copied = (await admin.resolvePermissions({ id: off.id })).permissions['p']?.policy_id
            const list = (...ids: unknown[]) => ({ count: ids.length, ids })
            const after = cascade ? { revoked_policies: list(below.id), copied_policies: list() } : { revoked_policies: list(), copied_policies: list(copied) }
            const resource = { type: 'permission', id: before.id, tenant_id: mid.id, key: 'p' }
            return { action: 'permission.deleted', chain: mid.id, resource, before, after, feed: [['subtree', paths.mid]] }
          },
        }
      },
    ]),
  ),
  'claiming a domain': async ({ mid }) => {
    const domain = `${uniqueSlug('shop').replaceAll('_', '-')}.customer.example`
    const resource = { type: 'domain', tenant_id: mid.id, domain }
    return {
      run: () => admin.createDomain({ id: mid.id, domain }),
      expected: async () => ({ action: 'domain.created', chain: mid.id, resource, before: null, after: await stored(mid, domain), feed: [] }),
    }
  },
  'verifying a domain': async ({ mid }) => {
    const domain = await claim(mid)
    const [resource, before] = [{ type: 'domain', tenant_id: mid.id, domain }, await stored(mid, domain)]
    return {
      run: () => admin.verifyDomain({ id: mid.id, domain }),
      expected: async () => ({ action: 'domain.verified', chain: mid.id, resource, before, after: await stored(mid, domain), feed: [['host', domain]] }),
    }
  },
  ...Object.fromEntries(
    [true, false].map((verified): [string, Case] => [
      `giving up a ${verified ? 'verified' : 'claimed'} domain`,
      async ({ mid }) => {
        const domain = await claim(mid)
        if (verified) await admin.verifyDomain({ id: mid.id, domain })
        const [resource, before] = [{ type: 'domain', tenant_id: mid.id, domain }, await stored(mid, domain)]
        return {
          run: () => admin.deleteDomain({ id: mid.id, domain }),
          expected: () => ({ action: 'domain.deleted', chain: mid.id, resource, before, after: null, feed: verified ? [['host', domain]] : [] }),
        }
      },
    ]),
  ),
  ...Object.fromEntries(
    [true, false].map((bound): [string, Case] => [
      `creating a ${bound ? 'bound' : 'global'} API key`,
      async ({ mid }) => {
        const tenant = bound ? { tenant_id: mid.id } : {}
        return {
          run: () => admin.createApiKey({ ...tenant, name: 'recorded', scopes: ['read'] }),
          expected: async () => {
            const [after] = (await admin.listApiKeys({ limit: 1 })).data
            const [chain, id] = [bound ? mid.id : SYSTEM_CHAIN, after?.id ?? '']
            return { action: 'api_key.created', chain, resource: { type: 'api_key', id }, before: null, after, feed: [['principal', id]] }
          },
        }
      },
    ]),
  ),
  ...Object.fromEntries(
    [true, false].map((bound): [string, Case] => [
      `storing ${bound ? 'a bound' : 'an unbound'} issuer`,
      async ({ mid }) => {
        const own = ownIssuer()
        return {
          run: () => admin.createIssuer(own.fields({ tenant_id: bound ? mid.id : null })),
          expected: async () => {
            const [after] = (await admin.listIssuers({ limit: 1 })).data
            const [chain, resource] = [bound ? mid.id : SYSTEM_CHAIN, { type: 'issuer', id: after?.id }]
            return { action: 'issuer.created', chain, resource, before: null, after, feed: [['issuer', own.name]] }
          },
        }
      },
    ]),
  ),
  'deleting an issuer': async ({ mid }) => {
    const own = ownIssuer()
    const before = await admin.createIssuer(own.fields({ tenant_id: mid.id }))
    const resource = { type: 'issuer', id: before.id }
    return {
      run: () => admin.deleteIssuer({ id: before.id }),
      expected: () => ({ action: 'issuer.deleted', chain: mid.id, resource, before, after: null, feed: [['issuer', own.name]] }),
    }
  },
  'mapping an external id': async ({ mid }) => {
    const mapping = { issuer: ownIssuer().name, external_id: 'org_1' }
    return {
      run: () => admin.setExternalId({ id: mid.id, ...mapping }),
      expected: async () => {
        const [after] = (await admin.listExternalIds({ id: mid.id })).data
        const resource = { type: 'external_id', id: mid.id, ...mapping }
        return { action: 'external_id.set', chain: mid.id, resource, before: null, after, feed: [['issuer', mapping.issuer]] }
      },
    }
  },
  'deleting an external id': async ({ mid }) => {
    const mapping = { issuer: ownIssuer().name, external_id: 'org_1' }
    const before = await admin.setExternalId({ id: mid.id, ...mapping })
    const resource = { type: 'external_id', id: mid.id, ...mapping }
    return {
      run: () => admin.deleteExternalId({ id: mid.id, ...mapping }),
      expected: () => ({ action: 'external_id.deleted', chain: mid.id, resource, before, after: null, feed: [['issuer', mapping.issuer]] }),
    }
  },
  'revoking an API key': async ({ mid }) => {
    const { key: _, ...before } = await admin.createApiKey({ tenant_id: mid.id })
    const resource = { type: 'api_key', id: before.id }
    const after = { ...before, revoked_at: expect.any(String) }
    return {
      run: () => admin.revokeApiKey({ id: before.id }),
      expected: () => ({ action: 'api_key.revoked', chain: mid.id, resource, before, after, feed: [['principal', before.id]] }),
    }
  },
  'retrying a job': async ({ mid }) => {
    const id = await plantJob('sync_route', mid.id)
    await installation.owner.query(`update stratum.jobs set status = 'failed', attempts = 30 where id = $1`, [id])
    const before = await admin.getJob({ id })
    const after = { ...before, status: 'queued', attempts: 0 }
    return {
      run: () => admin.retryJob({ id }),
      expected: () => ({ action: 'job.retried', chain: mid.id, resource: { type: 'job', id }, before, after, feed: [] }),
    }
  },
  'cancelling a job': async ({ mid }) => {
    const id = await plantJob('change_isolation', mid.id)
    await installation.owner.query(
      `insert into stratum.isolation_changes (id, tenant_id, job_id, from_strategy, to_strategy) values (gen_random_uuid(), $1, $2, 'SHARED_RLS', 'SCHEMA_PER_TENANT')`,
      [mid.id, id],
    )
    const before = await admin.getJob({ id })
    return {
      run: () => admin.cancelJob({ id }),
      expected: () => ({ action: 'job.cancelled', chain: mid.id, resource: { type: 'job', id }, before, after: before, feed: [] }),
    }
  },
}

const plant = async () => {
  const tree = await plantTree(admin, { root: null, mid: 'root', leaf: 'mid', off: 'mid', target: null })
  await admin.suspendTenant({ id: tree.off.id })
  return tree
}

describe('each operation that changes something writes one audit entry, one event and its feed rows, in one transaction', () => {
  it.each(Object.entries(cases))('%s', async (_, prepare) => {
    const tree = await plant()
    const paths = { root: '', mid: await pathOf(tree.mid), leaf: await pathOf(tree.leaf), off: await pathOf(tree.off), target: '' }
    const { run, expected } = await prepare(tree, paths)
    const recorded = await recordedBy(installation.owner, run)

    const { action, chain, resource, before, after, feed } = await expected()
    expect(recorded.audit).toEqual([{ chain, payload: expect.objectContaining({ action, resource, before, after }) }])
    const tenant_id = chain === SYSTEM_CHAIN ? null : chain
    const request_id = recorded.audit[0]?.payload['request_id']
    expect(recorded.outbox).toEqual([{ tenant_id, type: action, payload: { resource, before, after, request_id } }])
    expect(recorded.feed.toSorted()).toEqual(feed.toSorted())
    expect(recorded.transactions.size).toBe(1)
  })

  it('but revealing secrets is no change: an audit entry only', async () => {
    const { mid } = await plant()
    await admin.setConfig({ id: mid.id, key: 'k', value: 1, sensitive: true })

    const recorded = await recordedBy(installation.owner, () => admin.resolveConfig({ id: mid.id, reveal: true }))
    expect(recorded).toMatchObject({ audit: [{ chain: mid.id, payload: { action: 'config.revealed' } }], outbox: [], feed: [] })
  })
})

describe('the payload says who asked, from where and for whom', () => {
  const payloadOf = async (operation: () => Promise<unknown>) => (await recordedBy(installation.owner, operation)).audit[0]?.payload

  it('with an API key', async () => {
    const { root, mid } = await plant()
    const { key, id } = await admin.createApiKey({ tenant_id: root.id, scopes: ['write'] })
    const client = installation.client({ apiKey: key, headers: { 'x-request-id': 'req-42', 'cf-connecting-ip': '2001:db8::1' } })
    const started = Date.now()

    const payload = await payloadOf(() => client.setConfig({ id: mid.id, key: 'k', value: 1 }))
    const actor = { type: 'api_key', id, tenant_id: root.id, scopes: ['write'], acting_as: null, issuer: null }
    expect(payload).toMatchObject({ actor, request_id: 'req-42', source_ip: '2001:db8::1' })
    expect(Date.parse(String(payload?.['at']))).toBeGreaterThanOrEqual(started - 1)
  })

  it('with a token, acting on the host of a descendant', async () => {
    const { root, mid, leaf } = await plant()
    const token = await installation.token({ tenant: root.slug, scope: 'write' }, { subject: 'ada' })
    const client = installation.client({ token, baseUrl: BASE.replace('://', `://${mid.subdomain}.`) })

    const payload = await payloadOf(() => client.setConfig({ id: leaf.id, key: 'k', value: 1 }))
    expect(payload).toMatchObject({
      actor: { type: 'token', id: 'ada', tenant_id: root.id, acting_as: mid.id, issuer: 'https://issuer.test' },
      source_ip: null,
    })
    expect(payload?.['request_id']).toMatch(/^[0-9a-f-]{36}$/)
  })

  it('from the embedded class, as its caller states it', async () => {
    const { mid } = await plant()
    const audit = { actor_id: 'cron', actor_type: 'job', request_id: 'run-1', source_ip: '192.0.2.1' }

    const payload = await payloadOf(() => installation.stratum.setConfig(mid.id, 'k', { value: 1 }, audit))
    expect(payload).toMatchObject({ actor: { type: 'job', id: 'cron', tenant_id: null }, request_id: 'run-1', source_ip: '192.0.2.1' })
  })
})

describe('what fails or only reads', () => {
  it('writes nothing anywhere', async () => {
    const { root, mid, leaf, off, target } = await plant()
    const id = mid.id
    const deep = (await plantLine(admin, 20)).at(-1)?.id ?? ''
    await admin.setConfig({ id: root.id, key: 'locked', value: 1, locked: true })
    const locked = await admin.createPermission({ id: root.id, key: 'locked', mode: 'LOCKED', revocation_mode: 'PERMANENT' })
    const revoked = await admin.createApiKey({ tenant_id: id })
    await admin.revokeApiKey({ id: revoked.id })
    const own = ownIssuer()
    await admin.createIssuer(own.fields())
    const mapping = { issuer: own.name, external_id: 'org_1' }
    await admin.setExternalId({ id, ...mapping })
    const claimed = await claim(mid)
    await admin.createDomain({ id, domain: 'unproven.example' })
    await admin.verifyDomain({ id, domain: claimed })
    installation.zone.publish(await admin.createDomain({ id: leaf.id, domain: claimed }))
    const [unknown, reader, bound] = [randomUUID(), await installation.clientFor(null, ['read']), await installation.clientFor(leaf.id)]
    const refused = [
      [() => admin.createTenant({ slug: mid.slug, name: 'X' }), 'TENANT_SLUG_TAKEN'],
      [() => admin.createTenant({ slug: uniqueSlug(), name: 'X', parent_id: deep }), 'TENANT_DEPTH_EXCEEDED'],
      [() => admin.createTenant({ slug: uniqueSlug(), name: 'X', parent_id: off.id }), 'TENANT_INVALID_STATE'],
      [() => reader.createTenant({ slug: uniqueSlug(), name: 'X', parent_id: id }), 'SCOPE_REQUIRED'],
      [() => bound.createTenant({ slug: uniqueSlug(), name: 'X', parent_id: id }), 'TENANT_NOT_FOUND'],
      [() => admin.updateTenant({ id, slug: root.slug }), 'TENANT_SLUG_TAKEN'],
      [() => admin.updateTenant({ id: off.id, name: 'X' }), 'TENANT_INVALID_STATE'],
      [() => admin.moveTenant({ id, new_parent_id: leaf.id }), 'TENANT_CYCLE_DETECTED'],
      [() => admin.moveTenant({ id, new_parent_id: deep }), 'TENANT_DEPTH_EXCEEDED'],
      [() => admin.moveTenant({ id: target.id, new_parent_id: off.id }), 'TENANT_INVALID_STATE'],
      [() => bound.reorderTenant({ id, position: 0 }), 'TENANT_NOT_FOUND'],
      [() => admin.suspendTenant({ id: off.id, cascade: true }), 'TENANT_INVALID_STATE'],
      [() => admin.suspendTenant({ id }), 'TENANT_HAS_CHILDREN'],
      [() => admin.archiveTenant({ id }), 'TENANT_HAS_CHILDREN'],
      [() => admin.resumeTenant({ id }), 'TENANT_INVALID_STATE'],
      [() => admin.setConfig({ id, key: 'locked', value: 1 }), 'CONFIG_LOCKED'],
      [() => admin.setConfig({ id, key: 'locked', value: 1, sensitive: true }), 'CONFIG_LOCKED'],
      [() => admin.setConfig({ id, key: 'k', value: '\u0000' }), 'VALIDATION_FAILED'],
      [() => admin.deleteConfig({ id, key: 'locked' }), 'CONFIG_NOT_FOUND'],
      [() => admin.createPermission({ id, key: 'locked' }), 'PERMISSION_LOCKED'],
      [() => admin.updatePermission({ id, policy_id: unknown, value: 1 }), 'PERMISSION_NOT_FOUND'],
      [() => admin.updatePermission({ id: root.id, policy_id: locked.id, value: 1 }), 'PERMISSION_REVOCATION_DENIED'],
      [() => admin.deletePermission({ id: root.id, policy_id: locked.id }), 'PERMISSION_REVOCATION_DENIED'],
      [() => admin.createDomain({ id, domain: 'co.uk' }), 'DOMAIN_NOT_ALLOWED'],
      [() => admin.createDomain({ id, domain: claimed }), 'DOMAIN_EXISTS'],
      [() => admin.createDomain({ id: off.id, domain: claimed }), 'TENANT_INVALID_STATE'],
      [() => admin.verifyDomain({ id, domain: 'unproven.example' }), 'DOMAIN_NOT_VERIFIED'],
      [() => admin.verifyDomain({ id: leaf.id, domain: claimed }), 'DOMAIN_TAKEN'],
      [() => admin.deleteDomain({ id: root.id, domain: claimed }), 'DOMAIN_NOT_FOUND'],
      [() => admin.migrateIsolation({ id, isolation_strategy: 'SHARED_RLS' }), 'ISOLATION_UNCHANGED'],
      [() => admin.migrateIsolation({ id: off.id, isolation_strategy: 'SCHEMA_PER_TENANT' }), 'TENANT_INVALID_STATE'],
      [() => admin.createApiKey({ tenant_id: off.id }), 'TENANT_INVALID_STATE'],
      [() => admin.revokeApiKey({ id: unknown }), 'API_KEY_NOT_FOUND'],
      [() => admin.createIssuer(own.fields()), 'ISSUER_EXISTS'],
      [() => bound.createIssuer(own.fields({ audience: 'other', global: true })), 'GLOBAL_ADMIN_REQUIRED'],
      [() => admin.deleteIssuer({ id: unknown }), 'ISSUER_NOT_FOUND'],
      [() => bound.setExternalId({ id: leaf.id, ...mapping }), 'GLOBAL_ADMIN_REQUIRED'],
      [() => admin.setExternalId({ id: leaf.id, ...mapping }), 'EXTERNAL_ID_TAKEN'],
      [() => admin.deleteExternalId({ id: leaf.id, ...mapping }), 'EXTERNAL_ID_NOT_FOUND'],
      [() => reader.resolveConfig({ id: root.id, reveal: true }), 'SCOPE_REQUIRED'],
    ] as const
    const before = await contents(installation.owner)

    for (const [operation, code] of refused) await refusal(operation(), code)
    await admin.moveTenant({ id, new_parent_id: root.id })
    await admin.revokeApiKey({ id: revoked.id })
    await Promise.all([admin.verifyDomain({ id, domain: claimed }), admin.listDomains({ id })])
    await Promise.all([admin.setExternalId({ id, ...mapping }), admin.listExternalIds({ id }), admin.listIssuers()])
    await Promise.all([admin.listTenants(), admin.getTenant({ id }), admin.getAncestors({ id }), admin.getRoot({ id }), admin.getChildren({ id })])
    await Promise.all([admin.getDescendants({ id }), admin.resolveConfig({ id }), admin.getConfigInheritance({ id }), admin.resolvePermissions({ id })])
    await Promise.all([bound.getContext(), admin.getTenantContext({ id }), admin.listApiKeys(), admin.getApiKey({ id: revoked.id }), admin.getHealth()])
    expect(await contents(installation.owner)).toEqual(before)
  })
})
