import { describe, expect, test } from 'vitest'
import * as z from 'zod'
import { endpoint, Uuid } from '../../src/core/endpoint.ts'
import { CATALOGUE, type ErrorCode, isErrorCode } from '../../src/core/errors.ts'
import { endpointList } from '../../src/features/endpoints.ts'
import { type JsonSchema, type OpenApiOperation, openApiDocument } from '../../src/http/openapi.ts'

const document = openApiDocument(endpointList, { version: '1.2.3' })
const { paths, components } = document
const operations = Object.entries(paths).flatMap(([path, item]) => Object.entries(item).map(([method, operation]) => ({ path, method, operation })))

const operation = (id: string): OpenApiOperation => {
  const found = operations.find((candidate) => candidate.operation.operationId === id)
  if (!found) throw new Error(`no operation ${id}`)
  return found.operation
}
const bodyOf = (id: string) => operation(id).requestBody?.content['application/json'].schema ?? {}
const outputOf = (id: string, status = '200') => operation(id).responses[status]?.content['application/json'].schema ?? {}
const property = (schema: JsonSchema, name: string) => schema.properties?.[name] as JsonSchema
const parameter = (id: string, name: string) => operation(id).parameters?.find((candidate) => candidate.name === name)

/** Every object within a value, with where it stands. */
function* objectsIn(value: unknown, at: string[] = []): Generator<[where: string[], object: Record<string, unknown>]> {
  if (typeof value !== 'object' || value === null) return
  if (!Array.isArray(value)) yield [at, value as Record<string, unknown>]
  for (const [key, item] of Object.entries(value)) yield* objectsIn(item, [...at, key])
}

const resolve = (reference: string) =>
  reference
    .slice(2)
    .split('/')
    .reduce<unknown>((value, key) => (value as Record<string, unknown> | undefined)?.[key], document)

describe('the document', () => {
  test('is OpenAPI 3.1 with the parts it must have and no others', () => {
    expect(Object.keys(document)).toEqual(['openapi', 'info', 'servers', 'tags', 'security', 'paths', 'components'])
    expect(document.openapi).toMatch(/^3\.1\.\d+$/)
    expect(document.info).toMatchObject({ title: expect.any(String), version: '1.2.3' })
    const known = ['operationId', 'tags', 'summary', 'x-stratum-scope', 'x-stratum-also-scope', 'security', 'parameters', 'requestBody', 'responses']
    for (const { operation } of operations) expect(known).toEqual(expect.arrayContaining(Object.keys(operation)))
    for (const name of Object.values(components).flatMap(Object.keys)) expect(name).toMatch(/^[a-zA-Z0-9._-]+$/)
  })

  test('is served under /api/v1 of the host that serves it, or of the one it is told', () => {
    expect(document.servers).toEqual([{ url: '/api/v1' }])
    expect(openApiDocument([], { version: '1', serverUrl: 'https://api.example.com/' }).servers).toEqual([{ url: 'https://api.example.com/api/v1' }])
  })

  test('holds JSON only, and reads the same each time and in whatever order the operations come', () => {
    const text = JSON.stringify(document)
    expect(JSON.parse(text)).toEqual(document)
    expect(JSON.stringify(openApiDocument(endpointList, { version: '1.2.3' }))).toBe(text)
    const reversed = openApiDocument([...endpointList].reverse(), { version: '1.2.3' })
    expect(JSON.stringify({ ...reversed, tags: document.tags })).toBe(text)
  })

  test('has no reference that leads nowhere', () => {
    const references = [...objectsIn(document)].flatMap(([, { $ref }]) => (typeof $ref === 'string' ? [$ref] : []))
    expect(references.length).toBeGreaterThan(100)
    for (const reference of references) expect([reference, resolve(reference)]).toEqual([reference, expect.any(Object)])
  })

  test('has no component that nothing refers to', () => {
    const text = JSON.stringify(document)
    for (const name of Object.keys(components.schemas)) expect(text).toContain(`"#/components/schemas/${name}"`)
    for (const name of Object.keys(components.examples)) expect(text).toContain(`"#/components/examples/${name}"`)
  })

  test('uses the types of JSON Schema and leaves its own bookkeeping out', () => {
    const types = ['array', 'boolean', 'integer', 'null', 'number', 'object', 'string']
    for (const [where, schema] of objectsIn({ schemas: components.schemas, paths })) {
      if (where.at(-1) === 'properties') continue
      for (const key of ['$schema', '$id', '$defs', 'id', '_prefault']) expect(schema, where.join('/')).not.toHaveProperty([key])
      if ('type' in schema) expect(types).toEqual(expect.arrayContaining([schema.type].flat()))
    }
  })
})

describe('operations', () => {
  test('are those of the contracts, each once, at its method and path, with its tag, summary, scope and status', () => {
    expect(operations.map(({ operation }) => operation.operationId).sort()).toEqual(endpointList.map(({ id }) => id).sort())
    for (const { id, method, path, tag, summary, scope, status } of endpointList) {
      const found = paths[path.replace(/:(\w+)/g, '{$1}')]?.[method.toLowerCase()]
      expect(found).toMatchObject({ operationId: id, tags: [tag], summary, 'x-stratum-scope': scope })
      const successes = Object.keys(found?.responses ?? {}).filter((code) => code.startsWith('2'))
      expect(successes).toEqual([String(status)])
      expect(document.tags).toContainEqual({ name: tag })
    }
  })

  test('declare each parameter of their path as required, and no other', () => {
    for (const { path, operation } of operations) {
      const declared = (operation.parameters ?? []).filter((candidate) => candidate.in === 'path')
      expect(declared.map(({ name }) => name).sort()).toEqual([...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name).sort())
      expect(declared.every(({ required }) => required)).toBe(true)
    }
  })

  test('take a bearer token or an API key; open ones take neither too', () => {
    expect(components.securitySchemes).toMatchObject({
      bearer: { type: 'http', scheme: 'bearer' },
      apiKey: { type: 'apiKey', in: 'header', name: 'x-api-key' },
    })
    for (const { id, open } of endpointList) {
      expect(operation(id).security).toEqual([{ bearer: [] }, { apiKey: [] }, ...(open ? [{}] : [])])
    }
  })

  test('take a body where the contract has fields for one, and no unknown field in it', () => {
    for (const { id, body } of endpointList) {
      const fields = Object.keys(body.shape)
      expect(operation(id).requestBody === undefined).toBe(fields.length === 0)
      if (fields.length > 0) expect(bodyOf(id)).toMatchObject({ type: 'object', additionalProperties: false })
      expect(Object.keys(bodyOf(id).properties ?? {})).toEqual(fields)
    }
    expect(operation('createTenant').requestBody?.required).toBe(true)
    expect(operation('updateTenant').requestBody?.required).toBe(false)
  })

  test('name Idempotency-Key and its refusal on every POST but the one that only reads', () => {
    const posts = operations.filter(({ method }) => method === 'post')
    const without = posts.filter(({ operation }) => !operation.parameters?.some(({ name }) => name === 'Idempotency-Key'))
    expect(without.map(({ operation }) => operation.operationId)).toEqual(['resolve'])
    const refusing = operations.filter(({ operation }) => JSON.stringify(operation.responses).includes('IDEMPOTENCY_KEY_REUSED'))
    expect(refusing).toEqual(posts.filter((post) => !without.includes(post)))
  })
})

describe('schemas', () => {
  test('of query parameters tell type, limits, default and description', () => {
    expect(parameter('listTenants', 'limit')).toMatchObject({
      in: 'query',
      required: false,
      description: expect.any(String),
      schema: { type: 'integer', minimum: 1, maximum: 100, default: 50 },
    })
    expect(parameter('listTenants', 'root')).toEqual({
      name: 'root',
      in: 'query',
      required: false,
      description: 'Only roots.',
      schema: { type: 'boolean', default: false },
    })
    expect(parameter('listTenants', 'status')?.schema).toEqual({ $ref: '#/components/schemas/TenantStatus' })
    expect(parameter('setConfig', 'id')).toMatchObject({ description: 'Id of the tenant.', schema: { type: 'string', format: 'uuid' } })
  })

  test('of bodies are what a caller may send: defaults, patterns, limits, any JSON', () => {
    const body = bodyOf('createTenant')
    expect(body.required).toEqual(['slug', 'name'])
    expect(property(body, 'parent_id')).toEqual({ anyOf: [{ type: 'string', format: 'uuid' }, { type: 'null' }], default: null })
    expect(property(body, 'name')).toEqual({ type: 'string', minLength: 1, maxLength: 255 })
    expect(property(body, 'isolation_strategy')).toMatchObject({ default: 'SHARED_RLS' })
    expect(property(body, 'metadata')).toMatchObject({ type: 'object', default: {} })
    expect(components.schemas.TenantSlug).toMatchObject({ type: 'string', pattern: expect.stringContaining('[a-z]') })
    expect(property(bodyOf('setConfig'), 'value')).toEqual({ $ref: '#/components/schemas/Json' })
    expect(components.schemas.Json).toEqual({ description: expect.any(String) })
  })

  test('of answers refer to components, which stay open for the fields of later versions', () => {
    expect(outputOf('createTenant', '201')).toEqual({ $ref: '#/components/schemas/Tenant' })
    expect(property(outputOf('listTenants'), 'data')).toEqual({ type: 'array', items: { $ref: '#/components/schemas/Tenant' } })
    expect(property(outputOf('resolveConfig'), 'config')).toEqual({
      type: 'object',
      additionalProperties: { $ref: '#/components/schemas/ConfigEntry' },
    })
    expect(outputOf('getRoot')).toEqual({ $ref: '#/components/schemas/VisibleTenant' })
    expect(components.schemas.VisibleTenant?.anyOf).toEqual([{ $ref: '#/components/schemas/Tenant' }, { $ref: '#/components/schemas/TenantOutline' }])
    expect(components.schemas.Tenant).not.toHaveProperty('additionalProperties')
    expect(components.schemas.TenantOutline).toHaveProperty('additionalProperties', false)
    expect(property(components.schemas.ConfigEntry ?? {}, 'value')).toEqual({ $ref: '#/components/schemas/Json' })
    expect(Object.keys(components.schemas)).toEqual(expect.arrayContaining(['TenantContext', 'PermissionPolicy', 'ResolvedPermission', 'ApiKey', 'Error']))
  })

  test('that contain themselves without a name are refused', () => {
    const Tree: z.ZodType = z.lazy(() => z.object({ children: z.array(Tree) }))
    const tree = endpoint({
      id: 'getTree',
      method: 'GET',
      path: '/tree',
      tag: 'trees',
      summary: 'Get a tree',
      scope: 'read',
      output: z.object({ tree: Tree }),
    })
    expect(() => openApiDocument([tree], { version: '1' })).toThrow('contains itself')
  })

  test('come out whole when one schema serves several operations', () => {
    const Item = z.object({ id: Uuid })
    const make = (id: string, output: z.ZodType) => endpoint({ id, method: 'GET', path: `/${id}`, tag: 'items', summary: id, scope: 'read', output })
    const { paths } = openApiDocument([make('item', Item), make('items', z.object({ items: z.array(Item) }))], { version: '1' })
    expect(JSON.stringify(paths)).not.toMatch(/"\$ref":"#\/components\/schemas\/(?!Error)/)
  })
})

describe('errors', () => {
  const codesOf = (id: string) =>
    Object.entries(operation(id).responses).flatMap(([status, { content }]) =>
      Object.keys(content['application/json'].examples ?? {}).map((code) => [code, Number(status)] as const),
    )

  test('are of the catalogue, under its status, as enum and as example', () => {
    for (const { id } of endpointList) {
      for (const [code, status] of codesOf(id)) expect([code, isErrorCode(code) && CATALOGUE[code][0]]).toEqual([code, status])
      for (const [status, { content }] of Object.entries(operation(id).responses)) {
        if (Number(status) < 400) continue
        const { schema, examples = {} } = content['application/json']
        expect(schema.allOf?.[0]).toEqual({ $ref: '#/components/schemas/Error' })
        expect(schema.allOf?.[1]).toMatchObject({ properties: { error: { properties: { code: { enum: Object.keys(examples) } } } } })
      }
    }
    for (const [code, { value }] of Object.entries(components.examples)) {
      expect(value.error).toEqual({ code, message: CATALOGUE[code as ErrorCode][1], request_id: expect.any(String) })
    }
  })

  test('are those of the contract and those that every operation may answer', () => {
    const everywhere: ErrorCode[] = [
      'INVALID_REQUEST',
      'CREDENTIALS_AMBIGUOUS',
      'TOKEN_INVALID',
      'API_KEY_INVALID',
      'SCOPE_REQUIRED',
      'TENANT_SUSPENDED',
      'TENANT_ARCHIVED',
      'DATABASE_UNAVAILABLE',
      'DATABASE_BUSY',
    ]
    const ofBodies: ErrorCode[] = ['INVALID_JSON', 'BODY_TOO_LARGE', 'VALIDATION_FAILED']
    for (const { id, errors, method, open, position } of endpointList) {
      const codes = codesOf(id).map(([code]) => code)
      expect(codes).toEqual(expect.arrayContaining([...errors, ...everywhere]))
      expect(codes.includes('AUTHENTICATION_REQUIRED')).toBe(!open)
      expect(codes.includes('INVALID_CURSOR')).toBe(position !== undefined)
      for (const code of ofBodies) expect(codes.includes(code)).toBe(['POST', 'PUT', 'PATCH'].includes(method))
    }
  })

  test('say when to try again on 503', () => {
    for (const { operation } of operations) expect(operation.responses['503']?.headers).toHaveProperty('Retry-After')
  })
})
