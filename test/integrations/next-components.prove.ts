/** Next.js with Cache Components: there it renders and keeps what no request is needed for, route handlers too. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ALPHA, APP, BETA, beta, createGatewayKeys, GATEWAY, type Gateway } from './gateway-keys.ts'
import { buildNextApp, type NextApp, type NextServer } from './next-app.ts'
import { ask, serve } from './web-server.ts'

const kept = `async function kept() { 'use cache'; try { return getTenantContext().tenant_id } catch (error) { return String((error as { code?: string }).code) } }`

const application = {
  'next.config.mjs': 'export default { cacheComponents: true, partialPrefetching: true }',
  'app/layout.tsx': `
    import type { ReactNode } from 'react'
    const Layout = ({ children }: { children: ReactNode }) => <html lang="en"><body>{children}</body></html>
    export default Layout`,
  'app/page.tsx': `
    import { headers } from 'next/headers'
    import { Suspense } from 'react'
    import { getTenantContext, runWithTenant } from 'stratum-edge/next'
    import { tenantOf } from '../lib/stratum.ts'
    ${kept}
    async function Tenant() {
      const tenant = await tenantOf(await headers())
      return <p>{[tenant.tenant_id, await runWithTenant(tenant, kept)].join(' ')}</p>
    }
    const Page = () => <Suspense fallback="…"><Tenant /></Suspense>
    export default Page`,
  'app/kept/route.ts': `
    import { getTenantContext } from 'stratum-edge/next'
    import { withTenant } from '../../lib/stratum.ts'
    ${kept}
    export const GET = withTenant(async (_request, { tenant }) => Response.json([tenant.tenant_id, await kept()]))`,
}

let app: NextApp
let gateway: Gateway
let server: NextServer
const closing: Array<() => Promise<void>> = []
beforeAll(async () => {
  app = await buildNextApp(application)
  closing.push(app.remove)
  gateway = await createGatewayKeys()
  const keys = await serve(() => gateway.tokens.keySet())
  closing.push(keys.close)
  server = await app.start({ GATEWAY: keys.url, CONTEXT_ISSUER: GATEWAY, CONTEXT_AUDIENCE: APP })
  closing.unshift(server.stop)
}, 600_000)
afterAll(async () => {
  for (const close of closing) await close()
})

describe('Cache Components', () => {
  it('render no route handler of tenants beforehand', () => {
    expect(app.built).toMatch(/ƒ \/kept/)
    expect(app.built).toMatch(/ƒ \/orders/)
  })
  it.each(['/', '/kept', '/orders'])('serve each tenant its own at %s, and nobody else', async (path) => {
    for (const [token, tenant, other] of [
      [await gateway.sign(), ALPHA, BETA],
      [await gateway.sign(beta), BETA, ALPHA],
    ] as const) {
      const { status, text } = await ask(server.port, { path, headers: { 'stratum-context': token } })
      expect([status, text.includes(tenant), text.includes(other)]).toEqual([200, true, false])
    }
    expect((await ask(server.port, { path })).status).toBe(401)
  })
  it("know no tenant in 'use cache', so that one tenant's answer is never kept for all", async () => {
    const headers = { 'stratum-context': await gateway.sign() }
    expect((await ask(server.port, { path: '/kept', headers })).json).toEqual([ALPHA, 'TENANT_REQUIRED'])
    expect((await ask(server.port, { path: '/', headers })).text).toContain(`${ALPHA} TENANT_REQUIRED`)
  })
})
