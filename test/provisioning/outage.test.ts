/** What the provisioner's log says while the database is away: that it is, now and then, and that it is back. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import pg from 'pg'
import { expect, inject, it } from 'vitest'
import { describeError, jobErrorOf } from '../../src/provisioning/job-error.ts'
import { Outage } from '../../src/provisioning/outage.ts'
import { createInstallation } from '../support/installation.ts'
import { type LoggedLine, start, until } from './support.ts'

async function refusedConnection(host: string): Promise<unknown> {
  const closed = createServer()
  await new Promise<void>((done) => closed.listen(0, '127.0.0.1', () => done()))
  const { port } = closed.address() as AddressInfo
  await new Promise((done) => closed.close(done))
  return new pg.Client({ host, port, user: 'x', database: 'x' }).connect().catch((error: unknown) => error)
}

it('says the first failure, then one a minute, then that it works again', () => {
  const lines: object[] = []
  let now = 0
  const outage = new Outage(
    (level, event, fields) => lines.push({ level, event, ...fields }),
    'recovery',
    () => now,
  )
  outage.ended()
  expect(lines).toEqual([])
  for (; now < 150_000; now += 2_000) outage.failed(new Error('away'))
  outage.ended()
  outage.ended()
  outage.failed(new Error('away'))
  expect(lines).toMatchObject([
    { level: 'warn', event: 'recovery.failed', failures: 1, error: { message: 'away' } },
    { level: 'warn', event: 'recovery.failed', failures: 31 },
    { level: 'warn', event: 'recovery.failed', failures: 61 },
    { level: 'info', event: 'recovery.works_again', failures: 75, seconds: 150 },
    { level: 'warn', event: 'recovery.failed', failures: 1 },
  ])
})

it.each(['127.0.0.1', 'localhost'])('tells a refused connection to %s by its code, without a stack, and never as a fault of its own', async (host) => {
  const error = await refusedConnection(host)
  expect(describeError(error)).toMatchObject({ code: 'ECONNREFUSED' })
  expect(describeError(error)).not.toHaveProperty('stack')
  expect(jobErrorOf(error).code).toBe('DATABASE_UNAVAILABLE')
})

it('keeps the stack of what is a fault of its own', () => {
  expect(describeError(new RangeError('x'))).toMatchObject({ name: 'RangeError', stack: expect.stringContaining('outage.test.ts') })
})

it('is as quiet in a provisioner whose database goes away and comes back', async () => {
  const own = await createInstallation()
  const lines: LoggedLine[] = []
  const { stop } = await start(own, {}, lines)
  const { rows } = await own.owner.query<{ name: string }>('select current_database() as name')
  const name = rows[0]?.name
  const superuser = new pg.Client(inject('server').adminUrl)
  await superuser.connect()
  const said = (event: string) => lines.filter((line) => line.event === event)
  try {
    await superuser.query(`alter database "${name}" connection limit 0`)
    await superuser.query(`select pg_terminate_backend(pid) from pg_stat_activity where datname = '${name}'`)
    await until('the failure is told', async () => said('recovery.failed').length > 0)
    await superuser.query(`alter database "${name}" connection limit -1`)
    await until('the end is told', async () => said('recovery.works_again').length > 0)
    expect(said('recovery.failed')).toHaveLength(1)
    expect(said('recovery.failed')[0]?.['error']).not.toHaveProperty('stack')
  } finally {
    await superuser.end()
    await stop()
    await own.close()
  }
}, 30_000)
