/** How much is kept, and who makes room for whom. */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { describe, expect, it } from 'vitest'
import { ContextCache, type Kept, weightOf } from '../../src/resolver/context-cache.ts'

const KIB = 1_024
const ROOM = { entries: 200, bytes: 1_024 * KIB }

const kept = (bytes: number, path: string | null = 'a'): Kept<string> => ({
  value: 'v',
  tags: { path, names: [], principal: null, issuers: [] },
  until: Number.POSITIVE_INFINITY,
  bytes,
})
const keys = (cache: ContextCache<string>, names: string[]) => names.filter((name) => cache.get(name, 0) !== undefined)
const numbered = (prefix: string, count: number) => Array.from({ length: count }, (_, index) => `${prefix}${index}`)

describe('what is kept', () => {
  it('is bounded in number', () => {
    const cache = new ContextCache<string>(ROOM)
    for (const name of numbered('key', 1_000)) cache.set(name, kept(10), 0)
    expect(cache.size).toBe(100)
    expect(cache.dropped.room).toBe(900)
    expect(keys(cache, numbered('key', 1_000))).toEqual(numbered('key', 1_000).slice(900))
  })

  it('is bounded in bytes, keys included, whatever is put in', () => {
    const cache = new ContextCache<string>(ROOM)
    let random = 1
    const next = (below: number) => {
      random = (random * 48_271) % 2_147_483_647
      return random % below
    }
    for (let round = 0; round < 5_000; round++) {
      cache.set(`key${next(300)}`, kept(next(200 * KIB), next(4) === 0 ? null : 'a'), 0)
      if (next(3) === 0) cache.get(`key${next(300)}`, 0)
      if (next(10) === 0) cache.delete(`key${next(300)}`)
      expect(cache.bytes).toBeLessThanOrEqual(ROOM.bytes)
    }
    for (const name of numbered('key', 300)) cache.delete(name)
    expect([cache.size, cache.bytes]).toEqual([0, 0])
  })

  it('stays while it is used, and what is new has its turn too', () => {
    const cache = new ContextCache<string>(ROOM)
    for (const name of numbered('old', 100)) cache.set(name, kept(10), 0)
    for (let round = 0; round < 50; round++) {
      expect(cache.get('old0', 0)).toBeDefined()
      cache.set(`new${round}`, kept(10), 0)
      expect(cache.get(`new${round}`, 0)).toBeDefined()
    }
    // though all are used between two that are new
    const busy = new ContextCache<string>(ROOM)
    for (const name of numbered('old', 100)) busy.set(name, kept(10), 0)
    for (let round = 0; round < 10; round++) {
      keys(busy, numbered('old', 100))
      busy.set(`new${round}`, kept(10), 0)
      expect(busy.get(`new${round}`, 0)).toBeDefined()
    }
  })

  it('is not driven out by who has much config, nor by hosts that nobody has', () => {
    const cache = new ContextCache<string>(ROOM)
    const [ordinary, large, refused] = [numbered('ordinary', 50), numbered('large', 100), numbered('refused', 2_000)]
    for (const name of ordinary) cache.set(name, kept(2 * KIB), 0)
    for (const name of large) cache.set(name, kept(100 * KIB), 0)
    for (const name of refused) cache.set(name, kept(200, null), 0)
    expect(keys(cache, ordinary)).toEqual(ordinary)
    expect(keys(cache, large)).toHaveLength(3)
    expect(keys(cache, refused)).toHaveLength(50)
  })

  it('leaves refusals their room where answers take all of theirs', () => {
    const cache = new ContextCache<string>(ROOM)
    for (const name of numbered('key', 100)) cache.set(name, kept(4 * KIB), 0)
    for (const name of numbered('refused', 50)) cache.set(name, kept(200, null), 0)
    expect(keys(cache, numbered('refused', 50))).toHaveLength(50)
  })

  it('is nothing that would take an eighth of the room', () => {
    const cache = new ContextCache<string>(ROOM)
    cache.set('key', kept(10), 0)
    cache.set('key', kept(128 * KIB), 0)
    expect(cache.get('key', 0)).toBeUndefined()
    expect(cache.dropped.large).toBe(1)
  })

  it('is served until its time, and then gone', () => {
    const cache = new ContextCache<string>(ROOM)
    cache.set('key', { ...kept(10), until: 5 }, 0)
    expect(cache.get('key', 4)).toBeDefined()
    expect(cache.get('key', 5)).toBeUndefined()
    expect(cache.size).toBe(0)
  })
})

describe('a weight', () => {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void

  it('is no less than what the value takes in memory, also of many small parts', () => {
    // Nothing of one round is to be collected in another.
    const held: unknown[] = []
    for (const part of [[], {}, 'x', 1, null, { a: [] }, { a: { b: { c: 1 } } }, 'ä€', 'long enough to be stored as a text of its own']) {
      const text = JSON.stringify(Array.from({ length: 200_000 }, () => part))
      collect()
      const before = process.memoryUsage().heapUsed
      const value = JSON.parse(text)
      held.push(text, value)
      collect()
      const taken = process.memoryUsage().heapUsed - before
      expect(weightOf(value) / taken, `of ${JSON.stringify(part)}, ${Math.round(taken / 200_000)} bytes each`).toBeGreaterThanOrEqual(1)
    }
  })
})
