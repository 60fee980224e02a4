/** What the Worker's operations work with, from its environment. */
import { ApiKeySecrets } from '../src/auth/api-keys.ts'
import { DomainProofs } from '../src/auth/domain-proofs.ts'
import { TokenVerifier } from '../src/auth/tokens.ts'
import { Secrets } from '../src/crypto/envelope.ts'
import { boundedDatabase } from '../src/db/bounded.ts'
import { neonDatabase } from '../src/db/neon.ts'
import { ConfigDefinitions } from '../src/features/config/definitions.ts'
import { keepContexts } from '../src/features/context/kept.ts'
import { askDatabaseForIssuer } from '../src/features/issuers/stored.ts'
import type { Services } from '../src/features/operation.ts'
import { dnsOverHttps } from '../src/resolver/dns.ts'
import type { parseEnvironment } from './env.ts'

/** Calls of an isolate that may be under way at once; the platform opens six connections for them. */
const MAXIMUM_CALLS = 200

/** Made once for each isolate. */
export function openServices(settings: ReturnType<typeof parseEnvironment>): Services {
  const db = boundedDatabase(neonDatabase(settings.DATABASE_URL, { endpoint: settings.NEON_ENDPOINT }), MAXIMUM_CALLS)
  const tokens = new TokenVerifier(settings.issuers, { stored: askDatabaseForIssuer(db), development: settings.STRATUM_DEVELOPMENT })
  return {
    db,
    secrets: new Secrets(settings.masterKeys),
    apiKeys: new ApiKeySecrets(settings.apiKeySecrets, settings.STRATUM_API_KEY_PREFIX),
    tokens,
    hosts: {
      baseDomains: settings.STRATUM_BASE_DOMAINS,
      apiHosts: settings.STRATUM_API_HOSTS,
      appHosts: settings.STRATUM_APP_HOSTS,
      pathPrefix: settings.STRATUM_PATH_PREFIX,
      sources: settings.sources,
      cookie: settings.STRATUM_COOKIE,
    },
    domainProofs: new DomainProofs(settings.apiKeySecrets),
    dns: dnsOverHttps({ url: settings.STRATUM_DNS_URL }),
    definitions: new ConfigDefinitions(),
    contexts: keepContexts(db, {
      maximumStaleness: settings.STRATUM_MAXIMUM_STALENESS_MS,
      grace: settings.STRATUM_STALE_GRACE_MS,
      onChanges: (changes) => tokens.changed(changes),
    }),
  }
}
