/** The context of a request that is to be forwarded, from the contexts that the process keeps. */
import type { Actor, Credential } from '../core/actor.ts'
import type { TenantContext } from '../features/context/contract.ts'
import { visitTenant } from '../features/context/operations.ts'
import type { Services } from '../features/operation.ts'
import type { RateLimiter } from '../http/rate-limit.ts'
import { withStandingIssuer } from '../http/request.ts'
import type { GatewayContext } from './context.ts'
import { readForwardedCredential } from './credential.ts'
import type { Arrival } from './gateway.ts'

/** The app is told who asks; what they may do there is the app's own business, so no scope is needed to be told of. */
function forwarded(context: TenantContext, credential: Credential): GatewayContext {
  const { principal, acting_as, ...rest } = context
  if (credential.type === 'visitor') return { ...rest, principal: null }
  const { type, id, scopes } = principal
  const issuer = credential.type === 'token' ? { issuer: credential.issuer } : {}
  return { ...rest, principal: { type, id, scopes, ...issuer }, acting_as }
}

/**
 * Whoever has no credential of ours is a visitor: the tenant is known by its host, and who asks is between the client
 * and the app. Hosts that nobody has are guessed from one address so often and no oftener; what is
 * kept is served all the same.
 */
export function resolveArrivals(services: Services, limiter: RateLimiter): (request: Request, arrival: Arrival) => Promise<GatewayContext> {
  return async (request, { named, requestId, waitUntil }) => {
    const address = request.headers.get('cf-connecting-ip')
    const resolve = async (): Promise<GatewayContext> => {
      const credential = (await readForwardedCredential(request, services)) ?? ({ type: 'visitor' } as const)
      const actor: Actor = { credential, named: [named], exposed: true, request_id: requestId, source_ip: address }
      return forwarded(await visitTenant(services, actor, { waitUntil }, () => limiter.requireWelcome(address)), credential)
    }
    try {
      return await withStandingIssuer(services, async () => {}, resolve)
    } catch (error) {
      limiter.noteRefusal(address, error, ['API_KEY_INVALID', 'TENANT_NOT_FOUND'])
      throw error
    }
  }
}
