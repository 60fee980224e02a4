import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { fromBase64, toBase64Url } from '../../src/crypto/base64.ts'

describe('base64', () => {
  it('writes what Node writes and reads it back', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 100 }), (bytes) => {
        const buffer = Buffer.from(bytes)
        expect(toBase64Url(bytes)).toBe(buffer.toString('base64url'))
        expect([...(fromBase64(buffer.toString('base64url')) ?? [])]).toEqual([...bytes])
        expect([...(fromBase64(buffer.toString('base64')) ?? [])]).toEqual([...bytes])
      }),
    )
  })

  it.each(['A', 'AAAAA', 'AA A', 'AA\n', 'AA===', 'A=A', 'ä', 'AA.A'])('reads nothing from %j', (text) => {
    expect(fromBase64(text)).toBeNull()
  })

  it('reads text of 256 KiB', () => {
    expect(fromBase64(toBase64Url(new Uint8Array(262_144)))?.length).toBe(262_144)
  })
})
