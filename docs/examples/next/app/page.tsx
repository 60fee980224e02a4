import { headers } from 'next/headers'
import { runWithTenant } from 'stratum-edge/next'
import { listOrders } from '../lib/orders.ts'
import { tenantOf } from '../lib/stratum.ts'

export default async function Orders() {
  const tenant = await tenantOf(await headers())
  // React renders each component by itself, so none is in the scope of another.
  const orders = await runWithTenant(tenant, listOrders)
  return (
    <ul title={tenant.principal?.id ?? 'visitor'}>
      {orders.map(({ id, tenant_id }) => (
        <li key={id}>{tenant_id}</li>
      ))}
    </ul>
  )
}
