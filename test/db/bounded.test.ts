import { expect, it } from 'vitest'
import type { Actor } from '../../src/core/actor.ts'
import { boundedDatabase } from '../../src/db/bounded.ts'

const ACTOR: Actor = { credential: { type: 'nobody' }, named: [], exposed: false, request_id: null, source_ip: null }

function setUp(concurrent: number) {
  let time = 0
  const running: Array<{ end(error?: Error): void }> = []
  const call = (name: string) => new Promise<unknown>((resolve, reject) => running.push({ end: (error) => (error ? reject(error) : resolve(name)) }))
  const bounded = boundedDatabase({ call }, concurrent, () => time)
  const pass = (milliseconds: number) => {
    time += milliseconds
  }
  return { running, pass, ask: (name: string) => bounded.call(name, ACTOR, {}) }
}

it('a bounded database has so many calls under way, refuses more, and gives a place free however a call ends', async () => {
  const { ask, running } = setUp(2)
  const [first, second] = [ask('a'), ask('b')]
  await expect(ask('c')).rejects.toMatchObject({ code: 'DATABASE_BUSY', status: 503, retryAfter: 1 })
  running[0]?.end(new Error('broken'))
  await expect(first).rejects.toThrow('broken')
  const third = ask('d')
  await expect(ask('e')).rejects.toMatchObject({ code: 'DATABASE_BUSY' })
  running[1]?.end()
  running[2]?.end()
  expect(await Promise.all([second, third])).toEqual(['b', 'd'])
})

it('a call of which nothing is heard any more holds its place for as long as one can take, and gives back no other one', async () => {
  const { ask, running, pass } = setUp(2)
  const dropped = ask('a')
  pass(10_000)
  void ask('b')
  pass(20_000)
  await expect(ask('c')).rejects.toMatchObject({ code: 'DATABASE_BUSY' })
  pass(1)
  void ask('d')
  await expect(ask('e')).rejects.toMatchObject({ code: 'DATABASE_BUSY' })
  running[0]?.end()
  expect(await dropped).toBe('a')
  await expect(ask('f')).rejects.toMatchObject({ code: 'DATABASE_BUSY' })
})
