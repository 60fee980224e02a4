import { getTenantContext } from 'stratum-edge/next'
import { listOrders } from '../../lib/orders.ts'
import { withTenant } from '../../lib/stratum.ts'

export const GET = withTenant(async (_request, { tenant }) => {
  return Response.json({ tenant: tenant.slug, asks: tenant.principal?.id ?? null, orders: await listOrders() })
})

export const POST = withTenant(async (request) => {
  return Response.json({ ...(await request.json()), tenant_id: getTenantContext().tenant_id }, { status: 201 })
})
