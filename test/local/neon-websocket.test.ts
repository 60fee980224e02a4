// The driver's Pool and Client, which speak PostgreSQL's own protocol inside a WebSocket.
import { once } from 'node:events'
import { Client, neonConfig, Pool } from '@neondatabase/serverless'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { WebSocket } from 'ws'
import { startNeonEndpoint } from '../../src/local/neon-endpoint.ts'
import { failureOf, type Stack, startStack } from './support.ts'

let stack: Stack

beforeAll(async () => {
  stack = await startStack()
  neonConfig.wsProxy = (host, port) => `127.0.0.1:${stack.endpoint.port}/v2?address=${host}:${port}`
  neonConfig.useSecureWebSocket = false
  neonConfig.webSocketConstructor = WebSocket
})
afterAll(() => stack.close())

test('a pool runs an interactive transaction, with the driver sending the password unasked', async () => {
  expect(neonConfig.pipelineConnect).toBe('password')
  const pool = new Pool({ connectionString: stack.postgres.url() })
  const client = await pool.connect()
  await client.query('create table account (name text, amount int)')
  await client.query('begin')
  await client.query('insert into account values ($1, $2)', ['a', 5])
  expect((await client.query('select * from account')).rows).toEqual([{ name: 'a', amount: 5 }])
  await client.query('rollback')
  expect((await client.query('select * from account')).rows).toEqual([])
  client.release()
  expect(await failureOf(pool.query('select * from nowhere'))).toMatchObject({ code: '42P01', position: '15' })
  await pool.end()
})

test('a client that waits to be asked for the password, and large results', async () => {
  neonConfig.pipelineConnect = false
  const client = new Client(stack.postgres.url())
  await client.connect()
  const { rows } = await client.query(`select repeat('x', 1000) as x from generate_series(1, 5000)`)
  expect(rows).toHaveLength(5000)
  await client.end()
  neonConfig.pipelineConnect = 'password'
})

test('a wrong password is an error', async () => {
  const wrong = new URL(stack.postgres.url())
  wrong.password = 'wrong'
  const pool = new Pool({ connectionString: wrong.href })
  expect(await failureOf(pool.query('select 1'))).toMatchObject({ code: '28P01' })
  await pool.end()
})

test.each([
  ['/v2?address=db.example.com:5432', 403],
  ['/other?address=localhost:5432', 404],
  ['//', 404],
])('upgrade of %s is refused with %i', async (path, status) => {
  const socket = new WebSocket(`ws://127.0.0.1:${stack.endpoint.port}${path}`)
  const [error] = await once(socket, 'error')
  expect(error.message).toBe(`Unexpected server response: ${status}`)
})

test('closing the endpoint cuts what is open', async () => {
  const endpoint = await startNeonEndpoint({ postgresPort: stack.postgres.port })
  const open = new WebSocket(`ws://127.0.0.1:${endpoint.port}/v2`)
  await once(open, 'open')
  await Promise.all([once(open, 'close'), endpoint.close()])
})
