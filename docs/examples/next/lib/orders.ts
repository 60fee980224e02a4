import { getTenantContext } from 'stratum-edge/next'

/** Knows the tenant without being handed it, as a query through a tenant handle does. */
export const listOrders = async () => [{ id: 1, tenant_id: getTenantContext().tenant_id }]
