import { createDecipheriv } from 'node:crypto'
import fc from 'fast-check'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { MasterKeyMissingError, SecretUnreadableError } from '../../src/core/error-classes.ts'
import type { StratumError } from '../../src/core/errors.ts'
import type { Json } from '../../src/core/json.ts'
import { type SealedSecret, type SecretPlace, Secrets } from '../../src/crypto/envelope.ts'
import { generateRingKey, type KeyRing, parseKeyRing } from '../../src/crypto/key-ring.ts'

const ringOf = (...ids: string[]): KeyRing => parseKeyRing(ids.map(generateRingKey).join(), { variable: 'STRATUM_MASTER_KEYS', bytes: 32, exact: true })

const A = '0197a000-0000-7000-8000-00000000000a'
const B = '0197a000-0000-7000-8000-00000000000b'
const place: SecretPlace = { table: 'config_entries', tenant_id: A, key: 'smtp.password' }

/** The same format, written down a second time. */
function decipher(key: Uint8Array, text: string, additionalData: Json[]): Buffer {
  const whole = Buffer.from(text, 'base64url')
  const decipher = createDecipheriv('aes-256-gcm', key, whole.subarray(0, 12))
  decipher.setAAD(Buffer.from(JSON.stringify(additionalData)))
  decipher.setAuthTag(whole.subarray(-16))
  return Buffer.concat([decipher.update(whole.subarray(12, -16)), decipher.final()])
}

const flip = (text: string, bit: number) => {
  const bytes = Buffer.from(text, 'base64url')
  bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7))
  return bytes.toString('base64url')
}

afterEach(() => {
  vi.restoreAllMocks()
})

describe('Secrets', () => {
  it('opens what it sealed, in this process and in another with the same ring', async () => {
    const ring = ringOf('v1')
    const [here, there] = [new Secrets(ring), new Secrets(ring)]
    await fc.assert(
      fc.asyncProperty(fc.jsonValue(), async (value) => {
        // JSON text has no -0.
        const json = JSON.parse(JSON.stringify(value)) as Json
        const sealed = await here.seal(place, json)
        expect(await here.open(place, sealed)).toEqual(json)
        expect(await there.open(place, JSON.parse(JSON.stringify(sealed)) as SealedSecret)).toEqual(json)
      }),
    )
  })

  it('writes the documented format', async () => {
    const ring = ringOf('v1')
    const { ciphertext, data_key } = await new Secrets(ring).seal(place, { user: 'ä' })
    const master = ring[0]?.bytes ?? new Uint8Array()
    const dataKey = decipher(master, data_key.wrapped, ['stratum data key', A, data_key.id, 'v1'])
    expect(dataKey.length).toBe(32)
    const context = ['stratum secret', 'config_entries', A, 'smtp.password', data_key.id]
    expect(decipher(dataKey, ciphertext, context).toString()).toBe('{"user":"ä"}')
    expect(data_key.id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
    expect(Object.keys(data_key)).toEqual(['id', 'master_key_id', 'wrapped'])
  })

  it('seals a value differently each time, under one data key for each tenant', async () => {
    const secrets = new Secrets(ringOf('v1'))
    const [one, two, other] = [
      await secrets.seal(place, 'x'),
      await secrets.seal({ ...place, key: 'else' }, 'x'),
      await secrets.seal({ ...place, tenant_id: B }, 'x'),
    ]
    expect(one.ciphertext).not.toBe((await secrets.seal(place, 'x')).ciphertext)
    expect(two.data_key).toEqual(one.data_key)
    expect(other.data_key.id).not.toBe(one.data_key.id)
    const { id } = two.data_key
    one.data_key.id = 'changed by the caller'
    expect((await secrets.seal(place, 'x')).data_key.id).toBe(id)
  })

  it('mints one data key when a tenant is new to many requests at once', async () => {
    const secrets = new Secrets(ringOf('v1'))
    const sealed = await Promise.all(Array.from({ length: 20 }, (_, i) => secrets.seal(place, i)))
    expect(new Set(sealed.map(({ data_key }) => JSON.stringify(data_key))).size).toBe(1)
    expect(await Promise.all(sealed.map((one) => secrets.open(place, one)))).toEqual(sealed.map((_, i) => i))
  })

  it('keeps the data keys of 1000 tenants', async () => {
    const secrets = new Secrets(ringOf('v1'))
    const seal = (tenant: number) => secrets.seal({ ...place, tenant_id: `t${tenant}` }, null)
    const first = await seal(0)
    const second = await seal(1)
    for (let i = 2; i < 1000; i++) await seal(i)
    expect((await seal(0)).data_key).toEqual(first.data_key)
    await seal(1000)
    expect((await seal(0)).data_key).toEqual(first.data_key)
    expect((await seal(1)).data_key.id).not.toBe(second.data_key.id)
    expect(await secrets.open({ ...place, tenant_id: 't1' }, second)).toBe(null)
  })

  it('unwraps a data key once', async () => {
    const ring = ringOf('v1')
    const sealed = await new Secrets(ring).seal(place, 'x')
    const secrets = new Secrets(ring)
    const decrypt = vi.spyOn(crypto.subtle, 'decrypt')
    for (let i = 0; i < 3; i++) await secrets.open(place, sealed)
    expect(decrypt).toHaveBeenCalledTimes(4)
  })

  it('keeps no key that can be read out of it', async () => {
    const imported = vi.spyOn(crypto.subtle, 'importKey')
    const ring = ringOf('v1')
    await new Secrets(ring).open(place, await new Secrets(ring).seal(place, 'x'))
    expect(imported.mock.calls.length).toBe(4)
    for (const call of imported.mock.calls) expect(call[3]).toBe(false)
  })
})

describe('a secret that cannot be opened', () => {
  const ring = ringOf('v2', 'v1')
  const secrets = new Secrets(ring)
  const unreadable = async (where: SecretPlace, sealed: SealedSecret) => {
    // Warm and cold: what is kept must not stand in for what is checked.
    for (const instance of [secrets, new Secrets(ring)]) {
      const error: unknown = await instance.open(where, sealed).catch((error: unknown) => error)
      expect(error).toBeInstanceOf(SecretUnreadableError)
      expect((error as StratumError).details).toEqual({})
    }
  }

  it.each<[string, Partial<SecretPlace>]>([
    ['another table', { table: 'tenants' }],
    ['another tenant', { tenant_id: B }],
    ['another key', { key: 'smtp.user' }],
    ['an ambiguous place', { table: 'config_entries","', key: '' }],
  ])('lies in %s', async (_, elsewhere) => {
    const sealed = await secrets.seal(place, 'x')
    expect(await secrets.open(place, sealed)).toBe('x')
    await secrets.seal({ ...place, ...elsewhere }, 'y')
    await unreadable({ ...place, ...elsewhere }, sealed)
  })

  it('was changed in any one bit', async () => {
    const sealed = await secrets.seal(place, 'x')
    for (let bit = 0; bit < Buffer.from(sealed.ciphertext, 'base64url').length * 8; bit++) {
      await unreadable(place, { ...sealed, ciphertext: flip(sealed.ciphertext, bit) })
    }
    for (let bit = 0; bit < Buffer.from(sealed.data_key.wrapped, 'base64url').length * 8; bit += 5) {
      await unreadable(place, { ...sealed, data_key: { ...sealed.data_key, wrapped: flip(sealed.data_key.wrapped, bit) } })
    }
  })

  it.each(['', 'AAAA', '!', 'A', 'AAAAAAAAAAAAAAAA', 'ä'.repeat(40)])('is not a ciphertext: %j', async (text) => {
    const sealed = await secrets.seal(place, 'x')
    await unreadable(place, { ...sealed, ciphertext: text })
    await unreadable(place, { ...sealed, data_key: { ...sealed.data_key, wrapped: text } })
  })

  it('comes with the data key of another tenant or secret, or names another master key', async () => {
    const sealed = await secrets.seal(place, 'x')
    const other = await secrets.seal({ ...place, tenant_id: B }, 'x')
    const later = await new Secrets(ring).seal(place, 'x')
    for (const change of [other.data_key, later.data_key]) await unreadable(place, { ...sealed, data_key: change })
    for (const change of [{ id: B }, { master_key_id: 'v1' }, { master_key_id: 'v0' }, { master_key_id: '__proto__' }]) {
      await unreadable(place, { ...sealed, data_key: { ...sealed.data_key, ...change } })
    }
  })

  it('was sealed under a ring this process does not have, even one of the same names', async () => {
    await unreadable(place, await new Secrets(ringOf('v2', 'v1')).seal(place, 'x'))
  })

  it('has a process without a ring', async () => {
    const sealed = await secrets.seal(place, 'x')
    const none = new Secrets(null)
    await expect(none.seal(place, 'x')).rejects.toBeInstanceOf(MasterKeyMissingError)
    await expect(none.open(place, sealed)).rejects.toBeInstanceOf(MasterKeyMissingError)
  })
})

describe('rotation', () => {
  const [v2, v1] = ringOf('v2', 'v1') as [KeyRing[number], KeyRing[number]]

  it('opens what the old key sealed, and seals under the newest', async () => {
    const old = await new Secrets([v1]).seal(place, 'x')
    const rotated = new Secrets([v2, v1])
    expect(await rotated.open(place, old)).toBe('x')
    expect((await rotated.seal(place, 'y')).data_key.master_key_id).toBe('v2')
    await expect(new Secrets([v2]).open(place, old)).rejects.toBeInstanceOf(SecretUnreadableError)
  })
})

describe('the data keys of tenants whose secrets were stored', () => {
  it('are not pushed out by those of writes that were refused', async () => {
    const secrets = new Secrets(ringOf('v1'))
    const first = await secrets.seal(place, 'x')
    secrets.confirm(place.tenant_id)
    for (let stranger = 0; stranger < 1_100; stranger++) await secrets.seal({ ...place, tenant_id: `stranger ${stranger}` }, 'x')
    expect((await secrets.seal(place, 'y')).data_key.id).toBe(first.data_key.id)
  })
})
