/** `stratum-edge/express`: the tenant of each request, as `req.tenant`. */
import type { RequestHandler } from 'express'
import { runWithTenantOrNone } from '../tenant-scope.ts'
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
    // To Express 4 a rejection is nobody's, and ends the process.
    const found = await finder.answer(nodeRequest(req, req.originalUrl)).catch(next)
    // Whoever would not wait so long has answered.
    if (!found || res.headersSent) return
    const { tenant, refusal } = found
    if (refusal) {
      res.status(refusal.status).set(refusal.headers).send(refusal.body)
      return
    }
    req.tenant = tenant
    runWithTenantOrNone(tenant, next)
  }
}
