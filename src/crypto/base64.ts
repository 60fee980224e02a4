/** Bytes as base64 with padding. */
export function toBase64(bytes: Uint8Array): string {
  let binary = ''
  for (const byte of bytes) binary += String.fromCharCode(byte)
  return btoa(binary)
}

/** Bytes as base64url without padding. */
export const toBase64Url = (bytes: Uint8Array): string => toBase64(bytes).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '')

/** The bytes of base64 or base64url, padded or not; null for anything else, white space included. */
export function fromBase64(text: string): Uint8Array<ArrayBuffer> | null {
  const digits = /^([A-Za-z0-9+/_-]*)={0,2}$/.exec(text)?.[1]
  // One digit left over holds 6 bits: not a byte.
  if (digits === undefined || digits.length % 4 === 1) return null
  const binary = atob(digits.replaceAll('-', '+').replaceAll('_', '/'))
  const bytes = new Uint8Array(binary.length)
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i)
  return bytes
}
