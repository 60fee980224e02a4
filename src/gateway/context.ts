/** What the gateway knows of a request: the tenant its host names, who asks, what holds there. */

/** Config as it holds for a tenant; a secret shows as null. */
export interface GatewayConfigEntry {
  value: unknown
  /** Who sets it; null for a default. */
  source_tenant_id: string | null
  sensitive: boolean
}

/** Who asks. `issuer` is the `iss` of the token, where it is one: subjects are unique within an issuer only. */
export interface GatewayPrincipal {
  type: string
  id: string | null
  issuer?: string
  scopes: readonly string[]
}

/** A tenant's context as the operations answer it, with the principal null where nobody known asks. */
export interface GatewayContext {
  tenant_id: string
  tenant: { slug: string }
  ancestors: ReadonlyArray<{ id: string }>
  config: Readonly<Record<string, GatewayConfigEntry>>
  permissions: Readonly<Record<string, { value: unknown }>>
  isolation: unknown
  region: unknown
  principal: GatewayPrincipal | null
  /** Set where the principal is bound to a tenant above this one, or to none. */
  acting_as?: string | undefined
  /** The database snapshot that all of it was read from. */
  version: string
}
