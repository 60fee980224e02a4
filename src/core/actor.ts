import type { Scope } from './scopes.ts'

/** Who asks, as SQL judges it. Only an API key still has to be looked up; the rest was verified in this process. */
export type Credential =
  /** HMACs of the presented key, one for each version of the ring. */
  | { type: 'api_key'; hashes: string[] }
  /** A verified token. `tenant` is its claim (id or slug), `issuer_tenant_id` what its issuer is bound to. */
  | { type: 'token'; issuer: string; subject: string | null; tenant: string | null; issuer_tenant_id: string | null; global: boolean; scopes: Scope[] }
  /** The embedding process itself: everything is within its reach. */
  | { type: 'embedded'; actor_id: string; actor_type: string }

/** A part of the request that names a tenant by id, slug or, for a host, subdomain label. */
export type NamedTenant = { source: 'subdomain' | 'path' | 'header'; tenant: string }

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
