import { StratumError } from '../../core/errors.ts'
import { identifyHost, identifyPath, inOrder } from '../../resolver/identify.ts'
import { operation } from '../operation.ts'
import * as contract from './contract.ts'
import { asAnswered, keptContext } from './kept.ts'

/** The caller's own context, kept in the process where it keeps any. */
export const getContext = operation(contract.getContext, (services, input, call, _ask, run) => {
  const { credential, named } = run.actor
  return keptContext(services, { operation: contract.getContext.id, credential, named }, run, call, input)
})

/** What is asked about is read here, as the edge reads its own requests; SQL judges it. */
export const resolve = operation(contract.resolve, async (services, { host, path, token }, call, _ask, run) => {
  const { tokens, hosts } = services
  const named = inOrder([host === undefined ? null : identifyHost(host, hosts), path === undefined ? null : identifyPath(path, hosts)], hosts)
  const asker = run.actor.credential
  const credential = token === undefined ? undefined : (tokens.known(token) ?? (await tokens.verify(token)))
  const input = { named, ...(credential === undefined ? {} : { credential }) }
  // A server that was itself sent to a tenant's host reaches less: it is asked for anew.
  if (run.actor.named.length > 0) return asAnswered(await call(input))
  // Without a token nobody but the asker is known, who may be just such a user as one with a token: that is another question.
  const question = token === undefined ? { operation: 'resolve nobody', credential: asker } : { operation: 'resolve token', credential: credential ?? asker }
  return keptContext(services, { ...question, named, asker }, run, call, input)
})

/** For admins the database's own account stands beside the word that the service is up; anybody else known gets that word alone. */
export const getHealth = operation(contract.getHealth, async ({ contexts }, input, call) => {
  try {
    return { status: 'ok', database: await call(input), ...(contexts ? { contexts: contexts.counts } : {}) }
  } catch (error) {
    if (error instanceof StratumError && (error.code === 'SCOPE_REQUIRED' || error.code === 'GLOBAL_ADMIN_REQUIRED')) return { status: 'ok' }
    throw error
  }
})
