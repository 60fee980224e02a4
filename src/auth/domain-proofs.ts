import { stratumError } from '../core/error-classes.ts'
import { toBase64Url } from '../crypto/base64.ts'
import type { KeyRing } from '../crypto/key-ring.ts'

const encoder = new TextEncoder()
/** What the derived key is for: no other use of the ring's secrets can make the same value. */
const PURPOSE = encoder.encode('stratum custom domain proof')

async function deriveKey(secret: Uint8Array<ArrayBuffer>): Promise<CryptoKey> {
  const material = await crypto.subtle.importKey('raw', secret, 'HKDF', false, ['deriveKey'])
  const derivation = { name: 'HKDF', hash: 'SHA-256', salt: new Uint8Array(32), info: PURPOSE }
  return crypto.subtle.deriveKey(derivation, material, { name: 'HMAC', hash: 'SHA-256', length: 256 }, false, ['sign'])
}

/**
 * The TXT values that prove a tenant's claim to a domain: an HMAC of both, so that nothing is stored or read to know
 * them and one tenant's value proves nothing for another. The keys are derived from the API key secrets, which
 * stay as long as API keys hashed under them do: a record that a customer published outlives every rotation that
 * keeps the old secret in the ring.
 */
export class DomainProofs {
  readonly #ring: KeyRing | null
  /** In the order of the ring. Kept once resolved: requests of a Worker must not share a promise. */
  #derived: readonly CryptoKey[] | null = null

  /** @param ring the API key secrets; null: every use throws API_KEY_SECRET_MISSING. */
  constructor(ring: KeyRing | null) {
    this.#ring = ring
  }

  /** The value to publish, under the newest secret. @param domain in canonical form */
  async value(tenantId: string, domain: string): Promise<string> {
    const [newest] = await this.#keys()
    return this.#sign(newest as CryptoKey, tenantId, domain)
  }

  /** Every value that counts, one for each secret of the ring, newest first. */
  async values(tenantId: string, domain: string): Promise<string[]> {
    return Promise.all((await this.#keys()).map((key) => this.#sign(key, tenantId, domain)))
  }

  async #sign(key: CryptoKey, tenantId: string, domain: string): Promise<string> {
    return toBase64Url(new Uint8Array(await crypto.subtle.sign('HMAC', key, encoder.encode(JSON.stringify([tenantId, domain])))))
  }

  async #keys(): Promise<readonly CryptoKey[]> {
    if (this.#derived) return this.#derived
    if (this.#ring === null || this.#ring.length === 0) throw stratumError('API_KEY_SECRET_MISSING')
    const derived = await Promise.all(this.#ring.map(({ bytes }) => deriveKey(bytes)))
    this.#derived = derived
    return derived
  }
}
