/** The daily check of verified domains: kept while they show their record, released after 7 days without it. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { type RecheckResult, recheckDomains } from '../../src/features/domains/recheck.ts'
import type { Tenant } from '../../src/features/tenants/contract.ts'
import type { StratumClient } from '../../src/sdk/client.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { recordedBy, verifyChain } from '../support/record.ts'
import { plantTree, refusal } from '../support/tree.ts'

let installation: Installation
let admin: StratumClient
let tenant: Tenant
beforeAll(async () => {
  installation = await createInstallation()
  admin = await installation.clientFor(null)
})
afterAll(() => installation.close())
beforeEach(async () => {
  await installation.owner.query('delete from stratum.custom_domains')
  installation.zone.away = false
  tenant = (await plantTree(admin, { tenant: null })).tenant
})

const start = Date.now()
/** So many days from now. */
const day = (days: number) => new Date(start + days * 86_400_000)
const NOTHING: RecheckResult = { checked: 0, missing: 0, found: 0, released: 0, unanswered: 0 }
const round = (days: number, maximum?: number) =>
  recheckDomains({
    ...{ db: installation.owner, dns: installation.zone.resolver, domainProofs: installation.services.domainProofs, at: day(days) },
    ...(maximum === undefined ? {} : { maximum }),
  })
let made = 0
async function verified(of = tenant) {
  const domain = `shop-${++made}.customer.example`
  installation.zone.publish(await admin.createDomain({ id: of.id, domain }))
  return admin.verifyDomain({ id: of.id, domain })
}
const hide = ({ txt_name }: { txt_name: string }) => installation.zone.records.delete(txt_name)
const stored = async (domain: string) => (await admin.listDomains({ id: tenant.id })).data.find((claim) => claim.domain === domain)

describe('a round', () => {
  it('looks at each verified domain once a day, those that have waited longest first, and leaves claims alone', async () => {
    const domains = [await verified(), await verified(), await verified()]
    await admin.createDomain({ id: tenant.id, domain: 'only-claimed.example' })
    expect(await round(0.5)).toEqual(NOTHING)
    expect(await round(1.1, 2)).toEqual({ ...NOTHING, checked: 2 })
    const asked = installation.zone.asked.length
    expect(await round(1.1, 2)).toEqual({ ...NOTHING, checked: 1 })
    expect(installation.zone.asked.slice(asked)).toEqual([domains[2]?.txt_name])
    expect(await round(1.1)).toEqual(NOTHING)
    expect(await stored(domains[0]?.domain ?? '')).toMatchObject({ verified: true, missing_since: null, checked_at: day(1.1).toISOString() })
  })
  it('writes nothing but the time where the record is there', async () => {
    await verified()
    const { audit, outbox, feed } = await recordedBy(installation.owner, () => round(2))
    expect([audit, outbox, feed]).toEqual([[], [], []])
  })
  it('may run twice at once', async () => {
    for (let count = 0; count < 15; count++) hide(await verified())
    const [one, two] = await Promise.all([round(2), round(2)])
    expect(one.missing + two.missing).toBe(15)
    expect(await verifyChain(installation.owner, tenant.id)).toBeNull()
  })
})

describe('a domain that shows no record', () => {
  it('is told of once, kept for 7 days, then released, and each is recorded', async () => {
    const claim = await verified()
    const { domain } = claim
    hide(claim)
    const resource = { type: 'domain', tenant_id: tenant.id, domain }
    const first = await recordedBy(installation.owner, async () => expect(await round(2)).toEqual({ ...NOTHING, checked: 1, missing: 1 }))
    expect(first.audit).toMatchObject([{ chain: tenant.id, payload: { action: 'domain.missing', resource, after: { missing_since: day(2).toISOString() } } }])
    expect([first.outbox.length, first.feed]).toEqual([1, []])
    for (const days of [3.1, 5, 8.9]) expect(await round(days)).toEqual({ ...NOTHING, checked: 1 })
    expect((await admin.resolve({ host: domain })).tenant_id).toBe(tenant.id)

    const last = await recordedBy(installation.owner, async () => expect(await round(10)).toEqual({ ...NOTHING, checked: 1, released: 1 }))
    expect(last.audit).toMatchObject([
      { chain: tenant.id, payload: { action: 'domain.released', resource, before: { verified: true }, after: { verified: false, missing_since: null } } },
    ])
    expect(last.audit[0]?.payload['actor']).toMatchObject({ type: 'system', id: 'domain check' })
    expect([last.outbox.length, last.feed, last.transactions.size]).toEqual([1, [['host', domain]], 1])
    await refusal(admin.resolve({ host: domain }), 'TENANT_NOT_FOUND')
    expect(await stored(domain)).toMatchObject({ verified: false, verified_at: null })
    expect(await round(20)).toEqual(NOTHING)
  })
  it('and shows it again is as before, and counts its days anew', async () => {
    const claim = await verified()
    hide(claim)
    await round(2)
    installation.zone.publish(claim)
    const { audit } = await recordedBy(installation.owner, async () => expect(await round(8)).toEqual({ ...NOTHING, checked: 1, found: 1 }))
    expect(audit).toMatchObject([{ payload: { action: 'domain.found', after: { verified: true, missing_since: null } } }])
    hide(claim)
    expect(await round(10)).toMatchObject({ missing: 1, released: 0 })
    expect(await round(16)).toMatchObject({ released: 0 })
    expect(await round(18)).toMatchObject({ released: 1 })
  })
  it('is well again when its tenant verifies it', async () => {
    const claim = await verified()
    hide(claim)
    await round(2)
    await refusal(admin.verifyDomain({ id: tenant.id, domain: claim.domain }), 'DOMAIN_NOT_VERIFIED')
    installation.zone.publish(claim)
    expect(await admin.verifyDomain({ id: tenant.id, domain: claim.domain })).toMatchObject({
      verified: true,
      verified_at: claim.verified_at,
      missing_since: null,
    })
  })
  it('is another’s to verify once released, of an archived tenant too', async () => {
    const claim = await verified()
    await admin.archiveTenant({ id: tenant.id })
    const { other } = await plantTree(admin, { other: null })
    const theirs = await admin.createDomain({ id: other.id, domain: claim.domain })
    installation.zone.records.set(claim.txt_name, [theirs.txt_value])
    await refusal(admin.verifyDomain({ id: other.id, domain: claim.domain }), 'DOMAIN_TAKEN')
    await round(2)
    expect(await round(10)).toMatchObject({ released: 1 })
    expect((await admin.verifyDomain({ id: other.id, domain: claim.domain })).verified).toBe(true)
  })
})

describe('a resolver that is away', () => {
  it('releases nothing, however long', async () => {
    const { domain } = await verified()
    installation.zone.away = true
    for (const days of [2, 5, 9, 30]) expect(await round(days)).toEqual({ ...NOTHING, checked: 1, unanswered: 1 })
    expect(await stored(domain)).toMatchObject({ verified: true, missing_since: null, checked_at: day(30).toISOString() })
  })
})

it('says that a claim which went meanwhile is gone', async () => {
  const claim = await verified()
  const settle = async () =>
    (
      await installation.owner.query<{ outcome: string }>('select stratum.settle_domain_check($1, $2, $3, $4) as outcome', [
        tenant.id,
        claim.domain,
        false,
        day(1),
      ])
    ).rows[0]?.outcome
  await admin.deleteDomain({ id: tenant.id, domain: claim.domain })
  expect(await settle()).toBe('gone')
  await admin.createDomain({ id: tenant.id, domain: claim.domain })
  expect(await settle()).toBe('gone')
})

it('is for the owner of the schema alone', async () => {
  const { rows } = await installation.owner.query(
    `select has_function_privilege('stratum_control', p.oid, 'execute') as may from pg_proc p where p.proname in ('domains_to_check', 'settle_domain_check')`,
  )
  expect(rows).toEqual([{ may: false }, { may: false }])
})
