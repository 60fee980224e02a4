/**
 * Prisma writes every name with its schema, `"public"."orders"`. Sent as it is, that is the shared table even for a
 * tenant with a schema of its own, whose rows would then be at a place where nobody looks for them.
 */

// Whatever may hold those characters and means something else is matched first, and kept.
const TOKENS = [
  String.raw`(?<![\w$])[eE]'(?:[^'\\]|''|\\[^])*'`,
  `'(?:[^']|'')*'`,
  String.raw`(?<![\w$])\$([A-Za-z_]\w*)?\$[^]*?\$\1\$`,
  String.raw`--[^\n]*`,
  String.raw`/\*[^]*?\*/`,
  String.raw`(?<named>(?<!\.\s*)"public"\s*\.)`,
  `"(?:[^"]|"")*"`,
].join('|')

/** The text with `"public".` blanked out, so that the search path finds the name; as long as before, for error positions. */
export function findByPath(text: string): string {
  if (!text.includes('"public"')) return text
  return text.replace(new RegExp(TOKENS, 'g'), (token: string, ...rest: unknown[]) => {
    const { named } = rest.at(-1) as { named?: string }
    return named === undefined ? token : ' '.repeat(token.length)
  })
}
