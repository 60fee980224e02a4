/** The only SQL a handle reads: whether a text begins a transaction, and whether it may only stand right behind that. */

const SPACE = String.raw`(?:\s|--[^\n]*(?:\n|$)|/\*(?:[^*]|\*(?!/))*\*/)`
const MODE = `(?:isolation${SPACE}+level${SPACE}+(?:serializable|repeatable${SPACE}+read|read${SPACE}+(?:un)?committed)|read${SPACE}+(?:only|write)|(?:not${SPACE}+)?deferrable)`
const MODES = `${MODE}(?:${SPACE}*,?${SPACE}*${MODE})*`
const BEGIN = new RegExp(`^${SPACE}*(?:begin(?:${SPACE}+(?:work|transaction))?|start${SPACE}+transaction)(?:${SPACE}+${MODES})?${SPACE}*(?:;|$)`, 'i')
const SET_TRANSACTION = new RegExp(`^${SPACE}*set${SPACE}+transaction${SPACE}+(?:${MODES}|snapshot${SPACE}+'[^']*')${SPACE}*;?${SPACE}*$`, 'i')

/** A text that begins a transaction, divided behind that; undefined for any other. */
export function divideBegin(text: string): { begin: string; rest: string } | undefined {
  const found = BEGIN.exec(text)?.[0]
  if (found === undefined) return undefined
  // On a line of its own, as it may end in a comment.
  return { begin: found.replace(/;$/, ''), rest: text.slice(found.length) }
}

/** `set transaction isolation level …`, which must come before any query of its transaction, `enter` included. */
export const isSetTransaction = (text: string): boolean => SET_TRANSACTION.test(text)
