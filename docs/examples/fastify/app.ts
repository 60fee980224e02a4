/** A Fastify app that answers for whichever tenant asks. `node app.ts`, with the variables below. */
import fastify from 'fastify'
import { getTenantContext, stratum } from 'stratum-edge/fastify'

const { PORT = '3000', GATEWAY, CONTEXT_ISSUER = '', CONTEXT_AUDIENCE = '', STRATUM_URL = '', STRATUM_API_KEY = '' } = process.env

/** Knows the tenant without being handed it, as a query through a tenant handle does. */
const listOrders = async () => [{ id: 1, tenant_id: getTenantContext().tenant_id }]

const app = fastify()
app.get('/health', async () => 'ok')

await app.register(async (tenants) => {
  // Behind the gateway its word is verified offline; without it, the service is asked. An app needs one of the two.
  await tenants.register(
    stratum,
    GATEWAY
      ? { jwks: `${GATEWAY}/.well-known/stratum-jwks.json`, issuer: CONTEXT_ISSUER, audience: CONTEXT_AUDIENCE }
      : { baseUrl: STRATUM_URL, apiKey: STRATUM_API_KEY },
  )
  tenants.get('/orders', async ({ tenant }) => ({ tenant: tenant?.slug, asks: tenant?.principal?.id ?? null, orders: await listOrders() }))
  tenants.post('/orders', async ({ body }, reply) => reply.code(201).send({ ...(body as object), tenant_id: getTenantContext().tenant_id }))
})

await app.listen({ port: Number(PORT) })
console.log(`listening on ${JSON.stringify(app.server.address())}`)
