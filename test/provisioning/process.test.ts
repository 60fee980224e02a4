/** The provisioner as people start it: what it refuses with a sentence, what it logs, how signals end it. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { text } from 'node:stream/consumers'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { generateRingKey } from '../../src/crypto/key-ring.ts'
import { parseProvisionerEnvironment } from '../../src/provisioning/environment.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { serverSlug } from '../support/tree.ts'
import { isolated, type LoggedLine, start, until, untilStatus } from './support.ts'

let installation: Installation
const children: ChildProcess[] = []
beforeAll(async () => {
  installation = await createInstallation()
})
afterAll(async () => {
  for (const child of children) child.kill('SIGKILL')
  await installation.close()
})

const keys = { STRATUM_MASTER_KEYS: generateRingKey('test'), STRATUM_API_KEY_SECRETS: generateRingKey('test') }
const complete = () => ({ DATABASE_URL: installation.urls.owner, ...keys, STRATUM_PROVISIONER_PORT: '0' })

function run(script: string, args: string[], env: Record<string, string>) {
  const child = spawn(process.execPath, [new URL(`../../${script}`, import.meta.url).pathname, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { PATH: process.env['PATH'], ...env },
  })
  children.push(child)
  const lines: LoggedLine[] = []
  createInterface({ input: child.stdout }).on('line', (line) => lines.push(JSON.parse(line)))
  return { child, lines, errors: text(child.stderr), ended: once(child, 'close') }
}

describe('the environment', () => {
  const refused = (changes: Record<string, string | undefined>) => () => parseProvisionerEnvironment({ ...complete(), ...changes })

  it('with what is needed is complete', () => {
    expect(parseProvisionerEnvironment({ ...complete(), STRATUM_PROVISIONER_PORT: undefined })).toMatchObject({
      databaseUrl: installation.urls.owner,
      port: 8788,
      host: '127.0.0.1',
      concurrency: 4,
      databaseLimit: undefined,
      rollbackWindow: '24 hours',
    })
  })

  it.each([
    ['no database', { DATABASE_URL: undefined }, /^The variable DATABASE_URL is missing; set it to the owner's connection string/],
    ['a text that is no connection string', { DATABASE_URL: 'stratum' }, /DATABASE_URL is not a PostgreSQL connection string/],
    ['a pooler of Neon', { DATABASE_URL: 'postgresql://o:p@ep-x-1-pooler.eu.aws.neon.tech/db' }, /DATABASE_URL goes through a connection pooler/],
    ['a pooler by its port', { DATABASE_URL: 'postgresql://o:p@db.example.com:6432/db' }, /DATABASE_URL goes through a connection pooler/],
    ['no master key', { STRATUM_MASTER_KEYS: undefined }, /^The variable STRATUM_MASTER_KEYS is missing/],
    ['a weak master key', { STRATUM_MASTER_KEYS: '1:AAAA' }, /STRATUM_MASTER_KEYS/],
    ['no secret of API keys', { STRATUM_API_KEY_SECRETS: '' }, /^The variable STRATUM_API_KEY_SECRETS is empty/],
    ['a port that is none', { STRATUM_PROVISIONER_PORT: '70000' }, /STRATUM_PROVISIONER_PORT is more than 65535/],
    ['no worker at all', { STRATUM_PROVISIONER_CONCURRENCY: '0' }, /STRATUM_PROVISIONER_CONCURRENCY is less than 1/],
    ['a ceiling that is no number', { STRATUM_DATABASE_LIMIT: 'many' }, /STRATUM_DATABASE_LIMIT is not a number/],
    ['a resolver over plain http', { STRATUM_DNS_URL: 'http://dns.example.com' }, /STRATUM_DNS_URL must be an https/],
    ['a window without a unit', { STRATUM_ROLLBACK_WINDOW: '12' }, /STRATUM_ROLLBACK_WINDOW must be a number with a unit/],
  ])('with %s is refused in one sentence', (_, changes, sentence) => {
    expect(refused(changes)).toThrow(expect.objectContaining({ code: 'CONFIGURATION_INVALID', message: expect.stringMatching(sentence) }))
  })
})

describe('the role', () => {
  it.each(['admin', 'control', 'app'] as const)('of %s is refused, and the sentence names the one to use', async (part) => {
    await expect(start(installation, { databaseUrl: installation.urls[part] })).rejects.toMatchObject({
      code: 'CONFIGURATION_INVALID',
      message: expect.stringMatching(part === 'admin' ? /bypasses row security.* stratum_owner/ : /does not own schema stratum. Connect as stratum_owner/),
    })
  })

  it('and what else is wrong with the connection is told in a sentence', async () => {
    const changed = (parts: Partial<URL>) => start(installation, { databaseUrl: Object.assign(new URL(installation.urls.owner), parts).href })
    const refused = (message: RegExp) => ({ code: 'CONFIGURATION_INVALID', message: expect.stringMatching(message) })
    await expect(changed({ password: 'wrong' })).rejects.toMatchObject(refused(/^The database refused: password authentication failed/))
    await expect(changed({ pathname: '/nowhere' })).rejects.toMatchObject(refused(/^The database refused: database "nowhere" does not exist/))
    await expect(changed({ port: '1' })).rejects.toMatchObject(refused(/^The database at localhost:1 cannot be reached/))
  })
})

it('its ceiling of databases is told to whoever creates a tenant, and kept for a start without it', async () => {
  const limitOf = async () => (await installation.owner.query('select database_limit from stratum.installation')).rows[0]?.database_limit
  await (await start(installation, { databaseLimit: 7 })).stop()
  expect(await limitOf()).toBe(7)
  await (await start(installation)).stop()
  expect(await limitOf()).toBe(7)
  await (await start(installation, { databaseLimit: 450 })).stop()
})

it.each([
  ['workers/provisioner.ts', [], 'SIGTERM'],
  ['src/cli/main.ts', ['provisioner', '--port', '18788'], 'SIGINT'],
] as const)('%s works until a signal ends it in order, and logs JSON lines', async (script, args, signal) => {
  const { child, lines, errors, ended } = run(script, [...args], complete())
  const up = await until('it is up', async () => lines.find(({ event }) => event === 'provisioner.up'))
  expect((await fetch(`${up['health']}/health`)).status).toBe(200)
  const created = await isolated(installation, serverSlug('process'), 'SCHEMA_PER_TENANT')
  await untilStatus(installation, created.id, 'ready')
  await until('it says so', async () => lines.some(({ event, tenant_id }) => event === 'job.done' && tenant_id === created.id))
  child.kill(signal)
  expect(await ended).toEqual([0, null])
  expect(await errors).toBe('')
  expect(lines.slice(-2)).toMatchObject([
    { event: 'provisioner.stopping', signal },
    { event: 'provisioner.down', clean: true },
  ])
  for (const line of lines) expect(line).toMatchObject({ time: expect.stringMatching(/^\d{4}-.*Z$/), level: expect.any(String), event: expect.any(String) })
})

it('says in its log what keeps it from starting, and exits with 1', async () => {
  const { lines, errors, ended } = run('workers/provisioner.ts', [], { DATABASE_URL: installation.urls.owner })
  expect(await ended).toEqual([1, null])
  expect(await errors).toBe('')
  expect(lines).toEqual([
    {
      time: expect.any(String),
      level: 'error',
      event: 'provisioner.refused',
      code: 'CONFIGURATION_INVALID',
      message: expect.stringContaining('STRATUM_MASTER_KEYS is missing'),
    },
  ])
})

it('refuses a port that is taken, and closes all', async () => {
  const first = await start(installation)
  await expect(start(installation, { port: Number(new URL(first.url).port) })).rejects.toMatchObject({
    code: 'CONFIGURATION_INVALID',
    message: expect.stringContaining('choose another with STRATUM_PROVISIONER_PORT'),
  })
  await first.stop()
})

it('two at once share the work, and each job is done once', async () => {
  const lines: LoggedLine[] = []
  const both = await Promise.all([start(installation, {}, lines), start(installation, {}, lines)])
  const created = await installation.stratum.batchCreateTenants(
    Array.from({ length: 10 }, () => ({ slug: serverSlug('shared'), name: 'Shared', isolation_strategy: 'SCHEMA_PER_TENANT' as const })),
  )
  for (const { id } of created) await untilStatus(installation, id, 'ready')
  await Promise.all(both.map((each) => each.stop()))
  const done = lines.filter(({ event }) => event === 'job.done').map(({ tenant_id }) => tenant_id)
  expect(done.toSorted()).toEqual(created.map(({ id }) => id).toSorted())
})
