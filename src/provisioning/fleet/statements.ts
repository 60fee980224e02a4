/** Dividing SQL into its statements, as far as it takes to see what kind each is. */

/** One statement of a file. */
export interface Statement {
  /** As it is written. */
  text: string
  /** In small letters and single spaces, without comments; what stands in quotes is left empty. */
  bare: string
}

const IDENTIFIER = '[A-Za-z_\\u0080-\\uffff][\\w$\\u0080-\\uffff]*'
const TOKEN = new RegExp(
  [
    '(?<lineComment>--[^\\n]*)',
    '(?<blockComment>/\\*)',
    "(?<string>[eE]'(?:[^'\\\\]|\\\\[\\s\\S]|'')*'|'(?:[^']|'')*')",
    '(?<quoted>"(?:[^"]|"")*")',
    `(?<dollar>\\$(?:[A-Za-z_\\u0080-\\uffff][\\w\\u0080-\\uffff]*)?\\$)`,
    `(?<word>${IDENTIFIER})`,
    '(?<end>;)',
    '(?<other>[\\s\\S])',
  ].join('|'),
  'y',
)

/** Where a comment ends that begins at `start`; comments nest. */
function endOfComment(sql: string, start: number): number {
  let depth = 0
  for (const mark of sql.slice(start).matchAll(/\/\*|\*\//g)) {
    depth += mark[0] === '/*' ? 1 : -1
    if (depth === 0) return start + mark.index + 2
  }
  return sql.length
}

/** A body that begins with BEGIN ATOMIC holds semicolons of its own, to its END. */
class AtomicBody {
  #depth = 0
  #last = ''

  get open(): boolean {
    return this.#depth > 0
  }

  see(word: string) {
    if (word === 'atomic' && this.#last === 'begin') this.#depth = 1
    else if (this.open && word === 'case') this.#depth++
    else if (this.open && word === 'end') this.#depth--
    this.#last = word
  }
}

/** The statements of a text. What is unfinished is one statement to the end; Postgres says what is wrong with it. */
export function splitStatements(sql: string): Statement[] {
  const statements: Statement[] = []
  let body = new AtomicBody()
  let bare = ''
  let begin = 0
  const close = (end: number) => {
    const shown = bare.replace(/\s+/g, ' ').trim()
    if (shown !== '') statements.push({ text: sql.slice(begin, end).trim(), bare: shown })
    bare = ''
    begin = end + 1
    body = new AtomicBody()
  }
  for (let at = 0; at < sql.length; ) {
    TOKEN.lastIndex = at
    const found = TOKEN.exec(sql)
    const token = found?.[0] ?? sql[at] ?? ''
    const { lineComment, blockComment, string, quoted, dollar, word, end } = found?.groups ?? {}
    let next = at + token.length
    if (lineComment !== undefined) bare += ' '
    else if (blockComment !== undefined) {
      next = endOfComment(sql, at)
      bare += ' '
    } else if (string !== undefined) bare += "''"
    else if (quoted !== undefined) bare += '""'
    else if (dollar !== undefined) {
      const closing = sql.indexOf(dollar, next)
      next = closing < 0 ? sql.length : closing + dollar.length
      bare += "''"
    } else if (word !== undefined) {
      bare += word.toLowerCase()
      body.see(word.toLowerCase())
    } else if (end !== undefined && !body.open) close(at)
    else bare += token
    at = next
  }
  close(sql.length)
  return statements
}
