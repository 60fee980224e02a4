import { neon } from '@neondatabase/serverless'
import { stratumError } from '../core/error-classes.ts'
import type { StratumError } from '../core/errors.ts'
import { fromDriver } from './errors.ts'
import { migrate, overNeon, overPostgres, type PgConnection } from './migrate.ts'
import { sendToEndpoint } from './neon.ts'

export interface AutoMigrateOptions {
  pool?: { connect(): Promise<PgConnection & { release(): void }> }
  databaseUrl?: string
  neonEndpoint?: string
}

/** What stopped a migration. The process is the caller's own, so the server's words may be told. */
function asMigrationError(error: unknown): StratumError {
  const mapped = fromDriver(error)
  if (mapped.code !== 'INTERNAL_ERROR' && mapped.code !== 'DATABASE_OUTDATED') return mapped
  const { message } = error as { message?: string }
  return stratumError('CONFIGURATION_INVALID', { reason: `The database refused the migration: ${message}.` }, { cause: error })
}

async function overPool(pool: NonNullable<AutoMigrateOptions['pool']>) {
  const client = await pool.connect()
  try {
    await migrate(overPostgres(client))
  } finally {
    client.release()
  }
}

/**
 * Run the migrations over whatever the embedded class was given, as the role it connects with.
 * @throws CONFIGURATION_INVALID in one sentence, DATABASE_UNAVAILABLE, DATABASE_BUSY
 */
export async function autoMigrate({ pool, databaseUrl, neonEndpoint }: AutoMigrateOptions): Promise<void> {
  try {
    if (pool) await overPool(pool)
    if (databaseUrl && neonEndpoint) sendToEndpoint(databaseUrl, neonEndpoint)
    if (databaseUrl) await migrate(overNeon(neon(databaseUrl)))
  } catch (error) {
    throw asMigrationError(error)
  }
}
