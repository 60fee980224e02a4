import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { keepContexts } from '../../src/features/context/kept.ts'
import { compileSchema } from '../../src/features/config/definitions.ts'
import { createApp } from '../../src/http/app.ts'
import { RateLimiter } from '../../src/http/rate-limit.ts'
import { Contexts, type Loaded } from '../../src/resolver/contexts.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { uniqueSlug } from '../support/tree.ts'

let installation: Installation
beforeAll(async () => { installation = await createInstallation() })
afterAll(() => installation.close())
const loaded = (value: string, path = 'a.b'): Loaded<string> => ({ value, tags: { path, names: [], principal: null, issuers: [] }, feed: { snapshot: '5:5:', identity: 'x', anchor: null } })
const quiet = async () => ({ snapshot: '9:9:', identity: 'x', anchor: null, rows: [], complete: true })

describe('proofs', () => {
  it('1 bad tokens of users block the server that resolves', async () => {
    const t = await installation.stratum.createTenant({ slug: uniqueSlug('a'), name: 'A' })
    const key = await installation.apiKey(t.id, ['read'])
    const app = createApp({ services: installation.services, version: 't', limiter: new RateLimiter({ refused: { requests: 3, seconds: 60 } }) })
    const ask = (token: string) => app.fetch(new Request('http://stratum.test/api/v1/resolve', { method: 'POST', headers: { 'x-api-key': key, 'cf-connecting-ip': '192.0.2.1', 'content-type': 'application/json' }, body: JSON.stringify({ token }) }))
    const statuses = []
    for (let i = 0; i < 4; i++) statuses.push((await ask('a.b.c')).status)
    statuses.push((await ask(await installation.token({ tenant: t.slug, scope: 'read' }))).status)
    expect(statuses).toEqual([401, 401, 401, 401, 200])
  })
  it('2 first answer torn', async () => {
    const t = await installation.stratum.createTenant({ slug: uniqueSlug('b'), name: 'B' })
    const { key, id } = await installation.stratum.createApiKey(t.id, { scopes: ['read'] })
    let time = 1_000_000
    const contexts = keepContexts(installation.services.db, { now: () => time })
    const app = createApp({ services: { ...installation.services, contexts }, version: 't' })
    const ask = async () => (await app.fetch(new Request('http://stratum.test/api/v1/context', { headers: { 'x-api-key': key } }))).status
    const holder = new pg.Client(installation.urls.owner)
    await holder.connect()
    await holder.query('begin; lock table stratum.permission_policies in access exclusive mode')
    const first = ask()
    for (;;) {
      const { rows } = await installation.owner.query("select count(*)::int n from pg_locks where not granted and relation = 'stratum.permission_policies'::regclass")
      if (rows[0].n > 0) break
    }
    await installation.stratum.revokeApiKey(id)
    await holder.query('commit'); await holder.end()
    const s1 = await first
    time += 2_001
    const s2 = await ask()
    expect([s1, s2]).toEqual([200, 401])
  })
  it('3 huge min version flushes others', async () => {
    let time = 0
    const contexts = new Contexts<string>(quiet, { now: () => time })
    await contexts.resolve('x', async () => loaded('x'))
    await contexts.resolve('y', async () => loaded('y'))
    await contexts.resolve('y', async () => loaded('y2'), { minimumVersion: '9999999999999999999' })
    expect((await contexts.resolve('x', async () => loaded('x2'))).outcome).toBe('hit')
  })
  it('4 hung poll', async () => {
    let time = 0
    let hang = true
    const contexts = new Contexts<string>(() => (hang ? new Promise(() => {}) : quiet()), { now: () => time, followerTimeout: 20, grace: 0 })
    await contexts.resolve('x', async () => loaded('x'))
    time += 3000
    await contexts.resolve('x', async () => loaded('x2')).catch(() => undefined)
    hang = false
    time += 3000
    expect((await contexts.resolve('x', async () => loaded('x2'))).outcome).toBe('hit')
  })
  it('5 staleness 0 joins a load begun earlier', async () => {
    let time = 0
    const contexts = new Contexts<string>(quiet, { now: () => time, maximumStaleness: 0 })
    await contexts.resolve('begin', async () => loaded('x'))
    let release = (_: Loaded<string>) => {}
    const a = contexts.resolve('k', () => new Promise((resolve) => (release = resolve)))
    time += 100
    const b = contexts.resolve('k', async () => loaded('new'))
    await Promise.resolve()
    setTimeout(() => release(loaded('old')), 20)
    expect((await b).value).toBe('new')
    await a
  })
  it('6 strangers use up a tenant limit', async () => {
    const [a, b] = [await installation.stratum.createTenant({ slug: uniqueSlug('victim'), name: 'A' }), await installation.stratum.createTenant({ slug: uniqueSlug('bad'), name: 'B' })]
    const app = createApp({ services: installation.services, version: 't', limiter: new RateLimiter({ tenant: { requests: 3, seconds: 3600 } }) })
    const ask = async (credential: Record<string, string>) => app.fetch(new Request(`http://${a.subdomain}.stratum.test/api/v1/context`, { headers: credential }))
    const stranger = await installation.apiKey(b.id, ['read'])
    const out = []
    for (let i = 0; i < 4; i++) { const r = await ask({ 'x-api-key': stranger }); out.push([r.status, r.headers.get('ratelimit')]) }
    console.log(out)
    expect((await ask({ authorization: `Bearer ${await installation.token({ tenant: a.slug, scope: 'read' })}` })).status).toBe(200)
  })
  it('7 endless schema', async () => {
    const judge = compileSchema('k', { properties: { zzz: { $ref: '#/properties/zzz' } } })
    expect(judge({ zzz: 1 })).not.toBeNull()
  })
})
