/** How Neon writes PostgreSQL's text values as JSON. */
import type { FieldDef } from 'pg'

// Types by OID, as in pg_type: these few are not JSON strings unless raw text is asked for.
const BOOLEAN = 16
const INTEGERS: ReadonlySet<number> = new Set([21, 23])
const FLOATS: ReadonlySet<number> = new Set([700, 701])
const JSONS: ReadonlySet<number> = new Set([114, 3802])
// The first OID of types that are not PostgreSQL's own. Neon reports those as `unknown`.
const FIRST_USER_TYPE = 16384
const UNKNOWN = 705

// Array types whose elements are not strings in JSON, by their element's type.
const ELEMENT_TYPES: ReadonlyMap<number, number> = new Map([
  [1000, BOOLEAN],
  [1005, 21],
  [1007, 23],
  [1021, 700],
  [1022, 701],
  [199, 114],
  [3807, 3802],
])
// All other array types of PostgreSQL 18's own: their elements are strings.
const STRING_ARRAYS: ReadonlySet<number> = new Set([
  143, 271, 629, 651, 719, 775, 791, 1001, 1002, 1003, 1006, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 1015, 1016, 1017, 1018, 1019, 1020, 1027, 1028, 1034,
  1040, 1041, 1115, 1182, 1183, 1185, 1187, 1231, 1263, 1270, 1561, 1563, 2201, 2207, 2208, 2209, 2210, 2211, 2287, 2949, 2951, 3221, 3643, 3644, 3645, 3735,
  3770, 3905, 3907, 3909, 3911, 3913, 3927, 4073, 4090, 4097, 4192, 5039, 6150, 6151, 6152, 6153, 6155, 6157,
])
const TEXT = 25

/** The type a column is reported to have. */
export function reportedType(oid: number): number {
  return oid >= FIRST_USER_TYPE ? UNKNOWN : oid
}

/** The `fields` of a result as JSON text. */
export function fieldsJson(fields: readonly FieldDef[]): string {
  return JSON.stringify(
    fields.map((field) => ({
      name: field.name,
      dataTypeID: reportedType(field.dataTypeID),
      tableID: field.tableID,
      columnID: field.columnID,
      dataTypeSize: field.dataTypeSize,
      dataTypeModifier: field.dataTypeModifier,
      format: 'text',
    })),
  )
}

/** A row as JSON text: an array of values, or an object by column name. */
export function rowJson(fields: readonly FieldDef[], row: readonly (string | null)[], mode: { rawText: boolean; arrayMode: boolean }): string {
  const values = row.map((text, index) => {
    if (text === null) return 'null'
    return mode.rawText ? JSON.stringify(text) : valueJson(text, fields[index]?.dataTypeID ?? TEXT)
  })
  if (mode.arrayMode) return `[${values.join(',')}]`
  return `{${values.map((value, index) => `${JSON.stringify(fields[index]?.name ?? '')}:${value}`).join(',')}}`
}

function valueJson(text: string, type: number): string {
  if (ELEMENT_TYPES.has(type) || STRING_ARRAYS.has(type)) return arrayJson(text, ELEMENT_TYPES.get(type) ?? TEXT)
  if (type === BOOLEAN) return text === 't' ? 'true' : 'false'
  if (INTEGERS.has(type)) return text
  if (FLOATS.has(type)) return floatJson(text)
  // Already JSON, and written through so that no digit of its numbers is lost.
  if (JSONS.has(type)) return text
  return JSON.stringify(text)
}

function floatJson(text: string): string {
  const value = Number(text)
  // JSON has no NaN or infinity: those stay strings.
  if (!Number.isFinite(value)) return JSON.stringify(text)
  return Object.is(value, -0) ? '-0' : String(value)
}

/** Turns PostgreSQL's array text, for example `{1,"a b",NULL,{2}}`, into a JSON array of `element`s. */
function arrayJson(text: string, element: number): string {
  // A token is a brace, a comma, a quoted item with its escapes, or a bare item. Bounds before the
  // first brace ("[0:1]={…}") have no form in JSON and are dropped.
  const tokens = text.slice(text.indexOf('{')).match(/[{},]|"(?:[^"\\]|\\.)*"|[^{},"]+/gs) ?? []
  return tokens
    .map((token) => {
      if (token === '{') return '['
      if (token === '}') return ']'
      if (token === ',') return ','
      if (token.startsWith('"')) return valueJson(token.slice(1, -1).replace(/\\(.)/gs, '$1'), element)
      return token === 'NULL' ? 'null' : valueJson(token, element)
    })
    .join('')
}
