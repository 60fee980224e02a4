import { base64url } from 'jose'
import type { ApiKeySecrets } from '../auth/api-keys.ts'
import type { DomainProofs } from '../auth/domain-proofs.ts'
import type { TokenVerifier } from '../auth/tokens.ts'
import type { Actor } from '../core/actor.ts'
import { type Endpoint, type InputOf, type OutputOf, Preview, sqlName } from '../core/endpoint.ts'
import { stratumError } from '../core/error-classes.ts'
import type { Secrets } from '../crypto/envelope.ts'
import type { CallFacts, Database } from '../db/database.ts'
import type { Asking, Contexts, Outcome } from '../resolver/contexts.ts'
import type { TxtResolver } from '../resolver/dns.ts'
import type { HostRules } from '../resolver/identify.ts'
import type { ConfigDefinitions } from './config/definitions.ts'

/** What operations work with; made once for each process or isolate. */
export interface Services {
  readonly db: Database
  readonly secrets: Secrets
  readonly apiKeys: ApiKeySecrets
  readonly tokens: TokenVerifier
  readonly hosts: HostRules
  readonly domainProofs: DomainProofs
  /** Asked for the records that prove custom domains. */
  readonly dns: TxtResolver
  readonly definitions: ConfigDefinitions
  /** Where the contexts of tenants are kept; without it each is asked for. */
  readonly contexts?: Contexts<unknown>
}

/** How an operation is to be run. */
export interface RunOptions {
  /** Done once, however often it is sent with this key. */
  idempotencyKey?: string
  /** Done only if it does exactly what the dry run of this version showed. */
  ifMatch?: string
  /** How fresh a kept answer has to be. */
  asking?: Asking
  /** Told of the operation's transaction, and of where a kept answer came from. */
  tell?: (facts: Partial<CallFacts & { outcome: Outcome }>) => void
}

/** An endpoint with what runs it: the SQL function of its name, and at most some work in the process around that. */
export interface Operation<E extends Endpoint = Endpoint> {
  readonly endpoint: E
  run(services: Services, actor: Actor, input: InputOf<E>, options?: RunOptions): Promise<OutputOf<E>>
  /** Run it in the database, see what it changes, and roll it back there. */
  preview(services: Services, actor: Actor, input: InputOf<E>): Promise<Preview>
}

/** Ask SQL for something else than the operation itself; each such case is listed where requests are counted. */
export type Ask = (operation: string, input: object) => Promise<unknown>

type Around<E extends Endpoint> = (
  services: Services,
  input: InputOf<E>,
  call: (input: object) => Promise<unknown>,
  ask: Ask,
  run: { actor: Actor; options: RunOptions },
) => Shaped | Promise<unknown>

const encodeCursor = (endpoint: Endpoint, filters: unknown, position: unknown) => base64url.encode(JSON.stringify([endpoint.id, filters, position]))

/** The place a cursor stands for. It serves only the list, with the filters, that gave it. */
function decodeCursor(endpoint: Endpoint, filters: unknown, cursor: string): unknown {
  try {
    const [id, given, position] = JSON.parse(new TextDecoder().decode(base64url.decode(cursor))) as unknown[]
    if (id === endpoint.id && JSON.stringify(given) === JSON.stringify(filters)) return (endpoint.position as NonNullable<Endpoint['position']>).parse(position)
  } catch {
    // whatever it is, it is no cursor of this list
  }
  throw stratumError('INVALID_CURSOR')
}

const isPage = (answer: unknown): answer is { data: unknown[]; next: unknown } =>
  answer !== null && typeof answer === 'object' && 'next' in answer && 'data' in answer

/** What of a list's input says which list it is. */
function filtersOf(input: object): unknown {
  const { cursor: _, limit: __, ...filters } = input as Record<string, unknown>
  return filters
}

/** What SQL answered, as the contract has it. */
function shape<E extends Endpoint>(endpoint: E, input: object, answer: unknown): OutputOf<E> {
  const shaped = isPage(answer)
    ? { data: answer.data, next_cursor: answer.next === null ? null : encodeCursor(endpoint, filtersOf(input), answer.next), has_more: answer.next !== null }
    : answer
  const parsed = endpoint.output.safeParse(shaped)
  if (parsed.success) return parsed.data as OutputOf<E>
  const places = parsed.error.issues.map((issue) => issue.path.join('.'))
  throw stratumError('INTERNAL_ERROR', {}, { cause: new Error(`The answer of ${endpoint.id} does not fit its contract at ${places.join(', ')}.`) })
}

/** A refusal that SQL has judged, though not now. */
export class Refused extends Error {
  readonly refusal: unknown
  constructor(refusal: unknown) {
    super('refused')
    this.refusal = refusal
  }
}

/** An answer that was found to fit its contract before. */
export class Shaped {
  readonly value: unknown
  constructor(value: unknown) {
    this.value = value
  }
}

type Call = (input: object) => Promise<unknown>

/** Ends a dry run where SQL has answered: what the process does with an answer of its own is for real runs. */
export class Shown extends Error {
  readonly answer: object
  constructor(answer: object) {
    super('shown')
    this.answer = answer
  }
}

const hashOf = async (value: unknown) => {
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(JSON.stringify(value)))
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, '0')).join('')
}

/** The one statement of an operation, plain or wrapped in what was asked for besides. */
function caller(db: Database, actor: Actor, name: string, asked: unknown, { idempotencyKey, ifMatch, tell }: RunOptions): Call {
  if (ifMatch !== undefined) return (input) => db.call('run_if_match', actor, { operation: name, input, version: ifMatch }, tell)
  if (idempotencyKey === undefined) return (input) => db.call(name, actor, input, tell)
  return async (input) => db.call('run_once', actor, { operation: name, input, key: idempotencyKey, input_hash: await hashOf([asked, actor.named]) }, tell)
}

/** Make the operation of an endpoint: one call of the SQL function of its name. */
export function operation<E extends Endpoint>(endpoint: E, around: Around<E> = (_services, input, call) => call(input)): Operation<E> {
  const name = sqlName(endpoint.id)

  /** What is refused before SQL was asked is refused only to who is known: 401 comes before 400. */
  async function judged(services: Services, actor: Actor, input: InputOf<E>, call: Call, options: RunOptions = {}): Promise<unknown> {
    const { cursor } = input as { cursor?: unknown }
    let asked = false
    try {
      const after = typeof cursor === 'string' ? { after: decodeCursor(endpoint, filtersOf(input), cursor) } : {}
      const answer = await around(
        services,
        { ...input, cursor: undefined },
        (prepared) => {
          asked = true
          return call({ ...prepared, ...after })
        },
        (other, prepared) => {
          asked = true
          return services.db.call(other, actor, prepared)
        },
        { actor, options },
      )
      return answer instanceof Shaped ? answer.value : shape(endpoint, input, answer)
    } catch (error) {
      if (!asked && actor.exposed && !(error instanceof Refused)) await services.db.call('authenticate', actor, {})
      throw error instanceof Refused ? error.refusal : error
    }
  }

  return {
    endpoint,
    run: (services, actor, input, options = {}) =>
      judged(services, actor, input, caller(services.db, actor, name, input, options), options) as Promise<OutputOf<E>>,
    async preview(services, actor, input) {
      try {
        await judged(services, actor, input, async (prepared) => {
          throw new Shown((await services.db.call('dry_run', actor, { operation: name, input: prepared })) as object)
        })
      } catch (error) {
        if (error instanceof Shown) return Preview.parse(error.answer)
        throw error
      }
      throw stratumError('INTERNAL_ERROR', {}, { cause: new Error('the operation answered without asking SQL') })
    },
  }
}
