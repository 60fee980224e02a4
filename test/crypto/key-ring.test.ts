import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ConfigurationInvalidError } from '../../src/core/error-classes.ts'
import { generateRingKey, parseKeyRing } from '../../src/crypto/key-ring.ts'

const EXACT = { variable: 'STRATUM_MASTER_KEYS', bytes: 32, exact: true } as const
const AT_LEAST = { variable: 'STRATUM_API_KEY_SECRETS', bytes: 32, exact: false } as const

const refusal = (text: string, options: typeof EXACT | typeof AT_LEAST = EXACT): string => {
  try {
    parseKeyRing(text, options)
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigurationInvalidError)
    return (error as Error).message
  }
  throw new Error(`accepted: ${text}`)
}
const ringOf = (bytes: Iterable<number>) => `v1:${Buffer.from([...bytes]).toString('base64')}`
/** 16 different values, without a period. */
const SQUARES = Array.from({ length: 32 }, (_, i) => ((i * i) % 31) * 7)
const random = (length = 32) => randomBytes(length).toString('base64')

describe('parseKeyRing', () => {
  it('reads one key, and several in the order they are written', () => {
    const [a, b] = [randomBytes(32), randomBytes(32)]
    const ring = parseKeyRing(` new.2:${a.toString('base64url')} ,\n old_1:${b.toString('base64')}\n`, EXACT)
    expect(ring.map(({ id, bytes }) => [id, Buffer.from(bytes).toString('hex')])).toEqual([
      ['new.2', a.toString('hex')],
      ['old_1', b.toString('hex')],
    ])
  })

  it('takes longer keys only where the length is a minimum', () => {
    expect(parseKeyRing(`v1:${random(64)}`, AT_LEAST)[0]?.bytes.length).toBe(64)
    expect(refusal(`v1:${random(64)}`)).toContain('holds 64 bytes and needs exactly 32')
    expect(refusal(`v1:${random(31)}`, AT_LEAST)).toContain('holds 31 bytes and needs at least 32')
    expect(refusal('v1:')).toContain('holds 0 bytes')
  })

  it.each([
    ['', 'is empty'],
    ['  \n', 'is empty'],
    [random(), 'no colon'],
    [`:${random()}`, 'an id that is not'],
    [`ä:${random()}`, 'an id that is not'],
    [`${'a'.repeat(65)}:${random()}`, 'an id that is not'],
    ['v1:not base64!', 'is not base64'],
    [`v1:${random()}:x`, 'is not base64'],
    [`v1:${random()},`, 'entry 2 has no colon'],
    [`a:${random()},b:${random()},a:${random()}`, 'entry 3 has the same id as entry 1'],
  ])('refuses %j', (text, reason) => {
    expect(refusal(text)).toContain(reason)
  })

  it.each([
    ['zeros', new Uint8Array(32)],
    ['two values', Array.from({ length: 32 }, (_, i) => (i % 2) * 255)],
    ['15 values', SQUARES.map((byte) => (byte === 7 ? 14 : byte))],
    ['a password, repeated', Buffer.from('changeme'.repeat(4))],
    ['hex digits as text', Buffer.from('0123456789abcdef0123456789abcdef')],
    ['the alphabet', Buffer.from('abcdefghijklmnopqrstuvwxyz012345')],
    ['a sentence', Buffer.from('correct horse battery staple 42!')],
    ['16 random bytes, twice', Buffer.concat(Array(2).fill(Buffer.from('00ff11ee22dd33cc44bb55aa66997788', 'hex')))],
    ['a count', Array.from({ length: 32 }, (_, i) => i)],
    ['a count down in sevens', Array.from({ length: 32 }, (_, i) => (250 - i * 7) & 255)],
  ])('refuses the weak key: %s', (_, bytes) => {
    expect(refusal(ringOf(bytes))).toMatch(/random/)
    expect(refusal(ringOf(bytes), AT_LEAST)).toMatch(/random/)
  })

  it('asks for 16 different bytes and not for more', () => {
    expect(parseKeyRing(ringOf(SQUARES), EXACT)).toHaveLength(1)
  })

  it('refuses in one sentence that names the variable, tells what to do and quotes nothing', () => {
    const secret = random(31)
    for (const text of [`v1:${secret}`, secret, `${secret}:v1`, `v1:${secret}!`, `${secret.replace(/[+/=]/g, 'x')}:v1`]) {
      const message = refusal(text)
      expect(message).toMatch(/^STRATUM_MASTER_KEYS [^\n]*npx stratum keys[^\n]*openssl rand -base64 32[^\n]*\.$/)
      expect(message).not.toContain(secret.slice(0, 8))
    }
  })

  it('ends in a ring or in its own error, whatever it reads', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.string().map((text) => `v1:${text}`),
        ),
        (text) => {
          refusal(text)
        },
      ),
      { numRuns: 500 },
    )
  })
})

describe('generateRingKey', () => {
  it('makes keys that a ring takes, each another', () => {
    const keys = Array.from({ length: 200 }, (_, i) => generateRingKey(`v${i}`))
    const ring = parseKeyRing(keys.join(','), EXACT)
    expect(ring.map(({ id }) => id)).toEqual(keys.map((_, i) => `v${i}`))
    expect(new Set(ring.map(({ bytes }) => Buffer.from(bytes).toString('hex'))).size).toBe(200)
  })

  it('refuses an id that no ring takes', () => {
    expect(() => generateRingKey('a:b')).toThrow(ConfigurationInvalidError)
    expect(() => generateRingKey('')).toThrow(ConfigurationInvalidError)
  })
})
