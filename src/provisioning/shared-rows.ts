/** Deleting a tenant's rows from the shared tables. */
import type pg from 'pg'
import { type ManagedTable, readManagedTables } from '../isolation/catalog.ts'
import { identifier } from '../isolation/identifiers.ts'

const CHUNK = 5_000

/** Delete a tenant's rows of one table, so many at once that no transaction is long. */
async function deleteInChunks(client: pg.ClientBase, table: string) {
  const name = `public.${identifier(table)}`
  // The policy leaves only the tenant's own rows.
  const chunk = `delete from ${name} where ctid = any (array(select ctid from ${name} limit ${CHUNK}))`
  for (;;) {
    const { rowCount } = await client.query(chunk)
    if (!rowCount) return
  }
}

/** Tables that reference each other in a circle lose their rows together, checked at the end. */
async function deleteTogether(client: pg.ClientBase, tables: readonly string[]) {
  await client.query('begin')
  try {
    await client.query('set constraints all deferred')
    for (const table of tables) await client.query(`delete from public.${identifier(table)}`)
    await client.query('commit')
  } catch (error) {
    await client.query('rollback')
    throw error
  }
}

/** Neighbours in the order that are cyclic belong together; more of them at once does no harm. */
function inGroups(tables: readonly ManagedTable[]): ManagedTable[][] {
  const groups: ManagedTable[][] = []
  for (const table of tables) {
    const last = groups.at(-1)
    if (table.cyclic && last?.[0]?.cyclic) last.push(table)
    else groups.push([table])
  }
  return groups
}

/** Delete a tenant's rows, those that reference before those that are referenced. The session's context is the tenant's. */
export async function dropRows(client: pg.ClientBase, tenantId: string): Promise<void> {
  const { rows } = await client.query<{ tenant: string }>(`select current_setting('app.current_tenant_id') as tenant`)
  if (rows[0]?.tenant !== tenantId) throw new Error('dropRows needs a session of its tenant')
  for (const group of inGroups((await readManagedTables(client)).reverse())) {
    const [first] = group
    if (first?.cyclic) {
      await deleteTogether(
        client,
        group.map((table) => table.name),
      )
    } else if (first) await deleteInChunks(client, first.name)
  }
}
