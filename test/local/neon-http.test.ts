// The protocol without the driver: what other clients, browsers and mistakes get.
import { once } from 'node:events'
import { type AddressInfo, connect, createServer } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { type NeonEndpoint, startNeonEndpoint } from '../../src/local/neon-endpoint.ts'
import { startPostgres } from '../../src/local/postgres.ts'
import { failureOf, PASSWORD, type Stack, startStack, withClient } from './support.ts'

let stack: Stack
let url: string

beforeAll(async () => {
  stack = await startStack()
  url = stack.postgres.url()
})
afterAll(() => stack.close())

type Answer = { status: number; headers: Headers; body: Record<string, unknown> }

async function post(body: unknown, headers: Record<string, string> = {}, to: NeonEndpoint = stack.endpoint): Promise<Answer> {
  const response = await fetch(to.url, {
    method: 'POST',
    headers: { 'Neon-Connection-String': url, ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  })
  return { status: response.status, headers: response.headers, body: (await response.json()) as Record<string, unknown> }
}

const one = async (query: string, params: unknown[] = [], headers: Record<string, string> = {}): Promise<unknown> => {
  const { body } = await post({ query, params }, headers)
  const rows = body.rows as Record<string, unknown>[]
  return rows ? Object.values(rows[0] ?? {})[0] : body
}

describe('output', () => {
  test('rows by name and typed values unless asked otherwise', async () => {
    const query = `select 1 as n, 'a' as s, '{1,2,3}'::int4[] as arr, null as z`
    expect((await post({ query })).body).toEqual({
      command: 'SELECT',
      rowCount: 1,
      rowAsArray: false,
      rows: [{ n: 1, s: 'a', arr: [1, 2, 3], z: null }],
      fields: [
        ['n', 23, 4],
        ['s', 25, -1],
        ['arr', 1007, -1],
        ['z', 25, -1],
      ].map(([name, dataTypeID, dataTypeSize]) => ({
        name,
        dataTypeID,
        dataTypeSize,
        tableID: 0,
        columnID: 0,
        dataTypeModifier: -1,
        format: 'text',
      })),
    })
    const modes = { 'Neon-Array-Mode': 'true', 'Neon-Raw-Text-Output': 'true' }
    expect((await post({ query }, modes)).body).toMatchObject({ rowAsArray: true, rows: [['1', 'a', '{1,2,3}', null]] })
    expect((await post({ query, arrayMode: false }, modes)).body).toMatchObject({ rowAsArray: false, rows: [{ n: '1', arr: '{1,2,3}' }] })
    // Exactly `true`, or it is false.
    expect((await post({ query }, { 'Neon-Array-Mode': 'TRUE' })).body).toMatchObject({ rowAsArray: false })
  })

  test.each([
    ['true', true],
    ['1::int2', 1],
    ['1::int8', '1'],
    ['1.50::numeric', '1.50'],
    ['1.5::float8', 1.5],
    [`'-0'::float8`, -0],
    [`'NaN'::float8`, 'NaN'],
    [`'-Infinity'::float4`, '-Infinity'],
    [`'{"a": [1]}'::jsonb`, { a: [1] }],
    [`'"s"'::json`, 's'],
    [
      `'{{t,f},{NULL,t}}'::bool[]`,
      [
        [true, false],
        [null, true],
      ],
    ],
    [`'{}'::int[]`, []],
    [`'{1}'::int8[]`, ['1']],
    [`'[1:1][-2:-1]={{1,2}}'::int2[]`, [[1, 2]]],
    [`'{"a\\"b",NULL,"NULL","{x}",""}'::text[]`, ['a"b', null, 'NULL', '{x}', '']],
    [`array['{"a":1}']::jsonb[]`, [{ a: 1 }]],
    [`'{NaN,2}'::float4[]`, ['NaN', 2]],
    [`'{2024-01-01}'::date[]`, ['2024-01-01']],
  ])('select %s', async (expression, expected) => {
    expect(await one(`select ${expression}`)).toEqual(expected)
  })

  test('every array type of the server is known as one', async () => {
    const { rows } = await stack.admin(`select format_type(a.oid, null) as name from pg_type t join pg_type a on a.oid = t.typarray
      where t.typnamespace = 'pg_catalog'::regnamespace and t.oid < 16384 and t.typtype in ('b', 'r', 'm') and t.typdelim = ','`)
    expect(rows.length).toBeGreaterThan(60)
    for (const { name } of rows) expect({ [name]: await one(`select '{}'::${name}`) }).toEqual({ [name]: [] })
  })

  test.each<[string, unknown, unknown]>([
    ['$1', null, null],
    ['$1', 'x', 'x'],
    ['$1', true, 'true'],
    ['$1', 42, '42'],
    ['$1', { a: { b: [1] } }, '{"a":{"b":[1]}}'],
    ['$1::int[]', [1, null, 3], [1, null, 3]],
    [
      '$1::text[]',
      [
        ['a,b', 'c"\\'],
        [null, 'NULL'],
      ],
      [
        ['a,b', 'c"\\'],
        [null, 'NULL'],
      ],
    ],
    ['$1::jsonb[]', [{ foo: 'b"r' }, {}], [{ foo: 'b"r' }, {}]],
    ['$1::jsonb', { deep: [null, 1.5] }, { deep: [null, 1.5] }],
    ['$1::int[]', [], []],
  ])('parameter %s of %j', async (expression, value, expected) => {
    expect(await one(`select ${expression}`, [value])).toEqual(expected)
  })

  test('numbers keep the digits they were sent with', async () => {
    const { body } = await post(`{"query":"select $1 as a, $2 as b, $3 as c","params":[12345678901234567890, 1.0, {"n":[9007199254740993]}]}`)
    expect(body.rows).toEqual([{ a: '12345678901234567890', b: '1.0', c: '{"n":[9007199254740993]}' }])
  })

  test('a batch repeats its modes in the answer', async () => {
    const { headers, body } = await post(
      {
        queries: [
          { query: 'select 1 as a', arrayMode: true },
          { query: 'select $1 as a', params: [2] },
        ],
      },
      { 'Neon-Batch-Isolation-Level': 'Serializable', 'Neon-Batch-Read-Only': 'true', 'Neon-Batch-Deferrable': 'false' },
    )
    expect(body).toMatchObject({
      results: [
        { rowAsArray: true, rows: [[1]] },
        { rowAsArray: false, rows: [{ a: '2' }] },
      ],
    })
    expect([...headers].filter(([name]) => name.startsWith('neon-batch'))).toEqual([
      ['neon-batch-isolation-level', 'Serializable'],
      ['neon-batch-read-only', 'true'],
    ])
    expect(headers.get('neon-request-id')).toMatch(/^[0-9a-f-]{36}$/)
    expect(headers.get('access-control-allow-origin')).toBe('*')
    expect(headers.get('content-type')).toBe('application/json')
  })
})

describe('refusals', () => {
  const statement = { query: 'select 1' }

  test.each([
    ['', 'invalid connection string: relative URL without a base'],
    ['nonsense', 'invalid connection string: relative URL without a base'],
    ['mysql://u:p@localhost/db', 'incorrect scheme'],
    ['postgres://u:p@localhost', 'missing database name'],
    ['postgres://:p@localhost/db', 'missing username'],
    ['postgres://u@localhost/db', 'missing authentication credentials: required password'],
  ])('connection string %j', async (connection, message) => {
    const { status, body } = await post(statement, { 'Neon-Connection-String': connection })
    expect({ status, message: body.message, code: body.code }).toEqual({ status: 400, message, code: '' })
  })

  test('no connection string, a bearer token, an unknown isolation level', async () => {
    const response = await fetch(stack.endpoint.url, { method: 'POST', body: JSON.stringify(statement) })
    expect({ status: response.status, body: await response.json() }).toEqual({
      status: 400,
      body: {
        message: 'invalid header: neon-connection-string',
        code: '',
        severity: '',
        detail: null,
        hint: null,
        position: null,
        internalPosition: null,
        internalQuery: null,
        where: null,
        table: null,
        column: null,
        schema: null,
        dataType: null,
        constraint: null,
        file: null,
        line: null,
        routine: null,
      },
    })
    expect((await post(statement, { Authorization: 'Bearer x' })).body).toMatchObject({
      message: 'missing authentication credentials: required password',
    })
    expect(await post(statement, { 'Neon-Batch-Isolation-Level': 'serializable' })).toMatchObject({
      status: 400,
      body: { message: 'invalid isolation level' },
    })
  })

  test.each([
    '',
    '{',
    '[]',
    'null',
    '"select 1"',
    '{"query":1}',
    '{"query":"select 1","params":{}}',
    '{"queries":[{"query":"select 1"},{}]}',
    '{"query":"select 1","arrayMode":"yes"}',
  ])('body %j', async (body) => {
    const answer = await post(body)
    expect(answer.status).toBe(400)
    expect(answer.body.message).toMatch(/^could not parse the HTTP request body: ./)
  })

  test('a null byte in the statement and more parameters than the protocol can count', async () => {
    expect(await post({ query: 'select 1\0' })).toMatchObject({
      status: 400,
      body: { message: 'error encoding message to server: string contains embedded null' },
    })
    expect(await post({ query: 'select 1', params: Array(65536).fill(null) })).toMatchObject({
      status: 400,
      body: { message: 'error encoding message to server: value too large to transmit' },
    })
  })

  test('other paths and methods', async () => {
    const origin = new URL('/', stack.endpoint.url).href
    const before = stack.endpoint.requests
    for (const [path, method] of [
      ['sql', 'GET'],
      ['', 'GET'],
      ['sql/', 'POST'],
      ['v2', 'GET'],
      ['sql', 'PUT'],
    ] as const) {
      const response = await fetch(origin + path, { method })
      expect({ status: response.status, body: await response.json() }).toEqual({ status: 400, body: 'query is not supported' })
    }
    expect(stack.endpoint.requests).toBe(before)
  })

  test("a browser's preflight is answered", async () => {
    const response = await fetch(stack.endpoint.url, {
      method: 'OPTIONS',
      headers: { Origin: 'https://app.example', 'Access-Control-Request-Method': 'POST' },
    })
    expect(response.status).toBe(200)
    expect(response.headers.get('access-control-allow-origin')).toBe('*')
    expect(response.headers.get('access-control-allow-headers')).toContain('Neon-Connection-String')
    expect(response.headers.get('access-control-max-age')).toBe('86400')
  })

  test('a body or an answer over the limit', async () => {
    const endpoint = await startNeonEndpoint({ postgresPort: stack.postgres.port, maxRequestBytes: 2000, maxResponseBytes: 5000 })
    const query = (text: string): Promise<Answer> => post({ query: text }, {}, endpoint)
    try {
      expect((await query(`select '${'x'.repeat(1900)}'`)).status).toBe(200)
      expect(await query(`select '${'x'.repeat(2000)}'`)).toMatchObject({
        status: 413,
        body: { message: 'request is too large (max is 2000 bytes)' },
      })
      // In chunks, so that the size is not known before.
      const stream = new Blob([JSON.stringify({ query: `select '${'x'.repeat(500_000)}'` })]).stream()
      const chunked = await fetch(endpoint.url, {
        method: 'POST',
        headers: { 'Neon-Connection-String': url },
        body: stream,
        duplex: 'half',
      } as RequestInit)
      expect(chunked.status).toBe(413)
      const tooLarge = { status: 507, body: { message: 'response is too large (max is 5000 bytes)' } }
      expect(await query('select generate_series(1, 1000000000) as n')).toMatchObject(tooLarge)
      expect(
        await post(
          {
            queries: [{ query: 'create table never (a int)' }, { query: `select repeat('x', 3000)` }, { query: `select repeat('x', 3000)` }],
          },
          {},
          endpoint,
        ),
      ).toMatchObject(tooLarge)
      expect(await query(`select to_regclass('never') as t`)).toMatchObject({ status: 200, body: { rows: [{ t: null }] } })
      expect(endpoint.requests).toBe(6)
    } finally {
      await endpoint.close()
    }
  })

  test('the default limit is 10 MiB', async () => {
    const megabytes = (count: number): string => 'x'.repeat(count * 1024 * 1024)
    expect(await post({ query: 'select length($1)', params: [megabytes(9)] })).toMatchObject({ status: 200 })
    expect(await post({ query: 'select length($1)', params: [megabytes(10)] })).toMatchObject({ status: 413 })
  })
})

describe('the server', () => {
  test('answers 500 while PostgreSQL is away', async () => {
    const vacant = createServer().listen(0, '127.0.0.1')
    await once(vacant, 'listening')
    const { port } = vacant.address() as AddressInfo
    await new Promise((done) => vacant.close(done))
    const endpoint = await startNeonEndpoint({ postgresPort: port })
    const { status, body } = await post({ query: 'select 1' }, {}, endpoint)
    expect({ status, message: body.message }).toEqual({
      status: 500,
      message: `error connecting to server: connect ECONNREFUSED 127.0.0.1:${port}`,
    })
    await endpoint.close()
  })

  test('takes the hosts it is told, and only those', async () => {
    const endpoint = await startNeonEndpoint({ postgresPort: stack.postgres.port, hosts: ['EP-one.example'] })
    const statusAt = async (host: string): Promise<number> =>
      (await post({ query: 'select 1' }, { 'Neon-Connection-String': url.replace('127.0.0.1', host) }, endpoint)).status
    expect(await Promise.all(['ep-one.example', 'localhost', 'ep-one.example.evil'].map(statusAt))).toEqual([200, 400, 400])
    await endpoint.close()
    for (const host of ['localhost', '[::1]', 'db.localtest.me', 'LOCALHOST']) {
      expect((await post({ query: 'select 1' }, { 'Neon-Connection-String': url.replace('127.0.0.1', host) })).status).toBe(200)
    }
  })

  test('explains a taken port', async () => {
    const { port } = stack.endpoint
    expect((await failureOf(startNeonEndpoint({ postgresPort: 1, port }))).message).toBe(
      `Port ${port} is already in use: choose another for the Neon endpoint with --port.`,
    )
  })

  test('finishes what runs when it closes, and takes nothing new', async () => {
    const endpoint = await startNeonEndpoint({ postgresPort: stack.postgres.port })
    await withClient(stack.postgres.url(), async (holder) => {
      await holder.query('select pg_advisory_lock(4711)')
      const waiting = post({ queries: [{ query: 'select pg_advisory_xact_lock(4711)' }, { query: 'select 5 as five' }] }, {}, endpoint)
      const held = `select from pg_locks where locktype = 'advisory' and objid = 4711 and not granted`
      await vi.waitFor(async () => expect((await stack.admin(held)).rowCount).toBe(1), { timeout: 15_000 })
      const closing = endpoint.close()
      await holder.query('select pg_advisory_unlock(4711)')
      expect((await waiting).body).toMatchObject({ results: [{}, { rows: [{ five: 5 }] }] })
      await closing
    })
    await endpoint.close()
    expect((await once(connect(endpoint.port, '127.0.0.1'), 'error'))[0]).toMatchObject({ code: 'ECONNREFUSED' })
    expect((await stack.admin(`select from pg_stat_activity where application_name = 'neon-endpoint' and query like '%five%'`)).rowCount).toBe(0)
  })

  test('works again after PostgreSQL was restarted', async () => {
    expect(await one('select 1')).toBe(1)
    await stack.postgres.stop()
    expect((await post({ query: 'select 1' })).status).toBe(500)
    const revived = await startPostgres({
      directory: join(stack.directory, 'data'),
      port: stack.postgres.port,
      password: PASSWORD,
      durable: false,
    })
    try {
      expect(await one('select 1')).toBe(1)
    } finally {
      await revived.stop()
    }
  })
})
