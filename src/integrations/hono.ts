/** `stratum-edge/hono`: the tenant of each request, as `c.get('tenant')`. */
import type { MiddlewareHandler } from 'hono'
import { runWithTenantOrNone } from '../tenant-scope.ts'
import { createTenantFinder, type MiddlewareOptions, type TenantOf, webRequest } from './context.ts'

export * from './public.ts'

/**
 * `app.use(stratum({ jwks, issuer, audience }))` behind the gateway, else `app.use(stratum({ baseUrl, apiKey }))`.
 * Everything that handlers await has the tenant in `getTenantContext()` too.
 * @throws CONFIGURATION_INVALID
 */
export function stratum<const O extends MiddlewareOptions>(options: O): MiddlewareHandler<{ Variables: { tenant: TenantOf<O> } }> {
  const finder = createTenantFinder(options)
  return async (c, next) => {
    // An adapter may hold the Host in the URL alone.
    const request = webRequest(c.req.raw)
    const host = () => new URL(c.req.url).host
    const { tenant, refusal } = await finder.answer({ ...request, header: (name) => request.header(name) ?? (name === 'host' ? host() : undefined) })
    if (refusal) return new Response(refusal.body, { status: refusal.status, headers: refusal.headers })
    c.set('tenant', tenant as TenantOf<O>)
    return runWithTenantOrNone(tenant, next)
  }
}
