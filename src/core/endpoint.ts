/**
 * An operation, described once. Route, validation, authorization (here and in SQL), OpenAPI document,
 * SDK method and the deny matrix all derive from this description.
 */
import * as z from 'zod'
import type { ErrorCode } from './errors.ts'
import type { Scope } from './scopes.ts'

/** Where the tenant that must lie within the caller's reach is named in the input. */
export type Reach =
  /** `input[field]` is a tenant the caller must reach. */
  | { readonly kind: 'tenant'; readonly field: string }
  /** The parent of tenant `input[field]` must be reached; a root's needs a global admin. */
  | { readonly kind: 'parent'; readonly field: string }
  /** `input[field]` is the parent of something new; null or absent is the top, which needs a global admin. */
  | { readonly kind: 'under'; readonly field: string }
  /** `input[field]` is a list; `parent_id` of each entry is judged as by `under`, except where it has a `parent_slug`. */
  | { readonly kind: 'under_each'; readonly field: string }
  /** The whole installation: needs a global admin. */
  | { readonly kind: 'global'; readonly field: null }
  /** `input[field]` is an API key of a tenant the caller must reach; a global key needs a global admin. */
  | { readonly kind: 'api_key'; readonly field: string }
  /** `input[field]` is a stored issuer bound to a tenant the caller must reach; one bound to none needs a global admin. */
  | { readonly kind: 'issuer'; readonly field: string }
  /** `input[field]` is a job about a tenant the caller must reach; one about none, or a purged one, needs a global admin. */
  | { readonly kind: 'job'; readonly field: string }

type Shape = z.ZodObject
type Empty = z.ZodObject<Record<never, never>, z.core.$strict>
const empty: Empty = z.strictObject({})

export interface Endpoint<P extends Shape = Shape, Q extends Shape = Shape, B extends Shape = Shape, O extends z.ZodType = z.ZodType> {
  /** camelCase; the SQL function is the same name in snake_case. */
  readonly id: string
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  /** Under `/api/v1`, parameters as `:name`. */
  readonly path: string
  readonly tag: string
  readonly summary: string
  readonly scope: Scope
  /** A scope that is needed too when the input's field is true. */
  readonly alsoScope?: { readonly field: string; readonly scope: Scope }
  /** Empty: the operation works on the caller's own reach. */
  readonly reach: readonly Reach[]
  readonly params: P
  readonly query: Q
  readonly body: B
  readonly status: 200 | 201
  readonly output: O
  readonly errors: readonly ErrorCode[]
  /** Answers without a credential too. */
  readonly open?: boolean
  /** What it would change can be shown: `dry_run=true`, and `If-Match` to do just that. */
  readonly preview?: boolean
  /** Set on a paged list: the shape of the place a cursor stands for. */
  readonly position?: z.ZodType
}

type Definition<P, Q, B, O> = Omit<Endpoint, 'params' | 'query' | 'body' | 'output' | 'status' | 'reach' | 'errors'> & {
  params?: P
  query?: Q
  body?: B
  output: O
  status?: 200 | 201
  reach?: readonly Reach[]
  errors?: readonly ErrorCode[]
}

/** Describe an operation; what is left out is empty, status 200. */
export function endpoint<O extends z.ZodType, P extends Shape = Empty, Q extends Shape = Empty, B extends Shape = Empty>(
  definition: Definition<P, Q, B, O>,
): Endpoint<P, Q, B, O> {
  const { params = empty as Shape as P, query = empty as Shape as Q, body = empty as Shape as B, ...rest } = definition
  return { status: 200, reach: [], errors: [], ...rest, params, query, body }
}

/** Does an `Idempotency-Key` mean anything to it? Who needs no more than `read` changes nothing, and is answered as things are now. */
export const isDoneOnce = ({ method, scope }: Endpoint): boolean => method === 'POST' && scope !== 'read'

type Flatten<T> = { [K in keyof T]: T[K] }
// zod types an object without members as Record<string, never>, which would forbid the other parts' members
type Output<S extends Shape> = keyof S['shape'] extends never ? unknown : z.output<S>
type Input<S extends Shape> = keyof S['shape'] extends never ? unknown : z.input<S>

/** What an operation works on: params, query and body as one object, parsed and with defaults. */
export type InputOf<E extends Endpoint> = Flatten<Output<E['params']> & Output<E['query']> & Output<E['body']>>
/** What a caller may leave out is optional here. */
export type CallOf<E extends Endpoint> = Flatten<Input<E['params']> & Input<E['query']> & Input<E['body']>>
/** What an operation answers. */
export type OutputOf<E extends Endpoint> = z.output<E['output']>

/** The SQL function of an operation: `createTenant` → `create_tenant`. */
export const sqlName = (id: string): string => id.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)

/** Why a part of what was asked is refused, where the rest is done. */
export const Refusal = z.object({ code: z.string(), message: z.string(), details: z.record(z.string(), z.unknown()) })

/**
 * What an operation would do to what effectively holds: `config` `{ value, locked }` and `permission` `{ value, mode }`
 * by key, `status`; null where nothing holds. Of secrets only whether they change: `{ sensitive: true, locked }`.
 * Shown are the first 1,000 changes, or fewer where their values would take more than 4 MiB before or after; `total`
 * and `version` stand for all.
 */
export const Preview = z.object({
  changes: z.array(
    z.object({
      tenant_id: z.uuid(),
      field: z.enum(['config', 'permission', 'status', 'region']),
      key: z.string().nullable(),
      from: z.unknown(),
      to: z.unknown(),
    }),
  ),
  total: z.number().int(),
  truncated: z.boolean(),
  /** Of a batch whose entries are judged each for itself, those that would be refused. */
  refused: z.array(z.object({ key: z.string(), error: Refusal })).optional(),
  /** Sent back as `If-Match`, the operation does exactly this or answers VERSION_MISMATCH. */
  version: z.string(),
})
export type Preview = z.infer<typeof Preview>

/** One page of a list, as every list of the API is answered. */
export const page = <T extends z.ZodType>(item: T) => z.object({ data: z.array(item), next_cursor: z.string().nullable(), has_more: z.boolean() })

/** `limit` and `cursor` of a paged list. */
export const paging = {
  limit: z.coerce.number<number | string>().int().min(1).max(100).default(50),
  cursor: z.string().max(2_048).optional(),
}

/** A flag in a query string. */
export const flag = z.union([z.boolean(), z.enum(['true', 'false']).transform((value) => value === 'true')])

/** An id: a UUID in canonical form. */
export const Uuid = z.uuid().transform((value) => value.toLowerCase())

/** For the body of a PATCH: at least one member is given. */
export const changesSomething = (body: object): boolean => Object.values(body).some((value) => value !== undefined)
export const NOTHING_TO_CHANGE = { message: 'Give at least one thing to change.' }
