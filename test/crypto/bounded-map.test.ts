import { describe, expect, it } from 'vitest'
import { BoundedMap } from '../../src/crypto/bounded-map.ts'

describe('BoundedMap', () => {
  it('makes room by the entry used longest ago', () => {
    const map = new BoundedMap<string, number>(2)
    map.set('a', 1)
    map.set('b', 2)
    expect(map.get('a')).toBe(1)
    map.set('c', 3)
    expect([map.get('a'), map.get('b'), map.get('c'), map.size]).toEqual([1, undefined, 3, 2])
  })

  it('replaces and deletes without growing, and keeps nothing when it may hold nothing', () => {
    const map = new BoundedMap<string, number>(2)
    map.set('a', 1)
    map.set('a', 2)
    expect([map.get('a'), map.size]).toEqual([2, 1])
    map.delete('a')
    expect(map.size).toBe(0)
    const none = new BoundedMap<string, number>(0)
    none.set('a', 1)
    expect(none.size).toBe(0)
  })
})
