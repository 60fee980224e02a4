/** A verified domain names its tenant wherever a host does; a claim alone names nobody. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { TenantContext } from '../../src/features/context/contract.ts'
import type { Tenant } from '../../src/features/tenants/contract.ts'
import type { StratumClient } from '../../src/sdk/client.ts'
import { ask, errorOf, expectRefusal } from '../support/answers.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { plantTree, refusal } from '../support/tree.ts'
import { untilWaiting, whileOpen } from '../support/waiting.ts'

let installation: Installation
let admin: StratumClient
let t: Record<'acme' | 'north' | 'apex', Tenant>
let acmeKey: string
beforeAll(async () => {
  installation = await createInstallation()
  admin = await installation.clientFor(null)
  t = await plantTree(admin, { acme: null, north: 'acme', apex: null })
  acmeKey = await installation.apiKey(t.acme.id, ['read'])
})
afterAll(() => installation.close())

let made = 0
const freshDomain = () => `shop-${++made}.customer.example`
const at = (host: string, apiKey = acmeKey) => ask(installation.fetch, '/api/v1/context', { apiKey, headers: { host } })
async function claimed(tenant: Tenant, domain = freshDomain()): Promise<string> {
  installation.zone.publish(await admin.createDomain({ id: tenant.id, domain }))
  return domain
}
async function verified(tenant: Tenant, domain?: string): Promise<string> {
  const { id } = tenant
  return (await admin.verifyDomain({ id, domain: await claimed(tenant, domain) })).domain
}

describe('a verified domain', () => {
  it('names its tenant, by the Host header and to POST /resolve', async () => {
    const domain = await verified(t.north)
    const answer = await at(domain)
    expect(answer.status, answer.text.slice(0, 200)).toBe(200)
    expect(answer.body as TenantContext).toMatchObject({ tenant_id: t.north.id, acting_as: t.north.id, principal: { tenant_id: t.acme.id } })
    for (const host of [domain, `${domain.toUpperCase()}.`, `${domain}:8443`]) expect((await admin.resolve({ host })).tenant_id).toBe(t.north.id)
    const token = await installation.token({ tenant: t.acme.slug, scope: 'read' })
    expect((await admin.resolve({ host: domain, token })).acting_as).toBe(t.north.id)
  })
  it('is its name in other scripts and in punycode', async () => {
    const domain = await verified(t.north, 'bücher.example')
    expect(domain).toBe('xn--bcher-kva.example')
    for (const host of ['bücher.example', 'BÜCHER.example', 'XN--BCHER-KVA.example']) expect((await admin.resolve({ host })).tenant_id).toBe(t.north.id)
  })
  it('agrees with what else names the tenant, or not', async () => {
    const domain = await verified(t.north)
    const headers = (tenant: Tenant) => ({ host: domain, 'x-tenant-id': tenant.id })
    const asked = (tenant: Tenant) => ask(installation.fetch, '/api/v1/context', { apiKey: acmeKey, headers: headers(tenant) })
    expect((await asked(t.north)).status).toBe(200)
    expectRefusal(await asked(t.acme), 'TENANT_MISMATCH')
    await refusal(admin.resolve({ host: domain, path: `/t/${t.apex.slug}` }), 'TENANT_MISMATCH')
  })
  it('of a tenant beyond reach is answered as a domain of nobody', async () => {
    const [theirs, nobodys] = [await at(await verified(t.apex)), await at('nobody.example')]
    const withoutId = ({ request_id: _, ...error }: ReturnType<typeof errorOf>) => error
    expectRefusal(theirs, 'TENANT_NOT_FOUND')
    expect(withoutId(errorOf(theirs))).toEqual(withoutId(errorOf(nobodys)))
  })
  it('names the tenant alone, and no name above or below it', async () => {
    const domain = await verified(t.north)
    for (const host of [`www.${domain}`, domain.slice(domain.indexOf('.') + 1), `${domain}.example`]) expectRefusal(await at(host), 'TENANT_NOT_FOUND')
  })
  it('is of a suspended or archived tenant as any host is, and is kept', async () => {
    const { paused } = await plantTree(admin, { paused: null })
    const domain = await verified(paused)
    await admin.suspendTenant({ id: paused.id })
    await refusal(admin.resolve({ host: domain }), 'TENANT_SUSPENDED')
    await admin.archiveTenant({ id: paused.id })
    await refusal(admin.resolve({ host: domain }), 'TENANT_ARCHIVED')
    await admin.resumeTenant({ id: paused.id })
    expect((await admin.resolve({ host: domain })).tenant_id).toBe(paused.id)
  })
  it('that was given up names nobody at once', async () => {
    const domain = await verified(t.north)
    await admin.deleteDomain({ id: t.north.id, domain })
    expectRefusal(await at(domain), 'TENANT_NOT_FOUND')
  })
})

describe('a claim that is not verified', () => {
  it('names nobody, though its record is published', async () => {
    const domain = await claimed(t.north)
    expectRefusal(await at(domain), 'TENANT_NOT_FOUND')
    await refusal(admin.resolve({ host: domain }), 'TENANT_NOT_FOUND')
  })
  it('takes nothing from the tenant that holds the domain', async () => {
    const domain = await verified(t.north)
    await claimed(t.apex, domain)
    expect((await admin.resolve({ host: domain })).tenant_id).toBe(t.north.id)
  })
  it('would name a tenant, were verified ones not asked for', async () => {
    const domain = await claimed(t.north)
    const { rows } = await installation.owner.query<{ definition: string }>(
      `select pg_get_functiondef('stratum.agreed_tenant(jsonb, stratum.ltree)'::regprocedure) as definition`,
    )
    const guarded = rows[0]?.definition ?? ''
    expect(guarded).toContain('and d.verified_at is not null')
    await installation.owner.query(guarded.replace('and d.verified_at is not null', ''))
    try {
      expect((await admin.resolve({ host: domain })).tenant_id).toBe(t.north.id)
    } finally {
      await installation.owner.query(guarded)
    }
    await refusal(admin.resolve({ host: domain }), 'TENANT_NOT_FOUND')
  })
})

describe('two that verify one domain at the same time', () => {
  const outcomes = async (domain: string) => {
    const { services, owner } = installation
    const attempt = (tenant: Tenant) =>
      admin.verifyDomain({ id: tenant.id, domain }).then(
        () => 'verified',
        (error: { code: string }) => error.code,
      )
    expect(services.dns).toBe(installation.zone.resolver)
    const actor = { credential: { type: 'embedded', actor_id: 'race', actor_type: 'system' }, named: [], exposed: false, request_id: null, source_ip: null }
    return whileOpen(
      owner,
      (held) => held.query('select stratum.verify_domain($1, $2)', [actor, { id: t.north.id, domain, proven: true }]),
      async (commit) => {
        const second = attempt(t.apex)
        await Promise.race([untilWaiting(owner), second])
        await commit()
        return second
      },
    )
  }
  const holders = async (domain: string) =>
    (
      await installation.owner.query<{ id: string }>('select tenant_id as id from stratum.custom_domains where domain = $1 and verified_at is not null', [
        domain,
      ])
    ).rows
  const contested = async () => {
    const domain = await claimed(t.north)
    await claimed(t.apex, domain)
    return domain
  }

  it('are one that holds it and one that is told so', async () => {
    const domain = await contested()
    expect(await outcomes(domain)).toBe('DOMAIN_TAKEN')
    expect(await holders(domain)).toEqual([{ id: t.north.id }])
  })
  it('are both let through without the index', async () => {
    const domain = await contested()
    await installation.owner.query('drop index stratum.custom_domains_verified_key')
    try {
      expect(await outcomes(domain)).toBe('verified')
      expect(await holders(domain)).toHaveLength(2)
    } finally {
      await admin.deleteDomain({ id: t.apex.id, domain })
      await installation.owner.query('create unique index custom_domains_verified_key on stratum.custom_domains (domain) where verified_at is not null')
    }
  })
})
