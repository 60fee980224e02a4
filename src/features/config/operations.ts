import { stratumError } from '../../core/error-classes.ts'
import { type ErrorCode, type ErrorDetails, StratumError } from '../../core/errors.ts'
import type { Json } from '../../core/json.ts'
import type { SealedSecret, Secrets } from '../../crypto/envelope.ts'
import { type Ask, operation, type Services, Shown } from '../operation.ts'
import * as contract from './contract.ts'
import { compileSchema, fitEntry, type KnownDefinitions } from './definitions.ts'

type SealedEntry = { key: string; value: Json; source_tenant_id: string; sealed?: SealedSecret }

const place = (tenant_id: string, key: string) => ({ table: 'config_entries', tenant_id, key })

/** Clear text never reaches SQL: a sensitive value is encrypted here and leaves without its original. */
async function seal<T extends { key: string; value: Json; sensitive: boolean }>(secrets: Secrets, tenantId: string, { value, sensitive, ...entry }: T) {
  return sensitive ? { ...entry, sealed: await secrets.seal(place(tenantId, entry.key), value) } : { ...entry, value }
}

/**
 * Work with the known definitions; where SQL then knows newer ones, once more with those. What older ones refuse
 * may fit newer ones too, so they are asked for again before a refusal stands.
 */
async function withDefinitions<R>({ definitions }: Services, ask: Ask, work: (known: KnownDefinitions) => Promise<R>): Promise<R> {
  const outdated = definitions.areKnown ? ['CONFIG_DEFINITIONS_CHANGED', 'CONFIG_INVALID'] : ['CONFIG_DEFINITIONS_CHANGED']
  try {
    return await work(await definitions.current(ask))
  } catch (error) {
    if (!(error instanceof StratumError) || !outdated.includes(error.code)) throw error
  }
  definitions.forget()
  return work(await definitions.current(ask))
}

export const setConfig = operation(contract.setConfig, (services, input, call, ask) =>
  withDefinitions(services, ask, async (known) => {
    const answer = await call({ ...(await seal(services.secrets, input.id, fitEntry(known, input))), definitions_version: known.version })
    services.secrets.confirm(input.id)
    return answer
  }),
)

type Refusal = { code: ErrorCode; details: ErrorDetails }
type BatchAnswer = { results: Array<{ key: string; error?: Refusal }>; succeeded: number; failed: number }

/** Each entry that fits, and why each other does not. With `atomic` the first that does not is the end of it. */
function fitAll<T extends { key: string; value: Json; sensitive: boolean }>(known: KnownDefinitions, entries: readonly T[], atomic: boolean) {
  const misfits = new Map<string, Refusal>()
  const fitting = entries.flatMap((entry) => {
    try {
      return [fitEntry(known, entry)]
    } catch (error) {
      if (atomic || !(error instanceof StratumError)) throw error
      misfits.set(entry.key, { code: error.code, details: error.details })
      return []
    }
  })
  return { fitting, misfits }
}

/** SQL names what was refused by code; the sentence is the catalogue's. */
export const batchSetConfig = operation(contract.batchSetConfig, (services, input, call, ask) =>
  withDefinitions(services, ask, async (known) => {
    const { fitting, misfits } = fitAll(known, input.entries, input.atomic)
    const entries = await Promise.all(fitting.map((entry) => seal(services.secrets, input.id, entry)))
    const inOrder = (answered: BatchAnswer['results']) => {
      const written = new Map(answered.map((result) => [result.key, result]))
      return input.entries.map(({ key }) => {
        const { error = misfits.get(key), ...result } = written.get(key) ?? { key }
        return error ? { ...result, error: { ...error, message: stratumError(error.code, error.details).message } } : result
      })
    }
    try {
      const answer = (await call({ ...input, entries, definitions_version: known.version })) as BatchAnswer
      services.secrets.confirm(input.id)
      return { results: inOrder(answer.results), succeeded: answer.succeeded, failed: answer.failed + misfits.size }
    } catch (error) {
      if (!(error instanceof Shown)) throw error
      const { refused = [] } = error.answer as { refused?: BatchAnswer['results'] }
      throw new Shown({ ...error.answer, refused: inOrder(refused).filter((result) => 'error' in result) })
    }
  }),
)

/** A page of what tenants hold; with the last comes the digest that stands for all. */
type Stored = { digest: string | null; next: unknown; values: Array<{ key: string; value: Json; tenant_id: string }> }

const STORED_IN_CLEAR = { path: '', reason: 'it is stored in clear, and has to be set again as sensitive first' }

/** A definition must fit its own default and what tenants hold already; SQL sees to it that this stays so until it is written. */
export const putConfigDefinitions = operation(contract.putConfigDefinitions, async ({ definitions: kept }, input, call, ask) => {
  const judges = new Map(input.definitions.map(({ key, schema }) => [key, compileSchema(key, schema)]))
  for (const { key, default: value } of input.definitions) {
    const fault = value === null ? null : judges.get(key)?.(value)
    if (fault) throw stratumError('CONFIG_INVALID', { key, ...fault, reason: `its default is wrong (${fault.reason})` })
  }
  const keys = [...judges.keys()]
  const secret = new Set(input.definitions.filter(({ sensitive }) => sensitive).map(({ key }) => key))
  let stored: Stored | undefined
  do {
    stored = (await ask('read_stored_config', { keys, after: stored?.next })) as Stored
    for (const { key, value, tenant_id } of stored.values) {
      const fault = secret.has(key) ? STORED_IN_CLEAR : judges.get(key)?.(value)
      if (fault) throw stratumError('CONFIG_DEFINITION_CONFLICT', { key, tenant_id, ...fault })
    }
  } while (stored.next)
  const answer = await call({ ...input, keys, digest: stored.digest })
  kept.forget()
  return answer
})

/** One unreadable secret says so for itself and does not fail the rest. */
async function open(secrets: Secrets, { sealed, ...entry }: SealedEntry): Promise<object> {
  if (!sealed) return entry
  try {
    return { ...entry, value: await secrets.open(place(entry.source_tenant_id, entry.key), sealed) }
  } catch (error) {
    if (error instanceof StratumError && error.code === 'SECRET_UNREADABLE') return { ...entry, error: 'SECRET_UNREADABLE' }
    throw error
  }
}

export const resolveConfig = operation(contract.resolveConfig, async ({ secrets }, input, call) => {
  const answer = (await call(input)) as { config: Record<string, SealedEntry> }
  if (!input.reveal) return answer
  const opened = await Promise.all(Object.entries(answer.config).map(async ([key, entry]) => [key, await open(secrets, entry)] as const))
  return { config: Object.fromEntries(opened) }
})
