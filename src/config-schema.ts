import * as z from 'zod'
import { stratumError } from './core/error-classes.ts'
import type { Json } from './core/json.ts'

type Shape = Record<string, z.ZodType>

/** A definition as `putConfigDefinitions` takes it. */
export interface ConfigDefinitionInput {
  key: string
  /** JSON Schema. */
  schema: Record<string, Json>
  default: Json
  description: string
  sensitive: boolean
}

/** What {@link defineConfig} makes of a shape. */
export interface ConfigSchema<S extends Shape> {
  /** For `putConfigDefinitions`. */
  readonly definitions: ConfigDefinitionInput[]
  /**
   * The values of a resolved config, typed; undefined where nobody sets a key, it has no default, or it is a hidden secret.
   * @throws CONFIG_INVALID for a value that does not fit, which there is only where the definitions were not put, or where the type
   * transforms what it reads
   */
  values(resolved: Record<string, { value: unknown; sensitive: boolean; error?: unknown }>): { [K in keyof S]: z.output<S[K]> | undefined }
}

/** A type with an `id` is said by reference; what is said of it lies there. */
function withReferred(schema: Record<string, Json>): Record<string, Json> {
  const name = String(schema['$ref'] ?? '').replace('#/$defs/', '')
  const referred = (schema['$defs'] as Record<string, Json> | undefined)?.[name] as Record<string, Json> | undefined
  return { ...referred, ...schema }
}

/** A value is encrypted whole, so one sensitive part makes it sensitive. */
const isSensitive = (schema: Json): boolean =>
  schema !== null && typeof schema === 'object' && (('sensitive' in schema && schema['sensitive'] === true) || Object.values(schema).some(isSensitive))

/** What a type checks that JSON Schema cannot say, or that nobody would judge by it; null where all of it is said. */
function unsaid({ zodSchema, jsonSchema }: { zodSchema: z.core.$ZodTypes; jsonSchema: z.core.JSONSchema.BaseSchema }): string | null {
  for (const { _zod } of zodSchema._zod.def.checks ?? []) {
    const { check, pattern } = _zod.def as { check: string; pattern?: RegExp }
    if (check === 'custom') return 'refine and the like'
    if (pattern && /[ims]/.test(pattern.flags)) return `the flags of ${pattern}`
  }
  const { format, pattern } = jsonSchema
  return format !== undefined && pattern === undefined && format !== 'uri' ? `the format ${format}` : null
}

function schemaOf(key: string, type: z.ZodType): Record<string, Json> {
  const { $schema: _, ...schema } = z.toJSONSchema(type, {
    io: 'input',
    override: (part) => {
      const missing = unsaid(part)
      // A definition that is not enforced is worse than none: what is stored would not fit when it is read.
      if (missing !== null) throw new TypeError(`The type of ${key} cannot be a definition: JSON Schema has no words for ${missing}.`)
    },
  }) as Record<string, Json>
  return schema
}

/**
 * Config keys with their types, from zod: `.default(…)` is what holds where nobody sets the key, `.describe(…)` its
 * description, and `.meta({ sensitive: true })` has its values encrypted.
 *
 * @throws TypeError for a type that JSON Schema cannot say: dates, `refine`, a pattern's flags
 * @example
 * const config = defineConfig({ max_users: z.number().int().default(10), smtp_password: z.string().meta({ sensitive: true }) })
 * await stratum.putConfigDefinitions(config.definitions)
 * const { max_users } = config.values(await stratum.resolveConfig(tenantId)) // number | undefined
 */
export function defineConfig<const S extends Shape>(shape: S): ConfigSchema<S> {
  const definitions = Object.entries(shape).map(([key, type]): ConfigDefinitionInput => {
    const whole = schemaOf(key, type)
    const { default: value = null, description = '' } = withReferred(whole)
    const { default: _value, description: _description, sensitive: _sensitive, ...schema } = whole
    return { key, schema, default: value, description: String(description), sensitive: isSensitive(whole) }
  })
  return {
    definitions,
    values(resolved) {
      const read = ([key, type]: [string, z.ZodType]) => {
        const entry = resolved[key]
        const hidden = entry === undefined || entry.error !== undefined || (entry.sensitive && entry.value === null)
        if (hidden) return [key, undefined]
        const { success, data, error } = type.safeParse(entry.value)
        if (success) return [key, data]
        const [issue] = error.issues
        throw stratumError('CONFIG_INVALID', { key, path: issue?.path.join('.') ?? '', reason: issue?.message ?? 'unknown' })
      }
      return Object.fromEntries(Object.entries(shape).map(read)) as { [K in keyof S]: z.output<S[K]> | undefined }
    },
  }
}
