import type { Scope } from './scopes.ts'

/** Who asks, as SQL judges it. Only an API key still has to be looked up; the rest was verified in this process. */
export type Credential =
  /** HMACs of the presented key, one for each version of the ring. */
  | { type: 'api_key'; hashes: string[] }
  | TokenCredential
  /** Nobody is known yet: SQL refuses it everywhere but where a stored issuer is asked for. */
  | { type: 'nobody' }
  /** Somebody at a tenant's host, without a credential of ours: the gateway alone asks for such. */
  | { type: 'visitor' }
  /** The embedding process itself: everything is within its reach. */
  | { type: 'embedded'; actor_id: string; actor_type: string }

/** A verified token. */
export interface TokenCredential {
  readonly type: 'token'
  readonly issuer: string
  /** The id of its issuer where that is a stored one; SQL sees that it still stands. */
  readonly issuer_id?: string
  readonly subject: string | null
  /** Its tenant claim: what the issuer calls the tenant, or its id or slug. */
  readonly tenant: string | null
  /** What its issuer is bound to. */
  readonly issuer_tenant_id: string | null
  readonly global: boolean
  readonly scopes: readonly Scope[]
}

/** A part of the request that names a tenant by id, slug or, for a host, subdomain label or verified custom domain. */
export type NamedTenant = { source: 'subdomain' | 'domain' | 'path' | 'header' | 'cookie'; tenant: string }

/** The first argument of every operation in SQL. */
export interface Actor {
  credential: Credential
  /** What else names the tenant; all must agree, and the reach narrows to it. */
  named: NamedTenant[]
  /** The request came from outside this process: then the connection's role must not be one that bypasses row security. */
  exposed: boolean
  request_id: string | null
  source_ip: string | null
}
