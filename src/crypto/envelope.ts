/**
 * Envelope encryption: a master key of the ring wraps data keys, a data key encrypts values.
 *
 * Additional data binds a value to its table, tenant and key, and a data key to its tenant, so that
 * neither decrypts anywhere else; it is the JSON text of an array, so no two places read alike.
 */
import { stratumError } from '../core/error-classes.ts'
import type { Json } from '../core/json.ts'
import { fromBase64, toBase64Url } from './base64.ts'
import { BoundedMap } from './bounded-map.ts'
import type { KeyRing, RingKey } from './key-ring.ts'

/** Where a secret is stored; it can be opened nowhere else. */
export interface SecretPlace {
  readonly table: string
  readonly tenant_id: string
  readonly key: string
}

/** A data key as it is stored: under the master key it names. */
export interface WrappedDataKey {
  id: string
  master_key_id: string
  wrapped: string
}

/** A secret with the data key it was encrypted under, to be stored in one statement. */
export interface SealedSecret {
  ciphertext: string
  data_key: WrappedDataKey
}

/** So many tenants' data keys are kept, each about 300 bytes. */
const KEPT = 1000
const IV_BYTES = 12
const encoder = new TextEncoder()

type Bytes = Uint8Array<ArrayBuffer>
type Minted = { stored: WrappedDataKey; key: CryptoKey }

const wrapContext = (tenant_id: string, id: string, master_key_id: string) => encoder.encode(JSON.stringify(['stratum data key', tenant_id, id, master_key_id]))

const secretContext = (place: SecretPlace, data_key_id: string) =>
  encoder.encode(JSON.stringify(['stratum secret', place.table, place.tenant_id, place.key, data_key_id]))

const unreadable = (cause: string) => stratumError('SECRET_UNREADABLE', {}, { cause: new Error(cause) })

const importKey = (bytes: Bytes) => crypto.subtle.importKey('raw', bytes, 'AES-GCM', false, ['encrypt', 'decrypt'])

/** base64url(iv ‖ ciphertext ‖ tag). */
async function encrypt(key: CryptoKey, additionalData: Bytes, plain: Bytes): Promise<string> {
  const iv = crypto.getRandomValues(new Uint8Array(IV_BYTES))
  const sealed = new Uint8Array(await crypto.subtle.encrypt({ name: 'AES-GCM', iv, additionalData }, key, plain))
  const whole = new Uint8Array(IV_BYTES + sealed.length)
  whole.set(iv)
  whole.set(sealed, IV_BYTES)
  return toBase64Url(whole)
}

async function decrypt(key: CryptoKey, additionalData: Bytes, text: string): Promise<Bytes> {
  const whole = fromBase64(text)
  if (whole === null) throw unreadable('It is not base64url.')
  try {
    const parameters = { name: 'AES-GCM', iv: whole.subarray(0, IV_BYTES), additionalData }
    return new Uint8Array(await crypto.subtle.decrypt(parameters, key, whole.subarray(IV_BYTES)))
  } catch {
    throw unreadable('It was changed, or belongs to another place or key.')
  }
}

/**
 * Encrypts and decrypts secrets. Only resolved keys are kept, never promises: a promise that requests
 * of a Worker share hangs when the request that made it has ended.
 */
export class Secrets {
  readonly #ring: KeyRing | null
  readonly #masters = new Map<string, CryptoKey>()
  /** The data key this process made for a tenant, once something it sealed was stored. */
  readonly #minted = new BoundedMap<string, Minted>(KEPT)
  /** Those of writes that may yet be refused, so that strangers who are cannot push out the ones in use. */
  readonly #tentative = new BoundedMap<string, Minted>(KEPT)
  readonly #unwrapped = new BoundedMap<string, CryptoKey>(KEPT)

  /** @param ring null: every use throws MASTER_KEY_MISSING. */
  constructor(ring: KeyRing | null) {
    this.#ring = ring
  }

  /** Encrypt a value for one place, under this process's data key of the tenant. */
  async seal(place: SecretPlace, value: Json): Promise<SealedSecret> {
    const { stored, key } = await this.#dataKey(place.tenant_id)
    const ciphertext = await encrypt(key, secretContext(place, stored.id), encoder.encode(JSON.stringify(value)))
    return { ciphertext, data_key: { ...stored } }
  }

  /** What was sealed for this tenant has been stored: keep its data key for the next one. */
  confirm(tenant_id: string): void {
    const minted = this.#tentative.get(tenant_id)
    if (!minted) return
    this.#tentative.delete(tenant_id)
    this.#minted.set(tenant_id, minted)
  }

  /** @throws {SecretUnreadableError} when it was changed, lies in another place, or its master key is not in the ring. */
  async open(place: SecretPlace, sealed: SealedSecret): Promise<Json> {
    const key = await this.#unwrap(place.tenant_id, sealed.data_key)
    const plain = await decrypt(key, secretContext(place, sealed.data_key.id), sealed.ciphertext)
    try {
      return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(plain)) as Json
    } catch {
      // The parser's own message quotes what it read: the secret.
      throw unreadable('It does not hold JSON.')
    }
  }

  #newest(): RingKey {
    const newest = this.#ring?.[0]
    if (newest === undefined) throw stratumError('MASTER_KEY_MISSING')
    return newest
  }

  async #master({ id, bytes }: RingKey): Promise<CryptoKey> {
    const known = this.#masters.get(id)
    if (known) return known
    const key = await importKey(bytes)
    this.#masters.set(id, key)
    return key
  }

  async #wrap(tenant_id: string, id: string, bytes: Bytes): Promise<WrappedDataKey> {
    const newest = this.#newest()
    const wrapped = await encrypt(await this.#master(newest), wrapContext(tenant_id, id, newest.id), bytes)
    bytes.fill(0)
    return { id, master_key_id: newest.id, wrapped }
  }

  async #dataKey(tenant_id: string): Promise<Minted> {
    this.#newest()
    const known = this.#minted.get(tenant_id) ?? this.#tentative.get(tenant_id)
    if (known) return known
    const bytes = crypto.getRandomValues(new Uint8Array(32))
    const key = await importKey(bytes)
    const stored = await this.#wrap(tenant_id, crypto.randomUUID(), bytes)
    // Another request may have made one meanwhile. One for each tenant is enough.
    const first = this.#minted.get(tenant_id) ?? this.#tentative.get(tenant_id)
    if (first) return first
    const minted = { stored, key }
    this.#tentative.set(tenant_id, minted)
    return minted
  }

  async #unwrapBytes(tenant_id: string, { id, master_key_id, wrapped }: WrappedDataKey): Promise<Bytes> {
    this.#newest()
    const master = this.#ring?.find((key) => key.id === master_key_id)
    if (!master) throw unreadable('The ring does not hold the master key it names.')
    return decrypt(await this.#master(master), wrapContext(tenant_id, id, master_key_id), wrapped)
  }

  async #unwrap(tenant_id: string, data_key: WrappedDataKey): Promise<CryptoKey> {
    const { id, master_key_id, wrapped } = data_key
    // Everything the wrapping is bound to: a hit answers only what unwrapping would answer.
    const name = JSON.stringify([tenant_id, id, master_key_id, wrapped])
    const known = this.#unwrapped.get(name)
    if (known) return known
    const bytes = await this.#unwrapBytes(tenant_id, data_key)
    if (bytes.length !== 32) throw unreadable('Its data key has the wrong length.')
    const key = await importKey(bytes)
    bytes.fill(0)
    this.#unwrapped.set(name, key)
    return key
  }
}
