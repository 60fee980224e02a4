/** The context of a request that is to be forwarded, from the contexts that the process keeps. */
import type { Actor, Credential } from '../core/actor.ts'
import { stratumError } from '../core/error-classes.ts'
import { onceFor } from '../core/once-for.ts'
import type { TenantContext } from '../features/context/contract.ts'
import { keptContext } from '../features/context/kept.ts'
import { Refused, type RunOptions, type Services, type Shaped } from '../features/operation.ts'
import { type RequestFacts, tenths } from '../http/log.ts'
import type { RateLimiter } from '../http/rate-limit.ts'
import { withStandingIssuer } from '../http/request.ts'
import type { GatewayContext } from './context.ts'
import { readForwardedCredential } from './credential.ts'
import type { Arrival } from './gateway.ts'
import { Guard } from './guard.ts'

/** Null where neither host nor credential says for which tenant a request is. */
type Found = GatewayContext | null

/** The app is told who asks; what they may do there is the app's own business, so no scope is needed to be told of. */
function forwarded(context: TenantContext, credential: Credential): GatewayContext {
  const { principal, acting_as, ...rest } = context
  if (credential.type === 'visitor') return { ...rest, principal: null }
  const { type, id, scopes } = principal
  const issuer = credential.type === 'token' ? { issuer: credential.issuer } : {}
  return { ...rest, principal: { type, id, scopes, ...issuer }, acting_as }
}

/** Made once for a kept context and who asks, so that what hangs on it need not be made again either. */
const forwardedTo = onceFor((context: TenantContext) => onceFor((credential: Credential) => forwarded(context, credential)))

/**
 * The version that the answer has to hold at least. Only who is known may ask for one: a version that nobody has seen
 * costs requests to the database.
 * @throws REQUEST_NOT_FORWARDABLE
 */
function minimumVersionOf({ fields }: Arrival, credential: Credential): string | undefined {
  const given = fields.get('stratum-min-version')
  if (given === undefined || credential.type === 'visitor') return undefined
  if (/^\d{1,19}$/.test(given)) return given
  throw stratumError('REQUEST_NOT_FORWARDABLE', { reason: 'Stratum-Min-Version is not what an answer said in Stratum-Version' })
}

const telling =
  (facts: RequestFacts): NonNullable<RunOptions['tell']> =>
  ({ outcome, milliseconds }) => {
    if (outcome) facts.context = outcome
    if (milliseconds !== undefined) facts.database_ms = tenths((facts.database_ms ?? 0) + milliseconds)
  }

/**
 * The context of the tenant that the host names, else of the one that whoever asks is bound to. Not of the API: for who stands
 * in front of an app.
 */
function visit(services: Services, arrival: Arrival, credential: Credential, { address, guard }: Asker): Found | Promise<Found> {
  const { named, requestId, facts, waitUntil } = arrival
  facts.principal = credential.type
  if (named === null && credential.type === 'visitor') return null
  if (credential.type === 'token' && credential.tenant !== null) facts.sources = named ? `${named.source} token` : 'token'
  const actor: Actor = { credential, named: named ? [named] : [], exposed: true, request_id: requestId, source_ip: address }
  const tell = telling(facts)
  const call = (input: object) => {
    guard.beforeAsking(credential)
    return services.db.call('visit_tenant', actor, input, tell)
  }
  const options = { asking: { minimumVersion: minimumVersionOf(arrival, credential), waitUntil }, tell }
  const shaped = keptContext(services, { operation: 'visitTenant', credential, named: actor.named }, { actor, options }, call, {})
  const answered = ({ value }: Shaped) => {
    if (credential.type === 'api_key') guard.noteAccepted(credential)
    return forwardedTo(value as TenantContext)(credential)
  }
  return shaped instanceof Promise ? shaped.then(answered) : answered(shaped)
}

/** Who asks, as far as the request's address tells. */
interface Asker {
  address: string | null
  guard: Guard
}

/**
 * Whoever has no credential of ours is a visitor: the tenant is known by its host, and who asks is between the client
 * and the app. At once where what is kept may be served.
 */
export function resolveArrivals(services: Services, limiter: RateLimiter): (arrival: Arrival) => Found | Promise<Found> {
  return (arrival) => {
    const address = arrival.fields.get('cf-connecting-ip') ?? null
    const asker = { address, guard: new Guard(limiter, address) }
    const resolve = () => {
      const credential = readForwardedCredential(arrival, services, asker.guard)
      return credential instanceof Promise ? credential.then((read) => visit(services, arrival, read, asker)) : visit(services, arrival, credential, asker)
    }
    try {
      const first = resolve()
      if (!(first instanceof Promise)) return first
      const waited = waitedFor(services, first, resolve, asker.guard)
      // To the end, though the client leaves: or nobody would count what it had the database refuse.
      arrival.waitUntil?.(waited.catch(() => undefined))
      return waited
    } catch (error) {
      throw refusalOf(error)
    }
  }
}

const refusalOf = (error: unknown) => (error instanceof Refused ? error.refusal : error)

/** What the database or an issuer has to be waited for. */
async function waitedFor(services: Services, first: Promise<Found>, again: () => Found | Promise<Found>, guard: Guard) {
  let answer: Promise<Found> | null = first
  const readAgain = async () => {
    answer = null
  }
  try {
    return await withStandingIssuer(services, readAgain, async () => {
      try {
        return await (answer ?? again())
      } catch (error) {
        throw refusalOf(error)
      }
    })
  } catch (error) {
    guard.noteRefusal(error)
    throw error
  }
}
