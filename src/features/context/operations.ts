import { StratumError } from '../../core/errors.ts'
import { identifyHost, identifyPath } from '../../resolver/identify.ts'
import { operation } from '../operation.ts'
import * as contract from './contract.ts'

/** What is asked about is read here, as the edge reads its own requests; SQL judges it. */
export const resolve = operation(contract.resolve, async ({ tokens, hosts }, { host, path, token }, call) => {
  const named = [host === undefined ? null : identifyHost(host, hosts), path === undefined ? null : identifyPath(path, hosts)].filter((part) => part !== null)
  return call({ named, ...(token === undefined ? {} : { credential: await tokens.verify(token) }) })
})

/** For admins the database's own account stands beside the word that the service is up; anybody else known gets that word alone. */
export const getHealth = operation(contract.getHealth, async (_services, input, call) => {
  try {
    return { status: 'ok', database: await call(input) }
  } catch (error) {
    if (error instanceof StratumError && (error.code === 'SCOPE_REQUIRED' || error.code === 'GLOBAL_ADMIN_REQUIRED')) return { status: 'ok' }
    throw error
  }
})
