/** `stratum-edge/sdk` for servers: the typed client, the error classes, and the tenant of the current request. */
export { getTenantContext, runWithTenant } from '../tenant-scope.ts'
export * from './browser.ts'
