/** Rows from one connection to another, as text: what a type writes it reads, whatever the version of the server. */
import { pipeline } from 'node:stream/promises'
import type pg from 'pg'
import { from, to } from 'pg-copy-streams'

/** @returns how many rows came */
export async function stream(sender: pg.ClientBase, query: string, receiver: pg.ClientBase, table: string): Promise<number> {
  const incoming = receiver.query(from(`copy ${table} from stdin`))
  await pipeline(sender.query(to(`copy (${query}) to stdout`)), incoming)
  return incoming.rowCount
}
