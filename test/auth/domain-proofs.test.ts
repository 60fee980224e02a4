/** The values that prove claims to domains. */
import { createHmac, hkdfSync } from 'node:crypto'
import { describe, expect, it } from 'vitest'
import { DomainProofs } from '../../src/auth/domain-proofs.ts'
import { ApiKeySecretMissingError } from '../../src/core/error-classes.ts'
import { generateRingKey, parseKeyRing } from '../../src/crypto/key-ring.ts'

const ring = (...ids: string[]) => parseKeyRing(ids.map(generateRingKey).join(), { variable: 'ring', bytes: 32, exact: false })
const [TENANT, OTHER] = ['0197a000-0000-7000-8000-000000000001', '0197a000-0000-7000-8000-000000000002']

describe('a proof', () => {
  it('is the same from every process with the same secret, by the formula that is written down', async () => {
    const keys = ring('a')
    const derived = Buffer.from(hkdfSync('sha256', keys[0]?.bytes ?? '', Buffer.alloc(32), 'stratum custom domain proof', 32))
    const value = createHmac('sha256', derived)
      .update(JSON.stringify([TENANT, 'shop.example']))
      .digest('base64url')
    for (const proofs of [new DomainProofs(keys), new DomainProofs(keys)]) expect(await proofs.value(TENANT, 'shop.example')).toBe(value)
  })
  it('is another for each tenant, domain and secret', async () => {
    const [one, two] = [new DomainProofs(ring('a')), new DomainProofs(ring('a'))]
    const values = [one.value(TENANT, 'shop.example'), one.value(OTHER, 'shop.example'), one.value(TENANT, 'a.shop.example'), two.value(TENANT, 'shop.example')]
    expect(new Set(await Promise.all(values)).size).toBe(4)
  })
  it('counts under every secret of the ring, and is shown under the newest', async () => {
    const old = ring('old')
    const rotated = new DomainProofs([...ring('new'), ...old])
    const before = await new DomainProofs(old).value(TENANT, 'shop.example')
    const values = await rotated.values(TENANT, 'shop.example')
    expect(values).toEqual([await rotated.value(TENANT, 'shop.example'), before])
  })
  it('is none without a secret', async () => {
    for (const proofs of [new DomainProofs(null), new DomainProofs([])]) {
      await expect(proofs.value(TENANT, 'shop.example')).rejects.toBeInstanceOf(ApiKeySecretMissingError)
      await expect(proofs.values(TENANT, 'shop.example')).rejects.toBeInstanceOf(ApiKeySecretMissingError)
    }
  })
})
