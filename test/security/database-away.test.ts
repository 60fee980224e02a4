/** The database away, wrong, old or busy: a code of the catalogue and a sentence, never its own words. */
import { createServer, type RequestListener, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import pg from 'pg'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { neonDatabase } from '../../src/db/neon.ts'
import { createApp } from '../../src/http/app.ts'
import type { LogLine } from '../../src/http/log.ts'
import { startNeonEndpoint } from '../../src/local/neon-endpoint.ts'
import { type Answer, ask, expectRefusal } from '../support/answers.ts'
import { createEmptyDatabase, createInstallation, type Installation } from '../support/installation.ts'
import { uniqueSlug } from '../support/tree.ts'

let installation: Installation
let apiKey: string
let server: Server
let answerWith: RequestListener
beforeAll(async () => {
  installation = await createInstallation()
  apiKey = await installation.apiKey(null)
  server = createServer((request, response) => answerWith(request, response))
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', () => done()))
})
afterAll(async () => {
  server.closeAllConnections()
  await new Promise((done) => server.close(done))
  await installation.close()
})

const log: LogLine[] = []
afterEach(() => {
  log.length = 0
})

const PASSWORD = 'planted-password-5d21'
const portOf = () => (server.address() as AddressInfo).port

async function askOver(databaseUrl: string, options: { endpoint?: string; timeout?: number } = {}): Promise<Answer> {
  const services = { ...installation.services, db: neonDatabase(databaseUrl, { endpoint: installation.neonEndpoint, ...options }) }
  const app = createApp({ services, version: 'test', log: (line) => log.push(line) })
  return ask((request) => app.fetch(request), '/api/v1/tenants', { apiKey })
}
/** Over an endpoint that is not Neon's, under a host name of its own as the driver keeps one address for each. */
const askFake = (name: string, timeout = 5_000, port = portOf()) =>
  askOver(`postgresql://stratum_control:${PASSWORD}@${name}.test/db`, { endpoint: `http://127.0.0.1:${port}/sql`, timeout })

/** Where nothing listens. */
async function closedPort(): Promise<number> {
  const closed = createServer()
  await new Promise<void>((done) => closed.listen(0, '127.0.0.1', () => done()))
  const { port } = closed.address() as AddressInfo
  await new Promise((done) => closed.close(done))
  return port
}

function expectUnavailable(answer: Answer) {
  expect(expectRefusal(answer, 'DATABASE_UNAVAILABLE')).toEqual({ retry_after: 1 })
  expect(answer.headers.get('retry-after')).toBe('1')
  expect(log).toMatchObject([{ level: 'error', status: 503, code: 'DATABASE_UNAVAILABLE' }])
  for (const text of [answer.text, JSON.stringify(log)]) {
    for (const secret of [PASSWORD, apiKey, 'postgresql://', 'hashes', '<html', 'select stratum']) expect(text).not.toContain(secret)
  }
}

describe('a database that is not there', () => {
  it('is unavailable: nothing listens', async () => {
    expectUnavailable(await askFake('closed', 5_000, await closedPort()))
  })
  it('is unavailable: no such database, a wrong password, an unknown role', async () => {
    expectUnavailable(await askOver(`${installation.urls.control}_missing`))
    log.length = 0
    expectUnavailable(await askOver(installation.urls.control.replace(':control@', `:${PASSWORD}@`)))
    log.length = 0
    expectUnavailable(await askOver(installation.urls.control.replace('stratum_control:', 'nobody:')))
  })
  it('is told of in the log by the code of the system or of the server, and by no more of its words', async () => {
    const endpoint = await startNeonEndpoint({ postgresPort: await closedPort() })
    await askOver(`postgresql://stratum_control:${PASSWORD}@localhost:1/db`, { endpoint: endpoint.url })
    expect(log.splice(0)).toMatchObject([{ cause: 'NeonDbError: Server error (HTTP status 500) ECONNREFUSED' }])
    await endpoint.close()
    await askOver(`${installation.urls.control}_missing`)
    expect(log).toMatchObject([{ cause: 'NeonDbError: Server error (HTTP status 500) SQLSTATE 3D000' }])
  })
  it('is unavailable while it answers nothing', async () => {
    answerWith = () => {}
    expectUnavailable(await askFake('hanging', 50))
  })
})

describe('an endpoint that answers nonsense', () => {
  const echo =
    (status: number): RequestListener =>
    (request, response) => {
      response.writeHead(status, { 'content-type': 'text/html' })
      response.write(`<html>${request.headers['neon-connection-string']}`)
      request.pipe(response)
    }
  const json =
    (status: number, body: unknown): RequestListener =>
    (_, response) =>
      response.writeHead(status).end(JSON.stringify(body))
  const row = (rows: unknown, fields: unknown = [{ name: 'answer', dataTypeID: 3802 }]) => json(200, { rows, fields, rowCount: 1, command: 'SELECT' })
  const nonsense: Array<[what: string, listener: RequestListener]> = [
    ['a page that repeats the request', echo(200)],
    ['a page with status 500 that repeats the request', echo(500)],
    ['a page with status 502', echo(502)],
    ['a page with status 400', echo(400)],
    ['a page with status 404', echo(404)],
    ['a redirect', (_, response) => response.writeHead(302, { location: 'http://127.0.0.1:1/' }).end()],
    ['nothing', (_, response) => response.end()],
    ['an empty object', json(200, {})],
    ['null', json(200, null)],
    ['no row', row([])],
    ['a row of no columns', row([[]], [])],
    ['a row of another column', row([['1']], [{ name: 'other', dataTypeID: 23 }])],
    ['rows that are none', row('rows')],
    ['JSON in the column that is none', row([['{"data":']])],
    ['an error that is a text', json(400, 'no')],
    ['an error of no code', json(400, { message: `<html>${PASSWORD}`.replace(PASSWORD, '') })],
    ['a broken connection', (request) => request.socket.destroy()],
    ['half an answer', (_, response) => response.writeHead(200, { 'content-length': '1000' }).write('{"rows":', () => response.socket?.destroy())],
  ]
  it.each(nonsense)('is unavailable: %s', async (what, listener) => {
    answerWith = listener
    const answer = await askFake(what.replaceAll(/\W+/g, '-'))
    expect(answer.headers.get('retry-after')).toBe('1')
    expectRefusal(answer, 'DATABASE_UNAVAILABLE')
    for (const text of [answer.text, JSON.stringify(log)]) {
      for (const secret of [PASSWORD, apiKey, 'hashes', 'select stratum']) expect(text).not.toContain(secret)
    }
  })
  it('is an error on our side when the row is of another shape', async () => {
    answerWith = row([['{"unexpected":true}']])
    expectRefusal(await askFake('shape'), 'INTERNAL_ERROR')
    expect(log[0]?.cause).toMatch(/^Error: The answer of listTenants does not fit its contract/)
  })
  it('is obeyed when it tells a code of the catalogue, and believed about no other', async () => {
    answerWith = json(400, { code: 'STRAT', message: 'TENANT_SUSPENDED', detail: '{}' })
    expectRefusal(await askFake('code'), 'TENANT_SUSPENDED')
    answerWith = json(400, { code: 'STRAT', message: 'NO_SUCH_CODE', detail: '{}' })
    expectRefusal(await askFake('no-code'), 'INTERNAL_ERROR')
    answerWith = json(400, { code: '53300', message: 'sorry, too many clients already' })
    expectRefusal(await askFake('full'), 'DATABASE_UNAVAILABLE')
  })
})

describe('a connection that should not be', () => {
  it('is refused to a superuser and to a role that bypasses row security', async () => {
    const admin = new pg.Client(installation.urls.admin)
    await admin.connect()
    const role = `bypass_${uniqueSlug('role')}_${process.pid}`
    await admin.query(`create role ${role} login password 'x' bypassrls in role stratum_control`)
    try {
      for (const url of [installation.urls.admin, installation.urls.control.replace('stratum_control:control@', `${role}:x@`)]) {
        const answer = await askOver(url)
        expectRefusal(answer, 'DATABASE_ROLE_REFUSED')
        expect(answer.text).not.toContain(role)
      }
      expect(await installation.stratum.listTenants()).toMatchObject({ data: [] })
    } finally {
      await admin.query(`drop role ${role}`)
      await admin.end()
    }
  })
  it('is outdated where the schema or a routine is missing, and tells how to mend it', async () => {
    const empty = await createEmptyDatabase()
    const answer = await askOver(installation.urls.control.replace(/[^/]+$/, empty.name))
    expectRefusal(answer, 'DATABASE_OUTDATED')
    expect(answer.text).toContain('npx stratum setup')
    await empty.drop()

    const older = await createInstallation()
    await older.owner.query('drop function stratum.list_tenants(jsonb, jsonb)')
    expectRefusal(await askOver(older.urls.control), 'DATABASE_OUTDATED')
    await older.owner.query(`delete from stratum.operations where name = 'get_context'`)
    const unlisted = await ask(older.fetch, '/api/v1/context', { apiKey: await older.apiKey(null) })
    expectRefusal(unlisted, 'DATABASE_OUTDATED')
    await older.close()
  })
})
