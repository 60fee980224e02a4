/** `stratum setup` as a person runs it, against a database as Neon gives one. */
import { spawn } from 'node:child_process'
import { text } from 'node:stream/consumers'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, inject, it, vi } from 'vitest'
import { createClient } from '../../src/sdk/client.ts'
import { type EmptyDatabase, emptyDatabase, giveToNeonLikeOwner, uniquePrefix } from './databases.ts'

const CLI = new URL('../../src/cli/main.ts', import.meta.url).pathname

async function run(args: string[], variables: Record<string, string> = {}) {
  const { DATABASE_URL: _, ...env } = process.env
  const child = spawn(process.execPath, [CLI, ...args], { env: { ...env, ...variables }, stdio: ['ignore', 'pipe', 'pipe'] })
  const exited = new Promise<number | null>((resolve) => child.once('close', resolve))
  const [output, errors, code] = await Promise.all([text(child.stdout), text(child.stderr), exited])
  return { output, errors, code }
}

const stratum = (...args: string[]) => run(args)

let database: EmptyDatabase
let url: string
let prefix: string
async function takeDatabase() {
  database = await emptyDatabase()
  url = await giveToNeonLikeOwner(database)
  prefix = uniquePrefix()
}

/** The lines for wrangler as the environment they would give the Worker. */
const secretsIn = (output: string) =>
  Object.fromEntries([...output.matchAll(/^printf '%s' '(.*)' \| npx wrangler secret put (\w+)$/gm)].map(([, value, name]) => [name, value]))
const keyIn = (output: string) => /^key {7}(sk_live_\S+)$/m.exec(output)?.[1]
const roleIn = (output: string, part: string) => new RegExp(`^role {6}${prefix}${part}: (.*)$`, 'm').exec(output)?.[1]

async function clientOfWorker(env: Record<string, unknown>, apiKey: string) {
  vi.resetModules()
  const { default: worker } = await import('../../workers/edge.ts')
  return createClient({ baseUrl: 'http://localhost', apiKey, fetch: (request) => worker.fetch(request, { ...env, STRATUM_LOG: 'off' }) })
}

describe('on an empty database', () => {
  beforeEach(takeDatabase)
  afterEach(() => database.drop())

  describe.each([
    ['over TCP', () => []],
    ['over Neon HTTP', () => ['--http', '--neon-endpoint', inject('server').neonEndpoint]],
  ])('%s', (_, flags) => {
    it('gives an empty database all it needs, and what it prints opens a Worker', async () => {
      const { output, errors, code } = await stratum('setup', '--database-url', url, '--role-prefix', prefix, ...flags())

      expect({ errors, code }).toEqual({ errors: '', code: 0 })
      expect(output).toMatch(/^schema {4}\d+ files applied$/m)
      for (const part of ['owner', 'control', 'app']) {
        const [who] = await (await database.tcp(roleIn(output, part))).query('select current_user::text as role')
        expect(who).toEqual({ role: prefix + part })
      }
      const secrets = secretsIn(output)
      expect(Object.keys(secrets)).toEqual(['DATABASE_URL', 'STRATUM_MASTER_KEYS', 'STRATUM_API_KEY_SECRETS'])
      expect(secrets['DATABASE_URL']).toBe(roleIn(output, 'control'))
      const client = await clientOfWorker({ ...secrets, NEON_ENDPOINT: inject('server').neonEndpoint }, keyIn(output) ?? '')
      const tenant = await client.createTenant({ slug: 'acme', name: 'Acme' })
      await client.setConfig({ id: tenant.id, key: 'secret', value: 'hidden', sensitive: true })
      expect((await client.resolveConfig({ id: tenant.id, reveal: true })).config['secret']).toMatchObject({ value: 'hidden' })
      expect((await client.getHealth()).database).toMatchObject({ role: `${prefix}control`, role_bypasses_row_security: false })
    })
  })

  it('says when it is repeated that all is there, and changes nothing', async () => {
    const first = await stratum('setup', '--database-url', url, '--role-prefix', prefix)
    const again = await stratum('setup', '--database-url', url, '--role-prefix', prefix)

    expect(again).toMatchObject({ code: 0, errors: '' })
    expect(again.output.trim().split('\n')).toEqual([
      ...['owner', 'control', 'app'].map((part) => `role      ${prefix}${part}: was there; its password is left as it is`),
      'schema    up to date',
      'queue     installed',
      'key       a global key is there already; nothing was made anew.',
      expect.stringContaining('Lost it?'),
    ])
    const client = await clientOfWorker({ ...secretsIn(first.output), NEON_ENDPOINT: inject('server').neonEndpoint }, keyIn(first.output) ?? '')
    expect((await client.listApiKeys()).data).toHaveLength(1)
  })

  it.each([
    ['over TCP', () => []],
    ['over Neon HTTP', () => ['--http', '--neon-endpoint', inject('server').neonEndpoint]],
  ])('refuses %s to make roles of another name beside those that have it, and makes none', async (_, flags) => {
    await stratum('setup', '--database-url', url, '--role-prefix', prefix)
    const other = uniquePrefix()

    const refused = await stratum('setup', '--database-url', url, '--role-prefix', other, ...flags())

    expect(refused).toEqual({
      code: 1,
      output: '',
      errors: `stratum: Schema stratum of this database belongs to ${prefix}owner. Repeat this with --role-prefix ${prefix}, or take another database.\n`,
    })
    const rows = await (await database.tcp()).query(
      `select rolname from pg_roles where rolname like '${other}%' union all select nspowner::regrole::text from pg_namespace where nspname = 'stratum'`,
    )
    expect(rows).toEqual([{ rolname: `${prefix}owner` }])
  })

  it('shows the passwords of the roles it made even if the migration is refused then', async () => {
    await (await database.tcp()).query('create extension ltree')

    const { output, errors, code } = await stratum('setup', '--database-url', url, '--role-prefix', prefix)

    expect(code).toBe(1)
    expect(errors).toMatch(/^stratum: The extension ltree is installed in schema public; run ALTER EXTENSION .*\.\n$/)
    const [who] = await (await database.tcp(roleIn(output, 'owner'))).query('select current_user::text as role')
    expect(who).toEqual({ role: `${prefix}owner` })
  })

  it('takes the connection string from the environment too, and does not show it in its help', async () => {
    const [help, done] = await Promise.all([run(['setup', '--help'], { DATABASE_URL: url }), run(['setup', '--role-prefix', prefix], { DATABASE_URL: url })])
    expect(help.output).toMatch(/\(env:\s+DATABASE_URL\)/)
    expect(help.output).not.toContain('postgresql://')
    expect(done).toMatchObject({ code: 0, errors: '' })
  })
})

describe('answers one sentence and exit code 1 for', () => {
  beforeAll(takeDatabase)
  afterAll(() => database.drop())

  const changed = (change: (parts: URL) => void) => {
    const parts = new URL(url)
    change(parts)
    return parts.href
  }
  const http = () => ['--http', '--neon-endpoint', inject('server').neonEndpoint]
  it.each<[string, () => string[], RegExp]>([
    ['what is no connection string', () => ['nonsense'], /--database-url must be a connection string: postgresql:\/\/user:password@host\/database\.$/],
    ['another protocol', () => ['https://neon.tech/db'], /must be a connection string/],
    [
      'a wrong password',
      () => [
        changed((parts) => {
          parts.password = 'wrong'
        }),
      ],
      /The database refused: password authentication failed for user ".*"\.$/,
    ],
    [
      'a wrong password over HTTP',
      () => [
        changed((parts) => {
          parts.password = 'wrong'
        }),
        ...http(),
      ],
      /The database refused: .*password authentication failed.*\.$/,
    ],
    [
      'a missing database',
      () => [
        changed((parts) => {
          parts.pathname = '/nowhere'
        }),
      ],
      /The database refused: database "nowhere" does not exist\.$/,
    ],
    [
      'a missing database over HTTP',
      () => [
        changed((parts) => {
          parts.pathname = '/nowhere'
        }),
        ...http(),
      ],
      /The database refused: .*database "nowhere" does not exist.*\.$/,
    ],
    [
      'a port where nobody listens',
      () => [
        changed((parts) => {
          parts.port = '1'
        }),
      ],
      /The database at localhost:1 cannot be reached: .*ECONNREFUSED.*\.$/,
    ],
    [
      'an unknown host',
      () => [
        changed((parts) => {
          parts.hostname = 'nowhere.invalid'
        }),
      ],
      /The database at nowhere\.invalid:\d+ cannot be reached: .*\.$/,
    ],
    ['an endpoint where nobody listens', () => [changed(() => {}), '--http', '--neon-endpoint', 'http://localhost:1/sql'], /cannot be reached: .*\.$/],
    ["roles that are someone else's", () => [url, '--role-prefix', 'stratum_'], /The database refused: permission denied .*\.$/],
  ])('%s', async (_, args, sentence) => {
    const { output, errors, code } = await stratum('setup', '--role-prefix', prefix, '--database-url', ...args())
    expect(errors.trimEnd()).toMatch(sentence)
    expect(errors.trimEnd().split('\n')).toHaveLength(1)
    expect(errors).toMatch(/^stratum: /)
    expect(output).not.toContain('    at ')
    expect(code).toBe(1)
  })

  it('no connection string at all', async () => {
    const { errors, code } = await stratum('setup')
    expect({ errors, code }).toEqual({ errors: "error: required option '--database-url <url>' not specified\n", code: 2 })
  })
})

it('explains itself: what it is, its commands and their options', async () => {
  const [all, setup, version] = await Promise.all([stratum('--help'), stratum('setup', '--help'), stratum('--version')])
  for (const command of ['dev', 'setup', 'keys']) expect(all.output).toMatch(new RegExp(`^ {2}${command} .*\\w`, 'm'))
  for (const option of ['--database-url <url>', '--http', '--neon-endpoint <url>', '--role-prefix <prefix>']) expect(setup.output).toContain(option)
  expect(version.output.trim()).toMatch(/^\d+\.\d+\.\d+$/)
  expect([all.code, setup.code, version.code]).toEqual([0, 0, 0])
})
