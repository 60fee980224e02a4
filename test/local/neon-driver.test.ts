import { neon, neonConfig } from '@neondatabase/serverless'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { startNeonEndpoint } from '../../src/local/neon-endpoint.ts'
import { failureOf, PASSWORD, type Stack, startStack, withClient } from './support.ts'

let stack: Stack
let url: string

beforeAll(async () => {
  stack = await startStack()
  url = stack.postgres.url()
  await stack.admin(`
    create type mood as enum ('glad', 'sad');
    create domain small as int check (value < 10);
    create extension ltree;
    create table item (id int primary key, name text not null unique, amount small, at timestamptz);
    create function fail_inside() returns int language plpgsql as $$ begin execute 'select nothing from nowhere'; return 1; end $$;
    create function fail_loudly() returns int language plpgsql as $$ begin
      raise exception 'no %', 'luck' using errcode = 'ST042', detail = 'the detail', hint = 'the hint',
        table = 'tab', column = 'col', schema = 'sch', constraint = 'con', datatype = 'typ'; end $$;
  `)
})
afterAll(() => stack.close())

describe('results', () => {
  // Each value comes back through the driver exactly as through pg.
  test.each([
    ['bool', 'true'],
    ['int2', '-5'],
    ['int4', '2147483647'],
    ['int8', '9223372036854775807'],
    ['float4', '1.5'],
    ['float8', '1e300'],
    ['float8', 'NaN'],
    ['float8', '-Infinity'],
    ['numeric', '12345678901234567890.123456789'],
    ['text', 'quo"te \\ ünïcode \u{1F600}\n'],
    ['varchar(3)', 'abc'],
    ['char(3)', 'a'],
    ['name', 'n'],
    ['bytea', '\\x00ff10'],
    ['uuid', '00000000-0000-4000-8000-000000000000'],
    ['json', '{"a": [1, 2.50, null], "b": "c"}'],
    ['jsonb', '{"big": 12345678901234567890}'],
    ['date', '2024-02-29'],
    ['time', '12:34:56.789'],
    ['timetz', '12:34:56+02'],
    ['timestamp', '2024-01-02 03:04:05.678'],
    ['timestamptz', '2024-01-02 03:04:05.678+05:30'],
    ['interval', '1 year 2 days 03:04:05'],
    ['inet', '10.0.0.1/8'],
    ['macaddr', '08:00:2b:01:02:03'],
    ['point', '(1,2)'],
    ['box', '(3,4),(1,2)'],
    ['bit(4)', '1010'],
    ['money', '12.30'],
    ['int4range', '[1,5)'],
    ['tstzrange', '["2024-01-01 00:00+00",)'],
    ['mood', 'glad'],
    ['small', '7'],
    ['ltree', 'a.b.c'],
    ['xml', '<a/>'],
    ['oid', '4294967295'],
    ['regclass', 'item'],
    ['pg_lsn', '16/B374D848'],
    ['tsvector', 'a:1 b:2'],
    ['int4[]', '{1,NULL,3}'],
    ['int4[]', '{}'],
    ['int4[]', '[0:1]={1,2}'],
    ['int8[]', '{{1,2},{3,4}}'],
    ['bool[]', '{t,f}'],
    ['text[]', '{"a,b","c\\"d","NULL",NULL,""}'],
    ['float8[]', '{1.5,NaN}'],
    ['jsonb[]', '{"{\\"a\\": 1}"}'],
    ['timestamptz[]', '{"2024-01-01 00:00+00"}'],
    ['uuid[]', '{00000000-0000-4000-8000-000000000000}'],
    ['bytea[]', '{"\\\\x00ff"}'],
    ['mood[]', '{glad,sad}'],
    ['text', null],
  ])('%s %j', async (type, value) => {
    const text = `select $1::${type} as v, pg_typeof($1::${type})::text as t`
    const over = await neon(url, { fullResults: true }).query(text, [value])
    const direct = await withClient(url, (client) => client.query(text, [value]))
    expect(over.rows).toEqual(direct.rows)
    const known = direct.fields.map(({ dataTypeID, ...field }) => ({ ...field, dataTypeID: dataTypeID >= 16384 ? 705 : dataTypeID }))
    expect(over.fields).toEqual(known.map((field) => ({ ...field })))
  })

  test.each([
    'create table made (a int)',
    'insert into made values (1), (2) returning a',
    'update made set a = 3',
    'select * from made',
    'delete from made where a = 9',
    'table made',
    'merge into made using (select 1 as x) s on a = x when not matched then insert values (x)',
    'values (1, 2)',
    'drop table made',
    'show datestyle',
    '',
  ])('command and count of %j', async (text) => {
    const over = await neon(url, { fullResults: true }).query(text)
    expect({ command: over.command, rowCount: over.rowCount }).toMatchObject({
      command: text
        .split(' ')[0]
        ?.toUpperCase()
        .replace(/TABLE|VALUES/, 'SELECT'),
    })
    const counted = /^(insert|select|table|values)/.test(text) ? over.rows.length : { update: 2, delete: 0, merge: 1 }[text.split(' ')[0] ?? '']
    expect(over.rowCount).toBe(counted ?? null)
  })

  test('fields name the table and column they come from', async () => {
    const over = await neon(url, { fullResults: true }).query('select id, name, amount as renamed, 1 as one from item')
    const direct = await withClient(url, (client) => client.query('select id, name, amount as renamed, 1 as one from item'))
    expect(over.fields).toEqual(direct.fields.map((field) => ({ ...field })))
    expect(over.fields[0]?.tableID).toBeGreaterThan(16384)
  })

  test('arrays of rows, single and in a batch', async () => {
    const sql = neon(url)
    expect(await sql.query('select 1 as a, 2 as a', [], { arrayMode: true })).toEqual([[1, 2]])
    expect(await sql.transaction([sql`select 1 as a`, sql`select ${'x'} as b`], { arrayMode: true })).toEqual([[[1]], [['x']]])
    const mixed = await sql.transaction([sql.query('select 1 as a', [], { arrayMode: true }) as never, sql.query('select 2 as a')])
    expect(mixed).toEqual([[[1]], [{ a: 2 }]])
  })

  test('parameters of the driver', async () => {
    const sql = neon(url)
    const at = new Date('2024-01-02T03:04:05.678Z')
    const [row] = await sql`select ${1}::int as i, ${1.5}::float8 as f, ${true}::bool as b, ${null}::text as n, ${at}::timestamptz as at,
      ${[1, 2]}::int[] as a, ${[['x,"\\', null]]}::text[][] as t, ${{ a: [1, { b: null }] }}::jsonb as j, ${Buffer.from([0, 255])} as y, ${[]}::int[] as e`
    expect(row).toEqual({
      i: 1,
      f: 1.5,
      b: true,
      n: null,
      at,
      a: [1, 2],
      t: [['x,"\\', null]],
      j: { a: [1, { b: null }] },
      y: Buffer.from([0, 255]),
      e: [],
    })
  })
})

describe('errors', () => {
  test.each([
    ['syntax', 'select from where', []],
    ['undefined table', 'select * from nowhere', []],
    ['undefined column with a hint', 'select item.nam from item', []],
    ['unique violation', `insert into item values (1, 'a'), (1, 'b')`, []],
    ['not null violation', 'insert into item values (1, null)', []],
    ['domain check', `insert into item values (1, 'a', 11)`, []],
    ['bad input', 'select $1::int', ['x']],
    ['division', 'select 1 / $1::int', ['0']],
    ['inside a function', 'select fail_inside()', []],
    ['raised with all fields', 'select fail_loudly()', []],
    ['several statements', 'select 1; select 2', []],
    ['too few parameters', 'select $1::int, $2::int', ['1']],
    ['null byte in a parameter', 'select $1::text', ['a\0b']],
    ['transaction command out of place', 'vacuum', []],
  ])('%s: every field as pg reports it', async (name, text, params) => {
    const prefix = name === 'transaction command out of place' ? 'begin' : 'select 1'
    const direct = await withClient(url, async (client) => {
      await client.query(prefix)
      // Always the extended protocol, as over HTTP.
      return failureOf(client.query({ text, values: params, queryMode: 'extended' } as never))
    })
    const sql = neon(url)
    const over = await failureOf(prefix === 'begin' ? sql.transaction([sql.query(text, params)]) : sql.query(text, params))
    expect(over.name).toBe('NeonDbError')
    expect(over.message).toBe(direct.message)
    for (const field of [
      'severity',
      'code',
      'detail',
      'hint',
      'position',
      'internalPosition',
      'internalQuery',
      'where',
      'schema',
      'table',
      'column',
      'dataType',
      'constraint',
      'file',
      'line',
      'routine',
    ]) {
      expect({ [field]: over[field] }).toEqual({ [field]: direct[field] })
    }
  })

  test('COPY has no place here', async () => {
    for (const text of ['copy item from stdin', `copy (select 1) to stdout`]) {
      expect(await failureOf(neon(url).query(text))).toMatchObject({ message: 'unexpected message from server', code: '' })
    }
    expect(await neon(url)`select 1 as one`).toEqual([{ one: 1 }])
  })

  test('a wrong password, an unknown user, another host: 400', async () => {
    const at = (change: (changed: URL) => void): Promise<Error & Record<string, unknown>> => {
      const changed = new URL(url)
      change(changed)
      return failureOf(neon(changed.href)`select 1`)
    }
    expect(
      await at((changed) => {
        changed.password = 'wrong'
      }),
    ).toMatchObject({ message: `password authentication failed for user 'postgres'`, code: '' })
    expect(
      await at((changed) => {
        changed.username = 'nobody'
      }),
    ).toMatchObject({ message: `password authentication failed for user 'nobody'`, code: '' })
    expect(
      (
        await at((changed) => {
          changed.hostname = 'db.example.com'
        })
      ).message,
    ).toMatch(/^The requested endpoint could not be found/)
  })

  test('a missing database: 500, so the driver gives the body as text', async () => {
    const error = await failureOf(neon(stack.postgres.url('missing'))`select 1`)
    expect(error.code).toBeUndefined()
    const [, status, body] = /^Server error \(HTTP status (\d+)\): (.*)$/s.exec(error.message) ?? []
    expect(status).toBe('500')
    expect(JSON.parse(body ?? '')).toMatchObject({
      message: 'database "missing" does not exist',
      code: '3D000',
      severity: 'FATAL',
      hint: null,
    })
  })
})

describe('batches', () => {
  test('are one transaction, in order', async () => {
    const sql = neon(url)
    const [first, , last] = await sql.transaction([
      sql`select txid_current() as id`,
      sql`insert into item values (100, 'batch')`,
      sql`select txid_current() as id, count(*)::int as n from item where id = 100`,
    ])
    expect(last).toEqual([{ id: first?.[0]?.id, n: 1 }])
  })

  test('roll back whole when a statement fails', async () => {
    const sql = neon(url)
    const error = await failureOf(sql.transaction([sql`insert into item values (200, 'gone')`, sql`select 1 / 0`, sql`insert into item values (201, 'never')`]))
    expect(error).toMatchObject({ code: '22012' })
    expect(await sql`select id from item where id >= 200`).toEqual([])
  })

  test('report what fails at commit', async () => {
    await stack.admin('create table deferred (id int unique deferrable initially deferred)')
    const sql = neon(url)
    expect(await failureOf(sql.transaction([sql`insert into deferred values (1), (1)`]))).toMatchObject({
      code: '23505',
      table: 'deferred',
    })
    expect(await sql`select * from deferred`).toEqual([])
  })

  test.each([
    [{ isolationLevel: 'ReadUncommitted' }, ['read uncommitted', 'off', 'off']],
    [{ isolationLevel: 'ReadCommitted' }, ['read committed', 'off', 'off']],
    [{ isolationLevel: 'RepeatableRead', readOnly: true }, ['repeatable read', 'on', 'off']],
    [{ isolationLevel: 'Serializable', readOnly: true, deferrable: true }, ['serializable', 'on', 'on']],
    [{ readOnly: false, deferrable: false }, ['read committed', 'off', 'off']],
    [{}, ['read committed', 'off', 'off']],
  ] as const)('run in the mode asked for: %j', async (options, expected) => {
    const sql = neon(url)
    const results = (await sql.transaction(
      [sql`select current_setting('transaction_isolation'), current_setting('transaction_read_only'), current_setting('transaction_deferrable')`],
      { ...options, arrayMode: true },
    )) as unknown[][]
    expect(results).toEqual([[expected]])
  })

  test('cannot write when read-only', async () => {
    const sql = neon(url)
    expect(await failureOf(sql.transaction([sql`insert into item values (300, 'x')`], { readOnly: true }))).toMatchObject({ code: '25006' })
  })

  test('may be empty', async () => {
    expect(await neon(url).transaction([])).toEqual([])
  })
})

describe('connections', () => {
  test('leave no session state to the next request', async () => {
    const sql = neon(url)
    const [before] = await sql`select pg_backend_pid() as pid`
    await sql`select set_config('search_path', 'pg_catalog', false), set_config('app.tenant', 'a', false), pg_advisory_lock(42)`
    await sql`set role pg_read_all_data`
    await sql`create temp table leftover (a int)`
    const [after] = await sql`select pg_backend_pid() as pid, current_setting('search_path') as path, nullif(current_setting('app.tenant', true), '') as tenant,
      current_user as who, to_regclass('leftover') as leftover, (select count(*)::int from pg_locks where locktype = 'advisory') as locks`
    expect(after).toEqual({ pid: before?.pid, path: '"$user", public', tenant: null, who: 'postgres', leftover: null, locks: 0 })
  })

  test('keep session state when asked to, as Neon does', async () => {
    const endpoint = await startNeonEndpoint({ postgresPort: stack.postgres.port, keepSessionState: true })
    neonConfig.fetchEndpoint = endpoint.url
    try {
      const sql = neon(url)
      await sql`select set_config('app.tenant', 'a', false)`
      expect(await sql`select current_setting('app.tenant', true) as tenant`).toEqual([{ tenant: 'a' }])
    } finally {
      neonConfig.fetchEndpoint = stack.endpoint.url
      await endpoint.close()
    }
  })

  test('never carry an open transaction over', async () => {
    const sql = neon(url)
    await sql`begin`
    await sql`insert into item values (400, 'open')`
    // Committed on its own: seen from outside.
    expect((await stack.admin('select name from item where id = 400')).rows).toEqual([{ name: 'open' }])
  })

  test('are closed soon after use', async () => {
    await stack.admin('create database brief')
    await neon(stack.postgres.url('brief'))`select 1`
    // Without FORCE: PostgreSQL waits some seconds for others to leave.
    await stack.admin('drop database brief')
  })

  test('survive a dropped database, and serve the new one of its name', async () => {
    const sql = neon(stack.postgres.url('phoenix'))
    for (const generation of [1, 2, 3]) {
      await stack.admin('create database phoenix')
      await stack.admin(`create table life as select ${generation} as generation`, [], 'phoenix')
      expect(await Promise.all([1, 2, 3].map(() => sql`select generation from life`))).toEqual([1, 2, 3].map(() => [{ generation }]))
      await stack.admin('drop database phoenix with (force)')
      expect((await failureOf(sql`select 1`)).message).toContain('database \\"phoenix\\" does not exist')
    }
  })

  test('that the server ends under a query give an error, and the next request works', async () => {
    const sql = neon(url)
    const killed = await failureOf(sql`select pg_terminate_backend(pg_backend_pid())`)
    expect(killed).toMatchObject({ code: '57P01', severity: 'FATAL' })
    const batch = await failureOf(sql.transaction([sql`select 1`, sql`select pg_terminate_backend(pg_backend_pid())`]))
    expect(batch).toMatchObject({ code: '57P01' })
    expect(await sql`select 1 as one`).toEqual([{ one: 1 }])
  })

  test('whose client goes away have their query cancelled, a batch rolled back', async () => {
    const sql = neon(url)
    const sleepers = `select count(*)::int as n from pg_stat_activity where query like '%pg_sleep(987)%' and pid <> pg_backend_pid()`
    const abort = new AbortController()
    const fetchOptions = { signal: abort.signal }
    const pending = Promise.all([
      failureOf(sql.query('select pg_sleep(987)', [], { fetchOptions })),
      failureOf(sql.transaction([sql`insert into item values (500, 'left')`, sql`select pg_sleep(987)`], { fetchOptions })),
    ])
    await vi.waitFor(async () => expect((await stack.admin(sleepers)).rows).toEqual([{ n: 2 }]), { timeout: 15_000 })
    abort.abort()
    await pending
    await vi.waitFor(async () => expect((await stack.admin(sleepers)).rows).toEqual([{ n: 0 }]), { timeout: 15_000 })
    expect(await sql`select id from item where id = 500`).toEqual([])
  })

  test('serve many requests at once', async () => {
    const sql = neon(url)
    const before = stack.endpoint.requests
    const answers = await Promise.all(Array.from({ length: 60 }, (_, n) => sql`select ${n}::int as n`))
    expect(answers.map(([row]) => row?.n)).toEqual(Array.from({ length: 60 }, (_, n) => n))
    expect(stack.endpoint.requests - before).toBe(60)
  })

  test('use the password given, whoever was here before', async () => {
    await stack.admin(`create role guest login password '${PASSWORD}'`)
    const guest = new URL(url)
    guest.username = 'guest'
    expect(await neon(guest.href)`select current_user as who`).toEqual([{ who: 'guest' }])
    guest.password = 'other'
    expect((await failureOf(neon(guest.href)`select 1`)).message).toBe(`password authentication failed for user 'guest'`)
  })
})
