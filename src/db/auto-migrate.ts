import { neon } from '@neondatabase/serverless'
import { migrate, overNeon, overPostgres, type PgConnection } from './migrate.ts'
import { useLocalEndpoint } from './neon.ts'

export interface AutoMigrateOptions {
  pool?: { connect(): Promise<PgConnection & { release(): void }> }
  databaseUrl?: string
  neonEndpoint?: string
}

/** Run the migrations over whatever the embedded class was given, as the role it connects with. */
export async function autoMigrate({ pool, databaseUrl, neonEndpoint }: AutoMigrateOptions): Promise<void> {
  if (pool) {
    const client = await pool.connect()
    try {
      await migrate(overPostgres(client))
    } finally {
      client.release()
    }
  } else if (databaseUrl) {
    if (neonEndpoint) useLocalEndpoint(databaseUrl, neonEndpoint)
    await migrate(overNeon(neon(databaseUrl)))
  }
}
