import * as z from 'zod'
import { endpoint, page, paging, Uuid } from '../../core/endpoint.ts'
import { text } from '../../core/json.ts'
import { Scope } from '../../core/scopes.ts'

/** An API key as it can be listed: without the key. `tenant_id` null is a global key. */
export const ApiKey = z.object({
  id: z.uuid(),
  tenant_id: z.uuid().nullable(),
  name: z.string(),
  /** How the key begins. */
  hint: z.string(),
  scopes: z.array(Scope),
  expires_at: z.string().nullable(),
  revoked_at: z.string().nullable(),
  created_at: z.string(),
})
export type ApiKey = z.infer<typeof ApiKey>

const END_OF_9999 = Date.UTC(10_000, 0)

const tag = 'api keys'
const reach = [{ kind: 'api_key', field: 'id' }] as const
const id = z.strictObject({ id: Uuid })

export const createApiKey = endpoint({
  id: 'createApiKey',
  method: 'POST',
  path: '/api-keys',
  tag,
  summary: "Create an API key for a tenant, or for the caller's own reach; the answer is the only time it is shown",
  scope: 'admin',
  reach: [{ kind: 'tenant', field: 'tenant_id' }],
  body: z.strictObject({
    tenant_id: Uuid.optional(),
    name: text(0, 255).default(''),
    scopes: z
      .array(Scope)
      .min(1)
      .max(4)
      .default(['read'])
      .transform((scopes) => [...new Set(scopes)]),
    expires_at: z.iso
      .datetime({ offset: true })
      .refine((at) => Date.parse(at) > Date.now() && Date.parse(at) < END_OF_9999, { message: 'Must lie in the future, before the year 10000.' })
      // In UTC, as Postgres knows fewer offsets and fractions than ISO 8601.
      .transform((at) => new Date(at).toISOString())
      .optional(),
  }),
  status: 201,
  output: ApiKey.extend({ key: z.string().optional(), idempotent_replay: z.boolean().optional() }),
  errors: ['TENANT_NOT_FOUND', 'TENANT_INVALID_STATE', 'SCOPE_ESCALATION', 'API_KEY_SECRET_MISSING'],
})

export const listApiKeys = endpoint({
  id: 'listApiKeys',
  method: 'GET',
  path: '/api-keys',
  tag,
  summary: 'List the API keys within reach, newest first',
  scope: 'admin',
  reach: [{ kind: 'tenant', field: 'tenant_id' }],
  query: z.strictObject({ ...paging, tenant_id: Uuid.optional() }),
  output: page(ApiKey),
  position: z.tuple([z.uuid()]),
  errors: ['TENANT_NOT_FOUND'],
})

export const getApiKey = endpoint({
  id: 'getApiKey',
  method: 'GET',
  path: '/api-keys/:id',
  tag,
  summary: 'Get an API key',
  scope: 'admin',
  reach,
  params: id,
  output: ApiKey,
  errors: ['API_KEY_NOT_FOUND', 'GLOBAL_ADMIN_REQUIRED'],
})

export const revokeApiKey = endpoint({
  id: 'revokeApiKey',
  method: 'DELETE',
  path: '/api-keys/:id',
  tag,
  summary: 'Revoke an API key at once',
  scope: 'admin',
  reach,
  params: id,
  output: ApiKey,
  errors: ['API_KEY_NOT_FOUND', 'GLOBAL_ADMIN_REQUIRED'],
})
