/** A tenant's database follows the set of managed tables: copies of what became managed, none of what no longer is. */
import { COPIES_LOCK, readRegistered } from '../isolation/copies.ts'
import { dropCopies, filledCopies } from '../isolation/dropped-copies.ts'
import { DATABASES_IN_USE } from '../isolation/marked-places.ts'
import { withTenantLock } from './lock.ts'
import { addMissingCopies, type Server, withPlace } from './places.ts'
import type { Task, TaskContext } from './task.ts'

/** The database that the job was made for, if it is still this tenant's: finished, and not left or dropped meanwhile. */
async function isThere(server: Server, tenantId: string, name: string): Promise<boolean> {
  const { rows } = await server.pool.query(
    `select from (${DATABASES_IN_USE}) as l join pg_database d on d.datname = l.name where l.name = $1 and l.tenant_id = $2`,
    [name, tenantId],
  )
  return rows.length > 0
}

/** Rows that were written since the table was seen to be empty keep their copy: nobody reads it, and nothing is lost. */
async function dropEmpty({ server, log }: TaskContext, tenantId: string, name: string, tables: readonly string[]) {
  const lock = await server.pool.connect()
  try {
    await lock.query('begin')
    await lock.query(`select pg_advisory_xact_lock_shared(${COPIES_LOCK})`)
    const registered = await readRegistered(lock)
    const doomed = tables.filter((table) => !registered.has(table))
    await withPlace(server, tenantId, { strategy: 'DB_PER_TENANT', name }, async (client) => {
      await client.query('begin')
      const filled = await filledCopies(client, 'public', doomed)
      if (filled.length > 0) log({ kept: filled, reason: 'these tables are managed no more, and hold rows' })
      await dropCopies(
        client,
        'public',
        doomed.filter((table) => !filled.includes(table)),
      )
      await client.query('commit')
    })
  } finally {
    await lock.query('rollback').catch(() => {})
    lock.release()
  }
}

/** Task: the set of managed tables changed. A database that is being made gets its tables by that. */
export const createManagedCopies: Task = async (context) => {
  const { server, job } = context
  const tenantId = job.tenant_id
  const { database_name: name, dropped } = job.payload as { database_name?: string; dropped?: string[] }
  if (tenantId === null || name === undefined) return
  await withTenantLock(server.pool, tenantId, async () => {
    if (!(await isThere(server, tenantId, name))) return
    if (dropped !== undefined) await dropEmpty(context, tenantId, name, dropped)
    await addMissingCopies(server, tenantId, { strategy: 'DB_PER_TENANT', name })
    await server.step('create_managed_copies: made')
  })
}
