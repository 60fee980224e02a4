/** The definitions that config values are checked against, kept in the process under their version. */
import * as z from 'zod'
import { stratumError } from '../../core/error-classes.ts'
import { AnyJson, type Json } from '../../core/json.ts'
import { ConfigDefinition } from './contract.ts'
import { compile, type Judge } from './json-schema.ts'

const Snapshot = z.object({ version: z.number().int(), strict: z.boolean(), definitions: z.array(ConfigDefinition.extend({ default: AnyJson.nullish() })) })

/** The definitions of one version, ready to check with. */
export interface KnownDefinitions {
  version: number
  strict: boolean
  byKey: Map<string, { judge: Judge; sensitive: boolean }>
}

/**
 * A JSON Schema as a judge of values.
 * @throws CONFIG_INVALID for what is not a schema, or one that could not be enforced
 */
export function compileSchema(key: string, schema: Record<string, unknown>): Judge {
  const compiled = compile(schema)
  if ('judge' in compiled) return compiled.judge
  const { path, reason } = compiled.fault
  throw stratumError('CONFIG_INVALID', { key, path: path === '' ? 'schema' : `schema.${path}`, reason: `its schema cannot be used (${reason})` })
}

/** One for each process or isolate. */
export class ConfigDefinitions {
  #known: KnownDefinitions | undefined

  /** False where the next check has to ask first. */
  get areKnown(): boolean {
    return this.#known !== undefined
  }

  /** Ask again before the next check. */
  forget(): void {
    this.#known = undefined
  }

  /** The definitions, asked for where they are not known. */
  async current(ask: (operation: string, input: object) => Promise<unknown>): Promise<KnownDefinitions> {
    if (this.#known) return this.#known
    const { version, strict, definitions } = Snapshot.parse(await ask('read_config_definitions', {}))
    const byKey = new Map(definitions.map(({ key, schema, sensitive }) => [key, { judge: compileSchema(key, schema), sensitive }]))
    this.#known = { version, strict, byKey }
    return this.#known
  }
}

/**
 * An entry that fits its definition, marked sensitive where that says so.
 * @throws CONFIG_INVALID with the path of the fault
 */
export function fitEntry<T extends { key: string; value: Json; sensitive: boolean }>({ strict, byKey }: KnownDefinitions, entry: T): T {
  const definition = byKey.get(entry.key)
  if (!definition) {
    if (strict) throw stratumError('CONFIG_INVALID', { key: entry.key, path: '', reason: 'the key is not defined' })
    return entry
  }
  const fault = definition.judge(entry.value)
  if (fault) throw stratumError('CONFIG_INVALID', { key: entry.key, ...fault })
  return { ...entry, sensitive: entry.sensitive || definition.sensitive }
}
