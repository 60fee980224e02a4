import { expect, it } from 'vitest'
import type { Actor } from '../../src/core/actor.ts'
import { boundedDatabase } from '../../src/db/bounded.ts'

const ACTOR: Actor = { credential: { type: 'nobody' }, named: [], exposed: false, request_id: null, source_ip: null }

it('a bounded database has so many calls under way, refuses more, and gives a place free however a call ends', async () => {
  const running: Array<{ end(error?: Error): void }> = []
  const call = (name: string) => new Promise<unknown>((resolve, reject) => running.push({ end: (error) => (error ? reject(error) : resolve(name)) }))
  const bounded = boundedDatabase({ call }, 2)
  const [first, second] = [bounded.call('a', ACTOR, {}), bounded.call('b', ACTOR, {})]
  await expect(bounded.call('c', ACTOR, {})).rejects.toMatchObject({ code: 'DATABASE_BUSY', status: 503, retryAfter: 1 })
  running[0]?.end(new Error('broken'))
  await expect(first).rejects.toThrow('broken')
  const third = bounded.call('d', ACTOR, {})
  await expect(bounded.call('e', ACTOR, {})).rejects.toMatchObject({ code: 'DATABASE_BUSY' })
  running[1]?.end()
  running[2]?.end()
  expect(await Promise.all([second, third])).toEqual(['b', 'd'])
})
