/** `stratum-edge/sdk` for browsers: the typed client and the error classes. */
export * from '../core/error-classes.ts'
export { CATALOGUE, type ErrorCode, type ErrorDetails, StratumError } from '../core/errors.ts'
export type { ConfigEntry } from '../features/config/contract.ts'
export type { Principal, TenantContext } from '../features/context/contract.ts'
export type { ApiKey } from '../features/keys/contract.ts'
export type { PermissionPolicy, ResolvedPermission } from '../features/permissions/contract.ts'
export type { Tenant, TenantOutline, VisibleTenant } from '../features/tenants/contract.ts'
export { type ClientOptions, createClient, type StratumClient } from './client.ts'
