/** Who asks too often is told so, without the database, and nobody else pays for it. */
import { generateKeyPair, SignJWT } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { generateRingKey } from '../../src/crypto/key-ring.ts'
import { createApp } from '../../src/http/app.ts'
import { type PlatformLimiter, RateLimiter, type RateLimits } from '../../src/http/rate-limit.ts'
import { parseEnvironment } from '../../workers/env.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { uniqueSlug } from '../support/tree.ts'

let installation: Installation
let key: string
let other: string
let slug: string
beforeAll(async () => {
  installation = await createInstallation()
  const tenant = await installation.stratum.createTenant({ slug: uniqueSlug('limited'), name: 'Limited' })
  slug = tenant.slug
  key = await installation.apiKey(tenant.id)
  other = await installation.apiKey(tenant.id)
})
afterAll(() => installation.close())

function service(limits: RateLimits) {
  let time = 60_000
  const app = createApp({ services: installation.services, version: 'test', limiter: new RateLimiter({ now: () => time, ...limits }) })
  const ask = async (headers: Record<string, string>) => {
    const response = await app.fetch(new Request('http://stratum.test/api/v1/tenants?limit=1', { headers }))
    return { status: response.status, headers: response.headers, body: (await response.json()) as { error?: { code: string } } }
  }
  const pass = (seconds: number) => {
    time += seconds * 1000
  }
  return { app, ask, pass }
}

describe('a principal', () => {
  it('is told how much is left, refused when nothing is, and welcome again in the next window', async () => {
    const { ask, pass } = service({ principal: { requests: 2, seconds: 60 } })
    const first = await ask({ 'x-api-key': key })
    expect([first.status, first.headers.get('ratelimit'), first.headers.get('ratelimit-policy')]).toEqual([200, '"principal";r=1;t=60', '"principal";q=2;w=60'])
    await ask({ 'x-api-key': key })
    pass(20)
    const requests = installation.databaseRequests()
    const refused = await ask({ 'x-api-key': key })
    expect(refused).toMatchObject({ status: 429, body: { error: { code: 'RATE_LIMITED', details: { retry_after: 40 } } } })
    expect(refused.headers.get('retry-after')).toBe('40')
    expect(installation.databaseRequests()).toBe(requests)
    expect((await ask({ 'x-api-key': other })).status).toBe(200)
    pass(40)
    expect((await ask({ 'x-api-key': key })).status).toBe(200)
  })

  it('is counted for requests that cannot be read too, as these cost the database the same', async () => {
    const { app } = service({ principal: { requests: 1, seconds: 60 } })
    const ask = async () => (await app.fetch(new Request('http://stratum.test/api/v1/tenants?limit=many', { headers: { 'x-api-key': key } }))).status
    expect([await ask(), await ask()]).toEqual([400, 429])
  })

  it('with a token is its user and no other of the tenant; the tenant has a limit of its own', async () => {
    const { ask } = service({ principal: { requests: 2, seconds: 60 }, tenant: { requests: 3, seconds: 60 } })
    const bearer = async (subject: string) => ({ authorization: `Bearer ${await installation.token({ tenant: slug, scope: 'read' }, { subject })}` })
    const [ann, bob] = [await bearer('ann'), await bearer('bob')]
    expect([(await ask(ann)).status, (await ask(ann)).status, (await ask(ann)).status]).toEqual([200, 200, 429])
    expect([(await ask(bob)).status, (await ask(bob)).status]).toEqual([200, 429])
  })

  it('is counted by the platform where that has a limiter', async () => {
    const keys: string[] = []
    const limiter: PlatformLimiter = {
      limit: async (asked) => {
        keys.push(asked.key)
        return { success: keys.length < 2 }
      },
    }
    const { ask } = service({ principal: { requests: 100, seconds: 10 }, platform: { principal: limiter } })
    const [served, refused] = [await ask({ 'x-api-key': key }), await ask({ 'x-api-key': key })]
    expect([served.status, refused.status, refused.headers.get('retry-after')]).toEqual([200, 429, '10'])
    expect(keys[0]).not.toContain(key)
    for (const { headers } of [served, refused]) {
      expect([headers.get('ratelimit-policy'), headers.get('ratelimit')]).toEqual(['"principal";q=100;w=10', null])
    }
  })

  it('is counted by nobody where the limit is off, by the platform neither', async () => {
    const limit = () => Promise.reject(new Error('asked'))
    const { ask } = service({ principal: undefined, platform: { principal: { limit } } })
    const { status, headers } = await ask({ 'x-api-key': key })
    expect([status, headers.has('ratelimit-policy')]).toEqual([200, false])
  })
})

describe('a tenant', () => {
  it('loses nothing of its limit to strangers that ask for its host, and shows them nothing of it', async () => {
    const { app } = service({ tenant: { requests: 2, seconds: 60 } })
    const stranger = await installation.stratum.createTenant({ slug: uniqueSlug('stranger'), name: 'Stranger' })
    const ask = async (tenant: string, subject: string) => {
      const authorization = `Bearer ${await installation.token({ tenant, scope: 'read' }, { subject })}`
      return app.fetch(new Request(`http://${slug.replaceAll('_', '-')}.stratum.test/api/v1/tenants?limit=1`, { headers: { authorization } }))
    }
    const theirs = [await ask(stranger.slug, 'a'), await ask(stranger.slug, 'b'), await ask(stranger.slug, 'c')]
    expect(theirs.map(({ status }) => status)).toEqual([404, 404, 429])
    const own = await ask(slug, 'a')
    expect([own.status, own.headers.get('ratelimit')]).toEqual([200, '"tenant";r=1;t=60'])
  })
})

describe('an address', () => {
  it('that guesses credentials is not asked about any more after some refusals, and its neighbours are', async () => {
    const { ask, pass } = service({ refused: { requests: 3, seconds: 60 } })
    const guess = (address: string, index: number) => ask({ 'cf-connecting-ip': address, 'x-api-key': `sk_test_${String(index).padStart(43, 'A')}` })
    for (let index = 0; index < 3; index++) expect((await guess('192.0.2.1', index)).status).toBe(401)
    const requests = installation.databaseRequests()
    expect((await guess('192.0.2.1', 9)).status).toBe(429)
    expect(installation.databaseRequests()).toBe(requests)
    expect((await guess('192.0.2.2', 9)).status).toBe(401)
    expect((await ask({ 'cf-connecting-ip': '192.0.2.2', 'x-api-key': key })).status).toBe(200)
    pass(60)
    expect((await guess('192.0.2.1', 10)).status).toBe(401)
  })

  it.each([
    ['an IPv6 network has 2^64 of', (n: number) => `2001:db8:0:1::${n.toString(16)}`, '2001:db8:0:2::1'],
    ['is written in many ways', (n: number) => ['2001:0:0:5::1', '2001::5:6:7:8:9', '2001:0000:0000:0005:A:B:C:D'][n] ?? '', '2001:0:5::1'],
    ['is of IPv4 in the form of IPv6', (n: number) => ['192.0.2.4', '::ffff:192.0.2.4', '::FFFF:c000:204'][n] ?? '', '::ffff:192.0.2.5'],
  ])('that %s counts as one, and its neighbour as another', async (_, address, neighbour) => {
    const { ask } = service({ refused: { requests: 2, seconds: 60 } })
    const guess = async (from: string, index: number) =>
      (await ask({ 'cf-connecting-ip': from, 'x-api-key': `sk_test_${String(index).padStart(43, 'B')}` })).status
    expect([await guess(address(0), 0), await guess(address(1), 1), await guess(address(2), 2), await guess(neighbour, 3)]).toEqual([401, 401, 429, 401])
  })

  it('that guesses does not hold up whoever shares it with a key that was accepted in the last 5 minutes', async () => {
    const { ask, pass } = service({ refused: { requests: 2, seconds: 1_000 } })
    const status = async (apiKey: string) => (await ask({ 'cf-connecting-ip': '192.0.2.6', 'x-api-key': apiKey })).status
    expect(await status(key)).toBe(200)
    for (let index = 0; index < 2; index++) expect(await status(`sk_test_${String(index).padStart(43, 'C')}`)).toBe(401)
    expect([await status(key), await status(other), await status(`sk_test_${'C'.repeat(43)}`)]).toEqual([200, 429, 429])
    pass(299)
    expect(await status(key)).toBe(200)
    pass(300)
    expect(await status(key)).toBe(429)
  })

  it('that names ever new issuers is not asked about any more either, and its users of a known one are served', async () => {
    const { ask } = service({ refused: { requests: 2, seconds: 60 } })
    const keys = await generateKeyPair('ES256')
    const made = (issuer: string) =>
      new SignJWT({}).setProtectedHeader({ alg: 'ES256' }).setIssuer(issuer).setAudience('any').setExpirationTime('5m').sign(keys.privateKey)
    const from = async (token: string) => (await ask({ 'cf-connecting-ip': '192.0.2.3', authorization: `Bearer ${token}` })).status
    expect([await from(await made('https://a.test')), await from(await made('https://b.test'))]).toEqual([401, 401])
    const requests = installation.databaseRequests()
    expect(await from(await made('https://c.test'))).toBe(429)
    expect(installation.databaseRequests()).toBe(requests)
    expect(await from(await installation.token({ tenant: slug, scope: 'read' }))).toBe(200)
  })
})

describe('the variables', () => {
  const limits = (env: Record<string, string>) => {
    const rings = { STRATUM_MASTER_KEYS: generateRingKey('1'), STRATUM_API_KEY_SECRETS: generateRingKey('1') }
    const parsed = parseEnvironment({ DATABASE_URL: 'postgresql://stratum_control:x@db.test/neondb', ...rings, ...env })
    return [parsed.STRATUM_PRINCIPAL_LIMIT, parsed.STRATUM_TENANT_LIMIT, parsed.STRATUM_REFUSED_LIMIT]
  }

  it('set limits, take them away, and leave the usual ones where they say nothing', () => {
    const usual = [
      { requests: 6_000, seconds: 60 },
      { requests: 60_000, seconds: 60 },
      { requests: 60, seconds: 60 },
    ]
    expect(limits({})).toEqual(usual)
    expect(limits({ STRATUM_PRINCIPAL_LIMIT: 'off', STRATUM_TENANT_LIMIT: '5/1', STRATUM_REFUSED_LIMIT: 'off' })).toEqual([
      undefined,
      { requests: 5, seconds: 1 },
      undefined,
    ])
  })
})
