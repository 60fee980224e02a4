import * as z from 'zod'
import { endpoint, page, paging, Uuid } from '../../core/endpoint.ts'
import { ALGORITHMS, issuerFields } from '../../core/issuer.ts'
import { AnyJsonObject } from '../../core/json.ts'
import { Scope } from '../../core/scopes.ts'

/** A stored issuer of tokens. `tenant_id` null is bound to no tenant. It has either `jwks_uri` or `keys`. */
export const Issuer = z.object({
  id: z.uuid(),
  tenant_id: z.uuid().nullable(),
  issuer: z.string(),
  audience: z.string(),
  jwks_uri: z.string().optional(),
  keys: z.array(AnyJsonObject).optional(),
  algorithms: z.array(z.enum(ALGORITHMS)),
  tenant_claim: z.string(),
  scopes_claim: z.string().nullable(),
  max_scopes: z.array(Scope),
  global: z.boolean(),
  created_at: z.string(),
})
export type Issuer = z.infer<typeof Issuer>

const tag = 'issuers'

export const createIssuer = endpoint({
  id: 'createIssuer',
  method: 'POST',
  path: '/issuers',
  tag,
  summary: "Trust the tokens of an issuer, within a tenant or the caller's own reach; to change one, delete it and create it anew",
  scope: 'admin',
  reach: [{ kind: 'tenant', field: 'tenant_id' }],
  body: z.strictObject(issuerFields),
  status: 201,
  output: Issuer,
  errors: ['TENANT_NOT_FOUND', 'TENANT_INVALID_STATE', 'GLOBAL_ADMIN_REQUIRED', 'SCOPE_ESCALATION', 'ISSUER_OUTLIVES_KEY', 'ISSUERS_FULL', 'ISSUER_EXISTS'],
})

export const listIssuers = endpoint({
  id: 'listIssuers',
  method: 'GET',
  path: '/issuers',
  tag,
  summary: 'List the stored issuers within reach, newest first; those of the environment are not among them',
  scope: 'admin',
  query: z.strictObject(paging),
  output: page(Issuer),
  position: z.tuple([z.uuid()]),
})

export const deleteIssuer = endpoint({
  id: 'deleteIssuer',
  method: 'DELETE',
  path: '/issuers/:id',
  tag,
  summary: 'Trust the tokens of an issuer no longer, at once',
  scope: 'admin',
  reach: [{ kind: 'issuer', field: 'id' }],
  params: z.strictObject({ id: Uuid }),
  output: Issuer,
  errors: ['ISSUER_NOT_FOUND', 'GLOBAL_ADMIN_REQUIRED'],
})
