/** Other databases of the same server. */
import pg from 'pg'

/** Connect as a client is connected, to another database. The caller ends it. */
export async function connectAs(client: pg.ClientBase, database: string): Promise<pg.Client> {
  const { host, port, user, password, ssl } = client as unknown as pg.ClientConfig
  const given = Object.fromEntries(Object.entries({ host, port, user, password, ssl }).filter(([, value]) => value !== undefined && value !== null))
  const other = new pg.Client({ ...given, database })
  // One that breaks while it is idle fails at its next query.
  other.on('error', () => {})
  await other.connect()
  return other
}
