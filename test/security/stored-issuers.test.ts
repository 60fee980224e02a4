/** Tokens of stored issuers: what they reach, what they cost, and that they end with their issuer, wherever they were kept. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { parseIssuers } from '../../src/auth/issuers.ts'
import { TokenVerifier } from '../../src/auth/tokens.ts'
import { askDatabaseForIssuer } from '../../src/features/issuers/stored.ts'
import type { Tenant } from '../../src/features/tenants/contract.ts'
import { createApp } from '../../src/http/app.ts'
import type { StratumClient } from '../../src/sdk/client.ts'
import { type Asked, ask, errorOf, expectRefusal } from '../support/answers.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { type OwnIssuer, ownIssuer } from '../support/issuers.ts'
import { recordedBy } from '../support/record.ts'
import { idsOf, plantTree, refusal, uniqueSlug } from '../support/tree.ts'

let installation: Installation
let t: Record<'acme' | 'north' | 'alpha' | 'apex', Tenant>
let global: StratumClient
let north: StratumClient
beforeAll(async () => {
  installation = await createInstallation()
  global = await installation.clientFor(null)
  t = await plantTree(global, { acme: null, north: 'acme', alpha: 'north', apex: null })
  north = await installation.clientFor(t.north.id)
})
afterAll(() => installation.close())

/** Another process of the same service: what it keeps, nobody here can drop. */
function otherProcess(issuers: unknown[] = []) {
  const tokens = new TokenVerifier(parseIssuers(JSON.stringify(issuers)), { stored: askDatabaseForIssuer(installation.services.db) })
  const app = createApp({ services: { ...installation.services, tokens }, version: 'test' })
  return (request: Request) => app.fetch(request)
}
let fetchOther: ReturnType<typeof otherProcess>
beforeEach(() => {
  fetchOther = otherProcess()
})

const contextOf = (token: string, asked: Asked = {}, fetch = fetchOther) => ask(fetch, '/api/v1/context', { token, ...asked })
async function statusAndCost(token: string, path = '/context', asked: Asked = {}): Promise<[outcome: string | number, requests: number]> {
  const before = installation.databaseRequests()
  const answer = await ask(fetchOther, `/api/v1${path}`, { token, ...asked })
  const requests = installation.databaseRequests() - before
  return [answer.status < 300 ? answer.status : errorOf(answer).code, requests]
}
async function stored(tenant_id: string | null, own: OwnIssuer = ownIssuer(), more: object = {}) {
  return { own, ...(await global.createIssuer(own.fields({ tenant_id, ...more }))) }
}

describe('a token of a stored issuer', () => {
  it('reaches what its issuer is bound to, or a tenant below that it names', async () => {
    const { own } = await stored(t.north.id)
    const client = installation.client({ token: await own.token(), fetch: fetchOther })
    expect(idsOf((await client.listTenants()).data)).toEqual([t.north.id, t.alpha.id])
    expect((await contextOf(await own.token({ tenant: t.alpha.slug }))).body).toMatchObject({ tenant_id: t.alpha.id })
    for (const tenant of [t.acme.id, t.apex.slug, uniqueSlug('nobody')]) expectRefusal(await contextOf(await own.token({ tenant })), 'TOKEN_INVALID')
  })
  it('of one bound to none reaches what it names, and everything only where its issuer is global', async () => {
    const { own } = await stored(null)
    expect((await contextOf(await own.token({ tenant: t.apex.id }))).body).toMatchObject({ tenant_id: t.apex.id })
    expectRefusal(await contextOf(await own.token()), 'TOKEN_INVALID')
    const everything = await stored(null, ownIssuer(), { global: true })
    const client = installation.client({ token: await everything.own.token(), fetch: fetchOther })
    expect(idsOf((await client.listTenants()).data)).toContain(t.apex.id)
  })
  it('holds the scopes of its claim that its issuer may grant', async () => {
    const { own } = await stored(t.north.id, ownIssuer(), { max_scopes: ['read'] })
    const client = installation.client({ token: await own.token(), fetch: fetchOther })
    expect((await client.getContext()).principal.scopes).toEqual(['read'])
    await refusal(client.updateTenant({ id: t.north.id, name: 'North' }), 'SCOPE_REQUIRED')
  })
  it('is verified by the key of that issuer, not by that of another of its name', async () => {
    const { own } = await stored(t.north.id)
    const impostor = ownIssuer(own.name)
    expectRefusal(await contextOf(await impostor.token()), 'TOKEN_INVALID')
    await stored(t.apex.id, ownIssuer(own.name, 'of apex'))
    expectRefusal(await contextOf(await own.token({}, { audience: 'of apex' })), 'TOKEN_INVALID')
    expect((await contextOf(await own.token())).status).toBe(200)
  })
  it('for several audiences is of the issuer that is bound highest, so that nobody shadows one above', async () => {
    const shadow = await stored(t.alpha.id, ownIssuer(undefined, 'of alpha'))
    const { own } = await stored(null, ownIssuer(shadow.own.name, 'of all'))
    const token = await own.token({ tenant: t.apex.id }, { audience: ['of alpha', 'of all'] })
    expect((await contextOf(token)).body).toMatchObject({ tenant_id: t.apex.id })
  })
  it('for several audiences is of the first that was stored, and of one above that: no tenant of another branch takes it', async () => {
    const own = ownIssuer()
    const audiences = ['of alpha', 'of apex', 'of acme']
    const meant = async (claims = {}) => (await contextOf(await own.token(claims, { audience: audiences }), {}, otherProcess())).body
    const store = (tenant_id: string, audience: string | undefined) => global.createIssuer(own.fields({ tenant_id, audience: String(audience) }))
    await store(t.alpha.id, audiences[0])
    // higher in its tree than alpha is in that of acme, with the keys that alpha's provider publishes
    const apex = await installation.clientFor(t.apex.id)
    await apex.createIssuer(own.fields({ audience: 'of apex' }))
    expect(await meant()).toMatchObject({ tenant_id: t.alpha.id })
    expect(await meant({ tenant: t.alpha.slug })).toMatchObject({ tenant_id: t.alpha.id })
    // one above alpha counts before it, whoever else has one of that name meanwhile
    await store(t.acme.id, audiences[2])
    expect(await meant()).toMatchObject({ tenant_id: t.acme.id })
  })
  it('is never judged by a stored issuer where one of the environment fits', async () => {
    const [theirs, ours] = [ownIssuer(), ownIssuer()]
    const twin = ownIssuer(ours.name)
    await stored(t.north.id, theirs)
    await stored(t.north.id, twin)
    fetchOther = otherProcess([ours.fields({ tenant_id: t.apex.id })])
    expect((await contextOf(await ours.token())).body).toMatchObject({ tenant_id: t.apex.id })
    expectRefusal(await contextOf(await twin.token()), 'TOKEN_INVALID')
    expect((await contextOf(await theirs.token())).status).toBe(200)
  })
  it('is told apart in the audit trail from one of another issuer of that name', async () => {
    const { own, id } = await stored(t.north.id)
    const client = installation.client({ token: await own.token(), fetch: fetchOther })
    const { audit } = await recordedBy(installation.owner, () => client.updateTenant({ id: t.north.id, name: 'North' }))
    expect(audit[0]?.payload['actor']).toMatchObject({ type: 'token', id: 'ada', issuer: own.name, issuer_id: id })
  })
  it('and one of another issuer of that name share no Idempotency-Key', async () => {
    const { own } = await stored(t.north.id)
    const { own: other } = await stored(t.north.id, ownIssuer(own.name, 'another'))
    const create = async (by: OwnIssuer) =>
      ask(fetchOther, '/api/v1/tenants', {
        method: 'POST',
        json: { slug: uniqueSlug('once'), name: 'Once', parent_id: t.north.id },
        token: await by.token(),
        headers: { 'idempotency-key': 'the-same' },
      })
    expect((await create(own)).status).toBe(201)
    expect((await create(other)).status).toBe(201)
    expectRefusal(await create(own), 'IDEMPOTENCY_KEY_REUSED')
  })
})

it('of the lower of two issuers is one of the upper as soon as the process is told that this was stored', async () => {
  const lower = await stored(t.alpha.id, ownIssuer(undefined, 'of alpha'))
  const tokens = new TokenVerifier([], { stored: askDatabaseForIssuer(installation.services.db) })
  const token = await lower.own.token({ tenant: t.alpha.id }, { audience: ['of alpha', 'of all'] })
  expect((await tokens.verify(token)).issuer_id).toBe(lower.id)
  const { rows: before } = await installation.owner.query<{ id: string }>('select coalesce(max(id), 0) as id from stratum.changes')
  const upper = await global.createIssuer({ ...lower.own.fields(), audience: 'of all' })
  const { rows: changes } = await installation.owner.query<{ kind: string; ref: string }>('select kind, ref from stratum.changes where id > $1', [
    before[0]?.id,
  ])
  tokens.changed(changes)
  expect((await tokens.verify(token)).issuer_id).toBe(upper.id)
})

it('of an issuer that counted for one below it that was stored first is judged anew as soon as that is deleted here', async () => {
  const own = ownIssuer()
  const store = (tenant_id: string, audience: string) => global.createIssuer(own.fields({ tenant_id, audience }))
  const first = await store(t.alpha.id, 'of alpha')
  await store(t.apex.id, 'of apex')
  await store(t.acme.id, 'of acme')
  const meant = async (jti: string) => {
    const answer = await contextOf(await own.token({ jti }, { audience: ['of alpha', 'of apex', 'of acme'] }), {}, installation.fetch)
    return (answer.body as { tenant_id: string }).tenant_id
  }
  expect(await meant('before')).toBe(t.acme.id)
  await global.deleteIssuer({ id: first.id })
  expect(await meant('after')).toBe(t.apex.id)
})

describe('it costs', () => {
  it('one request more where its issuer is first met, and none after', async () => {
    const { own } = await stored(t.north.id)
    expect(await statusAndCost(await own.token())).toEqual([200, 2])
    expect(await statusAndCost(await own.token({ tenant: t.alpha.id }))).toEqual([200, 1])
  })
  it('nothing where no stored issuer could have made it', async () => {
    const nobody = ownIssuer()
    const [header = '', , signature = ''] = (await nobody.token()).split('.')
    const encode = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url')
    const claims = { iss: nobody.name, aud: 'stratum', exp: 4_000_000_000 }
    const made = (change: object, head: object | null = null) => `${head ? encode(head) : header}.${encode({ ...claims, ...change })}.${signature}`
    const impossible = [
      made({ exp: undefined }),
      made({ exp: '4000000000' }),
      made({ iss: undefined }),
      made({ iss: 'x'.repeat(1_025) }),
      made({ iss: 'a\0b' }),
      made({ iss: { text: nobody.name } }),
      made({ aud: undefined }),
      made({ aud: [] }),
      made({ aud: ['stratum', 7] }),
      made({ aud: ['stratum', '\ud800'] }),
      made({ aud: Array.from({ length: 101 }, (_, index) => `a${index}`) }),
      made({}, { alg: 'none' }),
      made({}, { alg: 'HS256' }),
      made({}, { alg: 'constructor' }),
      made({}, {}),
    ]
    for (const token of impossible) expect(await statusAndCost(token)).toEqual(['TOKEN_INVALID', 0])
  })
  it('one request where the issuer is unknown, and none for a while after', async () => {
    const nobody = ownIssuer()
    expect(await statusAndCost(await nobody.token())).toEqual(['TOKEN_INVALID', 1])
    for (let i = 0; i < 5; i++) expect(await statusAndCost(await nobody.token({ i }))).toEqual(['TOKEN_INVALID', 0])
  })
  it('one request more for many at once', async () => {
    const { own } = await stored(t.north.id)
    const tokens = await Promise.all(Array.from({ length: 20 }, (_, index) => own.token({ index })))
    const before = installation.databaseRequests()
    const answers = await Promise.all(tokens.map((token) => contextOf(token)))
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]))
    expect(installation.databaseRequests() - before).toBe(21)
  })
})

describe('when its issuer is deleted', () => {
  const deleted = async () => {
    const made = await stored(t.north.id)
    const token = await made.own.token()
    expect(await statusAndCost(token)).toEqual([200, 2])
    expect(await statusAndCost(token)).toEqual([200, 1])
    await north.deleteIssuer({ id: made.id })
    return { ...made, token }
  }
  it('it is refused at once where it was kept, and asks the database nothing more', async () => {
    const { token } = await deleted()
    // the operation refused, and the issuer asked for
    expect(await statusAndCost(token)).toEqual(['TOKEN_INVALID', 2])
    expect(await statusAndCost(token)).toEqual(['TOKEN_INVALID', 0])
  })
  it('without SQL looking, it would go on working', async () => {
    const { rows } = await installation.owner.query<{ body: string }>(`select pg_get_functiondef('stratum.token_principal(jsonb)'::regprocedure) as body`)
    const original = rows[0]?.body ?? ''
    const unguarded = original.replace(`token ->> 'issuer_id' is not null and`, 'false and')
    expect(unguarded).not.toBe(original)
    await installation.owner.query(unguarded)
    let token: string
    try {
      token = (await deleted()).token
      expect(await statusAndCost(token)).toEqual([200, 1])
    } finally {
      await installation.owner.query(original)
    }
    expect((await statusAndCost(token))[0]).toBe('TOKEN_INVALID')
  })
  it('it is refused for that before anything else is told', async () => {
    const { token } = await deleted()
    expectRefusal(await ask(fetchOther, '/api/v1/tenants', { method: 'POST', body: '{', token }), 'TOKEN_INVALID')
    const again = await deleted()
    expectRefusal(await ask(fetchOther, `/api/v1/tenants/${t.apex.id}?nonsense=1`, { token: again.token }), 'TOKEN_INVALID')
    const shown = await deleted()
    const path = `/api/v1/tenants/${t.alpha.id}/config/k?dry_run=true`
    expectRefusal(await ask(fetchOther, path, { method: 'PUT', json: { value: 1 }, token: shown.token }), 'TOKEN_INVALID')
  })
  it('it is refused to a server that asks whom it means', async () => {
    const { token } = await deleted()
    const apiKey = await installation.apiKey(null)
    const resolve = () => ask(fetchOther, '/api/v1/resolve', { method: 'POST', json: { token }, apiKey })
    expect(expectRefusal(await resolve(), 'TOKEN_INVALID')['reason']).toBe('its issuer is not trusted')
    expectRefusal(await resolve(), 'TOKEN_INVALID')
  })
  it('a write with it leaves nothing behind', async () => {
    const { token } = await deleted()
    const recorded = await recordedBy(installation.owner, () =>
      ask(fetchOther, `/api/v1/tenants/${t.alpha.id}/config/k`, { method: 'PUT', json: { value: 1 }, token }),
    )
    expect(recorded).toMatchObject({ audit: [], outbox: [], feed: [] })
  })
})

describe('when its issuer is replaced', () => {
  const replace = async (change: object, keys: OwnIssuer | null = null) => {
    const { own, id } = await stored(t.north.id)
    const token = await own.token()
    expect(await statusAndCost(token)).toEqual([200, 2])
    await global.deleteIssuer({ id })
    await global.createIssuer({ ...own.fields({ tenant_id: t.north.id, ...change }), ...(keys ? { keys: keys.fields().keys } : {}) })
    return { token, own }
  }
  it('by one with the same keys it is judged by the new one at once', async () => {
    const { token } = await replace({ max_scopes: ['read'] })
    expect(await statusAndCost(token)).toEqual([200, 3])
    const { principal } = await installation.client({ token, fetch: fetchOther }).getContext()
    expect(principal.scopes).toEqual(['read'])
    expect(await statusAndCost(token)).toEqual([200, 1])
  })
  it('by one that is bound elsewhere, it reaches that and no more what it did', async () => {
    const { token } = await replace({ tenant_id: t.apex.id })
    const client = installation.client({ token, fetch: fetchOther })
    await refusal(client.getTenant({ id: t.north.id }), 'TENANT_NOT_FOUND')
    expect((await client.getContext()).tenant_id).toBe(t.apex.id)
  })
  it('by one with other keys, what the old ones signed is refused', async () => {
    const other = ownIssuer()
    const { token } = await replace({}, other)
    expect((await statusAndCost(token))[0]).toBe('TOKEN_INVALID')
  })
})

it('is served where the issuer was stored by the same process, though it was not there a moment ago', async () => {
  const own = ownIssuer()
  const apiKey = await installation.apiKey(t.north.id)
  expectRefusal(await contextOf(await own.token()), 'TOKEN_INVALID')
  const answer = await ask(fetchOther, '/api/v1/issuers', { method: 'POST', json: own.fields(), apiKey })
  expect(answer.status).toBe(201)
  expect((await contextOf(await own.token())).status).toBe(200)
  await ask(fetchOther, `/api/v1/issuers/${(answer.body as { id: string }).id}`, { method: 'DELETE', apiKey })
  // nothing is kept that would have to be found outdated
  expect(await statusAndCost(await own.token())).toEqual(['TOKEN_INVALID', 1])
})
