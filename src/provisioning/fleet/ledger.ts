/** Which files are known, and that they are still what they were. */
import type pg from 'pg'
import { type FleetMigration, migrationInvalid } from './files.ts'

interface Known {
  name: string
  hash: string
}

/** Say that what was applied under these names counts as what their files hold now. */
async function acceptChanges(client: pg.ClientBase, files: readonly FleetMigration[], accepted: ReadonlySet<string>) {
  for (const { name, hash } of files.filter((file) => accepted.has(file.name))) {
    await client.query('update stratum.fleet_migrations set hash = $2 where name = $1', [name, hash])
    await client.query('update stratum_guard.applied_migrations set hash = $2 where name = $1', [name, hash])
  }
}

/**
 * See that the files go on from what was applied: none gone, none changed, none new that comes before.
 * @throws MIGRATION_INVALID
 */
export async function checkFiles(client: pg.ClientBase, files: readonly FleetMigration[], accepted: ReadonlySet<string>): Promise<void> {
  await acceptChanges(client, files, accepted)
  const { rows: known } = await client.query<Known>('select name, hash from stratum.fleet_migrations order by position')
  const byName = new Map(files.map((file) => [file.name, file]))
  for (const { name, hash } of known) {
    const file = byName.get(name)
    if (!file) throw migrationInvalid(name, 'it was applied and its file is gone; put it back')
    if (file.hash !== hash) {
      throw migrationInvalid(name, 'it was changed after it was applied; put its text back and add a new file, or accept the change with --accept-changed')
    }
  }
  const last = known.at(-1)?.name ?? ''
  const applied = new Set(known.map(({ name }) => name))
  const late = files.find(({ name }) => !applied.has(name) && name < last)
  if (late) throw migrationInvalid(late.name, `it comes before ${last}, which was applied; give it a later name`)
}
