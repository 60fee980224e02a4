/** Claiming domains, proving them, giving them up. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { DomainProofs } from '../../src/auth/domain-proofs.ts'
import { generateRingKey, parseKeyRing } from '../../src/crypto/key-ring.ts'
import { claimableDomain } from '../../src/features/domains/canonical.ts'
import type { Tenant } from '../../src/features/tenants/contract.ts'
import type { StratumClient } from '../../src/sdk/client.ts'
import { Stratum } from '../../src/stratum.ts'
import { ask, expectRefusal } from '../support/answers.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { contents } from '../support/record.ts'
import { plantTree, refusal, walk } from '../support/tree.ts'

let installation: Installation
let admin: StratumClient
let t: Record<'acme' | 'north' | 'apex' | 'full', Tenant>
beforeAll(async () => {
  installation = await createInstallation()
  admin = await installation.clientFor(null)
  t = await plantTree(admin, { acme: null, north: 'acme', apex: null, full: null })
})
afterAll(() => installation.close())
beforeEach(() => {
  installation.zone.away = false
})

let made = 0
const freshDomain = () => `shop-${++made}.customer.example`
const claim = (tenant: Tenant, domain: string) => admin.createDomain({ id: tenant.id, domain })
const verify = (tenant: Tenant, domain: string) => admin.verifyDomain({ id: tenant.id, domain })
async function verified(tenant: Tenant, domain: string) {
  installation.zone.publish(await claim(tenant, domain))
  return verify(tenant, domain)
}

describe('a claim', () => {
  it('says which record proves it, and is verified by nothing but that', async () => {
    const domain = freshDomain()
    const claimed = await claim(t.acme, domain)
    expect(claimed).toEqual({
      ...{ tenant_id: t.acme.id, domain, verified: false, verified_at: null, checked_at: null, missing_since: null, created_at: expect.any(String) },
      ...{ txt_name: `_stratum.${domain}`, txt_value: expect.stringMatching(/^[A-Za-z0-9_-]{43}$/) },
    })
    const details = (found: number, dns_status: string) => ({ txt_name: claimed.txt_name, txt_value: claimed.txt_value, found, dns_status })
    expect((await refusal(verify(t.acme, domain), 'DOMAIN_NOT_VERIFIED')).details).toMatchObject(details(0, 'NXDOMAIN'))
    installation.zone.records.set(claimed.txt_name, ['v=spf1 -all', claimed.txt_value.toLowerCase(), `${claimed.txt_value} `])
    expect((await refusal(verify(t.acme, domain), 'DOMAIN_NOT_VERIFIED')).details).toMatchObject(details(3, 'NOERROR'))
    installation.zone.publish({ ...claimed, txt_name: domain })
    await refusal(verify(t.acme, domain), 'DOMAIN_NOT_VERIFIED')

    installation.zone.publish(claimed)
    const now = await verify(t.acme, domain)
    expect(now).toEqual({ ...claimed, verified: true, verified_at: expect.any(String), checked_at: now.verified_at })
    expect(await verify(t.acme, domain)).toEqual(now)
  })
  it('blocks nobody: several tenants may make one, each with a record of its own, and the same tenant one only', async () => {
    const domain = freshDomain()
    const claims = [await claim(t.acme, domain), await claim(t.north, domain), await claim(t.apex, domain)]
    expect(new Set(claims.map(({ txt_value }) => txt_value)).size).toBe(3)
    expect((await refusal(claim(t.acme, domain.toUpperCase()), 'DOMAIN_EXISTS')).details).toMatchObject({ domain })
    // one tenant's record proves nothing for another
    installation.zone.publish(claims[0] as (typeof claims)[0])
    await refusal(verify(t.north, domain), 'DOMAIN_NOT_VERIFIED')
    expect((await verify(t.acme, domain)).verified).toBe(true)
  })
  it('that another holds verified says so only to who proves it too, and is free when that one gives it up', async () => {
    const domain = freshDomain()
    await verified(t.acme, domain)
    const theirs = await claim(t.apex, domain)
    await refusal(verify(t.apex, domain), 'DOMAIN_NOT_VERIFIED')
    installation.zone.publish(theirs)
    expect((await refusal(verify(t.apex, domain), 'DOMAIN_TAKEN')).details).toMatchObject({ domain })
    expect((await admin.deleteDomain({ id: t.acme.id, domain })).verified).toBe(true)
    expect((await verify(t.apex, domain)).tenant_id).toBe(t.apex.id)
    await refusal(verify(t.acme, domain), 'DOMAIN_NOT_FOUND')
    await refusal(admin.deleteDomain({ id: t.acme.id, domain }), 'DOMAIN_NOT_FOUND')
  })
  it('is known by however its domain is written', async () => {
    const { domain } = await claim(t.acme, 'Bücher-Regal.Example.')
    expect(domain).toBe('xn--bcher-regal-thb.example')
    installation.zone.publish({
      txt_name: `_stratum.${domain}`,
      txt_value: (await admin.listDomains({ id: t.acme.id })).data.find((d) => d.domain === domain)?.txt_value ?? '',
    })
    for (const written of ['BÜCHER-REGAL.example', 'bücher-regal.example.', domain.toUpperCase()]) {
      expect((await verify(t.acme, written)).domain).toBe(domain)
    }
    expect((await admin.deleteDomain({ id: t.acme.id, domain: 'BÜCHER-regal.EXAMPLE' })).domain).toBe(domain)
  })
  it('needs an active tenant', async () => {
    const { paused } = await plantTree(admin, { paused: null })
    const domain = freshDomain()
    installation.zone.publish(await claim(paused, domain))
    await admin.suspendTenant({ id: paused.id })
    await refusal(claim(paused, freshDomain()), 'TENANT_INVALID_STATE')
    await refusal(verify(paused, domain), 'TENANT_INVALID_STATE')
    await refusal(admin.deleteDomain({ id: paused.id, domain }), 'TENANT_INVALID_STATE')
    expect((await admin.listDomains({ id: paused.id })).data).toHaveLength(1)
  })
})

describe('a domain that cannot be claimed', () => {
  const refused: Array<[what: string, ...domains: string[]]> = [
    ['a wildcard', '*.example.org', 'a.*.example.org', '*'],
    ['an address', '127.0.0.1', '127.1', '0x7f.0.0.1', '2130706433', '[::1]', '::1', '2001:db8::1', '192.0.2.1.', '１２７.0.0.1'],
    ['one label', 'localhost', 'example', 'com', 'example.'],
    ['a public suffix', 'co.uk', 'github.io', 'anything.ck', 'CO.UK.', '公司.cn'],
    ["the service's own", 'stratum.test', 'shop.stratum.test', 'a.b.STRATUM.test.', 'api.other.example'],
    [
      'with a port, scheme or path',
      'example.org:443',
      'example.org:',
      'https://example.org',
      'example.org/',
      'a@example.org',
      'example.org?x',
      'example.org#x',
    ],
    [
      'malformed',
      '.example.org',
      'a..example.org',
      'example.org..',
      '-a.example.org',
      'a-.example.org',
      'a_b.example.org',
      'exa mple.org',
      ' example.org',
      '%65xample.org',
    ],
    ['half of punycode', 'xn--zzzzzz--.example', 'xn--.example'],
    ['numbers at the end', 'example.123', 'example.0x1'],
    ['too long', `${'a'.repeat(64)}.example.org`, `${'a.'.repeat(119)}example`, `${'a'.repeat(63)}.`.repeat(4).slice(0, 250)],
  ]
  it.each(refused)('is %s', async (_, ...domains) => {
    const { hosts } = installation.services
    Object.assign(installation.services, { hosts: { ...hosts, apiHosts: ['api.other.example'] } })
    const before = await contents(installation.owner)
    for (const domain of domains) {
      const { details } = await refusal(claim(t.acme, domain), 'DOMAIN_NOT_ALLOWED')
      expect(details['reason'], domain).toMatch(/^it is /)
    }
    expect(await contents(installation.owner)).toEqual(before)
  })
  it('is found by no name that it could not have', async () => {
    for (const domain of ['example', '1.2.3.4', 'shop.stratum.test', 'a..b.example']) {
      await refusal(verify(t.acme, domain), 'DOMAIN_NOT_FOUND')
      await refusal(admin.deleteDomain({ id: t.acme.id, domain }), 'DOMAIN_NOT_FOUND')
    }
    for (const domain of ['*.example.org', 'a b', 'a/b', "'", 'example.org:443']) await refusal(verify(t.acme, domain), 'INVALID_REQUEST')
  })
  it.each(['example.co.uk', 'me.github.io', 'a.www.ck', `${'a'.repeat(60)}.${'b'.repeat(60)}.${'c'.repeat(60)}.${'d'.repeat(53)}.example`])(
    'is not %s',
    async (domain) => {
      expect((await claim(t.north, domain)).domain).toBe(domain)
    },
  )
})

describe('order of refusals', () => {
  it('tells of proof and DNS only who may ask, and asks DNS once', async () => {
    const domain = freshDomain()
    await claim(t.north, domain)
    installation.zone.away = true
    const path = `/api/v1/tenants/${t.north.id}/domains/${domain}/verify`
    const as = async (apiKey: string) => ask(installation.fetch, path, { method: 'POST', apiKey })
    expectRefusal(await as(`sk_test_${'A'.repeat(43)}`), 'API_KEY_INVALID')
    expectRefusal(await as(await installation.apiKey(t.north.id, ['read'])), 'SCOPE_REQUIRED')
    expectRefusal(await as(await installation.apiKey(t.apex.id)), 'TENANT_NOT_FOUND')
    await refusal(verify(t.acme, domain), 'DOMAIN_NOT_FOUND')
    const asked = installation.zone.asked.length
    const answer = await as(await installation.apiKey(t.north.id))
    expect(expectRefusal(answer, 'DNS_UNAVAILABLE')).toEqual({ reason: 'it answered with status 502' })
    expect([answer.headers.get('retry-after'), installation.zone.asked.length - asked]).toEqual(['1', 1])
  })
  it('takes no word of a caller for what DNS says', async () => {
    const domain = freshDomain()
    await claim(t.acme, domain)
    const path = `/api/v1/tenants/${t.acme.id}/domains/${domain}/verify`
    const apiKey = await installation.apiKey(null)
    for (const json of [{ proven: true }, { evidence: {} }])
      expectRefusal(await ask(installation.fetch, path, { method: 'POST', apiKey, json }), 'VALIDATION_FAILED')
    expectRefusal(await ask(installation.fetch, `${path}?proven=true`, { method: 'POST', apiKey }), 'INVALID_REQUEST')
    await refusal(verify(t.acme, domain), 'DOMAIN_NOT_VERIFIED')
  })
})

describe('a list', () => {
  it('holds a tenant’s own claims by domain, a page at a time, and bounds their number', async () => {
    const domains = Array.from({ length: 100 }, (_, index) => `d${String(index).padStart(3, '0')}.full.example`)
    await Promise.all(
      domains.map((domain) => installation.owner.query('insert into stratum.custom_domains (tenant_id, domain) values ($1, $2)', [t.full.id, domain])),
    )
    const listed = await walk((page) => admin.listDomains({ id: t.full.id, limit: 30, ...page }))
    expect(listed.map(({ domain }) => domain)).toEqual(domains)
    expect(new Set(listed.map(({ txt_value }) => txt_value)).size).toBe(100)
    expect((await refusal(claim(t.full, 'd100.full.example'), 'DOMAINS_FULL')).details).toMatchObject({ maximum_domains: 100 })
    await refusal(claim(t.full, 'd000.full.example'), 'DOMAIN_EXISTS')
    await admin.deleteDomain({ id: t.full.id, domain: 'd000.full.example' })
    await claim(t.full, 'd100.full.example')
    expect(await walk((page) => admin.listDomains({ id: t.full.id, ...page }))).toHaveLength(100)
  })
})

describe('the embedded class', () => {
  it('does the same, with the same records', async () => {
    const { stratum, zone } = installation
    const domain = freshDomain()
    const made = await stratum.createDomain(t.acme.id, domain, { actor_id: 'ada', actor_type: 'user' })
    expect((await admin.listDomains({ id: t.acme.id })).data).toContainEqual(made)
    expect((await stratum.listDomains(t.acme.id)).data).toContainEqual(made)
    await refusal(stratum.verifyDomain(t.acme.id, domain), 'DOMAIN_NOT_VERIFIED')
    zone.publish(made)
    expect((await stratum.verifyDomain(t.acme.id, domain)).verified).toBe(true)
    await stratum.deleteDomain(t.acme.id, domain)
    await refusal(stratum.verifyDomain(t.acme.id, domain), 'DOMAIN_NOT_FOUND')
  })
  it('of a host of the application that stands behind the gateway is refused: it would name nobody', () => {
    const rules = { baseDomains: ['app.example'], apiHosts: [], appHosts: ['login.customer.example'], pathPrefix: '/t' }
    expect(() => claimableDomain('Login.customer.example.', rules)).toThrow(expect.objectContaining({ code: 'DOMAIN_NOT_ALLOWED' }))
    expect(claimableDomain('shop.customer.example', rules)).toBe('shop.customer.example')
  })

  it('refuses the domains of the service where it is told of them', async () => {
    const { urls, neonEndpoint } = installation
    const own = new Stratum({
      databaseUrl: urls.control,
      neonEndpoint,
      apiKeySecrets: generateRingKey('a'),
      baseDomains: ['App.example'],
      apiHosts: ['api.else.example'],
    })
    for (const domain of ['app.example', 'shop.app.example', 'api.else.example']) await refusal(own.createDomain(t.acme.id, domain), 'DOMAIN_NOT_ALLOWED')
  })
  it('says what is missing where it has no secret, and changes nothing', async () => {
    const { urls, neonEndpoint } = installation
    const domain = freshDomain()
    await verified(t.acme, domain)
    const keyless = new Stratum({ databaseUrl: urls.control, neonEndpoint })
    const before = await contents(installation.owner)
    await refusal(keyless.createDomain(t.acme.id, freshDomain()), 'API_KEY_SECRET_MISSING')
    await refusal(keyless.listDomains(t.acme.id), 'API_KEY_SECRET_MISSING')
    await refusal(keyless.verifyDomain(t.acme.id, domain), 'API_KEY_SECRET_MISSING')
    await refusal(keyless.deleteDomain(t.acme.id, domain), 'API_KEY_SECRET_MISSING')
    expect(await contents(installation.owner)).toEqual(before)
  })
})

it('takes a record that was published before the secret was rotated', async () => {
  const domain = freshDomain()
  const old = await claim(t.acme, domain)
  installation.zone.publish(old)
  const { services } = installation
  const before = services.domainProofs
  const rotated = [generateRingKey('newer')].flatMap((key) => parseKeyRing(key, { variable: 'ring', bytes: 32, exact: false }))
  const both = new (class extends DomainProofs {
    override async values(tenantId: string, name: string) {
      return [...(await super.values(tenantId, name)), ...(await before.values(tenantId, name))]
    }
  })(rotated)
  Object.assign(services, { domainProofs: both })
  try {
    const now = await verify(t.acme, domain)
    expect([now.verified, now.txt_value === old.txt_value]).toEqual([true, false])
  } finally {
    Object.assign(services, { domainProofs: before })
  }
})
