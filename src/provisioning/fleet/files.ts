/** The application's migrations: SQL files of one folder, in the order of their names. */
import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { stratumError } from '../../core/error-classes.ts'
import { type Statement, splitStatements } from './statements.ts'

/** One file. Its first lines may say how it is to be run, as `-- stratum: no transaction` or `-- stratum: shared only`. */
export interface FleetMigration {
  /** The file's name. Files are applied in the order of these, by code unit. */
  name: string
  /** SHA-256 of its text, in hexadecimal. */
  hash: string
  text: string
  /** False for one statement that Postgres does not run in a transaction. */
  transaction: boolean
  /** Runs in the shared tables alone; elsewhere it only counts as applied. */
  sharedOnly: boolean
  /** It does more than define: it reads or writes rows. */
  touchesRows: boolean
  /** It checks a constraint that was made earlier, perhaps with a table that the file does not name. */
  validates: boolean
}

export const migrationInvalid = (migration: string, reason: string) => stratumError('MIGRATION_INVALID', { migration, reason })

const DIRECTIVES = ['no transaction', 'shared only'] as const

function readDirectives(name: string, text: string): Set<string> {
  const found = new Set<string>()
  for (const line of text.split('\n')) {
    if (!/^\s*(--.*)?$/.test(line)) break
    const directive = /^\s*--\s*stratum:\s*(.*?)\s*$/.exec(line)?.[1]
    if (directive === undefined) continue
    if (!(DIRECTIVES as readonly string[]).includes(directive)) {
      throw migrationInvalid(name, `it says -- stratum: ${directive}, and known are: ${DIRECTIVES.join(', ')}`)
    }
    found.add(directive)
  }
  return found
}

const TRANSACTION_CONTROL = /^(begin|start transaction|commit|end|rollback|abort|savepoint|release|prepare transaction)\b/
const OUTSIDE =
  /^((create|drop) (unique )?index concurrently|create unique index concurrently|reindex\b|vacuum\b|alter table .* detach partition .* concurrently)/
const NEVER = /^((create|drop) (database|tablespace)|alter system|alter database .* set tablespace|cluster$)/
/** Those that can be repeated where they were cut short. */
const REPEATABLE = /^(create (unique )?index concurrently if not exists|drop index concurrently if exists|reindex\b|vacuum\b)/
const NEW_TABLE = /^create (unlogged )?table\b/
/** A foreign key that is made is checked by a query, under row security like all others. */
const ROWS = /^((insert|update|delete|merge|with|select|do|call|copy|truncate)\b|alter table\b.*\b(references|foreign key|validate constraint)\b)/
const VALIDATES = /^alter table\b.*\bvalidate constraint\b/

function check(name: string, statements: readonly Statement[], directives: ReadonlySet<string>) {
  const refuse = (reason: string) => migrationInvalid(name, reason)
  for (const { bare } of statements) {
    const begins = bare.split(' ').slice(0, 4).join(' ')
    if (TRANSACTION_CONTROL.test(bare)) throw refuse(`it holds "${begins}"; each file is one transaction already, so take that out`)
    if (NEVER.test(bare)) throw refuse(`"${begins}" is not of one place; run it by hand`)
    if (OUTSIDE.test(bare) && !directives.has('no transaction')) {
      throw refuse(`"${begins}" does not run in a transaction; put it alone into a file that begins with: -- stratum: no transaction`)
    }
    if (NEW_TABLE.test(bare) && !directives.has('shared only')) {
      throw refuse(
        'it makes a table, which each tenant would get without row security; put that into a file that begins with -- stratum: shared only, and then run: stratum migrate <table>',
      )
    }
  }
  if (!directives.has('no transaction')) return
  if (statements.length !== 1) throw refuse('a file without a transaction holds one statement, so that none is done without the others')
  if (!REPEATABLE.test(statements[0]?.bare ?? '')) {
    throw refuse('without a transaction only what can be repeated is run: create index concurrently if not exists, drop index concurrently if exists, vacuum')
  }
}

/** @throws MIGRATION_INVALID for what cannot be run over every place */
export function parseMigration(name: string, text: string): FleetMigration {
  const directives = readDirectives(name, text)
  const statements = splitStatements(text)
  check(name, statements, directives)
  return {
    name,
    hash: createHash('sha256').update(text).digest('hex'),
    text,
    transaction: !directives.has('no transaction'),
    sharedOnly: directives.has('shared only'),
    touchesRows: statements.some(({ bare }) => ROWS.test(bare)),
    validates: statements.some(({ bare }) => VALIDATES.test(bare)),
  }
}

const byName = (a: string, b: string) => (a < b ? -1 : 1)

/**
 * The `*.sql` files of a folder in their order.
 * @throws CONFIGURATION_INVALID where there is no such folder or no file in it; MIGRATION_INVALID
 */
export async function readMigrations(folder: string): Promise<FleetMigration[]> {
  const entries = await readdir(folder).catch((error: unknown) => {
    throw stratumError('CONFIGURATION_INVALID', { reason: `There is no folder ${folder} to read migrations from.` }, { cause: error })
  })
  const names = entries.filter((name) => name.endsWith('.sql')).sort(byName)
  const odd = names.find((name) => !/^[\w.-]+$/.test(name))
  if (odd !== undefined)
    throw migrationInvalid(odd, 'its name may hold letters, digits, dots, hyphens and underscores only, so that its place in the order is plain')
  if (names.length === 0) throw stratumError('CONFIGURATION_INVALID', { reason: `The folder ${folder} holds no .sql file.` })
  return Promise.all(names.map(async (name) => parseMigration(name, await readFile(join(folder, name), 'utf8'))))
}
