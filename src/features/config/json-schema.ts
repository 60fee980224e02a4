/**
 * JSON Schema (2020-12) as a validator that needs no code generation, which Workers forbid. A definition that is not
 * enforced is worse than none, so a schema is itself judged first.
 */
import { type OutputUnit, type Schema, Validator } from '@cfworker/json-schema'
import type { Json } from '../../core/json.ts'

/** What is wrong, and where: names and indexes with dots between them, empty for the whole. */
export interface Fault {
  path: string
  reason: string
}

/** Why a value does not fit, or null. */
export type Judge = (value: Json) => Fault | null

const DRAFT = '2020-12'
const TYPES = ['string', 'number', 'integer', 'boolean', 'null', 'object', 'array']

const part = { $ref: '#/$defs/schema' }
const parts = { type: 'array', minItems: 1, items: part }
const named = { type: 'object', additionalProperties: part }
const count = { type: 'integer', minimum: 0 }
const bound = { type: 'number' }
const names = { type: 'array', items: { type: 'string' } }

const all = <T>(keywords: string, says: T): Record<string, T> => Object.fromEntries(keywords.split(' ').map((keyword) => [keyword, says]))

/** What the validator understands, each keyword with what it must hold. Others are annotations. */
const ABOUT_SCHEMAS = {
  ...part,
  $defs: {
    schema: {
      type: ['object', 'boolean'],
      properties: {
        type: { anyOf: [{ enum: TYPES }, { type: 'array', minItems: 1, items: { enum: TYPES } }] },
        enum: { type: 'array', minItems: 1 },
        $ref: { type: 'string', pattern: '^#($|/)' },
        pattern: { type: 'string', format: 'regex' },
        multipleOf: { type: 'number', exclusiveMinimum: 0 },
        ...all('format $comment title description', { type: 'string' }),
        ...all('anyOf oneOf allOf prefixItems', parts),
        ...all('not if then else items contains additionalProperties propertyNames unevaluatedItems unevaluatedProperties', part),
        ...all('$defs definitions properties dependentSchemas', named),
        patternProperties: { ...named, propertyNames: { format: 'regex' } },
        dependentRequired: { type: 'object', additionalProperties: names },
        required: names,
        ...all('minLength maxLength minItems maxItems minContains maxContains minProperties maxProperties', count),
        ...all('minimum maximum exclusiveMinimum exclusiveMaximum', bound),
        uniqueItems: { type: 'boolean' },
        // names of schemas and of drafts before this one: they would be passed over, or mean something else
        ...all('$id $anchor $dynamicRef $dynamicAnchor $recursiveRef $recursiveAnchor additionalItems dependencies', false),
      },
    },
  },
}

const decode = (step: string) => decodeURIComponent(step).replaceAll('~1', '/').replaceAll('~0', '~')
const stepsOf = (pointer: string) => pointer.split('/').slice(1).map(decode)

/** The place nearest to the fault; a missing member stands where it is missing. */
function placeOf({ instanceLocation, keyword, error }: OutputUnit): string[] {
  const missing = keyword === 'required' ? /"(.*)"/s.exec(error)?.[1] : undefined
  return [...stepsOf(instanceLocation), ...(missing === undefined ? [] : [missing])]
}

function faultOf(errors: readonly OutputUnit[]): Fault {
  // Of the alternatives of a union, the one that got furthest tells the fault.
  const places = errors.map((unit) => ({ steps: placeOf(unit), reason: unit.error.replace(/\.$/, '').slice(0, 300) }))
  const deepest = places.reduce((best, each) => (each.steps.length >= best.steps.length ? each : best), { steps: [] as string[], reason: 'it does not fit' })
  return { path: deepest.steps.join('.'), reason: deepest.reason }
}

function judgeBy(schema: object): Judge {
  // Cloned: the validator writes what it resolves into the schema.
  const validator = new Validator(structuredClone(schema) as Schema, DRAFT)
  return (value) => {
    const { valid, errors } = validator.validate(value)
    return valid ? null : faultOf(errors)
  }
}

const ended = (error: unknown): Fault => ({
  path: '',
  reason: error instanceof RangeError ? 'its schema refers to itself without end' : (error as Error).message.slice(0, 200),
})

function* referencesIn(value: unknown): Generator<string> {
  if (typeof value !== 'object' || value === null) return
  if ('$ref' in value && typeof value.$ref === 'string') yield value.$ref
  for (const inner of Object.values(value)) yield* referencesIn(inner)
}

function leadsSomewhere(reference: string, schema: object): boolean {
  let place: unknown = schema
  for (const step of stepsOf(reference)) {
    if (typeof place !== 'object' || place === null || !Object.hasOwn(place, step)) return false
    place = (place as Record<string, unknown>)[step]
  }
  return typeof place === 'object' || typeof place === 'boolean'
}

const judgeSchema = judgeBy(ABOUT_SCHEMAS)
const SAMPLES: Json[] = [null, true, 0, '', [], {}, [null], { a: null }]

function faultOfSchema(schema: Record<string, unknown>): Fault | null {
  const fault = judgeSchema(schema as Json)
  if (fault) return fault
  const [dangling] = [...referencesIn(schema)].filter((reference) => !leadsSomewhere(reference, schema))
  return dangling === undefined ? null : { path: '', reason: `${dangling.slice(0, 100)} leads nowhere` }
}

/** Some schemas refer to themselves without end for some values only: those values are refused, with the schema named as the fault. */
const judgedSafely =
  (judge: Judge): Judge =>
  (value) => {
    try {
      return judge(value)
    } catch (error) {
      return ended(error)
    }
  }

/** A judge of values by this schema, or what is wrong with the schema. */
export function compile(schema: Record<string, unknown>): { judge: Judge } | { fault: Fault } {
  try {
    const fault = faultOfSchema(schema)
    if (fault) return { fault }
    const judge = judgeBy(schema)
    // What refers to itself without end mostly does so for the least of values.
    for (const sample of SAMPLES) judge(sample)
    return { judge: judgedSafely(judge) }
  } catch (error) {
    return { fault: ended(error) }
  }
}
