/** `stratum-edge/fastify`: the tenant of each request, as `request.tenant`. */
import type { FastifyInstance, FastifyPluginAsync } from 'fastify'
import { runWithTenantOrNone } from '../tenant-scope.ts'
import { createTenantFinder, type MiddlewareOptions, nodeRequest } from './context.ts'
import type { RequestTenant } from './request-tenant.ts'

export * from './public.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** Set by the plugin `stratum`; null where none is named and none required. */
    tenant: RequestTenant | null
  }
}

async function plugin(app: FastifyInstance, options: MiddlewareOptions): Promise<void> {
  const finder = createTenantFinder(options)
  app.decorateRequest('tenant', null)
  app.addHook('onRequest', (request, reply, proceed) => {
    const log = (error: Error & { status: number; cause?: unknown }) => {
      if (error.status >= 500) request.log.error({ err: error.cause ?? error }, error.message)
    }
    finder.answer(nodeRequest(request.raw, request.originalUrl), log).then(({ tenant, refusal }) => {
      if (refusal) {
        reply.code(refusal.status).headers(refusal.headers).send(refusal.body)
        return
      }
      request.tenant = tenant
      runWithTenantOrNone(tenant, proceed)
    }, proceed)
  })
  // A hook or a parser of the body may go on from a callback in another request's scope: handlers are in their own again.
  app.addHook('preValidation', (request, _reply, proceed) => runWithTenantOrNone(request.tenant, proceed))
}

/**
 * A plugin: `await app.register(stratum, { jwks, issuer, audience })` behind the gateway, else
 * `await app.register(stratum, { baseUrl, apiKey })`. It holds for the whole app that registers it, and everything
 * that handlers await has the tenant in `getTenantContext()` too. Registering fails with CONFIGURATION_INVALID.
 */
export const stratum: FastifyPluginAsync<MiddlewareOptions> = Object.assign(plugin, {
  // Not encapsulated: the hooks are for the routes beside the plugin, there being none inside.
  [Symbol.for('skip-override')]: true,
  [Symbol.for('fastify.display-name')]: 'stratum-edge',
})
