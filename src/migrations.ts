/** `stratum-edge/migrations`: bringing databases up to date, the control plane's and the application's own in every place. */
export { type MigrateOptions, type MigrationConnection, migrate, overNeon, overPostgres, type PgConnection } from './db/migrate.ts'
export { ensureRoles, ROLE_PARTS, type RolePart } from './db/roles.ts'
export { type FleetFailure, type FleetOptions, type FleetProgress, type FleetReport, migrateFleet } from './provisioning/fleet/migrate-fleet.ts'
export { type FleetStatus, fleetStatus, type PlaceState } from './provisioning/fleet/status.ts'
export { type OpenServerOptions, openServer } from './provisioning/server.ts'
