import * as z from 'zod'
import { endpoint, page, paging, Uuid } from '../../core/endpoint.ts'
import { text } from '../../core/json.ts'

/**
 * A tenant's claim to a domain. It names the tenant only once it is verified: by publishing the TXT record
 * `txt_name` with the value `txt_value` and asking to verify. Times are ISO 8601 in UTC.
 */
export const CustomDomain = z.object({
  tenant_id: z.uuid(),
  /** As hosts are compared: small letters, punycode, no final dot. */
  domain: z.string(),
  verified: z.boolean(),
  verified_at: z.string().nullable(),
  /** When its record was last looked for. */
  checked_at: z.string().nullable(),
  /** Since when a verified domain has shown no record; after 7 days without it is verified no more. */
  missing_since: z.string().nullable(),
  created_at: z.string(),
  txt_name: z.string(),
  txt_value: z.string(),
})
export type CustomDomain = z.infer<typeof CustomDomain>

const tag = 'domains'
const reach = [{ kind: 'tenant', field: 'id' }] as const
/** As people write domains; which of them are any, and how they are compared, is for the operations. */
const domain = z
  .string()
  .max(255)
  .regex(/^[\p{L}\p{M}\p{N}.-]+$/u, 'Must be a domain.')
const claim = z.strictObject({ id: Uuid, domain })

export const listDomains = endpoint({
  id: 'listDomains',
  method: 'GET',
  path: '/tenants/:id/domains',
  tag,
  summary: 'List the domains that a tenant claims, verified or not',
  scope: 'read',
  reach,
  params: z.strictObject({ id: Uuid }),
  query: z.strictObject(paging),
  output: page(CustomDomain),
  position: z.tuple([text(1, 253)]),
  errors: ['TENANT_NOT_FOUND', 'API_KEY_SECRET_MISSING'],
})

export const createDomain = endpoint({
  id: 'createDomain',
  method: 'POST',
  path: '/tenants/:id/domains',
  tag,
  summary: 'Claim a domain for a tenant; the answer says which TXT record proves it. A claim keeps nobody else from claiming the same',
  scope: 'write',
  reach,
  params: z.strictObject({ id: Uuid }),
  body: z.strictObject({ domain: text(1, 255) }),
  status: 201,
  output: CustomDomain,
  errors: ['TENANT_NOT_FOUND', 'TENANT_INVALID_STATE', 'DOMAIN_NOT_ALLOWED', 'DOMAIN_EXISTS', 'DOMAINS_FULL', 'API_KEY_SECRET_MISSING'],
})

export const verifyDomain = endpoint({
  id: 'verifyDomain',
  method: 'POST',
  path: '/tenants/:id/domains/:domain/verify',
  tag,
  summary: 'Look for the TXT record of a claim; with it the domain is verified and names the tenant from then on',
  scope: 'write',
  reach,
  params: claim,
  output: CustomDomain,
  errors: ['TENANT_NOT_FOUND', 'TENANT_INVALID_STATE', 'DOMAIN_NOT_FOUND', 'DOMAIN_NOT_VERIFIED', 'DOMAIN_TAKEN', 'DNS_UNAVAILABLE', 'API_KEY_SECRET_MISSING'],
})

export const deleteDomain = endpoint({
  id: 'deleteDomain',
  method: 'DELETE',
  path: '/tenants/:id/domains/:domain',
  tag,
  summary: 'Give up a claim; a verified domain names nobody from then on and is free for another',
  scope: 'write',
  reach,
  params: claim,
  output: CustomDomain,
  errors: ['TENANT_NOT_FOUND', 'TENANT_INVALID_STATE', 'DOMAIN_NOT_FOUND', 'API_KEY_SECRET_MISSING'],
})
