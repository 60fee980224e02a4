/** `stratum-edge/next`: the tenant of each request, for route handlers and server components. It needs only web standards. */
import { runWithTenantOrNone } from '../tenant-scope.ts'
import { createTenantFinder, type MiddlewareOptions, type Refusal, type TenantOf, webRequest } from './context.ts'

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
  /**
   * For `proxy.ts` (`middleware.ts` before Next.js 16): answers a request that is refused, as a page cannot, and lets
   * others go on. It hands nothing on: what runs behind it asks for the tenant itself, and so is safe where no matcher reaches.
   */
  proxy(request: Request): Promise<Response | undefined>
}

/** Next.js keeps what a route fetches where the route says so: then keys would never change and no suspension show. */
const fetchAnew: typeof fetch = (input, init) => fetch(input, { ...init, cache: 'no-store' })

const answerOf = ({ status, headers, body }: Refusal) => new Response(body, { status, headers })

/** `next build` runs the modules of an app, in a place that need not know what the app is told when it starts. */
const isBuild = () => process.env['NEXT_PHASE'] === 'phase-production-build'

/**
 * `const { withTenant, tenantOf, proxy } = stratum({ jwks, issuer, audience })` behind the gateway, else
 * `stratum({ baseUrl, apiKey })`. Make it once, in a module that the routes import, so that they share what it keeps.
 * @throws CONFIGURATION_INVALID when the app starts, not when it is built
 */
export function stratum<const O extends MiddlewareOptions>(options: O): StratumForNext<TenantOf<O>> {
  const create = () => createTenantFinder({ fetch: fetchAnew, ...options })
  const made = isBuild() ? null : create()
  const finder = () => made ?? create()
  return {
    withTenant(handler) {
      return async (request, context) => {
        // First of all: where Next.js renders beforehand, this tells it to wait for a request.
        const asked = webRequest(request)
        const { tenant, refusal } = await finder().answer(asked)
        if (refusal) return answerOf(refusal)
        return runWithTenantOrNone(tenant, async () => handler(request, { ...context, tenant: tenant as TenantOf<O> }))
      }
    },
    tenantOf: async (headers) => (await finder().find(webRequest({ headers, url: '' }))) as TenantOf<O>,
    async proxy(request) {
      const { refusal } = await finder().answer(webRequest(request))
      return refusal && answerOf(refusal)
    },
  }
}
