/** What the catalogs of a migrated database say of the rules that every routine keeps. */
import { execFile } from 'node:child_process'
import { readdir, readFile } from 'node:fs/promises'
import { promisify } from 'node:util'
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { describeSchema, SNAPSHOT } from '../../scripts/schema-snapshot.ts'
import { sqlName } from '../../src/core/endpoint.ts'
import * as errorClasses from '../../src/core/error-classes.ts'
import { CATALOGUE, type ErrorCode } from '../../src/core/errors.ts'
import { endpointList } from '../../src/features/endpoints.ts'
import { operationList } from '../../src/features/operations.ts'
import { createInstallation, type Installation } from '../support/installation.ts'

interface Routine {
  name: string
  arguments: string
  security_definer: boolean
  settings: string[] | null
  body: string
  owner: string
  callers: string[]
}

let installation: Installation
let routines: Routine[]
/** What the edge calls besides the operations: they judge the caller, and run an operation or serve one. */
const AROUND = [
  'authenticate',
  'run_once',
  'dry_run',
  'run_if_match',
  'read_config_definitions',
  'read_stored_config',
  'read_changes',
  'visit_tenant',
  'read_issuer',
]
const operations = new Set([...AROUND, ...endpointList.map((endpoint) => sqlName(endpoint.id))])
const codes = Object.keys(CATALOGUE) as ErrorCode[]

beforeAll(async () => {
  installation = await createInstallation()
  const { rows } = await installation.owner.query<Routine>(`
    select p.proname as name, pg_get_function_identity_arguments(p.oid) as arguments, p.prosecdef as security_definer, p.proconfig as settings,
      p.prosrc as body, pg_get_userbyid(p.proowner) as owner,
      array(select case acl.grantee when 0 then 'public' else pg_get_userbyid(acl.grantee)::text end
            from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) as acl where acl.grantee <> p.proowner order by 1) as callers
    from pg_proc p where p.pronamespace = 'stratum'::regnamespace
      and not exists (select from pg_depend d where d.objid = p.oid and d.classid = 'pg_proc'::regclass and d.deptype = 'e')`)
  routines = rows
})
afterAll(() => installation.close())

const names = (list: readonly Routine[]) => list.map((routine) => routine.name).sort()

describe('the committed picture', () => {
  it('of the schema shows what the migrations make: else run node scripts/schema-snapshot.ts', async () => {
    const client = new pg.Client(installation.urls.admin)
    await client.connect()
    const picture = await describeSchema(client).finally(() => client.end())
    expect(picture).toBe(await readFile(SNAPSHOT, 'utf8'))
  })

  it('of the operations is what the contracts say: else run npm run generate', async () => {
    const script = new URL('../../scripts/generate.ts', import.meta.url).pathname
    await expect(promisify(execFile)(process.execPath, [script, '--check'])).resolves.toMatchObject({ stderr: '' })
  })
})

describe('routines', () => {
  it('have one function for each name: an overload would leave the old one callable', () => {
    expect(names(routines)).toEqual([...new Set(names(routines))])
  })

  it('that answer an operation are those of the endpoints and the few around them, all with the same arguments', () => {
    const called = routines.filter((routine) => routine.arguments === 'actor jsonb, input jsonb')
    expect(names(called)).toEqual([...operations].sort())
    expect(operationList.map((operation) => sqlName(operation.endpoint.id)).sort()).toEqual(endpointList.map((endpoint) => sqlName(endpoint.id)).sort())
  })

  it('run as their owner with a pinned search path where they are operations, and only there', () => {
    expect(names(routines.filter((routine) => routine.security_definer))).toEqual([...operations].sort())
    for (const routine of routines.filter((each) => each.security_definer)) {
      expect(routine, routine.name).toMatchObject({ settings: ['search_path=stratum, pg_temp'], owner: 'stratum_owner' })
    }
  })

  it('pin the search path unless they must be inlined, and then they name every schema', () => {
    const unpinned = routines.filter((routine) => routine.settings === null)
    const relation = /\b(?:from|join|into|update)\s+(tenants|config_entries|permission_policies|api_keys|audit_\w+|outbox|changes|operations|installation)\b/
    for (const routine of unpinned) expect(routine.body, routine.name).not.toMatch(relation)
    expect(unpinned.length).toBeGreaterThan(0)
  })

  it('that are operations ask who calls before anything else, under their own name', () => {
    for (const { name, body } of routines.filter((each) => operations.has(each.name) && !AROUND.includes(each.name))) {
      // As an argument it runs before what it is an argument of.
      const first = /^\s*(?:declare\s+who jsonb :=|begin\s+return stratum\.change_status\()\s*stratum\.authorize\('(\w+)', actor, input[,)]/
      expect(first.exec(body.replaceAll(/--.*/g, ''))?.[1], name).toBe(name)
    }
  })

  it('may be called by the edge where they are operations, and by nobody else', () => {
    const callers = Object.fromEntries(routines.map((routine) => [routine.name, routine.callers]))
    expect(callers).toEqual(Object.fromEntries(names(routines).map((name) => [name, operations.has(name) ? ['stratum_control'] : []])))
  })
})

describe('tables', () => {
  it('are closed to every role but the owner', async () => {
    const { rows } = await installation.owner.query(`
      select c.relname, r.rolname from pg_class c, pg_roles r
      where c.relnamespace = 'stratum'::regnamespace and c.relkind in ('r', 'v', 'm', 'p') and r.rolname in ('stratum_control', 'stratum_app')
        and has_table_privilege(r.oid, c.oid, 'select, insert, update, delete, truncate, references, trigger')`)
    expect(rows).toEqual([])
  })

  it('hold a rule for each endpoint and no other', async () => {
    const { rows } = await installation.owner.query('select name, scope, reach, also_scope from stratum.operations order by name collate "C"')
    const rules = endpointList.map(({ id, scope, reach, alsoScope = null }) => ({ name: sqlName(id), scope, reach, also_scope: alsoScope }))
    expect(rows).toEqual(rules.sort((a, b) => (a.name < b.name ? -1 : 1)))
  })
})

describe('error codes', () => {
  it('that SQL raises are all in the catalogue', async () => {
    const folder = new URL('../../migrations/routines/', import.meta.url)
    const texts = await Promise.all((await readdir(folder)).map((file) => readFile(new URL(file, folder), 'utf8')))
    const calls = texts.join('\n').match(/stratum\.fail\((?!code text)[^,)]*/g) ?? []
    const raised = calls.map((call) => /^stratum\.fail\('([A-Z_]+)'$/.exec(call)?.[1] ?? call)
    expect(raised.length).toBeGreaterThan(10)
    expect(raised.filter((code) => !codes.some((known) => known === code))).toEqual([])
  })

  it('have a class each, which makes errors of that code and status', () => {
    const { stratumError, errorClass, ...classes } = errorClasses
    const made = Object.entries(classes).map(([exported, Class]) => ({ exported, Class, error: new Class() }))
    for (const { exported, Class, error } of made) {
      expect(error).toMatchObject({ name: exported, status: CATALOGUE[error.code][0] })
      expect(errorClass(error.code)).toBe(Class)
      expect(stratumError(error.code)).toBeInstanceOf(Class)
    }
    expect(made.map(({ error }) => error.code).sort()).toEqual(codes.sort())
  })
})
