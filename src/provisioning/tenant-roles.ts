/** Where tenants with a schema get a role of their own: that it can be done, and that those who had a schema before get theirs. */
import { setTimeout as delay } from 'node:timers/promises'
import type pg from 'pg'
import { stratumError } from '../core/error-classes.ts'
import { describeError } from './job-error.ts'
import { addTenantRole, type Server } from './places.ts'
import type { Log } from './run-job.ts'

const LOOK_EVERY_MS = 60_000

const FACTS = `
  select r.rolname as role, r.rolcreaterole as creates_roles, f.name as tenants, g.oid is not null as present,
    coalesce(pg_has_role(g.oid, 'MEMBER WITH ADMIN OPTION') and has_schema_privilege(g.oid, 'stratum_guard', 'USAGE'), false) as usable
  from pg_roles r cross join lateral (select regexp_replace(r.rolname, 'owner$', 'tenants') as name) f left join pg_roles g on g.rolname = f.name and g.oid <> r.oid
  where r.rolname = current_user`

interface Facts {
  role: string
  creates_roles: boolean
  tenants: string
  present: boolean
  usable: boolean
}

/** @throws CONFIGURATION_INVALID where the connection's role cannot make roles of tenants */
export async function checkTenantRoles(pool: pg.Pool): Promise<void> {
  const { role, creates_roles, tenants, present, usable } = (await pool.query<Facts>(FACTS)).rows[0] as Facts
  const refuse = (reason: string) => stratumError('CONFIGURATION_INVALID', { reason: `STRATUM_TENANT_ROLES is on, and ${reason}` })
  if (!creates_roles) throw refuse(`the role ${role} may not make roles. Grant it: alter role ${role} createrole.`)
  if (!present) throw refuse('this installation has no role for those of tenants to be members of. Make it: npx stratum setup --database-url …')
  if (!usable) throw refuse(`the role ${role} has no admin option on ${tenants}, or that may not enter. Put it right: npx stratum setup --database-url …`)
}

const LACKING = `
  select id from stratum.tenants where isolation_strategy = 'SCHEMA_PER_TENANT' and provisioning_status = 'ready'
  and to_regrole(stratum_guard.tenant_role(id)::text) is null order by id`

/** A tenant that is not given one, be it that its schema is in use by a migration, is tried again. */
async function giveRoles(server: Server, log: Log, signal: AbortSignal) {
  const { rows } = await server.pool.query<{ id: string }>(LACKING)
  for (const { id } of rows) {
    if (signal.aborted) return
    try {
      await addTenantRole(server, id)
      log('info', 'tenant_role.given', { tenant_id: id })
    } catch (error) {
      log('warn', 'tenant_role.not_given', { tenant_id: id, error: describeError(error) })
    }
  }
}

/** See to it now and from time to time, as a dump that is restored on another server brings schemas without their roles. */
export function keepRolesGiven(server: Server, log: Log): { stop(): Promise<void> } {
  const stopping = new AbortController()
  const { signal } = stopping
  const ended = (async () => {
    while (!signal.aborted) {
      await giveRoles(server, log, signal).catch((error: unknown) => log('warn', 'tenant_roles.not_looked_at', { error: describeError(error) }))
      await delay(LOOK_EVERY_MS, undefined, { signal }).catch(() => {})
    }
  })()
  return {
    stop() {
      stopping.abort()
      return ended
    },
  }
}
