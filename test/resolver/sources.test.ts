/** Which sources may name a tenant, as the environment says, and the cookie among them. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { generateRingKey } from '../../src/crypto/key-ring.ts'
import type { Tenant } from '../../src/features/tenants/contract.ts'
import { createApp } from '../../src/http/app.ts'
import type { HostRules } from '../../src/resolver/identify.ts'
import { parseEnvironment } from '../../workers/env.ts'
import { type Asked, ask, expectRefusal } from '../support/answers.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { plantTree } from '../support/tree.ts'

const REQUIRED = {
  DATABASE_URL: 'postgresql://stratum_control:x@db.test/neondb',
  STRATUM_MASTER_KEYS: generateRingKey('1'),
  STRATUM_API_KEY_SECRETS: generateRingKey('1'),
}
const parse = (env: Record<string, string>) => parseEnvironment({ ...REQUIRED, ...env })

describe('the variables', () => {
  it('leave the usual sources, with the cookie last where one is named', () => {
    expect(parse({}).sources).toEqual(['token', 'subdomain', 'domain', 'path', 'header'])
    expect(parse({ STRATUM_COOKIE: 'tenant' }).sources).toEqual(['token', 'subdomain', 'domain', 'path', 'header', 'cookie'])
  })
  it('name them in any order', () => {
    expect(parse({ STRATUM_SOURCES: ' Token , header' }).sources).toEqual(['token', 'header'])
    const named = parse({ STRATUM_SOURCES: 'cookie,token,path', STRATUM_COOKIE: '__Host-tenant' })
    expect([named.sources, named.STRATUM_COOKIE]).toEqual([['cookie', 'token', 'path'], '__Host-tenant'])
  })
  it.each([
    [{ STRATUM_SOURCES: 'subdomain' }, /^The variable STRATUM_SOURCES must contain token/],
    [{ STRATUM_SOURCES: '' }, /^The variable STRATUM_SOURCES must contain token/],
    [{ STRATUM_SOURCES: 'token,query' }, /^The variable STRATUM_SOURCES must be a comma-separated list of token, subdomain/],
    [{ STRATUM_SOURCES: 'token,path,path' }, /^The variable STRATUM_SOURCES must be a comma-separated list of .* each once at most/],
    [{ STRATUM_SOURCES: 'token,cookie' }, /^The variable STRATUM_SOURCES lists cookie; say which in STRATUM_COOKIE/],
    [{ STRATUM_SOURCES: 'token', STRATUM_COOKIE: 'tenant' }, /^The variable STRATUM_SOURCES does not list cookie; add it, or remove STRATUM_COOKIE/],
    [{ STRATUM_COOKIE: 'ten ant' }, /^The variable STRATUM_COOKIE must be the name of a cookie/],
    [{ STRATUM_COOKIE: '' }, /^The variable STRATUM_COOKIE must be the name of a cookie/],
    [{ STRATUM_BASE_DOMAINS: 'a..example.com' }, /^The variable STRATUM_BASE_DOMAINS must be/],
    [{ STRATUM_BASE_DOMAINS: 'app_1.example.com' }, /^The variable STRATUM_BASE_DOMAINS must be/],
  ])('%j are refused', (env, reason) => {
    expect(() => parse(env)).toThrow(reason)
  })
  it('give hosts in the form in which they are compared', () => {
    expect(parse({ STRATUM_API_HOSTS: '[2001:DB8:0::1],API.example.com,127.1' }).STRATUM_API_HOSTS).toEqual(['[2001:db8::1]', 'api.example.com', '127.0.0.1'])
  })
})

describe('a request', () => {
  let installation: Installation
  let t: Record<'acme' | 'north' | 'alpha' | 'apex' | 'paused', Tenant>
  let key: string
  let token: string
  beforeAll(async () => {
    installation = await createInstallation()
    t = await plantTree(await installation.clientFor(null), { acme: null, north: 'acme', alpha: 'north', apex: null, paused: 'acme' })
    await installation.stratum.suspendTenant(t.paused.id)
    key = await installation.apiKey(t.acme.id)
    token = await installation.token({ tenant: t.acme.id, scope: 'admin' })
  })
  afterAll(() => installation.close())

  const under = (rules: Partial<HostRules>) => {
    const app = createApp({ services: { ...installation.services, hosts: { ...installation.services.hosts, ...rules } }, version: 'test' })
    return (asked: Asked, prefix = '') => ask((request) => app.fetch(request), `${prefix}/api/v1/context`, asked)
  }
  const withCookie = () => under({ sources: ['token', 'subdomain', 'path', 'header', 'cookie'], cookie: 'tenant' })
  const cookie = (tenant: string) => ({ headers: { cookie: `a=1; tenant=${tenant}; b=2` } })

  it('is for the tenant of the cookie, by slug or id, and reaches no further', async () => {
    for (const asked of [
      { apiKey: key, ...cookie(t.north.slug) },
      { token, ...cookie(t.north.id) },
    ]) {
      const { body } = await withCookie()(asked)
      expect(body).toMatchObject({ tenant_id: t.north.id, acting_as: t.north.id })
    }
    const app = createApp({
      services: { ...installation.services, hosts: { ...installation.services.hosts, sources: ['token', 'cookie'], cookie: 'tenant' } },
      version: 'test',
    })
    expectRefusal(await ask((request) => app.fetch(request), `/api/v1/tenants/${t.acme.id}`, { token, ...cookie(t.north.id) }), 'TENANT_NOT_FOUND')
  })
  it('whose cookie names another tenant than its host, path or header is refused', async () => {
    const send = withCookie()
    const base = `http://${t.north.subdomain}.stratum.test`
    expectRefusal(await send({ token, base, ...cookie(t.alpha.slug) }), 'TENANT_MISMATCH')
    expectRefusal(await send({ token, ...cookie(t.alpha.slug) }, `/t/${t.north.slug}`), 'TENANT_MISMATCH')
    expectRefusal(await send({ apiKey: key, headers: { 'x-tenant-id': t.north.id, ...cookie(t.alpha.id).headers } }), 'TENANT_MISMATCH')
    expect((await send({ token, base, ...cookie(t.north.slug) })).status).toBe(200)
  })
  it('whose cookie names what is out of reach or not there is told the same', async () => {
    const send = withCookie()
    const messages = await Promise.all(
      [t.apex.slug, t.apex.id, 'nobody_here', 'No Such', '', `${t.north.slug}; tenant=${t.alpha.slug}`].map(async (name) => {
        const answer = await send({ token, ...cookie(name) })
        expectRefusal(answer, 'TENANT_NOT_FOUND')
        return (answer.body as { error: { message: string } }).error.message
      }),
    )
    expect(new Set(messages).size).toBe(1)
    expectRefusal(await send({ token, ...cookie(t.paused.slug) }), 'TENANT_SUSPENDED')
    expectRefusal(await send(cookie(t.north.slug)), 'AUTHENTICATION_REQUIRED')
  })
  it('may carry 100 KB of cookies', async () => {
    const many = Array.from({ length: 2_500 }, (_, index) => `cookie_${index}=${'x'.repeat(28)}`).join('; ')
    expect(many.length).toBeGreaterThan(100_000)
    const started = performance.now()
    for (const headers of [
      { cookie: `${many}; tenant=${t.north.slug}` },
      { cookie: `tenant=${t.north.slug}; ${many}` },
      { cookie: `${';'.repeat(100_000)}tenant=${t.north.slug}` },
    ]) {
      expect((await withCookie()({ token, headers })).body).toMatchObject({ tenant_id: t.north.id })
    }
    expect(performance.now() - started).toBeLessThan(5_000)
  })
  it('has no cookie where none is configured', async () => {
    expect((await under({})({ token, ...cookie(t.north.slug) })).body).toMatchObject({ tenant_id: t.acme.id })
  })
  it('by a source that does not count names nobody, and never falls back', async () => {
    const send = under({ sources: ['token'] })
    expectRefusal(await send({ token }, `/t/${t.north.slug}`), 'TENANT_NOT_FOUND')
    expectRefusal(await send({ apiKey: key, headers: { 'x-tenant-id': t.north.id } }), 'TENANT_HEADER_UNTRUSTED')
    expect((await send({ token, base: 'http://nowhere.example' })).body).toMatchObject({ tenant_id: t.acme.id })
    const domains = under({ sources: ['token', 'domain'] })
    expectRefusal(await domains({ token, base: `http://${t.north.subdomain}.stratum.test` }), 'TENANT_NOT_FOUND')
  })
})
