import * as z from 'zod'
import { endpoint, page, Uuid } from '../../core/endpoint.ts'
import { IssuerName } from '../../core/issuer.ts'
import { text } from '../../core/json.ts'

/** What the tokens of an issuer call a tenant, in their tenant claim. */
export const ExternalId = z.object({
  tenant_id: z.uuid(),
  issuer: z.string(),
  external_id: z.string(),
  /** Where the reach of who mapped it begins; it counts for issuers bound to that tenant or below. null: for all. */
  reach_tenant_id: z.uuid().nullable(),
  created_at: z.string(),
})
export type ExternalId = z.infer<typeof ExternalId>

const tag = 'issuers'
const path = '/tenants/:id/external-ids'
const id = z.strictObject({ id: Uuid })
const reach = [{ kind: 'tenant', field: 'id' }] as const
const mapping = z.strictObject({ issuer: IssuerName, external_id: text(1, 255) })

export const listExternalIds = endpoint({
  id: 'listExternalIds',
  method: 'GET',
  path,
  tag,
  summary: 'List what issuers call a tenant, at most 100',
  scope: 'admin',
  reach,
  params: id,
  output: page(ExternalId),
  errors: ['TENANT_NOT_FOUND'],
})

export const setExternalId = endpoint({
  id: 'setExternalId',
  method: 'PUT',
  path,
  tag,
  summary: 'Say what the tokens of an issuer call a tenant; needs reach of an issuer of that name, and of any that is bound above',
  scope: 'admin',
  reach,
  params: id,
  body: mapping,
  output: ExternalId,
  errors: ['TENANT_NOT_FOUND', 'TENANT_INVALID_STATE', 'GLOBAL_ADMIN_REQUIRED', 'EXTERNAL_ID_TAKEN', 'EXTERNAL_IDS_FULL'],
})

export const deleteExternalId = endpoint({
  id: 'deleteExternalId',
  method: 'DELETE',
  path,
  tag,
  summary: 'Let an issuer call a tenant by this no longer',
  scope: 'admin',
  reach,
  params: id,
  query: mapping,
  output: ExternalId,
  errors: ['TENANT_NOT_FOUND', 'EXTERNAL_ID_NOT_FOUND', 'GLOBAL_ADMIN_REQUIRED'],
})
