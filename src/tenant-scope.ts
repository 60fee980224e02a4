/** The tenant of the current request, carried through async calls. */
import { AsyncLocalStorage } from 'node:async_hooks'
import { stratumError } from './core/error-classes.ts'

/** What a scope must hold; a TenantContext does. */
export interface TenantScope {
  tenant_id: string
}

const scope = new AsyncLocalStorage<TenantScope | undefined>()

/** Run `fn`, and all it awaits, for this tenant. */
export const runWithTenant = <T>(context: TenantScope, fn: () => T): T => scope.run(context, fn)

/** The same for a request that may have no tenant: then for none, whichever one the caller is in. */
export const runWithTenantOrNone = <T>(context: TenantScope | null, fn: () => T): T => scope.run(context ?? undefined, fn)

/** The context given to the enclosing {@link runWithTenant}, or undefined outside of one. */
export const currentTenantContext = (): TenantScope | undefined => scope.getStore()

/**
 * The context given to the enclosing {@link runWithTenant}.
 * @throws TENANT_REQUIRED outside of one, so that a query can never run for no tenant by mistake
 */
export function getTenantContext(): TenantScope {
  const context = scope.getStore()
  if (!context) throw stratumError('TENANT_REQUIRED')
  return context
}
