/**
 * What of JSON Schema a definition may say. The validator passes over what it does not know or cannot place, and a
 * definition that is not enforced is worse than none: what it would pass over is refused here.
 */
import * as z from 'zod'

const PLACED: Readonly<Record<string, readonly string[]>> = {
  string: ['minLength', 'maxLength', 'pattern', 'format'],
  number: ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf'],
  object: ['properties', 'required', 'additionalProperties', 'patternProperties', 'propertyNames', 'minProperties', 'maxProperties'],
  array: ['items', 'prefixItems', 'additionalItems', 'minItems', 'maxItems', 'uniqueItems', 'contains', 'minContains', 'maxContains'],
}
const CONSTRAINTS = Object.values(PLACED).flat()
const COMBINATIONS = ['anyOf', 'oneOf', 'allOf']

const Part: z.ZodType = z.lazy(() => z.union([z.boolean(), Schema]))
const Parts = z.array(Part).min(1).optional()
const Named = z.record(z.string(), Part).optional()
const Count = z.int().min(0).optional()
const Bound = z.number().optional()
const Scalar = z.union([z.string(), z.number(), z.boolean(), z.null()])
const Type = z.enum(['string', 'number', 'integer', 'boolean', 'null', 'object', 'array'])

/** What stands in a schema and would not be enforced as it stands there, or null. */
function unplaced(schema: Record<string, unknown>): string | null {
  const has = (keyword: string) => Object.hasOwn(schema, keyword)
  const typed = ['type', 'enum', 'const'].some(has)
  const combinations = COMBINATIONS.filter(has)
  const [constraint] = CONSTRAINTS.filter(has)
  if (has('$ref') && (typed || constraint || combinations.length > 0)) return 'nothing else can stand beside $ref'
  if (!typed && constraint) return `${constraint} needs a type beside it`
  if (!typed && combinations.length > 1) return `${combinations.join(' and ')} together need a type beside them`
  if ((has('minItems') || has('maxItems')) && !has('items') && !has('prefixItems')) return 'minItems and maxItems need items beside them'
  if (has('patternProperties') && typeof schema['additionalProperties'] === 'object')
    return 'patternProperties and a schema of additionalProperties exclude each other'
  const properties = (schema['properties'] ?? {}) as object
  const loose = ((schema['required'] ?? []) as string[]).find((name) => !Object.hasOwn(properties, name))
  return loose === undefined ? null : `what is required has to stand in properties, which ${loose} does not`
}

const Schema = z
  .looseObject({
    type: z.union([Type, z.array(Type).min(1)]).optional(),
    enum: z.array(Scalar).min(1).optional(),
    const: Scalar.optional(),
    $ref: z.string().optional(),
    $defs: Named,
    definitions: Named,
    ...{ anyOf: Parts, oneOf: Parts, allOf: Parts },
    ...{ minLength: Count, maxLength: Count, pattern: z.string().optional(), format: z.string().optional() },
    ...{ minimum: Bound, maximum: Bound, exclusiveMinimum: Bound, exclusiveMaximum: Bound, multipleOf: z.number().positive().optional() },
    ...{ properties: Named, patternProperties: Named, additionalProperties: Part.optional(), propertyNames: Part.optional() },
    ...{ required: z.array(z.string()).optional(), minProperties: Count, maxProperties: Count },
    ...{ items: z.union([Part, Parts]).optional(), prefixItems: Parts, additionalItems: Part.optional() },
    ...{ minItems: Count, maxItems: Count, uniqueItems: z.boolean().optional(), contains: Part.optional(), minContains: Count, maxContains: Count },
  })
  .superRefine((schema, context) => {
    const message = unplaced(schema)
    if (message !== null) context.addIssue({ code: 'custom', message })
  })

type Issue = z.core.$ZodIssue

/** Of the alternatives of a union, the one that got furthest tells the fault. */
function innermost(issue: Issue): Issue {
  if (issue.code !== 'invalid_union') return issue
  const [deepest] = issue.errors
    .flat()
    .map((inner) => innermost({ ...inner, path: [...issue.path, ...inner.path] }))
    .sort((a, b) => b.path.length - a.path.length || Number(b.code === 'custom') - Number(a.code === 'custom'))
  return deepest ?? issue
}

/** Why a schema cannot be enforced whole, and where; or null. */
export function schemaFault(schema: unknown): { path: string; reason: string } | null {
  const [issue] = Schema.safeParse(schema).error?.issues ?? []
  if (!issue) return null
  const { path, message } = innermost(issue)
  return { path: path.join('.'), reason: message }
}
