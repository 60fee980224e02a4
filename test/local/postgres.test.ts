import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { type AddressInfo, connect, createServer } from 'node:net'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { type LocalPostgres, type LocalPostgresOptions, startPostgres } from '../../src/local/postgres.ts'
import { failureOf, makeDirectory, PASSWORD, withClient } from './support.ts'

let root: string
const running: LocalPostgres[] = []

const start = async (name: string, options: Partial<LocalPostgresOptions> = {}): Promise<LocalPostgres> => {
  const server = await startPostgres({ directory: join(root, name), password: PASSWORD, durable: false, ...options })
  running.push(server)
  return server
}
const ask = (server: LocalPostgres, sql: string): Promise<Record<string, unknown>[]> =>
  withClient(server.url(), async (client) => (await client.query(sql)).rows)
const serverPid = async (name: string): Promise<number> => Number.parseInt(await readFile(join(root, name, 'postmaster.pid'), 'utf8'), 10)

beforeAll(async () => {
  root = await makeDirectory()
})
afterEach(() => Promise.all(running.splice(0).map((server) => server.stop())))
afterAll(() => rm(root, { recursive: true }))

describe('startPostgres', () => {
  test('initialises a directory with what the product needs, and keeps data over a restart', async () => {
    const lines: string[] = []
    const first = await start('keeps', { log: (line) => lines.push(line) })
    expect(lines.join('\n')).toContain('ready to accept connections')
    const settings = `select current_setting('server_version_num')::int / 10000 as version, current_setting('server_encoding') as encoding,
      current_setting('max_connections') as connections, current_setting('fsync') as fsync, current_setting('listen_addresses') as addresses,
      current_setting('unix_socket_directories') as sockets, datlocprovider as provider, datlocale as locale
      from pg_database where datname = current_database()`
    expect(await ask(first, settings)).toEqual([
      {
        version: 18,
        encoding: 'UTF8',
        connections: '200',
        fsync: 'off',
        addresses: '127.0.0.1',
        sockets: '',
        provider: 'b',
        locale: 'C.UTF-8',
      },
    ])
    await ask(first, 'create extension ltree; create extension pgcrypto; create table kept (word text); insert into kept values ($$ümlaut$$)')
    await first.stop()
    await first.stop()

    const second = await start('keeps', { durable: true, settings: { work_mem: '9MB' } })
    expect(await ask(second, 'select word, upper(word) as upper from kept')).toEqual([{ word: 'ümlaut', upper: 'ÜMLAUT' }])
    expect(await ask(second, `select current_setting('fsync') as fsync, current_setting('work_mem') as memory`)).toEqual([{ fsync: 'on', memory: '9MB' }])
  })

  test('takes another administrator, and refuses a wrong password', async () => {
    const server = await start('owner', { user: 'boss of all' })
    expect(await ask(server, 'select current_user, rolsuper from pg_roles where rolname = current_user')).toEqual([
      { current_user: 'boss of all', rolsuper: true },
    ])
    const wrong = new URL(server.url())
    wrong.password = 'wrong'
    expect(await failureOf(withClient(wrong.href, (client) => client.query('select 1')))).toMatchObject({ code: '28P01' })
  })

  test('explains a second start on the same directory', async () => {
    await start('twice')
    const error = await failureOf(start('twice'))
    expect(error.message).toBe(
      `A PostgreSQL server (process ${await serverPid('twice')}) already runs on ${join(root, 'twice')}: stop it, or choose another directory with --data.`,
    )
  })

  test('explains a taken port', async () => {
    const other = createServer().listen(0, '127.0.0.1')
    await once(other, 'listening')
    const { port } = other.address() as AddressInfo
    const error = await failureOf(start('port', { port }))
    expect(error.message).toBe(`Port ${port} is already in use: choose another for PostgreSQL with --port.`)
    other.close()
  })

  test('starts several at once, also on one fresh directory where one wins', async () => {
    const [one, two] = await Promise.all([start('several/one'), start('several/two')])
    expect(one.port).not.toBe(two.port)
    const outcomes = await Promise.allSettled([start('several/same'), start('several/same')])
    expect(outcomes.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
    expect(String(outcomes.find((outcome) => outcome.status === 'rejected')?.reason)).toContain('already runs on')
    expect((await readdir(join(root, 'several'))).sort()).toEqual(['one', 'same', 'two'])
  })

  test('recovers after the server was killed', async () => {
    const server = await start('killed', { durable: true })
    await ask(server, 'create table survives as select 1 as one')
    process.kill(await serverPid('killed'), 'SIGKILL')
    await server.stop()
    expect(await readdir(join(root, 'killed'))).toContain('postmaster.pid')
    const again = await start('killed', { durable: true })
    expect(await ask(again, 'select one from survives')).toEqual([{ one: 1 }])
  })

  test('recovers from a lock file whose process id belongs to something else', async () => {
    await (await start('reused')).stop()
    await writeFile(join(root, 'reused', 'postmaster.pid'), `${process.pid}\n`)
    await start('reused')
  })

  test('removes what a crash during initialisation left, and only that', async () => {
    const dead = spawn('true')
    await once(dead, 'exit')
    // The second by a process that had our id, as happens in containers.
    await mkdir(join(root, `crashed.initialising-${dead.pid}-abcdef`, 'data'), { recursive: true })
    await mkdir(join(root, `crashed.initialising-${process.pid}-abcdef`))
    await mkdir(join(root, `crashed.initialising-not-ours`))
    await start('crashed')
    expect((await readdir(root)).filter((name) => name.startsWith('crashed'))).toEqual(['crashed', 'crashed.initialising-not-ours'])
  })

  test('leaves a directory alone that is not a data directory', async () => {
    await mkdir(join(root, 'foreign'))
    await writeFile(join(root, 'foreign', 'letter.txt'), 'dear')
    expect((await failureOf(start('foreign'))).message).toBe(
      `${join(root, 'foreign')} is neither empty nor a PostgreSQL data directory: choose another with --data, or empty it.`,
    )
    expect(await readdir(join(root, 'foreign'))).toEqual(['letter.txt'])
  })

  test('says why the server did not start', async () => {
    const error = await failureOf(start('settings', { settings: { no_such_setting: '1' } }))
    expect(error.message).toContain('unrecognized configuration parameter "no_such_setting"')
  })

  test('works in a directory with a closed parent', async () => {
    await mkdir(join(root, 'closed'))
    await chmod(join(root, 'closed'), 0o700)
    const server = await start('closed/data')
    expect(await ask(server, 'select 1 as one')).toEqual([{ one: 1 }])
  })

  test('a stop ends open sessions and closes the port', async () => {
    const server = await start('stops')
    const client = connect(server.port, '127.0.0.1')
    await once(client, 'connect')
    await Promise.all([once(client, 'close'), server.stop()])
    const [error] = await once(connect(server.port, '127.0.0.1'), 'error')
    expect(error).toMatchObject({ code: 'ECONNREFUSED' })
  })

  test('the server does not outlive a killed parent', async () => {
    const module = join(dirname(fileURLToPath(import.meta.url)), '../../src/local/postgres.ts')
    const script = `const { startPostgres } = await import(${JSON.stringify(module)});
      const { port } = await startPostgres({ directory: ${JSON.stringify(join(root, 'orphan'))}, password: 'x', durable: false });
      console.log(port); setInterval(() => {}, 1000);`
    const parent = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
    const [output] = await once(parent.stdout, 'data')
    // The server holds this connection open for as long as it lives.
    const session = connect(Number(String(output)), '127.0.0.1')
    await once(session, 'connect')
    session.resume()
    parent.kill('SIGKILL')
    await once(session, 'close')
    // Not a child of ours: its end can only be looked for.
    await vi.waitFor(async () => expect(await readdir(join(root, 'orphan'))).not.toContain('postmaster.pid'), { timeout: 15_000 })
  })
})
