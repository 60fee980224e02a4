/** Taking away copies of tables that are managed no more. Only empty ones: rows of tenants are never dropped with them. */
import type pg from 'pg'
import { identifier } from './identifiers.ts'
import { viewsReading } from './obstacles.ts'
import { pathTo, readTableFacts, underSearchPath } from './table-facts.ts'

/** Of the tables named, those in the schema that hold rows. They are locked until the transaction ends. The context is the tenant's. */
export async function filledCopies(client: pg.ClientBase, schema: string, names: readonly string[]): Promise<string[]> {
  const present = (await readTableFacts(client, schema, names)).filter(({ kind }) => kind === 'r')
  const filled: string[] = []
  for (const { name } of present) {
    const table = `${identifier(schema)}.${identifier(name)}`
    await client.query(`lock table ${table} in access exclusive mode`)
    // The owner reads all of it once nobody is forced; the lock is its alone until the end of the transaction.
    await client.query(`alter table ${table} no force row level security`)
    const { rows } = await client.query<{ filled: boolean }>(`select exists (select from ${table}) as filled`)
    if (rows[0]?.filled) filled.push(name)
    await client.query(`alter table ${table} force row level security`)
  }
  return filled
}

/** Drop these tables of a schema, those that reference together with those that are referenced, and the views over them. */
export async function dropCopies(client: pg.ClientBase, schema: string, names: readonly string[]): Promise<void> {
  const facts = await readTableFacts(client, schema)
  const doomed = new Set(facts.filter(({ kind, name }) => kind === 'r' && names.includes(name)).map(({ name }) => name))
  if (doomed.size === 0) return
  // what a view reads is told by its schema's name
  const views = facts
    .filter(({ kind }) => kind === 'v')
    .map((view) => ({ ...view, reads: view.reads.map(([from, name]): [string, string] => [from === schema ? 'public' : '', name]) }))
  const over = viewsReading(doomed, views).map(({ name }) => name)
  await underSearchPath(client, pathTo(schema), async () => {
    if (over.length > 0) await client.query(`drop view ${over.map(identifier).join(', ')}`)
    await client.query(`drop table ${[...doomed].map(identifier).join(', ')}`)
  })
}
