/** Contexts that the process keeps: how an answer of SQL's becomes one, and a kept one somebody's own again. */
import * as z from 'zod'
import type { Actor, Credential, NamedTenant } from '../../core/actor.ts'
import { StratumError } from '../../core/errors.ts'
import type { Database } from '../../db/database.ts'
import { contextKey, type Tags } from '../../resolver/context-cache.ts'
import { Contexts, type ContextsOptions, type Loaded } from '../../resolver/contexts.ts'
import { Refused, type RunOptions, type Services, Shaped } from '../operation.ts'
import { TenantContext } from './contract.ts'

/** What SQL adds to a context that is to be kept; see `stratum.keeping` in routines/70_context.sql. */
const Keeping = z.object({ path: z.string(), principal: z.string().nullable(), until: z.string().nullable(), feed: z.unknown() })

/** The feed is read by the process for itself, on nobody's behalf. */
const ITSELF: Actor = { credential: { type: 'nobody' }, named: [], exposed: true, request_id: null, source_ip: null }

/** Where a process keeps contexts, fresh by the change feed of this database. */
export const keepContexts = (db: Database, options: ContextsOptions = {}): Contexts<unknown> =>
  new Contexts((since) => db.call('read_changes', ITSELF, since), options)

/** Who a context is for and what names its tenant. */
interface Question {
  operation: string
  /** Whose principal the context shows. */
  credential: Credential
  named: readonly NamedTenant[]
  /** Who asks, where that is another. */
  asker?: Credential
}

/** Slugs and hosts of the question, as the change feed names them. */
function namesOf({ credential, named }: Question): string[] {
  const names = named.map(({ source, tenant }) => (source === 'subdomain' ? tenant.replaceAll('-', '_') : tenant))
  return credential.type === 'token' && credential.tenant !== null ? [...names, credential.tenant] : names
}

function loaded(question: Question, answer: unknown): Loaded<TenantContext> {
  const { keeping, ...context } = answer as { keeping: unknown }
  const { path, principal, until, feed } = Keeping.parse(keeping)
  const issuers = [question.credential, question.asker].flatMap((credential) => (credential?.type === 'token' ? [credential.issuer] : []))
  const tags: Tags = { path, names: namesOf(question), principal, issuers }
  return { value: TenantContext.parse(context), tags, feed, ...(until === null ? {} : { until: Date.parse(until) }) }
}

/** Users of one tenant share what is kept; each gets it with the own name. */
const asTheirs = (context: TenantContext, credential: Credential): TenantContext =>
  credential.type === 'token' ? { ...context, principal: { ...context.principal, id: credential.subject } } : context

/**
 * Answer a question from what is kept, else by `call`.
 * @throws what SQL refuses with, also where that was said before
 */
export async function keptContext(
  { contexts }: Services,
  question: Question,
  { actor, options }: { actor: Actor; options: RunOptions },
  call: (input: object) => Promise<unknown>,
  input: object,
): Promise<unknown> {
  if (!contexts || !actor.exposed || options.idempotencyKey !== undefined) return call(input)
  const operation = question.asker ? contextKey(question.asker, question.operation, []) : question.operation
  const key = contextKey(question.credential, operation, question.named)
  try {
    const load = async () => loaded(question, await call({ ...input, keep: true }))
    const { value, outcome } = await contexts.resolve(key, load, options.asking)
    options.tell?.({ outcome })
    return new Shaped(asTheirs(value as TenantContext, question.credential))
  } catch (error) {
    throw error instanceof StratumError ? new Refused(error) : error
  }
}
