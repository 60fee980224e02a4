import { createHmac, randomBytes } from 'node:crypto'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { ApiKeySecrets, looksLikeApiKey } from '../../src/auth/api-keys.ts'
import { ApiKeySecretMissingError } from '../../src/core/error-classes.ts'
import { generateRingKey, parseKeyRing } from '../../src/crypto/key-ring.ts'

const ringOf = (...ids: string[]) => parseKeyRing(ids.map(generateRingKey).join(), { variable: 'STRATUM_API_KEY_SECRETS', bytes: 32, exact: false })

afterEach(() => {
  vi.restoreAllMocks()
})

describe('ApiKeySecrets', () => {
  it('mints keys of the form it recognizes, with the hash it looks them up by', async () => {
    for (const prefix of ['sk_live_', 'sk_test_'] as const) {
      const secrets = new ApiKeySecrets(ringOf('v1'), prefix)
      const { key, key_hash, hint } = await secrets.mint()
      expect(key.startsWith(prefix)).toBe(true)
      expect(looksLikeApiKey(key)).toBe(true)
      expect(hint).toBe(key.slice(0, 12))
      expect(await secrets.hashes(key)).toEqual([key_hash])
    }
    expect((await new ApiKeySecrets(ringOf('v1')).mint()).key).toMatch(/^sk_live_/)
  })

  it('hashes as RFC 4231 does', async () => {
    const secrets = new ApiKeySecrets([{ id: 'v1', bytes: new TextEncoder().encode('Jefe') }])
    expect(await secrets.hashes('what do ya want for nothing?')).toEqual(['5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843'])
  })

  it('hashes under every secret, newest first, and stores under the newest', async () => {
    const ring = [randomBytes(32), randomBytes(64)].map((bytes, i) => ({ id: `v${i}`, bytes: new Uint8Array(bytes) }))
    const { key, key_hash } = await new ApiKeySecrets(ring).mint()
    const expected = ring.map(({ bytes }) => createHmac('sha256', bytes).update(key).digest('hex'))
    expect(await new ApiKeySecrets(ring).hashes(key)).toEqual(expected)
    expect(key_hash).toBe(expected[0])
  })

  it('still finds a key after a secret was put before the one it was minted under', async () => {
    const [added, old] = ringOf('v2', 'v1')
    if (!added || !old) throw new Error('no ring')
    const { key, key_hash } = await new ApiKeySecrets([old]).mint()
    expect((await new ApiKeySecrets([added, old]).hashes(key)).indexOf(key_hash)).toBe(1)
  })

  it('mints no key twice', async () => {
    const secrets = new ApiKeySecrets(ringOf('v1'))
    const minted = await Promise.all(Array.from({ length: 500 }, () => secrets.mint()))
    expect(new Set(minted.map(({ key }) => key)).size).toBe(500)
  })

  it('imports the ring once, so that no key can be read out again', async () => {
    const imported = vi.spyOn(crypto.subtle, 'importKey')
    const secrets = new ApiKeySecrets(ringOf('v2', 'v1'))
    for (let i = 0; i < 3; i++) await secrets.hashes('sk_live_')
    expect(imported.mock.calls.map((call) => call[3])).toEqual([false, false])
  })

  it('fails without a ring', async () => {
    for (const ring of [null, []]) {
      const secrets = new ApiKeySecrets(ring)
      await expect(secrets.mint()).rejects.toBeInstanceOf(ApiKeySecretMissingError)
      await expect(secrets.hashes('sk_live_x')).rejects.toBeInstanceOf(ApiKeySecretMissingError)
    }
  })
})

describe('looksLikeApiKey', () => {
  const body = `${'aB3_-'.repeat(8)}abc`

  it('knows a key by its form', () => {
    expect(looksLikeApiKey(`sk_live_${body}`)).toBe(true)
    expect(looksLikeApiKey(`sk_test_${body}`)).toBe(true)
  })

  it.each([
    '',
    'sk_live_',
    `sk_prod_${body}`,
    `SK_LIVE_${body}`,
    `sk_live_${body}x`,
    `sk_live_${body.slice(1)}`,
    ` sk_live_${body}`,
    `sk_live_${body}\n`,
    `sk_live_${body.slice(1)}=`,
    `sk_live_${body.slice(1)}ä`,
    body,
  ])('does not take %j for one', (text) => {
    expect(looksLikeApiKey(text)).toBe(false)
  })
})
