/** The state of provisioning and of the data plane, as far as the control database keeps it. See tables.ts. */
import { sql } from 'drizzle-orm'
import { bigint, boolean, check, foreignKey, index, integer, jsonb, primaryKey, text, timestamp, uniqueIndex, uuid } from 'drizzle-orm/pg-core'
import { stratum, tenants } from './tables.ts'

const createdAt = () => timestamp('created_at', { withTimezone: true }).notNull().defaultNow()

/** What the provisioner has to do and has done. The queue itself is graphile-worker's; its payload is this row's id. */
export const jobs = stratum.table(
  'jobs',
  {
    id: uuid('id').primaryKey(),
    task: text('task').notNull(),
    /** The tenant it is about; kept after that is purged. */
    tenantId: uuid('tenant_id'),
    payload: jsonb('payload').notNull().default(sql`'{}'`),
    status: text('status').notNull().default('queued'),
    attempts: integer('attempts').notNull().default(0),
    /** `{ code, message }` of the last failure: a code of the catalogue and its sentence. */
    error: jsonb('error'),
    /** What the task says of how far it is. */
    progress: jsonb('progress'),
    createdAt: createdAt(),
    startedAt: timestamp('started_at', { withTimezone: true }),
    finishedAt: timestamp('finished_at', { withTimezone: true }),
  },
  (t) => [
    index('jobs_tenant_id_idx').on(t.tenantId, t.id),
    index('jobs_unsettled_idx').on(t.status, t.id).where(sql`${t.status} in ('queued', 'running', 'failed')`),
    check('jobs_status_check', sql`${t.status} in ('queued', 'running', 'succeeded', 'failed', 'cancelled')`),
  ],
)

/** The application's tables, in schema public, that hold rows of tenants; each schema and database tenant has a copy. */
export const managedTables = stratum.table('managed_tables', {
  tableName: text('table_name').primaryKey(),
  createdAt: createdAt(),
})

/** Databases made for tenants. Each is made under its working name, which nobody else can know, marked, and then renamed. */
export const tenantDatabases = stratum.table(
  'tenant_databases',
  {
    databaseName: text('database_name').primaryKey(),
    tenantId: uuid('tenant_id').notNull(),
    workingName: text('working_name').notNull(),
    createdAt: createdAt(),
  },
  (t) => [index('tenant_databases_tenant_id_idx').on(t.tenantId)],
)

/** Moves of a tenant's rows from one place to another. */
export const isolationChanges = stratum.table(
  'isolation_changes',
  {
    id: uuid('id').primaryKey(),
    tenantId: uuid('tenant_id').notNull(),
    jobId: uuid('job_id').notNull(),
    fromStrategy: text('from_strategy').notNull(),
    fromName: text('from_name'),
    toStrategy: text('to_strategy').notNull(),
    toName: text('to_name'),
    phase: text('phase').notNull().default('preparing'),
    /** `{ tables: { <name>: { copied, total, last_key } } }` */
    progress: jsonb('progress').notNull().default(sql`'{}'`),
    cancelRequested: boolean('cancel_requested').notNull().default(false),
    /** Milliseconds in which no batch of the tenant could begin. */
    fencedMs: integer('fenced_ms'),
    error: jsonb('error'),
    createdAt: createdAt(),
    finishedAt: timestamp('finished_at', { withTimezone: true }),
    /** Until when the rows stay at their old place, which nobody is sent to any more. */
    sourceKeptUntil: timestamp('source_kept_until', { withTimezone: true }),
    sourceDroppedAt: timestamp('source_dropped_at', { withTimezone: true }),
  },
  (t) => [
    foreignKey({ name: 'isolation_changes_tenant_id_fkey', columns: [t.tenantId], foreignColumns: [tenants.id] }),
    uniqueIndex('isolation_changes_unfinished_key').on(t.tenantId).where(sql`${t.finishedAt} is null`),
    index('isolation_changes_tenant_id_idx').on(t.tenantId, t.id),
    check('isolation_changes_phase_check', sql`${t.phase} in ('preparing', 'copying', 'catching_up', 'verifying', 'fenced', 'done', 'failed', 'cancelled')`),
  ],
)

/** The application's migrations over every place where tenants' rows are, in the order in which they are applied. */
export const fleetMigrations = stratum.table('fleet_migrations', {
  position: bigint('position', { mode: 'number' }).primaryKey().generatedAlwaysAsIdentity({ name: 'fleet_migrations_position_seq' }),
  name: text('name').notNull().unique('fleet_migrations_name_key'),
  hash: text('hash').notNull(),
  createdAt: createdAt(),
})

/** How far each place is: the shared tables (the nil UUID), and each schema and database tenant. */
export const fleetPlaces = stratum.table(
  'fleet_places',
  {
    tenantId: uuid('tenant_id').notNull(),
    /** Name of the last migration applied there; empty before the first. */
    migration: text('migration').notNull().default(''),
    status: text('status').notNull().default('current'),
    error: jsonb('error'),
    updatedAt: timestamp('updated_at', { withTimezone: true }).notNull().defaultNow(),
  },
  (t) => [
    primaryKey({ name: 'fleet_places_pkey', columns: [t.tenantId] }),
    check('fleet_places_status_check', sql`${t.status} in ('current', 'migrating', 'failed')`),
  ],
)
