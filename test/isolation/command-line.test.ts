/** `stratum migrate` and `stratum doctor` as a person or a script runs them. */
import { spawn } from 'node:child_process'
import { text } from 'node:stream/consumers'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { createStage, type Stage } from './stage.ts'

const CLI = new URL('../../src/cli/main.ts', import.meta.url).pathname

let stage: Stage
beforeAll(async () => {
  stage = await createStage()
  await stage.owner.query(`create table orders (id uuid primary key default gen_random_uuid());
    create table items (id serial primary key, order_id uuid references orders); insert into items default values; create table keyless (n int)`)
})
afterAll(() => stage.close())

async function stratum(...args: string[]) {
  const { DATABASE_URL: _, ...env } = process.env
  const child = spawn(process.execPath, [CLI, ...args, '--database-url', stage.urls.owner], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  const exited = new Promise<number | null>((resolve) => child.once('close', resolve))
  const [output, errors, code] = await Promise.all([text(child.stdout), text(child.stderr), exited])
  return { output, errors, code }
}

it('scans, says what it takes, refuses in a sentence, manages, and takes back', async () => {
  const tenant = await stage.tenant()
  const scanned = await stratum('migrate', '--scan')
  expect(scanned).toMatchObject({ errors: '', code: 0 })
  expect(scanned.output).toContain('stratum migrate items orders --rewrite-keys --backfill <tenant id>')
  expect(scanned.output).toMatch(/^keyless {2}blocked\n +it has no primary key/m)

  const refused = await stratum('migrate', 'items', 'orders')
  expect(refused).toMatchObject({ output: '', code: 1 })
  expect(refused.errors).toMatch(
    /^stratum: The table items cannot hold rows of tenants as it is: the primary key items_pkey \(id\) holds over all tenants.*\n$/,
  )

  expect(await stratum('migrate', 'items', 'orders', '--rewrite-keys', '--backfill', tenant.id)).toMatchObject({ errors: '', code: 0 })
  expect(await stage.batch(tenant, 'select id from items')).toEqual([{ id: 1 }])
  expect(JSON.parse((await stratum('migrate', '--scan', '--json')).output)).toMatchObject({
    tables: [
      { table: 'items', state: 'managed' },
      { table: 'keyless', state: 'blocked' },
      { table: 'orders', state: 'managed' },
    ],
  })
  expect(await stratum('doctor')).toEqual({ output: 'Nothing found: isolation holds as it should.\n', errors: '', code: 0 })

  await stage.owner.query('alter table orders no force row level security')
  const found = await stratum('doctor', '--json')
  expect(found.code).toBe(1)
  expect(JSON.parse(found.output)).toMatchObject({
    errors: 1,
    warnings: 0,
    findings: [{ check: 'row_security_not_forced', subject: 'orders', level: 'error' }],
  })

  expect(await stratum('migrate', 'items', 'orders', '--remove')).toMatchObject({ errors: '', code: 0 })
  expect((await stage.owner.query('select from stratum.managed_tables')).rows).toEqual([])
})

it.each([
  ['no table', ['migrate'], 'Name the tables'],
  ['a scan of names', ['migrate', 'orders', '--scan'], '--scan looks at every table'],
  ['a removal that rewrites', ['migrate', 'orders', '--remove', '--rewrite-keys'], '--remove takes neither'],
  ['no connection string', ['migrate', 'orders', '--database-url', 'nonsense'], 'must be a connection string'],
  ['no server', ['doctor', '--database-url', 'postgresql://nobody@127.0.0.1:1/x'], 'cannot be reached'],
])('refuses %s in one sentence', async (_, args, sentence) => {
  const child = args.includes('--database-url') ? args : [...args, '--database-url', stage.urls.owner]
  const spawned = spawn(process.execPath, [CLI, ...child], { stdio: ['ignore', 'pipe', 'pipe'] })
  const exited = new Promise<number | null>((resolve) => spawned.once('close', resolve))
  const [errors, code] = await Promise.all([text(spawned.stderr), exited])
  expect(errors).toMatch(/^stratum: [^\n]+\n$/)
  expect(errors).toContain(sentence)
  expect(code).toBe(1)
})
