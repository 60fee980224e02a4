/** Contexts that the process keeps: how an answer of SQL's becomes one, and a kept one somebody's own again. */
import type { Actor, Credential, NamedTenant, TokenCredential } from '../../core/actor.ts'
import { StratumError } from '../../core/errors.ts'
import { onceFor } from '../../core/once-for.ts'
import type { Database } from '../../db/database.ts'
import { contextKey, type Tags } from '../../resolver/context-cache.ts'
import { Contexts, type ContextsOptions, type Loaded, type Outcome, type Resolved } from '../../resolver/contexts.ts'
import { Refused, type RunOptions, type Services, Shaped } from '../operation.ts'
import type { TenantContext } from './contract.ts'

/** What SQL adds to a context that is to be kept; see `stratum.keeping` in routines/70_context.sql. */
interface Keeping {
  path: string
  principal: string | null
  until: string | null
  feed: unknown
}

/**
 * A context as SQL made it. It is not checked against its contract again, a sixth of the CPU of a request that asks SQL:
 * test/features/context-shape.test.ts holds SQL to it.
 */
export const asAnswered = (answer: unknown): Shaped => new Shaped(answer as TenantContext)

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
  const { keeping, ...context } = answer as TenantContext & { keeping: Keeping }
  const { path, principal, until, feed } = keeping
  const issuers = [question.credential, question.asker].flatMap((credential) => (credential?.type === 'token' ? [credential.issuer] : []))
  const tags: Tags = { path, names: namesOf(question), principal, issuers }
  return { value: context, tags, feed, ...(until === null ? {} : { until: Date.parse(until) }) }
}

/** Users of one tenant share what is kept; each gets it with the own name, made once for each token that is kept. */
const renamed = onceFor((context: TenantContext) =>
  onceFor(({ subject }: TokenCredential): TenantContext => ({ ...context, principal: { ...context.principal, id: subject } })),
)
const asTheirs = (context: TenantContext, credential: Credential): TenantContext =>
  credential.type === 'token' && credential.subject !== context.principal.id ? renamed(context)(credential) : context

const refuse = (error: unknown): never => {
  throw error instanceof StratumError ? new Refused(error) : error
}

/**
 * Answer a question from what is kept, at once where it may be served as it is, else by `call`.
 * @throws what SQL refuses with, also where that was said before
 */
export function keptContext(
  { contexts }: Services,
  question: Question,
  { actor, options }: { actor: Actor; options: RunOptions },
  call: (input: object) => Promise<unknown>,
  input: object,
): Shaped | Promise<Shaped> {
  if (!contexts || !actor.exposed) return call(input).then(asAnswered)
  const operation = question.asker ? contextKey(question.asker, question.operation, []) : question.operation
  const key = contextKey(question.credential, operation, question.named)
  const theirs = ({ value }: Resolved<unknown>) => new Shaped(asTheirs(value as TenantContext, question.credential))
  const { tell } = options
  const asking = tell ? { ...options.asking, tell: (outcome: Outcome) => tell({ outcome }) } : options.asking
  try {
    const served = contexts.served(key, asking)
    if (served) return theirs(served)
  } catch (error) {
    return refuse(error)
  }
  const load = async () => loaded(question, await call({ ...input, keep: true }))
  return contexts.resolve(key, load, asking).then(theirs, refuse)
}
