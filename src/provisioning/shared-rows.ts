/** Deleting a tenant's rows from the shared tables. */
import type pg from 'pg'
import { type ManagedTable, readManagedTables } from '../isolation/catalog.ts'
import { identifier } from '../isolation/identifiers.ts'

const CHUNK = 5_000

/**
 * Delete a tenant's rows of one table, so many at once that no transaction is long. Chunk by chunk along the key: one that
 * looked from the start each time would read past all that was deleted before.
 */
async function deleteInChunks(client: pg.ClientBase, { name: table, primaryKey, columns }: ManagedTable) {
  const name = `public.${identifier(table)}`
  const key = `row(${primaryKey.map(identifier).join(', ')})`
  const typeOf = (column: string) => columns.find((each) => each.name === column)?.type ?? 'text'
  const given = (from: number) => `row(${primaryKey.map((column, index) => `$${from + index}::text::${typeOf(column)}`).join(', ')})`
  const order = primaryKey.map(identifier).join(', ')
  const backwards = primaryKey.map((column) => `${identifier(column)} desc`).join(', ')
  const asText = primaryKey.map((column) => `${identifier(column)}::text`).join(', ')
  let after: unknown[] = []
  for (;;) {
    // The policy leaves only the tenant's own rows.
    const beyond = after.length === 0 ? '' : `where ${key} > ${given(1)}`
    const { rows } = await client.query({
      text: `select ${asText} from (select ${order} from ${name} ${beyond} order by ${order} limit ${CHUNK}) as chunk order by ${backwards} limit 1`,
      values: after,
      rowMode: 'array',
    })
    const [last] = rows as unknown[][]
    if (last === undefined) {
      if (after.length === 0) return
      // Once more from the start: what was written behind us meanwhile.
      after = []
      continue
    }
    const bounds = after.length === 0 ? `${key} <= ${given(1)}` : `${key} > ${given(1)} and ${key} <= ${given(1 + primaryKey.length)}`
    await client.query(`delete from ${name} where ${bounds}`, [...after, ...last])
    after = last
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
    } else if (first) await deleteInChunks(client, first)
  }
}
