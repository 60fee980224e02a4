import * as z from 'zod'
import { endpoint, flag, page, paging, Refusal, Uuid } from '../../core/endpoint.ts'
import { AnyJson, JsonObject, JsonValue, text } from '../../core/json.ts'

/** `batch` is not a key: `PUT …/config/batch` is a route of its own. */
export const ConfigKey = z
  .string()
  .regex(/^[A-Za-z][A-Za-z0-9_.:-]{0,254}$/, 'A key begins with a letter and holds letters, digits and . _ : -, at most 255 characters.')
  .refine((key) => key !== 'batch', { message: 'batch is reserved.' })

/** What holds for a tenant. A sensitive entry's value is null unless revealed; `error` tells why one could not be. */
export const ConfigEntry = z.object({
  key: z.string(),
  value: AnyJson,
  /** Who sets it; null for the default of its definition, and at a past moment for a tenant neither within reach nor above now, whose entry shows as a secret. */
  source_tenant_id: z.uuid().nullable(),
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
  /** Why it won (topmost_lock, nearest) or did not (shadowed below a lock, overridden). */
  reason: z.enum(['topmost_lock', 'nearest', 'shadowed', 'overridden']),
  value: AnyJson.optional(),
  locked: z.boolean().optional(),
  sensitive: z.boolean().optional(),
})

const YEAR_1 = Date.parse('0001-01-01T00:00:00.000Z')
const YEAR_10000 = Date.UTC(10_000, 0)

/** A moment, in UTC to the millisecond. */
const Moment = z.iso
  .datetime({ offset: true })
  // Years that Postgres reads as JavaScript writes them.
  .refine((at) => Date.parse(at) >= YEAR_1 && Date.parse(at) < YEAR_10000, { message: 'Must lie in the years 1 to 9999.' })
  .transform((at) => new Date(at).toISOString())

const Kept = z.object({ value: AnyJson, locked: z.boolean(), sensitive: z.boolean() }).nullable()

const tag = 'config'
const reach = [{ kind: 'tenant', field: 'id' }] as const
const id = z.strictObject({ id: Uuid })
const entry = z.strictObject({ id: Uuid, key: ConfigKey })

const newEntry = { value: JsonValue, locked: z.boolean().default(false), sensitive: z.boolean().default(false) }

export const setConfig = endpoint({
  id: 'setConfig',
  method: 'PUT',
  path: '/tenants/:id/config/:key',
  tag,
  summary: 'Set a key; with locked, everything below is shadowed until the lock goes; with sensitive, the value is encrypted',
  preview: true,
  scope: 'write',
  reach,
  params: entry,
  body: z.strictObject(newEntry),
  output: ConfigEntry,
  errors: ['TENANT_NOT_FOUND', 'TENANT_INVALID_STATE', 'CONFIG_LOCKED', 'CONFIG_INVALID', 'CONFIG_FULL', 'MASTER_KEY_MISSING'],
})

export const deleteConfig = endpoint({
  id: 'deleteConfig',
  method: 'DELETE',
  path: '/tenants/:id/config/:key',
  tag,
  summary: "Delete a tenant's own entry, shadowed or not; what is above shows through",
  preview: true,
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
  alsoScope: { field: 'reveal', scope: 'secrets:read' },
  reach,
  params: id,
  query: z.strictObject({
    reveal: flag.default(false),
    at: Moment.optional().describe(
      'What held at this moment, with the tree and the defaults of then. What a tenant set that is neither within reach nor above it now shows as an unrevealed secret without a source.',
    ),
  }),
  output: z.object({ config: z.record(z.string(), ConfigEntry) }),
  errors: ['TENANT_NOT_FOUND', 'MASTER_KEY_MISSING', 'MOMENT_BEFORE_TENANT'],
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

export const batchSetConfig = endpoint({
  id: 'batchSetConfig',
  method: 'PUT',
  path: '/tenants/:id/config/batch',
  tag,
  summary: 'Set up to 200 keys; each that is refused says why and leaves the others, or with atomic all or none',
  preview: true,
  scope: 'write',
  reach,
  params: id,
  body: z.strictObject({
    entries: z
      .array(z.strictObject({ key: ConfigKey, ...newEntry }))
      .min(1)
      .max(200)
      .refine((entries) => new Set(entries.map((each) => each.key)).size === entries.length, { message: 'Two entries have the same key.' }),
    atomic: z.boolean().default(false),
  }),
  output: z.object({
    results: z.array(
      z.object({
        key: z.string(),
        entry: ConfigEntry.optional(),
        error: Refusal.optional(),
      }),
    ),
    succeeded: z.number().int(),
    failed: z.number().int(),
  }),
  errors: ['TENANT_NOT_FOUND', 'TENANT_INVALID_STATE', 'CONFIG_LOCKED', 'CONFIG_INVALID', 'CONFIG_FULL', 'MASTER_KEY_MISSING'],
})

export const explainConfig = endpoint({
  id: 'explainConfig',
  method: 'GET',
  path: '/tenants/:id/config/:key/explain',
  tag,
  summary: 'Each level that sets a key, root first, which one won and why',
  scope: 'read',
  reach,
  params: entry,
  output: z.object({ key: z.string(), effective: ConfigEntry.nullable(), levels: z.array(ConfigLevel) }),
  errors: ['TENANT_NOT_FOUND'],
})

export const diffConfig = endpoint({
  id: 'diffConfig',
  method: 'GET',
  path: '/config/diff',
  tag,
  summary: 'The keys in which two tenants differ; secrets count as different unless both inherit the same one',
  scope: 'read',
  reach: [
    { kind: 'tenant', field: 'tenant_a' },
    { kind: 'tenant', field: 'tenant_b' },
  ],
  query: z.strictObject({ tenant_a: Uuid, tenant_b: Uuid }),
  output: page(z.object({ key: z.string(), a: ConfigEntry.nullable(), b: ConfigEntry.nullable(), status: z.enum(['only_a', 'only_b', 'different']) })),
  errors: ['TENANT_NOT_FOUND'],
})

const Drift = z.array(
  z.object({ key: z.string(), parent: ConfigEntry.nullable(), child: ConfigEntry.nullable(), status: z.enum(['ok', 'override', 'missing', 'conflict']) }),
)
/** How each key of one tenant's config stands to another's: ok, override, missing or conflict. */
export type ConfigDrift = z.infer<typeof Drift>

export const computeDrift = endpoint({
  id: 'computeDrift',
  method: 'GET',
  path: '/tenants/:id/config/drift',
  tag,
  summary: "How a child's config stands to this tenant's: ok, override, missing, or conflict (an override shadowed by a lock)",
  scope: 'read',
  reach: [...reach, { kind: 'tenant', field: 'child' }],
  params: id,
  query: z.strictObject({ child: Uuid }),
  output: page(Drift.element),
  errors: ['TENANT_NOT_FOUND'],
})

export const getConfigHistory = endpoint({
  id: 'getConfigHistory',
  method: 'GET',
  path: '/tenants/:id/config/:key/history',
  tag,
  summary: "What a tenant's own entry of a key was, newest change first; null is not set",
  scope: 'read',
  reach,
  params: entry,
  query: z.strictObject(paging),
  output: page(z.object({ changed_at: z.string(), actor: z.record(z.string(), z.unknown()), old: Kept, new: Kept })),
  position: z.tuple([z.number().int()]),
  errors: ['TENANT_NOT_FOUND'],
})

/** What a config key may hold. A value is checked when it is written; `default` holds where nobody sets the key. */
export const ConfigDefinition = z.object({
  key: ConfigKey,
  /** JSON Schema, as `defineConfig` makes it of zod. */
  schema: z.record(z.string(), z.unknown()),
  default: AnyJson.nullable(),
  description: z.string(),
  /** Its values are always encrypted. */
  sensitive: z.boolean(),
})
export type ConfigDefinition = z.infer<typeof ConfigDefinition>

const everything = [{ kind: 'global', field: null }] as const
const definitions = { tag: 'config definitions', path: '/config-definitions', scope: 'admin', reach: everything, output: page(ConfigDefinition) } as const

export const listConfigDefinitions = endpoint({
  ...definitions,
  id: 'listConfigDefinitions',
  method: 'GET',
  summary: 'What config keys may hold, in the whole installation',
  errors: ['GLOBAL_ADMIN_REQUIRED'],
})

export const putConfigDefinitions = endpoint({
  ...definitions,
  id: 'putConfigDefinitions',
  method: 'PUT',
  summary: 'Make, replace or remove definitions; one that refuses a stored value is refused',
  body: z
    .strictObject({
      definitions: z
        .array(
          z
            .strictObject({
              key: ConfigKey,
              schema: JsonObject,
              default: JsonValue.nullable().default(null),
              description: text(0, 1_000).default(''),
              sensitive: z.boolean().default(false),
            })
            .refine((definition) => !definition.sensitive || definition.default === null, { message: 'A secret has no default.' }),
        )
        .max(200),
      remove: z.array(ConfigKey).max(200).default([]),
      strict: z.boolean().optional().describe('From now on refuse, or accept, keys that are not defined.'),
    })
    .refine(({ definitions, remove }) => new Set([...definitions.map(({ key }) => key), ...remove]).size === definitions.length + remove.length, {
      message: 'A key is named twice.',
    }),
  errors: ['GLOBAL_ADMIN_REQUIRED', 'CONFIG_INVALID', 'CONFIG_DEFINITION_CONFLICT', 'CONFIG_DEFINITIONS_CHANGED'],
})
