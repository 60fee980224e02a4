/** The context of a request that is to be forwarded, from the contexts that the process keeps. */
import type { Actor, Credential } from '../core/actor.ts'
import { StratumError } from '../core/errors.ts'
import type { TenantContext } from '../features/context/contract.ts'
import { getContext } from '../features/context/contract.ts'
import { visitTenant } from '../features/context/operations.ts'
import type { Services } from '../features/operation.ts'
import { operationFor } from '../features/operations.ts'
import type { RateLimiter } from '../http/rate-limit.ts'
import { withStandingIssuer } from '../http/request.ts'
import type { GatewayContext } from './context.ts'
import { readForwardedCredential } from './credential.ts'
import type { Arrival } from './gateway.ts'

const principalOf = (context: TenantContext, credential: Credential): GatewayContext['principal'] => {
  const { type, id, scopes } = context.principal
  return { type, id, scopes, ...(credential.type === 'token' ? { issuer: credential.issuer } : {}) }
}

/**
 * Whoever has no credential of ours is a visitor: the tenant is known by its host, and who asks is between the client
 * and the app. Hosts that nobody has are guessed from one address so often and no oftener.
 */
export function resolveArrivals(services: Services, limiter: RateLimiter): (request: Request, arrival: Arrival) => Promise<GatewayContext> {
  return async (request, { named, requestId, waitUntil }) => {
    const address = request.headers.get('cf-connecting-ip')
    limiter.requireWelcome(address)
    const actor: Actor = { credential: { type: 'visitor' }, named: [named], exposed: true, request_id: requestId, source_ip: address }
    const asking = { waitUntil }
    const resolve = async (): Promise<GatewayContext> => {
      const credential = await readForwardedCredential(request, services)
      if (credential === null) {
        const { principal: _, acting_as: _nobody, ...context } = await visitTenant(services, actor, asking)
        return { ...context, principal: null }
      }
      const context = await operationFor(getContext).run(services, { ...actor, credential }, {}, { asking })
      return { ...context, principal: principalOf(context, credential) }
    }
    try {
      return await withStandingIssuer(services, async () => {}, resolve)
    } catch (error) {
      if (error instanceof StratumError && (error.status === 401 || error.status === 404)) limiter.noteRefusal(address)
      throw error
    }
  }
}
