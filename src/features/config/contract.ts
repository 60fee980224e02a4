import * as z from 'zod'
import { endpoint, flag, Uuid } from '../../core/endpoint.ts'
import { AnyJson, JsonValue } from '../../core/json.ts'

/** `batch` is not a key: `PUT …/config/batch` is a route of its own. */
export const ConfigKey = z
  .string()
  .regex(/^[A-Za-z][A-Za-z0-9_.:-]{0,254}$/, 'A key begins with a letter and holds letters, digits and . _ : -, at most 255 characters.')
  .refine((key) => key !== 'batch', { message: 'batch is reserved.' })

/** What holds for a tenant. A sensitive entry's value is null unless revealed; `error` tells why one could not be. */
export const ConfigEntry = z.object({
  key: z.string(),
  value: AnyJson,
  source_tenant_id: z.uuid(),
  inherited: z.boolean(),
  locked: z.boolean(),
  sensitive: z.boolean(),
  error: z.literal('SECRET_UNREADABLE').optional(),
})
export type ConfigEntry = z.infer<typeof ConfigEntry>

/** A tenant's own entry. */
export const OwnConfigEntry = ConfigEntry.pick({ key: true, value: true, locked: true, sensitive: true })

/** One level of a key. Above the caller's reach, a level that did not win shows no more than id and depth. */
export const ConfigLevel = z.object({
  tenant_id: z.uuid(),
  depth: z.number().int(),
  effective: z.boolean(),
  value: AnyJson.optional(),
  locked: z.boolean().optional(),
  sensitive: z.boolean().optional(),
})

const tag = 'config'
const reach = [{ kind: 'tenant', field: 'id' }] as const
const id = z.strictObject({ id: Uuid })
const entry = z.strictObject({ id: Uuid, key: ConfigKey })

export const setConfig = endpoint({
  id: 'setConfig',
  method: 'PUT',
  path: '/tenants/:id/config/:key',
  tag,
  summary: 'Set a key; with locked, everything below is shadowed until the lock goes; with sensitive, the value is encrypted',
  scope: 'write',
  reach,
  params: entry,
  body: z.strictObject({ value: JsonValue, locked: z.boolean().default(false), sensitive: z.boolean().default(false) }),
  output: ConfigEntry,
  errors: ['TENANT_NOT_FOUND', 'TENANT_INVALID_STATE', 'CONFIG_LOCKED', 'MASTER_KEY_MISSING'],
})

export const deleteConfig = endpoint({
  id: 'deleteConfig',
  method: 'DELETE',
  path: '/tenants/:id/config/:key',
  tag,
  summary: "Delete a tenant's own entry, shadowed or not; what is above shows through",
  scope: 'write',
  reach,
  params: entry,
  output: OwnConfigEntry,
  errors: ['TENANT_NOT_FOUND', 'TENANT_INVALID_STATE', 'CONFIG_NOT_FOUND'],
})

export const resolveConfig = endpoint({
  id: 'resolveConfig',
  method: 'GET',
  path: '/tenants/:id/config',
  tag,
  summary: 'What holds for a tenant, by key; reveal decrypts secrets, needs secrets:read and is audited',
  scope: 'read',
  reach,
  params: id,
  query: z.strictObject({ reveal: flag.default(false) }),
  output: z.object({ config: z.record(z.string(), ConfigEntry) }),
  errors: ['TENANT_NOT_FOUND', 'MASTER_KEY_MISSING'],
})

export const getConfigInheritance = endpoint({
  id: 'getConfigInheritance',
  method: 'GET',
  path: '/tenants/:id/config/inheritance',
  tag,
  summary: 'What holds for a tenant, with every level that sets the key, root first',
  scope: 'read',
  reach,
  params: id,
  output: z.object({ config: z.record(z.string(), ConfigEntry.extend({ levels: z.array(ConfigLevel) })) }),
  errors: ['TENANT_NOT_FOUND'],
})
