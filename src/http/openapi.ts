/** The OpenAPI 3.1 document, derived from the contracts that validate requests and answers. */
import * as z from 'zod'
import { type Endpoint, flag, isDoneOnce } from '../core/endpoint.ts'
import { CATALOGUE, type ErrorCode } from '../core/errors.ts'
import { AnyJson, JsonValue } from '../core/json.ts'
import { Scope } from '../core/scopes.ts'
import * as config from '../features/config/contract.ts'
import * as context from '../features/context/contract.ts'
import * as externalIds from '../features/external-ids/contract.ts'
import * as issuers from '../features/issuers/contract.ts'
import * as keys from '../features/keys/contract.ts'
import * as permissions from '../features/permissions/contract.ts'
import * as tenants from '../features/tenants/contract.ts'

/** A JSON Schema of draft 2020-12, the dialect of OpenAPI 3.1. */
export type JsonSchema = z.core.JSONSchema.BaseSchema
interface Content {
  'application/json': { schema: JsonSchema; examples?: Record<string, JsonSchema> }
}
interface Parameter {
  name: string
  in: 'path' | 'query' | 'header'
  required: boolean
  description?: string
  schema: JsonSchema
}
interface OpenApiResponse {
  description: string
  headers?: Record<string, object>
  content: Content
}
/** One operation of the document. */
export interface OpenApiOperation {
  operationId: string
  tags: string[]
  summary: string
  'x-stratum-scope': string
  security: Array<Record<string, string[]>>
  parameters?: Parameter[]
  requestBody?: { required: boolean; content: Content }
  responses: Record<string, OpenApiResponse>
}
/** What this module writes and `docsPage` reads. */
export interface OpenApiDocument {
  openapi: string
  info: { title: string; version: string; description: string }
  servers: Array<{ url: string }>
  tags: Array<{ name: string }>
  security: Array<Record<string, string[]>>
  paths: Record<string, Record<string, OpenApiOperation>>
  components: {
    securitySchemes: Record<string, { type: string; description: string; [more: string]: string }>
    schemas: Record<string, JsonSchema>
    examples: Record<string, { value: { error: { code: string; message: string; request_id: string } } }>
  }
}

const DESCRIPTION = 'A tree of tenants, with config and permissions that flow down it.'
const BASE_PATH = '/api/v1'
const SCHEMAS = '#/components/schemas/'
const reference = (name: string): JsonSchema => ({ $ref: `${SCHEMAS}${name}` })
const json = (schema: JsonSchema): Content => ({ 'application/json': { schema } })

/** The schemas that contracts export, by their names: each is a component, written once and referred to. */
function namedSchemas(): Map<z.ZodType, string> {
  const exported = [tenants, config, permissions, keys, issuers, externalIds, context].flatMap((module): Array<[string, unknown]> => Object.entries(module))
  const names = new Map<z.ZodType, string>()
  for (const [name, schema] of [['Json', AnyJson], ['Scope', Scope], ...exported] as const) {
    if (!(schema instanceof z.ZodType) || names.has(schema)) continue
    if ([...names.values()].includes(name)) throw new Error(`Two contracts export a schema ${name}: rename one`)
    names.set(schema, name)
  }
  return names
}

const ANY_VALUE = 'Any JSON value. One that is sent takes at most 64 KiB as text and nests at most 64 levels deep.'

/** Say what a caller needs to know, where zod would say how it checks. */
function tidy({ zodSchema, jsonSchema }: { zodSchema: z.core.$ZodTypes; jsonSchema: JsonSchema }): void {
  const { def } = zodSchema._zod
  const is = (schema: z.ZodType) => Object.is(zodSchema, schema)
  if (is(AnyJson) || is(JsonValue)) jsonSchema.description = ANY_VALUE
  if (is(flag)) {
    delete jsonSchema.anyOf
    jsonSchema.type = 'boolean'
  }
  // the patterns of these formats are pages long and say nothing more
  if (jsonSchema.format === 'uuid' || jsonSchema.format === 'date-time') delete jsonSchema.pattern
  if (jsonSchema.minimum === Number.MIN_SAFE_INTEGER) delete jsonSchema.minimum
  if (jsonSchema.maximum === Number.MAX_SAFE_INTEGER) delete jsonSchema.maximum
  if (jsonSchema.minLength === 0) delete jsonSchema.minLength
  if (JSON.stringify(jsonSchema.propertyNames) === '{"type":"string"}') delete jsonSchema.propertyNames
  // answers may gain fields, so only what a contract declares strict is closed
  if (def.type === 'object' && def.catchall === undefined) delete jsonSchema.additionalProperties
  // zod leaves out the default of what it transforms; these all read alike before and after
  if (def.type === 'default') jsonSchema.default = JSON.parse(JSON.stringify(def.defaultValue))
}

/** Convert schemas to JSON Schema, named ones to references; `components` holds what the references name. */
function convert(io: 'input' | 'output', parts: Record<string, z.ZodType>, names: Iterable<[z.ZodType, string]>) {
  const registry = z.registry<{ id: string }>()
  for (const [schema, id] of names) registry.add(schema, { id })
  // as properties of one schema, parts are converted in one go and never referred to themselves
  registry.add(z.object(parts), { id: '.' })
  const { schemas } = z.toJSONSchema(registry, { io, unrepresentable: 'any', override: tidy, uri: (id) => SCHEMAS + id })
  const { '.': root, __shared, ...components } = schemas as Record<string, JsonSchema>
  if (Object.keys(__shared?.$defs ?? {}).length > 0) throw new Error(`A schema contains itself without a name (${io}): export it from its contract`)
  const clean = (value: unknown): Record<string, JsonSchema> =>
    JSON.parse(JSON.stringify(value), (key, item) => ((key === '$schema' || key === '$id') && typeof item === 'string' ? undefined : item))
  return { parts: clean(root?.properties ?? {}), components: clean(components) }
}

/** The JSON Schemas of all operations (`createTenant.body`, `createTenant.output`, …) and the components they use. */
function convertAll(endpoints: readonly Endpoint[]) {
  const names = namedSchemas()
  // an object with defaults reads differently as input and as output, so only plain values are shared by both sides
  const plain = [...names].filter(([schema]) => schema instanceof z.ZodEnum || schema instanceof z.ZodString)
  const select = (...parts: Array<'params' | 'query' | 'body' | 'output'>) =>
    Object.fromEntries(endpoints.flatMap((endpoint) => parts.map((part) => [`${endpoint.id}.${part}`, endpoint[part]])))
  const input = convert('input', select('params', 'query', 'body'), [...plain, [JsonValue, 'Json']])
  const output = convert('output', select('output'), names)
  return { parts: { ...input.parts, ...output.parts }, components: { ...output.components, ...input.components } }
}

/** Of `components`, those that `root` refers to, directly or through others, sorted by name. */
function referredTo(root: unknown, components: Record<string, JsonSchema>): Record<string, JsonSchema> {
  const found = new Set<string>()
  const visit = (value: unknown) => {
    for (const [, name = ''] of JSON.stringify(value).matchAll(/"\$ref":"#\/components\/schemas\/([^"]+)"/g)) {
      const component = components[name]
      if (found.has(name) || component === undefined) continue
      found.add(name)
      visit(component)
    }
  }
  visit(root)
  return Object.fromEntries(
    Object.entries(components)
      .filter(([name]) => found.has(name))
      .sort(([a], [b]) => (a < b ? -1 : 1)),
  )
}

const EVERYWHERE: readonly ErrorCode[] = [
  ...(['INVALID_REQUEST', 'CREDENTIALS_AMBIGUOUS', 'TOKEN_INVALID', 'API_KEY_INVALID', 'SCOPE_REQUIRED'] as const),
  ...(['TENANT_HEADER_UNTRUSTED', 'TENANT_MISMATCH', 'TENANT_NOT_FOUND', 'TENANT_SUSPENDED', 'TENANT_ARCHIVED'] as const),
  ...(['INTERNAL_ERROR', 'DATABASE_ROLE_REFUSED', 'DATABASE_OUTDATED', 'DATABASE_UNAVAILABLE', 'DATABASE_BUSY'] as const),
]
const WITH_BODY: readonly ErrorCode[] = ['INVALID_JSON', 'BODY_TOO_LARGE', 'VALIDATION_FAILED']

/** Every code an operation may answer with, in the order of the catalogue. */
function errorCodes(endpoint: Endpoint): ErrorCode[] {
  const codes = new Set<ErrorCode>([...EVERYWHERE, ...endpoint.errors])
  if (!endpoint.open) codes.add('AUTHENTICATION_REQUIRED')
  if (endpoint.position) codes.add('INVALID_CURSOR')
  if (endpoint.preview) codes.add('VERSION_MISMATCH').add('DRY_RUN_TOO_LARGE')
  if (isDoneOnce(endpoint)) codes.add('IDEMPOTENCY_KEY_REUSED')
  // even an operation that takes no field reads a body, to refuse unknown ones
  if (endpoint.method !== 'GET' && endpoint.method !== 'DELETE') for (const code of WITH_BODY) codes.add(code)
  return (Object.keys(CATALOGUE) as ErrorCode[]).filter((code) => codes.has(code))
}

const RETRY_AFTER = { description: 'Seconds after which a retry makes sense.', schema: { type: 'integer' } }

function errorResponse(status: number, codes: readonly ErrorCode[]): OpenApiResponse {
  const narrowed: JsonSchema = { type: 'object', properties: { error: { type: 'object', properties: { code: { enum: [...codes] } } } } }
  const examples = Object.fromEntries(codes.map((code) => [code, { $ref: `#/components/examples/${code}` }]))
  return {
    description: codes.join(', '),
    ...(status === 503 ? { headers: { 'Retry-After': RETRY_AFTER } } : {}),
    content: { 'application/json': { schema: { allOf: [reference('Error'), narrowed] }, examples } },
  }
}

/** What contracts leave unsaid, as it reads alike in all of them. */
const DESCRIPTIONS: Record<string, string> = {
  limit: 'How many to answer at most.',
  cursor: 'next_cursor of the page before; left out, the list starts at its beginning.',
}
const REACHED = {
  tenant: 'Id of the tenant.',
  parent: 'Id of the tenant.',
  under: 'Id of the parent.',
  under_each: 'What is to be made.',
  global: '',
  api_key: 'Id of the API key.',
  issuer: 'Id of the issuer.',
  job: 'Id of the job.',
}

function parametersOf(endpoint: Endpoint, parts: Record<string, JsonSchema>): Parameter[] {
  return (['path', 'query'] as const).flatMap((place) => {
    const { properties = {}, required = [] } = parts[`${endpoint.id}.${place === 'path' ? 'params' : 'query'}`] ?? {}
    return Object.entries(properties as Record<string, JsonSchema>).map(([name, { description: own, ...schema }]): Parameter => {
      const reach = endpoint.reach.find(({ field }) => field === name)
      const description = own ?? DESCRIPTIONS[name] ?? (reach && REACHED[reach.kind])
      return { name, in: place, required: place === 'path' || required.includes(name), ...(description ? { description } : {}), schema }
    })
  })
}

/** What a request may ask of an operation besides what the operation itself takes. */
function runParameters(endpoint: Endpoint): Parameter[] {
  const parameter = (place: Parameter['in'], name: string, description: string, schema: JsonSchema): Parameter => ({
    name,
    in: place,
    required: false,
    description,
    schema,
  })
  const preview = [
    parameter(
      'query',
      'dry_run',
      'true: answer what would change, `{ changes, total, truncated, version }` and of a batch what is `refused`, and change nothing.',
      {
        type: 'boolean',
        default: false,
      },
    ),
    parameter('header', 'If-Match', 'The version of a dry run: do exactly what it showed, or answer VERSION_MISMATCH.', { type: 'string' }),
  ]
  const once = parameter(
    'header',
    'Idempotency-Key',
    'Sent again with the same key within 24 hours, it is done once and answered alike. A token needs a subject (`sub`) for it.',
    {
      type: 'string',
      maxLength: 255,
    },
  )
  return [...(endpoint.preview ? preview : []), ...(isDoneOnce(endpoint) ? [once] : [])]
}

const CREDENTIALS = [{ bearer: [] }, { apiKey: [] }]

function operationOf(endpoint: Endpoint, parts: Record<string, JsonSchema>): OpenApiOperation {
  const { id, tag, summary, scope, status } = endpoint
  const parameters = [...parametersOf(endpoint, parts), ...runParameters(endpoint)]
  const body = parts[`${id}.body`] ?? {}
  const codes = errorCodes(endpoint)
  const responses: OpenApiOperation['responses'] = {
    [status]: { description: status === 201 ? 'Created' : 'OK', content: json(parts[`${id}.output`] ?? {}) },
  }
  for (const failed of new Set(codes.map((code) => CATALOGUE[code][0]))) {
    responses[failed] = errorResponse(
      failed,
      codes.filter((code) => CATALOGUE[code][0] === failed),
    )
  }
  const hasBody = Object.keys(endpoint.body.shape).length > 0
  return {
    operationId: id,
    tags: [tag],
    summary,
    'x-stratum-scope': scope,
    ...(endpoint.alsoScope ? { 'x-stratum-also-scope': endpoint.alsoScope } : {}),
    security: endpoint.open ? [...CREDENTIALS, {}] : CREDENTIALS,
    ...(parameters.length > 0 ? { parameters } : {}),
    ...(hasBody ? { requestBody: { required: (body.required?.length ?? 0) > 0, content: json(body) } } : {}),
    responses,
  }
}

const METHODS = ['GET', 'POST', 'PUT', 'PATCH', 'DELETE']

/** By path, so that what belongs together stands together, whatever order modules export in. */
const inOrder = (endpoints: readonly Endpoint[]) =>
  [...endpoints].sort((a, b) => (a.path === b.path ? METHODS.indexOf(a.method) - METHODS.indexOf(b.method) : a.path < b.path ? -1 : 1))

const REQUEST_ID = '5f0c8a52-9d1e-4c37-8b60-2f6f1f2f9b11'
const ErrorSchema: JsonSchema = {
  type: 'object',
  required: ['error'],
  properties: {
    error: {
      type: 'object',
      required: ['code', 'message', 'request_id'],
      properties: {
        code: { type: 'string', pattern: '^[A-Z][A-Z0-9_]*$', description: 'Stable; decide by this one.' },
        message: { type: 'string', description: 'What happened and what to do, for people.' },
        details: { type: 'object', additionalProperties: {}, description: 'Facts about this error, where there are any.' },
        request_id: { type: 'string', description: 'Quote it when you report a problem; x-request-id of the response is the same.' },
      },
    },
  },
}

const securitySchemes: OpenApiDocument['components']['securitySchemes'] = {
  bearer: {
    type: 'http',
    scheme: 'bearer',
    bearerFormat: 'JWT or API key',
    description: 'A JWT of a trusted issuer, or an API key, as Authorization: Bearer …',
  },
  apiKey: { type: 'apiKey', in: 'header', name: 'x-api-key', description: 'An API key. Send this header or Authorization, not both.' },
}

/**
 * The OpenAPI 3.1 document of these operations. The same input always gives the same text.
 * @param options.serverUrl origin of the API, such as `https://api.example.com`; without it the document names the host that serves it
 */
export function openApiDocument(endpoints: readonly Endpoint[], options: { version: string; serverUrl?: string }): OpenApiDocument {
  const { parts, components } = convertAll(endpoints)
  const paths: OpenApiDocument['paths'] = {}
  const used = new Set(endpoints.flatMap(errorCodes))
  for (const endpoint of inOrder(endpoints)) {
    const path = endpoint.path.replace(/:(\w+)/g, '{$1}')
    paths[path] = { ...paths[path], [endpoint.method.toLowerCase()]: operationOf(endpoint, parts) }
  }
  const example = (code: ErrorCode) => ({ value: { error: { code, message: CATALOGUE[code][1], request_id: REQUEST_ID } } })
  const codes = (Object.keys(CATALOGUE) as ErrorCode[]).filter((code) => used.has(code))
  return {
    openapi: '3.1.0',
    info: { title: 'Stratum API', version: options.version, description: DESCRIPTION },
    servers: [{ url: `${(options.serverUrl ?? '').replace(/\/+$/, '')}${BASE_PATH}` }],
    tags: [...new Set(endpoints.map(({ tag }) => tag))].map((name) => ({ name })),
    security: CREDENTIALS,
    paths,
    components: {
      securitySchemes,
      schemas: referredTo(paths, { ...components, Error: ErrorSchema }),
      examples: Object.fromEntries(codes.map((code) => [code, example(code)])),
    },
  }
}
