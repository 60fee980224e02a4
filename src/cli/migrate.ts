/** `stratum migrate`: which tables hold rows of tenants. */

import { stratumError } from '../core/error-classes.ts'
import type { ManageOptions } from '../isolation/obstacles.ts'
import { migrateTables } from '../isolation/register.ts'
import { scan, type TableState } from '../isolation/scan.ts'
import { unmigrateTables } from '../isolation/unregister.ts'
import { withOwner } from './owner-database.ts'

export interface MigrateCommandOptions {
  databaseUrl?: string
  scan?: boolean
  backfill?: string
  rewriteKeys?: boolean
  remove?: boolean
  json?: boolean
}

const FLAGS = { rewriteKeys: '--rewrite-keys', backfill: '--backfill <tenant id>' } as const
const quoted = (name: string) => (/^\w+$/.test(name) ? name : `"${name}"`)

function advice(state: TableState): string[] {
  if (state.state === 'blocked') return state.reasons
  if (state.state === 'managed') return state.reasons
  const names = [state.table, ...state.together_with].map(quoted).join(' ')
  return [`stratum migrate ${[names, ...state.needs.map((need) => FLAGS[need])].join(' ')}`]
}

const STATES = { managed: 'managed', ready: 'ready', ready_with_options: 'ready', blocked: 'blocked' } as const

/** One line for each table, and what to do indented below it. */
export function describeScan(states: readonly TableState[]): string {
  if (states.length === 0) return 'There is no table in schema public.'
  const width = Math.max(...states.map(({ table }) => table.length))
  const lines = states.flatMap((state) => [
    `${state.table.padEnd(width)}  ${STATES[state.state]}`,
    ...advice(state).map((line) => `${' '.repeat(width)}  ${line}`),
  ])
  return lines.join('\n')
}

/** @throws what scan, migrateTables and unmigrateTables throw; INVALID_REQUEST for options that do not go together */
export async function migrateCommand(tables: readonly string[], options: MigrateCommandOptions): Promise<void> {
  const refuse = (reason: string) => stratumError('CONFIGURATION_INVALID', { reason })
  if (options.scan && (tables.length > 0 || options.remove)) throw refuse('--scan looks at every table and changes none: leave out the names and --remove.')
  if (!options.scan && tables.length === 0) throw refuse('Name the tables, as in stratum migrate orders, or see which there are with --scan.')
  if (options.remove && (options.backfill !== undefined || options.rewriteKeys)) throw refuse('--remove takes neither --backfill nor --rewrite-keys.')
  const print = (value: object, text: string) => console.log(options.json ? JSON.stringify(value, null, 2) : text)
  await withOwner(options.databaseUrl, async (client) => {
    if (options.scan) {
      const states = await scan(client)
      print({ tables: states }, describeScan(states))
      return
    }
    if (options.remove) {
      await unmigrateTables(client, tables)
      print({ removed: tables }, `${tables.join(', ')}: managed no more. Nobody but the owner reads ${tables.length === 1 ? 'it' : 'them'} now.`)
      return
    }
    const how: ManageOptions = { ...(options.backfill === undefined ? {} : { backfill: options.backfill }), rewriteKeys: options.rewriteKeys ?? false }
    await migrateTables(client, tables, how)
    print({ managed: tables }, `${tables.join(', ')}: managed. Read and write through a tenant handle, as role stratum_app.`)
  })
}
