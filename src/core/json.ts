import * as z from 'zod'

/** Any JSON value. */
export type Json = string | number | boolean | null | Json[] | { [key: string]: Json }

/** A JSON value may nest this deep; deeper ones are refused before anything recurses into them. */
export const MAXIMUM_JSON_DEPTH = 64

/**
 * Why Postgres or JSON could not carry `value` unchanged, or null. Iterative, so that a hostile
 * nesting cannot exhaust the stack: jsonb refuses NUL and unpaired surrogates, and JSON.parse turns
 * 1e999 into Infinity, which JSON cannot write again.
 */
export function unstorable(value: unknown): string | null {
  const stack: Array<[value: unknown, depth: number]> = [[value, 0]]
  for (let next = stack.pop(); next !== undefined; next = stack.pop()) {
    const [item, depth] = next
    if (depth > MAXIMUM_JSON_DEPTH) return `nests deeper than ${MAXIMUM_JSON_DEPTH} levels`
    if (typeof item === 'string') {
      if (item.includes('\0') || !item.isWellFormed()) return 'contains a NUL or an unpaired surrogate'
    } else if (typeof item === 'number') {
      if (!Number.isFinite(item)) return 'contains a number that JSON cannot hold'
      if (Number.isInteger(item) && !Number.isSafeInteger(item)) return 'contains an integer beyond 2^53, which readers of JSON round; send it as text'
    } else if (Array.isArray(item)) {
      for (const element of item) stack.push([element, depth + 1])
    } else if (item !== null && typeof item === 'object') {
      if (Object.getPrototypeOf(item) !== Object.prototype && Object.getPrototypeOf(item) !== null) return 'contains an object that is not plain JSON'
      for (const [key, element] of Object.entries(item)) {
        stack.push([key, depth + 1])
        stack.push([element, depth + 1])
      }
    } else if (item !== null && typeof item !== 'boolean') {
      return 'contains something that is not JSON'
    }
  }
  return null
}

const MAXIMUM_JSON_BYTES = 65_536

const isJson = (value: unknown) => value !== undefined
const isObject = (value: unknown) => value !== null && typeof value === 'object' && !Array.isArray(value)

const refuse = (value: unknown): string | null =>
  unstorable(value) ?? (new TextEncoder().encode(JSON.stringify(value)).length > MAXIMUM_JSON_BYTES ? 'is larger than 64 KiB as JSON text' : null)

// Neither z.json() nor z.record(): both leave out a member named __proto__, which JSON may well have.

/** Any JSON value, as it is answered. */
export const AnyJson = z.custom<Json>(isJson)

/** Any JSON object, as it is answered. */
export const AnyJsonObject = z.custom<{ [key: string]: Json }>(isObject).meta({ type: 'object' })

/** Any JSON value that Postgres stores unchanged, at most 64 KiB as text. */
export const JsonValue = z.custom<Json>(isJson).superRefine((value, context) => {
  const reason = refuse(value)
  if (reason) context.addIssue({ code: 'custom', message: `The value ${reason}.` })
})

/** A JSON object, each member under the limits of {@link JsonValue}; the body's own limit bounds the whole. */
export const JsonObject = z
  .custom<{ [key: string]: Json }>(isObject, { message: 'Must be a JSON object.', abort: true })
  .superRefine((object, context) => {
    for (const [key, value] of Object.entries(object)) {
      const reason = unstorable(key) ?? refuse(value)
      if (reason) context.addIssue({ code: 'custom', path: [key], message: `The member ${reason}.` })
    }
  })
  .meta({ type: 'object' })

/** Text that Postgres stores unchanged. */
export const text = (minimum: number, maximum: number) =>
  z
    .string()
    .min(minimum)
    .max(maximum)
    .refine((value) => unstorable(value) === null, { message: 'Must not contain NUL or unpaired surrogates.' })
