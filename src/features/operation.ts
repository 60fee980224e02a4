import { base64url } from 'jose'
import type { ApiKeySecrets } from '../auth/api-keys.ts'
import type { TokenVerifier } from '../auth/tokens.ts'
import type { Actor } from '../core/actor.ts'
import { type Endpoint, type InputOf, type OutputOf, sqlName } from '../core/endpoint.ts'
import { stratumError } from '../core/error-classes.ts'
import type { Secrets } from '../crypto/envelope.ts'
import type { Database } from '../db/database.ts'
import type { HostRules } from '../resolver/identify.ts'

/** What operations work with; made once for each process or isolate. */
export interface Services {
  readonly db: Database
  readonly secrets: Secrets
  readonly apiKeys: ApiKeySecrets
  readonly tokens: TokenVerifier
  readonly hosts: HostRules
}

/** An endpoint with what runs it: the SQL function of its name, and at most some work in the process around that. */
export interface Operation<E extends Endpoint = Endpoint> {
  readonly endpoint: E
  run(services: Services, actor: Actor, input: InputOf<E>): Promise<OutputOf<E>>
}

type Around<E extends Endpoint> = (services: Services, input: InputOf<E>, call: (input: object) => Promise<unknown>) => Promise<unknown>

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

/** What SQL answered, as the contract has it. */
function shape<E extends Endpoint>(endpoint: E, filters: unknown, answer: unknown): OutputOf<E> {
  const shaped = isPage(answer)
    ? { data: answer.data, next_cursor: answer.next === null ? null : encodeCursor(endpoint, filters, answer.next), has_more: answer.next !== null }
    : answer
  const parsed = endpoint.output.safeParse(shaped)
  if (parsed.success) return parsed.data as OutputOf<E>
  const places = parsed.error.issues.map((issue) => issue.path.join('.'))
  throw stratumError('INTERNAL_ERROR', {}, { cause: new Error(`The answer of ${endpoint.id} does not fit its contract at ${places.join(', ')}.`) })
}

/** Make the operation of an endpoint: one call of the SQL function of its name. */
export function operation<E extends Endpoint>(endpoint: E, around: Around<E> = (_services, input, call) => call(input)): Operation<E> {
  return {
    endpoint,
    async run(services, actor, input) {
      const { cursor, limit, ...filters } = input as Record<string, unknown>
      let asked = false
      let after = {}
      const call = (prepared: object) => {
        asked = true
        return services.db.call(sqlName(endpoint.id), actor, { ...prepared, ...after })
      }
      try {
        if (typeof cursor === 'string') after = { after: decodeCursor(endpoint, filters, cursor) }
        return shape(endpoint, filters, await around(services, { ...input, cursor: undefined }, call))
      } catch (error) {
        // What is refused before SQL was asked is refused only to who is known: 401 comes before 400.
        if (!asked && actor.exposed) await services.db.call('authenticate', actor, {})
        throw error
      }
    },
  }
}
