/** The gateway of the environment: its keys and its origins. */
import { stratumError } from '../src/core/error-classes.ts'
import { StratumError } from '../src/core/errors.ts'
import { ContextTokens } from '../src/gateway/context-token.ts'
import { createGateway, type Gateway, type GatewayOptions } from '../src/gateway/gateway.ts'
import { type Origin, Origins, originBindings } from '../src/gateway/origins.ts'
import type { parseEnvironment } from './env.ts'

type Settings = ReturnType<typeof parseEnvironment>

function originOf(settings: Settings, origins: Origins, hasBinding: boolean): Origin | null {
  const named = settings.STRATUM_ORIGIN ?? (hasBinding ? 'service:ORIGIN' : null)
  try {
    return named === null ? null : origins.ofEnvironment(named)
  } catch (error) {
    if (!(error instanceof StratumError)) throw error
    throw stratumError('CONFIGURATION_INVALID', { reason: `The variable STRATUM_ORIGIN cannot be used: ${error.details['reason']}.` })
  }
}

/**
 * The gateway, or null where the environment configures none: it takes an origin (STRATUM_ORIGIN, or the service binding
 * ORIGIN) or, for origins of tenants' config alone, STRATUM_CONTEXT_KEYS.
 * @throws CONFIGURATION_INVALID
 */
export function gatewayOf(env: Record<string, unknown>, settings: Settings, wired: Pick<GatewayOptions, 'hosts' | 'resolve' | 'log'>): Gateway | null {
  const bindings = originBindings(env)
  const origins = new Origins({ services: bindings, development: settings.STRATUM_DEVELOPMENT })
  const origin = originOf(settings, origins, Object.hasOwn(bindings, 'ORIGIN'))
  if (settings.contextKeys === null) {
    if (origin === null) return null
    throw stratumError('CONFIGURATION_INVALID', {
      reason: 'The variable STRATUM_CONTEXT_KEYS is missing, with which the gateway signs; make it with: npx stratum keys --context.',
    })
  }
  const issuer = settings.STRATUM_CONTEXT_ISSUER ?? `https://${settings.STRATUM_BASE_DOMAINS[0] ?? 'localhost'}`
  return createGateway({
    ...wired,
    tokens: new ContextTokens(settings.contextKeys, { issuer, configKeys: settings.STRATUM_CONTEXT_CONFIG }),
    origins,
    origin,
    audience: settings.STRATUM_CONTEXT_AUDIENCE,
    timeout: settings.STRATUM_ORIGIN_TIMEOUT_MS,
  })
}
