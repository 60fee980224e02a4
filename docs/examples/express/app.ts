/** An Express app that answers for whichever tenant asks. `node app.ts`, with the variables below. */
import express from 'express'
import { getTenantContext, stratum } from 'stratum-edge/express'

const { PORT = '3000', GATEWAY, CONTEXT_ISSUER = '', CONTEXT_AUDIENCE = '', STRATUM_URL = '', STRATUM_API_KEY = '' } = process.env

const app = express()
app.get('/health', (_req, res) => {
  res.send('ok')
})

// Behind the gateway its word is verified offline; without it, the service is asked. An app needs one of the two.
app.use(
  stratum(
    GATEWAY
      ? { jwks: `${GATEWAY}/.well-known/stratum-jwks.json`, issuer: CONTEXT_ISSUER, audience: CONTEXT_AUDIENCE }
      : { baseUrl: STRATUM_URL, apiKey: STRATUM_API_KEY },
  ),
)
app.use(express.json())

/** Knows the tenant without being handed it, as a query through a tenant handle does. */
const listOrders = async () => [{ id: 1, tenant_id: getTenantContext().tenant_id }]

app.get('/orders', async (req, res) => {
  res.json({ tenant: req.tenant?.slug, asks: req.tenant?.principal?.id ?? null, orders: await listOrders() })
})
app.post('/orders', (req, res) => {
  res.status(201).json({ ...req.body, tenant_id: getTenantContext().tenant_id })
})

const server = app.listen(Number(PORT), () => console.log(`listening on ${JSON.stringify(server.address())}`))
