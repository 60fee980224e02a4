/** The Cloudflare Worker: read the environment, wire the parts, serve. */
import { ApiKeySecrets } from '../src/auth/api-keys.ts'
import { TokenVerifier } from '../src/auth/tokens.ts'
import { StratumError } from '../src/core/errors.ts'
import { Secrets } from '../src/crypto/envelope.ts'
import { neonDatabase } from '../src/db/neon.ts'
import { ConfigDefinitions } from '../src/features/config/definitions.ts'
import { createApp } from '../src/http/app.ts'
import { VERSION } from '../src/version.ts'
import { parseEnvironment } from './env.ts'

function build(env: Record<string, unknown>) {
  const settings = parseEnvironment(env)
  return createApp({
    services: {
      db: neonDatabase(settings.DATABASE_URL, { endpoint: settings.NEON_ENDPOINT }),
      secrets: new Secrets(settings.masterKeys),
      apiKeys: new ApiKeySecrets(settings.apiKeySecrets, settings.STRATUM_API_KEY_PREFIX),
      tokens: new TokenVerifier(settings.issuers),
      hosts: { baseDomains: settings.STRATUM_BASE_DOMAINS, apiHosts: settings.STRATUM_API_HOSTS, pathPrefix: settings.STRATUM_PATH_PREFIX },
      definitions: new ConfigDefinitions(),
    },
    corsOrigins: settings.STRATUM_CORS_ORIGINS,
    log: (line) => {
      if (settings.STRATUM_LOG === 'requests' || (settings.STRATUM_LOG === 'errors' && line.level === 'error')) console.log(JSON.stringify(line))
    },
    version: VERSION,
  })
}

let app: ReturnType<typeof build> | undefined

/** Built at the first request of an isolate; a misconfigured one says why in the log and to nobody else. */
function appFor(env: Record<string, unknown>) {
  try {
    app ??= build(env)
    return app
  } catch (error) {
    if (!(error instanceof StratumError)) throw error
    console.error(JSON.stringify({ level: 'error', code: error.code, message: error.message }))
    return null
  }
}

const notConfigured = () =>
  Response.json(
    { error: { code: 'CONFIGURATION_INVALID', message: 'The service is not configured; its log says what is missing.', request_id: crypto.randomUUID() } },
    { status: 500 },
  )

export default {
  fetch: (request: Request, env: Record<string, unknown>) => appFor(env)?.fetch(request) ?? notConfigured(),
}
