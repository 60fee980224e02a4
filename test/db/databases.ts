/** Empty databases, and the ways to reach them. */
import { randomBytes } from 'node:crypto'
import { neon } from '@neondatabase/serverless'
import pg from 'pg'
import { inject } from 'vitest'
import { type MigrationConnection, overNeon, overPostgres } from '../../src/db/migrate.ts'
import { sendToEndpoint } from '../../src/db/neon.ts'
import { generatePassword } from '../../src/db/roles.ts'
import { createEmptyDatabase } from '../support/installation.ts'

export const passwords = { owner: generatePassword(), control: generatePassword(), app: generatePassword() }

/** Roles belong to the whole server: what makes its own takes a prefix of its own. */
export const uniquePrefix = () => `t${randomBytes(5).toString('hex')}_`

export interface EmptyDatabase {
  name: string
  adminUrl: string
  /** The connection string of another role, or of none. */
  urlOf(user: string, password: string): string
  /** A client that is closed with the database. */
  client(url?: string): Promise<pg.Client>
  tcp(url?: string): Promise<MigrationConnection>
  http(url?: string): MigrationConnection
  drop(): Promise<void>
}

export async function emptyDatabase(): Promise<EmptyDatabase> {
  const database = await createEmptyDatabase()
  const clients: pg.Client[] = []
  const client = async (url = database.adminUrl) => {
    const opened = new pg.Client(url)
    await opened.connect()
    clients.push(opened)
    return opened
  }
  return {
    ...database,
    urlOf(user, password) {
      const url = new URL(database.adminUrl)
      url.username = user
      url.password = password
      return url.href
    },
    client,
    tcp: async (url) => overPostgres(await client(url)),
    http(url = database.adminUrl) {
      sendToEndpoint(url, inject('server').neonEndpoint)
      return overNeon(neon(url))
    },
    async drop() {
      await Promise.all(clients.map((each) => each.end()))
      await database.drop()
    },
  }
}

/** As Neon's default role: it may make roles and databases and owns this one, and is no superuser. Answers its connection string. */
export async function giveToNeonLikeOwner(database: EmptyDatabase): Promise<string> {
  const name = `${uniquePrefix()}neondb_owner`
  const admin = await database.client()
  await admin.query(`create role ${name} login createrole createdb nosuperuser password 'neon'`)
  await admin.query(`alter database ${database.name} owner to ${name}`)
  return database.urlOf(name, 'neon')
}
