/** How this app learns its tenants, with the variables below. Made once, so that all routes share what it keeps. */
import { stratum } from 'stratum-edge/next'

const { GATEWAY, CONTEXT_ISSUER = '', CONTEXT_AUDIENCE = '', STRATUM_URL = '', STRATUM_API_KEY = '' } = process.env

// Behind the gateway its word is verified offline; without it, the service is asked. An app needs one of the two.
export const { withTenant, tenantOf, proxy } = stratum(
  GATEWAY
    ? { jwks: `${GATEWAY}/.well-known/stratum-jwks.json`, issuer: CONTEXT_ISSUER, audience: CONTEXT_AUDIENCE }
    : { baseUrl: STRATUM_URL, apiKey: STRATUM_API_KEY },
)
