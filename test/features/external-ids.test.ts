/** What issuers call tenants: whom a token means by it, who may say so, and that nobody takes another's. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Tenant } from '../../src/features/tenants/contract.ts'
import type { StratumClient } from '../../src/sdk/client.ts'
import { ask, expectRefusal } from '../support/answers.ts'
import { createInstallation, type Installation, ISSUER } from '../support/installation.ts'
import { type OwnIssuer, ownIssuer } from '../support/issuers.ts'
import { plantTree, refusal, uniqueSlug } from '../support/tree.ts'

let installation: Installation
let t: Record<'acme' | 'north' | 'alpha' | 'south' | 'apex', Tenant>
let global: StratumClient
/** Admins of the tenants. */
let acme: StratumClient
let north: StratumClient
let apex: StratumClient
beforeAll(async () => {
  installation = await createInstallation()
  global = await installation.clientFor(null)
  t = await plantTree(global, { acme: null, north: 'acme', alpha: 'north', south: 'acme', apex: null })
  acme = await installation.clientFor(t.acme.id)
  north = await installation.clientFor(t.north.id)
  apex = await installation.clientFor(t.apex.id)
})
afterAll(() => installation.close())

/** Whom a token means, by the tenant's id, or why it is refused. */
async function meant(token: string): Promise<unknown> {
  const answer = await ask(installation.fetch, '/api/v1/context', { token })
  return answer.status === 200 ? (answer.body as { tenant_id: string }).tenant_id : expectRefusal(answer, 'TOKEN_INVALID')['reason']
}
const NOBODY = 'it names no tenant that its issuer may speak for'

/** A stored issuer bound to a tenant, or to none. */
async function stored(tenant_id: string | null, name?: string, audience?: string): Promise<OwnIssuer> {
  const own = ownIssuer(name, audience)
  await global.createIssuer(own.fields({ tenant_id }))
  return own
}

describe('a token whose claim is an external id', () => {
  it('means the tenant that is mapped, as one with its id or slug does', async () => {
    const own = await stored(t.north.id)
    expect(await meant(await own.token({ tenant: 'org_7' }))).toBe(NOBODY)
    const mapped = await north.setExternalId({ id: t.alpha.id, issuer: own.name, external_id: 'org_7' })
    expect(mapped).toMatchObject({ tenant_id: t.alpha.id, issuer: own.name, external_id: 'org_7', reach_tenant_id: t.north.id })
    for (const tenant of ['org_7', t.alpha.id, t.alpha.slug]) expect(await meant(await own.token({ tenant }))).toBe(t.alpha.id)
    expect((await north.listExternalIds({ id: t.alpha.id })).data).toEqual([mapped])
    await north.deleteExternalId({ id: t.alpha.id, issuer: own.name, external_id: 'org_7' })
    expect(await meant(await own.token({ tenant: 'org_7' }))).toBe(NOBODY)
    await refusal(north.deleteExternalId({ id: t.alpha.id, issuer: own.name, external_id: 'org_7' }), 'EXTERNAL_ID_NOT_FOUND')
  })
  it('means it for tokens of that issuer alone', async () => {
    const [own, other] = [await stored(t.north.id), await stored(t.north.id)]
    await north.setExternalId({ id: t.alpha.id, issuer: own.name, external_id: 'org_8' })
    expect(await meant(await other.token({ tenant: 'org_8' }))).toBe(NOBODY)
  })
  it('means nobody beyond what the issuer is bound to', async () => {
    const own = await stored(t.alpha.id)
    await global.setExternalId({ id: t.south.id, issuer: own.name, external_id: 'org_9' })
    expect(await meant(await own.token({ tenant: 'org_9' }))).toBe(NOBODY)
    // and takes nothing away there: what is not valid for an issuer is as if it were not
    await global.setExternalId({ id: t.south.id, issuer: own.name, external_id: t.alpha.slug })
    expect(await meant(await own.token({ tenant: t.alpha.slug }))).toBe(t.alpha.id)
  })
  it('may be of any text, of an issuer of the environment too', async () => {
    for (const external_id of ['Ünïcode org/7?&=', '00000000-0000-4000-8000-000000000000', 'x'.repeat(255)]) {
      await global.setExternalId({ id: t.apex.id, issuer: ISSUER, external_id })
      expect(await meant(await installation.token({ tenant: external_id, scope: 'read' }))).toBe(t.apex.id)
      await installation.stratum.deleteExternalId(t.apex.id, { issuer: ISSUER, external_id })
    }
  })
})

describe('a slug that is another tenant’s external id', () => {
  it('takes none of its tokens: the external id comes first', async () => {
    const own = await stored(null)
    const org = uniqueSlug('org')
    await global.setExternalId({ id: t.apex.id, issuer: own.name, external_id: org })
    const thief = await north.createTenant({ slug: org, name: 'Thief', parent_id: t.north.id })
    expect(await meant(await own.token({ tenant: org }))).toBe(t.apex.id)
    expect(await meant(await own.token({ tenant: thief.id }))).toBe(thief.id)
  })
  it('would take them all if slugs came first', async () => {
    const own = await stored(null)
    const org = uniqueSlug('org')
    await global.setExternalId({ id: t.apex.id, issuer: own.name, external_id: org })
    const thief = await north.createTenant({ slug: org, name: 'Thief', parent_id: t.north.id })
    const { rows } = await installation.owner.query<{ body: string }>(`select pg_get_functiondef('stratum.token_principal(jsonb)'::regprocedure) as body`)
    const original = rows[0]?.body ?? ''
    const external = `stratum.tenant_of_external_id(token ->> 'issuer', token ->> 'tenant', issuer_path),`
    const slugFirst = original
      .replace(external, '')
      .replace(`stratum.tenant_named(token ->> 'tenant'),`, `stratum.tenant_named(token ->> 'tenant'), ${external}`)
    expect(slugFirst).not.toBe(original)
    await installation.owner.query(slugFirst)
    try {
      expect(await meant(await own.token({ tenant: org }))).toBe(thief.id)
    } finally {
      await installation.owner.query(original)
    }
    expect(await meant(await own.token({ tenant: org }))).toBe(t.apex.id)
  })
})

describe('who may map', () => {
  const map = (client: StratumClient, tenant: Tenant, issuer: string, external_id = uniqueSlug('org')) =>
    client.setExternalId({ id: tenant.id, issuer, external_id })
  it('is who reaches an issuer of that name, where none is bound above them', async () => {
    const own = await stored(t.acme.id)
    await refusal(map(north, t.alpha, own.name), 'GLOBAL_ADMIN_REQUIRED')
    await stored(t.north.id, own.name, 'of north')
    await refusal(map(north, t.alpha, own.name), 'GLOBAL_ADMIN_REQUIRED')
    await refusal(map(apex, t.apex, own.name), 'GLOBAL_ADMIN_REQUIRED')
    expect((await map(acme, t.alpha, own.name)).reach_tenant_id).toBe(t.acme.id)
  })
  it('goes on being who did, though a tenant of another branch stores an issuer of that name, and neither maps for the other', async () => {
    const own = await stored(t.north.id)
    const stranger = ownIssuer(own.name, 'of apex')
    await apex.createIssuer(stranger.fields())
    await map(north, t.alpha, own.name, 'org_theirs')
    await map(apex, t.apex, own.name, 'org_strange')
    expect(await meant(await own.token({ tenant: 'org_theirs' }))).toBe(t.alpha.id)
    expect(await meant(await stranger.token({ tenant: 'org_strange' }))).toBe(t.apex.id)
    expect(await meant(await own.token({ tenant: 'org_strange' }))).toBe(NOBODY)
    expect(await meant(await stranger.token({ tenant: 'org_theirs' }))).toBe(NOBODY)
    // one id, one tenant: whoever comes second is refused
    await refusal(map(apex, t.apex, own.name, 'org_theirs'), 'EXTERNAL_ID_TAKEN')
    await refusal(apex.deleteExternalId({ id: t.alpha.id, issuer: own.name, external_id: 'org_theirs' }), 'TENANT_NOT_FOUND')
    await north.deleteExternalId({ id: t.alpha.id, issuer: own.name, external_id: 'org_theirs' })
  })
  it('is a global admin for one that is bound to none, is of the environment or is not there yet', async () => {
    for (const issuer of [(await stored(null)).name, ISSUER, 'https://not-there-yet.test']) {
      await refusal(map(north, t.north, issuer), 'GLOBAL_ADMIN_REQUIRED')
      expect((await map(global, t.north, issuer)).reach_tenant_id).toBeNull()
    }
  })
  it('maps to tenants within reach that are active', async () => {
    const own = await stored(t.north.id)
    await refusal(map(north, t.south, own.name), 'TENANT_NOT_FOUND')
    const paused = await north.createTenant({ slug: uniqueSlug('paused'), name: 'Paused', parent_id: t.north.id })
    const mapped = await map(north, paused, own.name)
    await north.suspendTenant({ id: paused.id })
    await refusal(map(north, paused, own.name), 'TENANT_INVALID_STATE')
    await north.deleteExternalId({ id: paused.id, issuer: own.name, external_id: mapped.external_id })
  })
})

describe('under a provider that others use too', () => {
  it('no tenant takes what another is called', async () => {
    const provider = await stored(null)
    await global.setExternalId({ id: t.apex.id, issuer: provider.name, external_id: 'org_apex' })
    await refusal(north.setExternalId({ id: t.north.id, issuer: provider.name, external_id: 'org_apex' }), 'GLOBAL_ADMIN_REQUIRED')
    // not by having an issuer of that name itself, for another audience
    const own = ownIssuer(provider.name, 'of north')
    await north.createIssuer(own.fields())
    await refusal(north.setExternalId({ id: t.north.id, issuer: provider.name, external_id: 'org_apex' }), 'GLOBAL_ADMIN_REQUIRED')
    await refusal(north.setExternalId({ id: t.north.id, issuer: provider.name, external_id: 'org_new' }), 'GLOBAL_ADMIN_REQUIRED')
    expect(await meant(await provider.token({ tenant: 'org_apex' }))).toBe(t.apex.id)
    expect(await meant(await own.token({ tenant: 'org_apex' }))).toBe(NOBODY)
  })
  it('nor by coming first: what it mapped for its own issuer counts for no wider one that comes later', async () => {
    const early = await stored(t.north.id)
    await north.setExternalId({ id: t.north.id, issuer: early.name, external_id: 'org_apex' })
    const provider = await stored(null, early.name, 'shared')
    expect(await meant(await early.token({ tenant: 'org_apex' }))).toBe(t.north.id)
    expect(await meant(await provider.token({ tenant: 'org_apex' }))).toBe(NOBODY)
    // the global admin is told who is in the way, and clears it
    const taken = await refusal(global.setExternalId({ id: t.apex.id, issuer: early.name, external_id: 'org_apex' }), 'EXTERNAL_ID_TAKEN')
    expect(taken.details).toMatchObject({ external_id: 'org_apex', tenant_id: t.north.id })
    await global.deleteExternalId({ id: t.north.id, issuer: early.name, external_id: 'org_apex' })
    await global.setExternalId({ id: t.apex.id, issuer: early.name, external_id: 'org_apex' })
    expect(await meant(await provider.token({ tenant: 'org_apex' }))).toBe(t.apex.id)
  })
  it('which, without the reach being kept, it would', async () => {
    const early = await stored(t.north.id)
    await north.setExternalId({ id: t.north.id, issuer: early.name, external_id: 'org_apex' })
    const provider = await stored(null, early.name, 'shared')
    await installation.owner.query('update stratum.tenant_external_ids set reach_tenant_id = null where issuer = $1', [early.name])
    expect(await meant(await provider.token({ tenant: 'org_apex' }))).toBe(t.north.id)
  })
  it('who mapped it deletes it, though others have an issuer of that name now, and nobody else', async () => {
    const early = await stored(t.north.id)
    const external_id = 'org_north'
    await north.setExternalId({ id: t.north.id, issuer: early.name, external_id })
    await stored(null, early.name, 'shared')
    await north.deleteExternalId({ id: t.north.id, issuer: early.name, external_id })
    await global.setExternalId({ id: t.north.id, issuer: early.name, external_id })
    await refusal(north.deleteExternalId({ id: t.north.id, issuer: early.name, external_id }), 'GLOBAL_ADMIN_REQUIRED')
    await refusal(apex.deleteExternalId({ id: t.north.id, issuer: early.name, external_id }), 'TENANT_NOT_FOUND')
  })
})

describe('mapping again', () => {
  it('never makes an external id mean another tenant, and names whose it is to who reaches that', async () => {
    const own = await stored(t.acme.id)
    await global.setExternalId({ id: t.apex.id, issuer: own.name, external_id: 'org_a' })
    expect((await refusal(acme.setExternalId({ id: t.north.id, issuer: own.name, external_id: 'org_a' }), 'EXTERNAL_ID_TAKEN')).details['tenant_id']).toBeNull()
    await acme.setExternalId({ id: t.south.id, issuer: own.name, external_id: 'org_b' })
    const taken = await refusal(acme.setExternalId({ id: t.north.id, issuer: own.name, external_id: 'org_b' }), 'EXTERNAL_ID_TAKEN')
    expect(taken.details['tenant_id']).toBe(t.south.id)
  })
  it('changes nothing, unless whoever does so reaches further', async () => {
    const own = await stored(t.north.id)
    const mapping = { id: t.alpha.id, issuer: own.name, external_id: 'org_c' }
    const first = await north.setExternalId(mapping)
    expect(await north.setExternalId(mapping)).toEqual(first)
    expect(await acme.setExternalId(mapping)).toEqual({ ...first, reach_tenant_id: t.acme.id })
    expect((await global.setExternalId(mapping)).reach_tenant_id).toBeNull()
    expect((await north.setExternalId(mapping)).reach_tenant_id).toBeNull()
  })
  it('at once ends with one tenant', async () => {
    const own = await stored(t.acme.id)
    const codes = await Promise.all(
      [t.north, t.south, t.alpha, t.north].map(({ id }) =>
        acme.setExternalId({ id, issuer: own.name, external_id: 'org_d' }).then(
          ({ tenant_id }) => tenant_id,
          (error: { code: string }) => error.code,
        ),
      ),
    )
    const winners = new Set(codes.filter((code) => code !== 'EXTERNAL_ID_TAKEN'))
    expect(winners.size).toBe(1)
    expect(await meant(await own.token({ tenant: 'org_d' }))).toBe([...winners][0])
  })
  it('ends at a hundred to a tenant', async () => {
    const own = await stored(t.south.id)
    await installation.owner.query(
      `insert into stratum.tenant_external_ids (issuer, external_id, tenant_id) select $1, 'filler ' || n, $2 from generate_series(1, 100 - (
        select count(*)::int from stratum.tenant_external_ids where tenant_id = $2)) as n`,
      [own.name, t.south.id],
    )
    await refusal(global.setExternalId({ id: t.south.id, issuer: own.name, external_id: 'one more' }), 'EXTERNAL_IDS_FULL')
    expect((await global.setExternalId({ id: t.south.id, issuer: own.name, external_id: 'filler 1' })).external_id).toBe('filler 1')
    expect(await global.listExternalIds({ id: t.south.id })).toMatchObject({ data: { length: 100 }, has_more: false, next_cursor: null })
  })
})
