/** The example for Next.js in Next.js itself: built by `next build`, served by `next start`. Beyond it, what Next.js keeps between requests. */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import manifest from '../../package.json' with { type: 'json' }
import type { Tenant } from '../../src/features/tenants/contract.ts'
import { generateContextKey } from '../../src/gateway/context-keys.ts'
import { migrateTable } from '../../src/isolation/index.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { ALPHA, APP, BETA, beta, contextOf, createGatewayKeys, forge, GATEWAY, type Gateway } from './gateway-keys.ts'
import { buildNextApp, EXAMPLE, type NextApp, type NextServer } from './next-app.ts'
import { serveService } from './service.ts'
import { type Answer, ask, serve } from './web-server.ts'

const scope = `const scope = () => { try { return getTenantContext().tenant_id } catch (error) { return String((error as { code?: string }).code) } }`

/** Routes beside the example's, which no proxy stands before. */
const routes = (example: string) => ({
  'proxy.ts': example.replace('orders$|', 'orders$|beyond/|'),
  'app/beyond/page/page.tsx': `
    import { headers } from 'next/headers'
    import { getTenantContext, runWithTenant } from 'stratum-edge/next'
    import { tenantOf } from '../../../lib/stratum.ts'
    ${scope}
    const Child = async () => { await null; return <i>child {scope()}</i> }
    export default async function Page() {
      return runWithTenant(await tenantOf(await headers()), async () => <p>{'page ' + scope()}<Child /></p>)
    }`,
  'app/beyond/action/page.tsx': `
    import { headers } from 'next/headers'
    import { redirect } from 'next/navigation'
    import { tenantOf } from '../../../lib/stratum.ts'
    async function act() {
      'use server'
      redirect('/of/' + (await tenantOf(await headers())).slug)
    }
    const Page = () => <form action={act}><button type="submit">Act</button></form>
    export default Page`,
  // Next.js keeps what this fetches, for ever.
  'app/beyond/kept/route.ts': `
    import { withTenant } from '../../../lib/stratum.ts'
    export const fetchCache = 'default-cache'
    export const GET = withTenant(async (_request, { tenant }) => Response.json(tenant.slug))`,
  'app/beyond/kept-without-guard/route.ts': `
    import { stratum } from 'stratum-edge/next'
    export const fetchCache = 'default-cache'
    const { STRATUM_URL = '', STRATUM_API_KEY = '' } = process.env
    const { withTenant } = stratum({ baseUrl: STRATUM_URL, apiKey: STRATUM_API_KEY, ttl: 0, fetch: (input, init) => fetch(input, init) })
    export const GET = withTenant(async (_request, { tenant }) => Response.json(tenant.slug))`,
  'app/beyond/remembered/route.ts': `
    import { unstable_cache } from 'next/cache'
    import { getTenantContext } from 'stratum-edge/next'
    import { withTenant } from '../../../lib/stratum.ts'
    const ofWhoever = unstable_cache(async () => getTenantContext().tenant_id, ['of whoever asks first'])
    const ofOne = unstable_cache(async (tenantId: string) => tenantId, ['of one tenant'])
    export const GET = withTenant(async (_request, { tenant }) => Response.json([await ofWhoever(), await ofOne(tenant.tenant_id)]))`,
  'app/beyond/rows/route.ts': `
    import pg from 'pg'
    import { createTenantPool } from 'stratum-edge/db-adapters'
    import { getTenantContext } from 'stratum-edge/next'
    import { withTenant } from '../../../lib/stratum.ts'
    const pool = createTenantPool(new pg.Pool({ connectionString: process.env.DATABASE_URL }), () => getTenantContext().tenant_id)
    export const POST = withTenant(async (request) => {
      await pool.query('insert into next_orders (total) values ($1)', [(await request.json()).total])
      return Response.json((await pool.query('select total from next_orders order by total')).rows.map(({ total }) => total))
    })`,
})

let app: NextApp
let installation: Installation
let gateway: Gateway
let behind: NextServer
let direct: NextServer
let keysAsked = 0
const t = {} as Record<'alpha' | 'beta', Tenant>
const closing: Array<() => Promise<void>> = []
beforeAll(async () => {
  app = await buildNextApp(routes(await readFile(join(EXAMPLE, 'proxy.ts'), 'utf8')))
  closing.push(app.remove)
  gateway = await createGatewayKeys()
  const keys = await serve(async () => {
    keysAsked++
    return gateway.tokens.keySet()
  })
  installation = await createInstallation()
  const service = await serveService(installation)
  closing.push(keys.close, service.close, installation.close)
  for (const slug of ['alpha', 'beta'] as const) t[slug] = await installation.stratum.createOrganization({ slug: `shop_${slug}`, name: slug })
  await installation.owner.query('create table next_orders (id uuid primary key default gen_random_uuid(), total integer not null)')
  const owner = await installation.owner.connect()
  await migrateTable(owner, 'next_orders').finally(() => owner.release())
  behind = await app.start({ GATEWAY: keys.url, CONTEXT_ISSUER: GATEWAY, CONTEXT_AUDIENCE: APP })
  closing.unshift(behind.stop)
  const asApp = { STRATUM_URL: service.url, STRATUM_API_KEY: await installation.apiKey(null, ['read']), DATABASE_URL: installation.urls.app }
  direct = await app.start(asApp)
  closing.unshift(direct.stop)
}, 600_000)
afterAll(async () => {
  for (const close of closing) await close()
})

const asks = (token: string | string[], more: Parameters<typeof ask>[1] = {}) =>
  ask(behind.port, { ...more, headers: { 'stratum-context': token, ...more.headers } })
const hostOf = (slug: string) => `shop-${slug}.stratum.test`
/** What a page holds: its heading and the orders' tenants. */
const shown = ({ text }: Answer) => [/<h1>(.*?)<\/h1>/.exec(text)?.[1], /<li>(.*?)<\/li>/.exec(text)?.[1]]

function expectRefusal({ status, json, headers }: Answer, expected: number, code: string) {
  expect([status, json?.error?.code]).toEqual([expected, code])
  expect(json).toEqual({ error: { code, message: expect.any(String), request_id: headers['x-request-id'] } })
  expect(headers['cache-control']).toBe('no-store')
}

describe('next build', () => {
  it('needs none of the settings, and renders nothing of tenants beforehand', () => {
    const dynamic = [...app.built.matchAll(/ƒ (\/\S*)/g)].map(([, path]) => path)
    expect(dynamic).toEqual(expect.arrayContaining(['/', '/orders', '/beyond/page', '/beyond/kept', '/beyond/rows']))
    expect(app.built).toContain('ƒ Proxy')
  })
  it('is of the versions that are tried here', async () => {
    const example = JSON.parse(await readFile(join(EXAMPLE, 'package.json'), 'utf8'))
    const { 'stratum-edge': own, ...others } = { ...example.dependencies, ...example.devDependencies }
    expect([own, manifest.devDependencies]).toEqual([manifest.version, expect.objectContaining(others)])
  })
  it('makes an app that says what it lacks, and serves nobody', async () => {
    const server = await app.start({})
    try {
      for (const path of ['/', '/orders']) expect((await ask(server.port, { path, headers: { 'stratum-context': await gateway.sign() } })).status).toBe(500)
      expect(server.printed()).toContain('CONFIGURATION_INVALID')
    } finally {
      await server.stop()
    }
  })
})

describe('behind the gateway', () => {
  it('route handlers serve the tenant and the user that it says, whatever else the request says', async () => {
    const { status, json } = await asks(await gateway.sign(), { host: hostOf('beta'), headers: { 'x-tenant-id': BETA, 'x-forwarded-host': hostOf('beta') } })
    expect([status, json]).toEqual([200, { tenant: 'alpha', asks: 'ann', orders: [{ id: 1, tenant_id: ALPHA }] }])
    const posted = await asks(await gateway.sign(beta), { method: 'POST', body: { id: 2, text: 'x'.repeat(70_000) } })
    expect([posted.status, posted.json.id, posted.json.tenant_id]).toEqual([201, 2, BETA])
  })
  it('layout and page show that tenant, in no cache', async () => {
    const page = await asks(await gateway.sign(), { path: '/' })
    expect([page.status, shown(page)]).toEqual([200, ['alpha', ALPHA]])
    expect(page.headers['cache-control']).toContain('no-store')
    expect(shown(await asks(await gateway.sign(beta), { path: '/' }))).toEqual(['beta', BETA])
  })
  it('what runs for a component is in its scope, and components inside it are in none', async () => {
    const { text } = await asks(await gateway.sign(), { path: '/beyond/page' })
    expect([text.includes(`page ${ALPHA}`), text.includes('TENANT_REQUIRED')]).toEqual([true, true])
  })
  it('a server action is of the tenant whose request it is, and fails for nobody', async () => {
    const url = `http://127.0.0.1:${behind.port}/beyond/action`
    const [ofAlpha, ofBeta] = [await gateway.sign(), await gateway.sign(beta)]
    const page = await (await fetch(url, { headers: { 'stratum-context': ofAlpha } })).text()
    const form = new FormData()
    form.set(/name="(\$ACTION_ID_\w+)"/.exec(page)?.[1] ?? 'none', '')
    const act = (headers: Record<string, string>) => fetch(url, { method: 'POST', body: form, headers, redirect: 'manual' })
    const acted = await act({ 'stratum-context': ofBeta })
    expect([acted.status, acted.headers.get('location')]).toEqual([303, '/of/beta'])
    expect((await act({})).status).toBe(500)
  })
  it('requests side by side, over connections that stay open, are never mixed up', async () => {
    const tokens = { [ALPHA]: await gateway.sign(), [BETA]: await gateway.sign(beta) }
    const told = await Promise.all(
      Array.from({ length: 120 }, async (_, index) => {
        const tenant = index % 2 ? ALPHA : BETA
        const path = ['/', '/orders', '/beyond/page'][index % 3]
        const answer = await fetch(`http://127.0.0.1:${behind.port}${path}`, { headers: { 'stratum-context': tokens[tenant] ?? '' } })
        const text = await answer.text()
        return [answer.status, text.includes(tenant), text.includes(tenant === ALPHA ? BETA : ALPHA)]
      }),
    )
    expect(told).toEqual(told.map(() => [200, true, false]))
  })
  it('the keys are asked for once by each part that Next.js keeps apart', () => {
    expect(keysAsked).toBeLessThanOrEqual(4)
  })
  it.each(['/', '/orders', '/nowhere'])('%s refuses what came past it, was forged, has expired, or is for another app', async (path) => {
    expectRefusal(await ask(behind.port, { path }), 401, 'GATEWAY_CONTEXT_REQUIRED')
    const bad = [
      await forge(await generateContextKey('one'), { claims: { tenant_id: BETA } }),
      await forge(gateway.key, { expires: '-6s' }),
      await gateway.sign(contextOf(), 'https://other.test'),
      [await gateway.sign(beta), await gateway.sign()],
      '',
    ]
    for (const token of bad) expectRefusal(await asks(token, { path }), 403, 'GATEWAY_CONTEXT_INVALID')
  })
  it("no header of Next.js's own leads past the proxy, nor hands it a context", async () => {
    const overriding = { 'x-middleware-override-headers': 'stratum-context', 'x-middleware-request-stratum-context': await gateway.sign() }
    const tries: Array<Record<string, string>> = [
      { 'x-middleware-subrequest': Array.from({ length: 5 }, () => 'proxy').join(':') },
      { 'x-middleware-next': '1', ...overriding },
      { rsc: '1', 'next-router-prefetch': '1' },
      { 'x-invoke-path': '/health', 'x-matched-path': '/health', 'x-nextjs-data': '1' },
    ]
    for (const headers of tries) expectRefusal(await ask(behind.port, { path: '/?_rsc=1', headers }), 401, 'GATEWAY_CONTEXT_REQUIRED')
    const action = await ask(behind.port, { path: '/', method: 'POST', headers: { 'next-action': 'a'.repeat(42) }, body: [] })
    expectRefusal(action, 401, 'GATEWAY_CONTEXT_REQUIRED')
  })
  it('a page that no proxy stands before fails rather than render', async () => {
    for (const token of [undefined, await forge(await generateContextKey('one'))]) {
      const { status, text } = await ask(behind.port, { path: '/beyond/page', headers: token === undefined ? {} : { 'stratum-context': token } })
      expect([status, text.includes('page '), text.includes('GATEWAY_')]).toEqual([500, false, false])
    }
  })
  it('what needs no tenant is answered', async () => {
    expect((await ask(behind.port, { path: '/health' })).text).toBe('ok')
  })
})

describe('without a gateway', () => {
  it('the host says which tenant, in route and page, and the token who asks', async () => {
    const authorization = `Bearer ${await installation.token({ tenant: t.alpha.id, scope: 'read' }, { subject: 'user of alpha' })}`
    const route = await ask(direct.port, { host: hostOf('alpha'), headers: { authorization, 'stratum-context': await gateway.sign(beta) } })
    expect(route.json).toEqual({ tenant: 'shop_alpha', asks: 'user of alpha', orders: [{ id: 1, tenant_id: t.alpha.id }] })
    expect(shown(await ask(direct.port, { path: '/', host: hostOf('beta') }))).toEqual(['shop_beta', t.beta.id])
  })
  it('route and page refuse as the service does', async () => {
    const authorization = `Bearer ${await installation.token({ tenant: t.beta.id, scope: 'read' })}`
    for (const path of ['/', '/orders']) {
      expectRefusal(await ask(direct.port, { path, host: 'nobody.stratum.test' }), 404, 'TENANT_NOT_FOUND')
      expectRefusal(await ask(direct.port, { path, host: hostOf('alpha'), headers: { authorization } }), 403, 'TENANT_MISMATCH')
    }
  })
  it('a query through a tenant handle finds the rows of its own tenant, and those alone', async () => {
    const add = (slug: string, total: number) => ask(direct.port, { path: '/beyond/rows', method: 'POST', host: hostOf(slug), body: { total } })
    await Promise.all(Array.from({ length: 20 }, (_, index) => add(index % 2 ? 'alpha' : 'beta', index)))
    const odd = Array.from({ length: 10 }, (_, index) => index * 2 + 1)
    expect((await add('alpha', 99)).json).toEqual([...odd, 99])
    expect((await add('beta', 98)).json).toEqual([...odd.map((total) => total - 1), 98])
  })
})

describe('what Next.js keeps', () => {
  it('of fetches would keep a suspended tenant open, so that it is told not to', async () => {
    const at = (path: string) => ask(direct.port, { path: `/beyond/${path}`, host: hostOf('beta') })
    expect([(await at('kept')).json, (await at('kept-without-guard')).json]).toEqual(['shop_beta', 'shop_beta'])
    await installation.stratum.suspendTenant(t.beta.id)
    await expect.poll(async () => (await at('kept')).status, { timeout: 20_000 }).toBe(403)
    expect((await at('kept-without-guard')).json).toBe('shop_beta')
    await installation.stratum.resumeTenant(t.beta.id)
  })
  it("of one tenant's answers goes to all, unless the tenant is among the arguments", async () => {
    const at = async (token: string) => (await asks(token, { path: '/beyond/remembered' })).json
    expect(await at(await gateway.sign())).toEqual([ALPHA, ALPHA])
    expect(await at(await gateway.sign(beta))).toEqual([ALPHA, BETA])
  })
})
