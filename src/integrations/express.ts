/** `stratum-edge/express`: the tenant of each request, as `req.tenant`. */
import type { RequestHandler } from 'express'
import { runWithTenant } from '../tenant-scope.ts'
import { createTenantFinder, type MiddlewareOptions, nodeRequest } from './context.ts'
import type { RequestTenant } from './request-tenant.ts'

export * from './public.ts'

declare global {
  namespace Express {
    interface Request {
      /** Set by `stratum()`; null where none is named and none required. */
      tenant?: RequestTenant | null
    }
  }
}

/**
 * `app.use(stratum({ jwks, issuer, audience }))` behind the gateway, else `app.use(stratum({ baseUrl, apiKey }))`.
 * Everything that handlers await has the tenant in `getTenantContext()` too.
 * @throws CONFIGURATION_INVALID
 */
export function stratum(options: MiddlewareOptions): RequestHandler {
  const finder = createTenantFinder(options)
  return async (req, res, next) => {
    const { tenant, refusal } = await finder.answer(nodeRequest(req.headers, req.originalUrl))
    if (refusal) {
      res.status(refusal.status).set(refusal.headers).send(refusal.body)
      return
    }
    req.tenant = tenant
    if (tenant === null) next()
    else runWithTenant(tenant, next)
  }
}
