/** Names and texts as SQL writes them. */
import { createHash } from 'node:crypto'

export const identifier = (name: string): string => `"${name.replaceAll('"', '""')}"`
export const identifiers = (names: readonly string[]): string => names.map(identifier).join(', ')
/** With E where a backslash would depend on standard_conforming_strings. */
export const literal = (text: string): string => {
  const quoted = `'${text.replaceAll("'", "''")}'`
  return text.includes('\\') ? `E${quoted.replaceAll('\\', '\\\\')}` : quoted
}

const NAME_BYTES = 63
const bytes = (text: string) => Buffer.byteLength(text)

/** As much of a text as fits so many bytes of UTF-8, no character cut in two. */
function fitting(text: string, limit: number): string {
  let fits = ''
  for (const character of text) {
    if (bytes(fits + character) > limit) break
    fits += character
  }
  return fits
}

/**
 * A name for an index or a constraint made of parts, at most 63 bytes; one that would be longer ends in a hash of
 * the whole, so that two that begin alike stay apart.
 */
export function boundedName(parts: readonly string[], suffix: string): string {
  const plain = `${parts.join('_')}_${suffix}`
  if (bytes(plain) <= NAME_BYTES) return plain
  const end = `_${createHash('sha256').update(plain).digest('hex').slice(0, 8)}_${suffix}`
  return fitting(plain, NAME_BYTES - bytes(end)) + end
}
