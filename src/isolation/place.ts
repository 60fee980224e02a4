/** Where a tenant's rows are. */

export type IsolationStrategy = 'SHARED_RLS' | 'SCHEMA_PER_TENANT' | 'DB_PER_TENANT'

/** A strategy, and the schema or database of the tenant's own; `name` is null for the shared tables. */
export interface Place {
  strategy: IsolationStrategy
  name: string | null
}

/** The schema, in the place's database, that holds the tenant's tables. */
export const schemaOf = (place: Place): string => (place.strategy === 'SCHEMA_PER_TENANT' && place.name !== null ? place.name : 'public')

/** The comment that a tenant's schema or database carries. What does not carry it is neither used nor dropped. */
export const markOf = (tenantId: string): string => `stratum tenant ${tenantId}`
