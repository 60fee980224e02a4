import { StratumError } from '../../core/errors.ts'
import type { Json } from '../../core/json.ts'
import type { SealedSecret, Secrets } from '../../crypto/envelope.ts'
import { operation } from '../operation.ts'
import * as contract from './contract.ts'

type SealedEntry = { key: string; value: Json; source_tenant_id: string; sealed?: SealedSecret }

const place = (tenant_id: string, key: string) => ({ table: 'config_entries', tenant_id, key })

/** Clear text never reaches SQL: a sensitive value is encrypted here and leaves without its original. */
export const setConfig = operation(contract.setConfig, async ({ secrets }, { value, sensitive, ...input }, call) =>
  call(sensitive ? { ...input, sealed: await secrets.seal(place(input.id, input.key), value) } : { ...input, value }),
)

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
