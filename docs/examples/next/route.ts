/** A route of Next.js (`app/orders/route.ts`) that answers for whichever tenant asks. */
import { getTenantContext, stratum } from 'stratum-edge/next'

const { GATEWAY, CONTEXT_ISSUER = '', CONTEXT_AUDIENCE = '', STRATUM_URL = '', STRATUM_API_KEY = '' } = process.env

// In an app of several routes this stands in a module of its own, e.g. lib/stratum.ts.
// Behind the gateway its word is verified offline; without it, the service is asked. An app needs one of the two.
const { withTenant } = stratum(
  GATEWAY
    ? { jwks: `${GATEWAY}/.well-known/stratum-jwks.json`, issuer: CONTEXT_ISSUER, audience: CONTEXT_AUDIENCE }
    : { baseUrl: STRATUM_URL, apiKey: STRATUM_API_KEY },
)

/** Knows the tenant without being handed it, as a query through a tenant handle does. */
const listOrders = async () => [{ id: 1, tenant_id: getTenantContext().tenant_id }]

export const GET = withTenant(async (_request, { tenant }) => {
  return Response.json({ tenant: tenant.slug, asks: tenant.principal?.id ?? null, orders: await listOrders() })
})

export const POST = withTenant(async (request) => {
  return Response.json({ ...(await request.json()), tenant_id: getTenantContext().tenant_id }, { status: 201 })
})
