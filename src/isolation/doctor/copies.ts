/** How a tenant's copies differ from the shared tables. */
import { columnDefinition, POLICY } from '../definitions.ts'
import type { TableFacts } from '../table-facts.ts'

/** Everything of a table that its copies have too, by what it is. */
function parts(table: TableFacts): Map<string, string> {
  const found = new Map<string, string>()
  for (const column of table.columns) found.set(`column ${column.name}`, columnDefinition(column))
  for (const constraint of table.constraints) found.set(`constraint ${constraint.name}`, constraint.definition)
  for (const key of table.foreign_keys) found.set(`foreign key ${key.name}`, key.definition)
  for (const index of table.indexes.filter(({ constraint, valid }) => !constraint && valid)) found.set(`index ${index.name}`, index.definition)
  for (const trigger of table.triggers) found.set(`trigger ${trigger.name}`, trigger.definition)
  if (table.query !== null) found.set('query', table.query)
  const policy = table.policies.find(({ name }) => name === POLICY)
  found.set('row security', JSON.stringify([table.row_security, table.forced, table.policies.length, policy?.using, policy?.check]))
  return found
}

/** What a copy lacks, has besides, or has otherwise, such as `column total differs`. */
export function differences(shared: TableFacts, copy: TableFacts): string[] {
  const due = parts(shared)
  const present = parts(copy)
  return [
    ...[...due].filter(([what, how]) => present.get(what) !== how).map(([what]) => (present.has(what) ? `${what} differs` : `${what} is missing`)),
    ...[...present.keys()].filter((what) => !due.has(what)).map((what) => `${what} is not in the shared table`),
  ]
}
