/** The Cloudflare Worker: read the environment, wire the parts, serve. */
import { StratumError } from '../src/core/errors.ts'
import { resolveArrivals } from '../src/gateway/resolve.ts'
import { createApp } from '../src/http/app.ts'
import { type PlatformLimiter, RateLimiter } from '../src/http/rate-limit.ts'
import { VERSION } from '../src/version.ts'
import { parseEnvironment } from './env.ts'
import { gatewayOf } from './gateway.ts'
import { openServices } from './services.ts'

type Context = Parameters<ReturnType<typeof createApp>['fetch']>[2]

/** A line as it is written, with when that was. */
const stamped = (line: object) => JSON.stringify({ time: new Date().toISOString(), ...line })

function build(env: Record<string, unknown>) {
  const settings = parseEnvironment(env)
  const services = openServices(settings)
  const log = (line: { level: string }) => {
    if (settings.STRATUM_LOG === 'requests' || line.level === 'error') console.log(stamped(line))
  }
  const logged = settings.STRATUM_LOG === 'off' ? {} : { log }
  const limiter = new RateLimiter({
    principal: settings.STRATUM_PRINCIPAL_LIMIT,
    tenant: settings.STRATUM_TENANT_LIMIT,
    refused: settings.STRATUM_REFUSED_LIMIT,
    platform: { principal: env['PRINCIPAL_RATE_LIMITER'] as PlatformLimiter | undefined, tenant: env['TENANT_RATE_LIMITER'] as PlatformLimiter | undefined },
  })
  const gateway = gatewayOf(env, settings, { hosts: services.hosts, resolve: resolveArrivals(services, limiter), ...logged })
  const app = createApp({
    services,
    corsOrigins: settings.STRATUM_CORS_ORIGINS,
    limiter,
    ...logged,
    version: VERSION,
  })
  if (gateway === null) return (request: Request, context?: Context) => app.fetch(request, env, context)
  return async (request: Request, context?: Context) =>
    (await gateway(request, { waitUntil: (work) => context?.waitUntil(work) })) ?? app.fetch(request, env, context)
}

let serve: ReturnType<typeof build> | undefined

/** Built at the first request of an isolate; a misconfigured one says why in the log and to nobody else. */
function serverFor(env: Record<string, unknown>) {
  try {
    serve ??= build(env)
    return serve
  } catch (error) {
    if (!(error instanceof StratumError)) throw error
    console.error(stamped({ level: 'error', code: error.code, message: error.message }))
    return null
  }
}

const notConfigured = () =>
  Response.json(
    { error: { code: 'CONFIGURATION_INVALID', message: 'The service is not configured; its log says what is missing.', request_id: crypto.randomUUID() } },
    { status: 500 },
  )

export default {
  fetch: (request: Request, env: Record<string, unknown>, context?: Context) => serverFor(env)?.(request, context) ?? notConfigured(),
}
