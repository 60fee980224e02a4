/**
 * A Hono app that answers for whichever tenant asks. Workers serve it as it is, with `nodejs_compat` among their
 * compatibility flags and the variables below; elsewhere an adapter such as @hono/node-server does.
 */
import { Hono } from 'hono'
import { getTenantContext, type RequestTenant, stratum } from 'stratum-edge/hono'

const { GATEWAY, CONTEXT_ISSUER = '', CONTEXT_AUDIENCE = '', STRATUM_URL = '', STRATUM_API_KEY = '' } = process.env

const app = new Hono<{ Variables: { tenant: RequestTenant } }>()
app.get('/health', (c) => c.text('ok'))

// Behind the gateway its word is verified offline; without it, the service is asked. An app needs one of the two.
app.use(
  stratum(
    GATEWAY
      ? { jwks: `${GATEWAY}/.well-known/stratum-jwks.json`, issuer: CONTEXT_ISSUER, audience: CONTEXT_AUDIENCE }
      : { baseUrl: STRATUM_URL, apiKey: STRATUM_API_KEY },
  ),
)

/** Knows the tenant without being handed it, as a query through a tenant handle does. */
const listOrders = async () => [{ id: 1, tenant_id: getTenantContext().tenant_id }]

app.get('/orders', async (c) => {
  const { slug, principal } = c.get('tenant')
  return c.json({ tenant: slug, asks: principal?.id ?? null, orders: await listOrders() })
})
app.post('/orders', async (c) => c.json({ ...(await c.req.json()), tenant_id: getTenantContext().tenant_id }, 201))

export default app
