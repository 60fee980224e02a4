import { stratumError } from '../core/error-classes.ts'
import { fromBase64, toBase64Url } from './base64.ts'

/** A named secret of a ring; the first of a ring is the newest and the one used for new work. */
export interface RingKey {
  readonly id: string
  readonly bytes: Uint8Array<ArrayBuffer>
}

/** Keys, newest first. One that {@link parseKeyRing} answers is never empty. */
export type KeyRing = readonly RingKey[]

const ID = /^[A-Za-z0-9_.-]{1,64}$/
const DISTINCT_BYTES = 16

const isPrintable = (byte: number) => byte >= 0x20 && byte <= 0x7e

const isPeriodic = (bytes: Uint8Array) => {
  for (let period = 1; period <= bytes.length / 2; period++) {
    if (bytes.every((byte, i) => i < period || byte === bytes[i - period])) return true
  }
  return false
}

const isCount = (bytes: Uint8Array) => {
  const step = ((bytes[1] ?? 0) - (bytes[0] ?? 0)) & 0xff
  return bytes.every((byte, i) => i === 0 || ((byte - (bytes[i - 1] ?? 0)) & 0xff) === step)
}

/** Random bytes fail none of these once in a billion keys; what people type fails one of them. */
function weakness(bytes: Uint8Array): string | null {
  if (new Set(bytes).size < DISTINCT_BYTES) return 'repeats too few different bytes to be random'
  if (bytes.every(isPrintable)) return 'is text and not random bytes'
  if (isPeriodic(bytes)) return 'repeats itself and is not random'
  if (isCount(bytes)) return 'counts up or down and is not random'
  return null
}

/** What is wrong with an entry, or the key it holds. It says nothing of the entry itself: all of that may be secret. */
function parseEntry(entry: string, options: { bytes: number; exact: boolean }): RingKey | string {
  const colon = entry.indexOf(':')
  if (colon === -1) return 'has no colon between id and key'
  const id = entry.slice(0, colon)
  if (!ID.test(id)) return 'has an id that is not 1 to 64 letters, digits or _ . -'
  const bytes = fromBase64(entry.slice(colon + 1))
  if (bytes === null) return 'is not base64 after its id'
  if (bytes.length < options.bytes || (options.exact && bytes.length > options.bytes)) {
    return `holds ${bytes.length} bytes and needs ${options.exact ? 'exactly' : 'at least'} ${options.bytes}`
  }
  return weakness(bytes) ?? { id, bytes }
}

/**
 * Parse `id:base64,id:base64` (base64 or base64url, newest first).
 * @throws {ConfigurationInvalidError} in one sentence that names `variable` and never the secret.
 */
export function parseKeyRing(text: string, options: { variable: string; bytes: 32; exact: boolean }): KeyRing {
  const refuse = (wrong: string) =>
    stratumError('CONFIGURATION_INVALID', {
      reason:
        `${options.variable} ${wrong}; write id:base64 entries with commas between them, newest first, ` +
        `each key made with "npx stratum keys" or "openssl rand -base64 ${options.bytes}".`,
    })
  if (text.trim() === '') throw refuse('is empty')
  const ring: RingKey[] = []
  const ids = new Map<string, number>()
  for (const [index, entry] of text.split(',').entries()) {
    const key = parseEntry(entry.trim(), options)
    if (typeof key === 'string') throw refuse(`entry ${index + 1} ${key}`)
    const twin = ids.get(key.id)
    if (twin !== undefined) throw refuse(`entry ${index + 1} has the same id as entry ${twin}`)
    ids.set(key.id, index + 1)
    ring.push(key)
  }
  return ring
}

/** A new random key in the form a ring is written in. */
export function generateRingKey(id: string): string {
  if (!ID.test(id)) throw stratumError('CONFIGURATION_INVALID', { reason: 'The id of a key is 1 to 64 letters, digits or _ . -' })
  return `${id}:${toBase64Url(crypto.getRandomValues(new Uint8Array(32)))}`
}
