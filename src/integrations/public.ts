/** What every framework's entry exports besides its own. */
export { StratumError } from '../core/errors.ts'
export { getTenantContext, runWithTenant } from '../tenant-scope.ts'
export type { BehindGateway, IncomingRequest, MiddlewareOptions, TenantOf, WithoutGateway } from './context.ts'
export { type ContextReader, type ContextReaderOptions, createContextReader } from './context-reader.ts'
export type { RequestPrincipal, RequestTenant } from './request-tenant.ts'
export { createResolver, type Resolver, type ResolverOptions, type TenantQuestion } from './resolver.ts'
