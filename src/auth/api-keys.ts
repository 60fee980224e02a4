import { stratumError } from '../core/error-classes.ts'
import { toBase64Url } from '../crypto/base64.ts'
import type { KeyRing } from '../crypto/key-ring.ts'

/** What an API key begins with, so that people and secret scanners know it. */
export type ApiKeyPrefix = 'sk_live_' | 'sk_test_'

const encoder = new TextEncoder()
const HINT_CHARACTERS = 12

/** True for text of the form of an API key: a prefix and 32 bytes as base64url. */
export const looksLikeApiKey = (text: string): boolean => /^sk_(live|test)_[A-Za-z0-9_-]{43}$/.test(text)

const toHex = (bytes: Uint8Array) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')

/**
 * Makes API keys and their hashes. A key is 32 random bytes, so a plain HMAC suffices where a password
 * would need a slow hash; the ring's secret makes a stolen table useless without it.
 */
export class ApiKeySecrets {
  readonly #ring: KeyRing | null
  readonly #prefix: ApiKeyPrefix
  /** In the order of the ring. Kept once resolved: requests of a Worker must not share a promise. */
  #imported: readonly CryptoKey[] | null = null

  /** @param ring null: every use throws API_KEY_SECRET_MISSING. */
  constructor(ring: KeyRing | null, prefix: ApiKeyPrefix = 'sk_live_') {
    this.#ring = ring
    this.#prefix = prefix
  }

  /** A new key, to be shown once. `key_hash`, under the newest secret, and `hint` are what is stored. */
  async mint(): Promise<{ key: string; key_hash: string; hint: string }> {
    const [newest] = await this.#keys()
    if (newest === undefined) throw stratumError('API_KEY_SECRET_MISSING')
    const key = this.#prefix + toBase64Url(crypto.getRandomValues(new Uint8Array(32)))
    return { key, key_hash: await this.#hash(newest, key), hint: key.slice(0, HINT_CHARACTERS) }
  }

  /** The hashes a presented key may be stored under, one for each secret of the ring, newest first. */
  async hashes(key: string): Promise<string[]> {
    const secrets = await this.#keys()
    return Promise.all(secrets.map((secret) => this.#hash(secret, key)))
  }

  async #hash(secret: CryptoKey, key: string): Promise<string> {
    return toHex(new Uint8Array(await crypto.subtle.sign('HMAC', secret, encoder.encode(key))))
  }

  async #keys(): Promise<readonly CryptoKey[]> {
    if (this.#imported) return this.#imported
    if (this.#ring === null || this.#ring.length === 0) throw stratumError('API_KEY_SECRET_MISSING')
    const hmac = { name: 'HMAC', hash: 'SHA-256' }
    const imported = await Promise.all(this.#ring.map(({ bytes }) => crypto.subtle.importKey('raw', bytes, hmac, false, ['sign'])))
    this.#imported = imported
    return imported
  }
}
