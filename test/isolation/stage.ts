/** An installation with the server behind it, tenants of every strategy, and the application's tables. */
import { randomBytes } from 'node:crypto'
import type pg from 'pg'
import { tenantSchemas } from '../../src/isolation/marked-places.ts'
import type { ManageOptions } from '../../src/isolation/obstacles.ts'
import type { IsolationStrategy, Place } from '../../src/isolation/place.ts'
import { migrateTables } from '../../src/isolation/register.ts'
import { dropPlace, makePlace, type Server } from '../../src/provisioning/places.ts'
import { openServer } from '../../src/provisioning/server.ts'
import { createInstallation, type Installation } from '../support/installation.ts'

export const uniqueSlug = (what: string) => `${what}_${randomBytes(5).toString('hex')}`

export interface Made {
  id: string
  place: Place
}

export interface Stage extends Installation {
  server: Server
  /** A tenant of this strategy; its place is not made yet. */
  tenant(strategy?: IsolationStrategy): Promise<Made>
  /** A tenant whose place is made and open. */
  placed(strategy: IsolationStrategy): Promise<Made>
  /** In one transaction of the owner. */
  asOwner<T>(work: (client: pg.PoolClient) => Promise<T>): Promise<T>
  manage(names: string | string[], options?: ManageOptions): Promise<void>
  /** A batch of a tenant, as the data plane's role, in the database where its rows are. */
  batch(tenant: Made, ...statements: string[]): Promise<Array<Record<string, unknown>>>
}

export async function createStage(): Promise<Stage> {
  const installation = await createInstallation()
  const { owner, urls, stratum } = installation
  const opened = openServer(urls.owner, { databaseLimit: 1_000, connections: 4 })
  const app = openServer(urls.app, { databaseLimit: 0, connections: 1 })
  const made: Made[] = []
  const tenant = async (strategy: IsolationStrategy = 'SHARED_RLS') => {
    const slug = uniqueSlug('t')
    const { id, isolation_name } = await stratum.createTenant({ name: slug, slug, isolation_strategy: strategy })
    const it = { id, place: { strategy, name: isolation_name } }
    made.push(it)
    return it
  }
  const asOwner = async <T>(work: (client: pg.PoolClient) => Promise<T>) => {
    const client = await owner.connect()
    try {
      await client.query('begin')
      const result = await work(client)
      await client.query('commit')
      return result
    } catch (error) {
      await client.query('rollback')
      throw error
    } finally {
      client.release()
    }
  }
  return {
    ...installation,
    server: opened,
    tenant,
    async placed(strategy) {
      const it = await tenant(strategy)
      await makePlace(opened, it.id, it.place, { routingVersion: 1, open: true })
      await owner.query(`update stratum.tenants set provisioning_status = 'ready' where id = $1`, [it.id])
      return it
    },
    asOwner,
    manage: (names, options) => asOwner((client) => migrateTables(client, [names].flat(), options)),
    async batch(of, ...statements) {
      const elsewhere = of.place.strategy === 'DB_PER_TENANT'
      const { rows } = await owner.query<{ name: string }>('select current_database() as name')
      const client = await app.connect(elsewhere && of.place.name !== null ? of.place.name : (rows[0]?.name ?? ''))
      try {
        await client.query('begin')
        await client.query('select stratum_guard.enter($1, $2)', [of.id, elsewhere ? 1 : null])
        let last: Array<Record<string, unknown>> = []
        for (const statement of statements) last = (await client.query(statement)).rows
        await client.query('commit')
        return last
      } finally {
        await client.end()
      }
    },
    async close() {
      for (const { id, place } of made.filter((each) => each.place.strategy === 'DB_PER_TENANT')) await dropPlace(opened, id, place)
      // Roles belong to the server, as databases do.
      const schemas = opened.tenantRoles ? await asOwner((client) => tenantSchemas(client, { kept: true })) : []
      for (const { name, tenantId } of schemas) await dropPlace(opened, tenantId, { strategy: 'SCHEMA_PER_TENANT', name })
      await opened.close()
      await app.close()
      await installation.close()
    },
  }
}
