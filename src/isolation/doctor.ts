/** Looks whether isolation holds as it should: policies, roles, managed tables, tenants' places and their copies. */
import type pg from 'pg'
import { atomically, ownerOf } from './authority.ts'
import { readManagedFacts, readRegistered } from './copies.ts'
import type { Finding } from './doctor/finding.ts'
import { type Connect, checkPlaces } from './doctor/places.ts'
import { checkPolicies } from './doctor/policies.ts'
import { checkRoles } from './doctor/roles.ts'
import { checkTables } from './doctor/tables.ts'
import { checkTenantRoles } from './doctor/tenant-roles.ts'
import { connectAs } from './siblings.ts'
import { readTableFacts } from './table-facts.ts'

export type { Finding } from './doctor/finding.ts'

/**
 * Look for what is not as it should be. Nothing is changed.
 *
 * @param client of stratum_owner or a member of that role, in the control database
 * @param connect a client in another database of the same server; default: as the given client is connected
 * @returns errors first; empty where all is well
 */
export function doctor(client: pg.ClientBase, connect: Connect = (database) => connectAs(client, database)): Promise<Finding[]> {
  return atomically(client, '', async () => {
    const owner = await ownerOf(client)
    const registered = await readRegistered(client)
    const all = await readTableFacts(client)
    const { tables, views } = await readManagedFacts(client)
    const found = [
      ...checkTables({ all, registered, owner }),
      ...(await checkPolicies(client, all, registered)),
      ...(await checkRoles(client)),
      ...(await checkTenantRoles(
        client,
        [...tables, ...views].map(({ name }) => name),
      )),
      ...(await checkPlaces(client, [...tables, ...views], connect)),
    ]
    return found.sort((a, b) => a.level.localeCompare(b.level) || a.subject.localeCompare(b.subject) || a.check.localeCompare(b.check))
  })
}
