import { operation } from '../operation.ts'
import * as contract from './contract.ts'

/** The key is made here and shown once; SQL gets its HMAC. A replay has no key to show, and says so. */
export const createApiKey = operation(contract.createApiKey, async ({ apiKeys }, input, call) => {
  const { key, key_hash, hint } = await apiKeys.mint()
  const created = (await call({ ...input, key_hash, hint })) as { idempotent_replay?: boolean }
  return created.idempotent_replay ? created : { ...created, key }
})
