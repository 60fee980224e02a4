/** `stratum-edge/next`: the tenant of each request, for route handlers and server components. It needs only web standards. */
import { runWithTenant } from '../tenant-scope.ts'
import { createTenantFinder, type MiddlewareOptions, type TenantOf, webRequest } from './context.ts'

export * from './public.ts'

type Params = Record<string, string | string[] | undefined>
type Route<R, P> = (request: R, context: { params: Promise<P> }) => Promise<Response>

/** What {@link stratum} makes. */
export interface StratumForNext<T> {
  /**
   * Wrap a route handler, which gets the tenant beside `params`: `export const GET = withTenant((request, { tenant }) => …)`.
   * Everything that it awaits has the tenant in `getTenantContext()` too.
   */
  withTenant<R extends Request = Request, P extends Params = Params>(
    handler: (request: R, context: { params: Promise<P>; tenant: T }) => Response | Promise<Response>,
  ): Route<R, P>
  /**
   * The tenant of what is being rendered or done: `await tenantOf(await headers())` in a server component or action.
   * The path names no tenant there, as Next.js does not tell it.
   * @throws {StratumError}
   */
  tenantOf(headers: { get(name: string): string | null }): Promise<T>
}

/**
 * `const { withTenant } = stratum({ jwks, issuer, audience })` behind the gateway, else `stratum({ baseUrl, apiKey })`.
 * Make it once, in a module that the routes import, so that they share what it keeps.
 * @throws CONFIGURATION_INVALID
 */
export function stratum<const O extends MiddlewareOptions>(options: O): StratumForNext<TenantOf<O>> {
  const finder = createTenantFinder(options)
  return {
    withTenant(handler) {
      return async (request, context) => {
        const { tenant, refusal } = await finder.answer(webRequest(request))
        if (refusal) return new Response(refusal.body, { status: refusal.status, headers: refusal.headers })
        const handle = async () => handler(request, { ...context, tenant: tenant as TenantOf<O> })
        return tenant === null ? handle() : runWithTenant(tenant, handle)
      }
    },
    tenantOf: async (headers) => (await finder.find(webRequest({ headers, url: '' }))) as TenantOf<O>,
  }
}
