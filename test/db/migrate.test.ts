/** The migration runner on empty databases, over TCP and over Neon's HTTP protocol. */
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterEach, describe, expect, it } from 'vitest'
import { describeSchema, SNAPSHOT } from '../../scripts/schema-snapshot.ts'
import { StratumError } from '../../src/core/errors.ts'
import { type MigrationConnection, migrate } from '../../src/db/migrate.ts'
import { ensureRoles } from '../../src/db/roles.ts'
import { type EmptyDatabase, emptyDatabase, giveToNeonLikeOwner, passwords, uniquePrefix } from './databases.ts'

const MIGRATIONS = new URL('../../migrations/', import.meta.url)
const FOUNDATION = 'routines/00_foundation.sql'
const FIRST = '0000_control_plane.sql'
const GRANTS = 'routines/99_grants.sql'
const GUARD = 'routines/01_guard.sql'

const cleanUps: Array<() => Promise<unknown>> = []
afterEach(async () => {
  for (let cleanUp = cleanUps.pop(); cleanUp; cleanUp = cleanUps.pop()) await cleanUp()
})

async function database(): Promise<EmptyDatabase> {
  const made = await emptyDatabase()
  cleanUps.push(made.drop)
  return made
}

/** A copy of the migrations that a test may change. */
async function folder() {
  const directory = await mkdtemp(join(tmpdir(), 'stratum-migrations-'))
  cleanUps.push(() => rm(directory, { recursive: true }))
  await cp(MIGRATIONS, directory, { recursive: true })
  return {
    url: pathToFileURL(`${directory}/`),
    write: (name: string, text: string) => writeFile(join(directory, name), text),
    append: async (name: string, text: string) => writeFile(join(directory, name), (await readFile(join(directory, name), 'utf8')) + text),
  }
}

const OWNED = { owner: 'stratum_owner' }
const transports: Array<[string, (from: EmptyDatabase, url?: string) => Promise<MigrationConnection>]> = [
  ['TCP', (from, url) => from.tcp(url)],
  ['Neon HTTP', async (from, url) => from.http(url)],
]
const refusal = (error: unknown) => (error instanceof StratumError ? { code: error.code, message: error.message } : error)

describe.each(transports)('over %s', (_, connect) => {
  it('makes the committed schema of an empty database, and finds nothing to do in it again', async () => {
    const db = await database()
    const connection = await connect(db)
    const told: string[] = []
    await ensureRoles(connection, passwords)

    const applied = await migrate(connection, { ...OWNED, onApplied: (name) => told.push(name) })

    expect(applied).toEqual([...applied].sort())
    expect(applied).toContain(FIRST)
    expect(applied.at(-1)).toBe(GRANTS)
    expect(told).toEqual(applied)
    expect(await describeSchema(await db.client())).toBe(await readFile(SNAPSHOT, 'utf8'))
    expect(await ensureRoles(connection, passwords)).toEqual([])
    expect(await migrate(connection, OWNED)).toEqual([])
  })

  it('needs no more than a role as Neon gives one, and takes any prefix for the names of its roles', async () => {
    const db = await database()
    const rolePrefix = uniquePrefix()
    const connection = await connect(db, await giveToNeonLikeOwner(db))

    expect(await ensureRoles(connection, passwords, rolePrefix)).toEqual(['owner', 'control', 'app'])
    await migrate(connection, { owner: `${rolePrefix}owner` })

    const picture = await describeSchema(await db.client(), { rolePrefix })
    expect(picture.replaceAll(rolePrefix, 'stratum_')).toBe(await readFile(SNAPSHOT, 'utf8'))
    // the owner that it made can do without the one that made it
    const owner = await connect(db, db.urlOf(`${rolePrefix}owner`, passwords.owner))
    expect(await migrate(owner)).toEqual([])
    await owner.transaction([
      'create schema tenant_x',
      `create role ${rolePrefix}tenant_x`,
      `grant ${rolePrefix}tenants to ${rolePrefix}tenant_x`,
      `drop role ${rolePrefix}tenant_x`,
    ])
    expect(await owner.query('select rolcreatedb from pg_roles where rolname = current_user')).toEqual([{ rolcreatedb: true }])
    // temporary tables, which stay on a connection, are for nobody but the owner
    const may = `select rolname::text as name from pg_roles
      where rolname like '${rolePrefix}%' and has_database_privilege(oid, current_database(), 'temporary')`
    expect(await owner.query(may)).toEqual([{ name: `${rolePrefix}owner` }])
  })

  it('leaves nothing of a migration that fails, and says why', async () => {
    const db = await database()
    const connection = await connect(db)
    const migrations = await folder()
    await migrate(connection, { folder: migrations.url })
    await migrations.write('9001_half.sql', 'create table stratum.half (id int);\n--> statement-breakpoint\nselect 1 / 0;')
    await migrations.append(FOUNDATION, '\n-- changed')

    await expect(migrate(connection, { folder: migrations.url })).rejects.toMatchObject({ code: '22012', message: expect.stringContaining('division by zero') })

    const [left] = await connection.query(
      `select to_regclass('stratum.half') as half, (select count(*)::int from stratum.migrations where name like '9001%') as recorded`,
    )
    expect(left).toEqual({ half: null, recorded: 0 })
    await migrations.write('9001_half.sql', 'create table stratum.half (id int);')
    expect(await migrate(connection, { folder: migrations.url })).toEqual(['9001_half.sql', FOUNDATION, GRANTS])
  })
})

describe('several runners at once', () => {
  it.each([[1], [2]])('over both transports, %i of each, all succeed and apply each file once', async (each) => {
    const db = await database()
    await ensureRoles(await db.tcp(), passwords)
    const connections = await Promise.all(Array.from({ length: each }, async () => [await db.tcp(), db.http()]))

    const applied = await Promise.all(connections.flat().map((connection) => migrate(connection, OWNED)))

    expect(applied.filter((names) => names.includes(FIRST))).toHaveLength(1)
    expect(await describeSchema(await db.client())).toBe(await readFile(SNAPSHOT, 'utf8'))
    expect(await migrate(await db.tcp(), OWNED)).toEqual([])
  })

  it('making roles make each once, and only its maker is told so', async () => {
    const db = await database()
    const rolePrefix = uniquePrefix()
    const url = await giveToNeonLikeOwner(db)
    const connections = await Promise.all([db.tcp(url), db.http(url), db.tcp(url), db.http(url)])
    const theirs = (runner: number) => ({ owner: `owner${runner}`, control: `control${runner}`, app: `app${runner}` })

    const made = await Promise.all(connections.map((connection, runner) => ensureRoles(connection, theirs(runner), rolePrefix)))

    expect(made.flat().sort()).toEqual(['app', 'control', 'owner'])
    const logins = made.flatMap((parts, runner) => parts.map((part) => db.urlOf(rolePrefix + part, theirs(runner)[part])))
    for (const login of logins) await expect((await db.tcp(login)).query('select 1 as one')).resolves.toEqual([{ one: 1 }])
  })
})

describe('what is there already', () => {
  it('is brought up to date: a changed routine is applied again, and the grants after it', async () => {
    const db = await database()
    const connection = await db.tcp()
    const migrations = await folder()
    await migrate(connection, { folder: migrations.url })
    await migrations.append(FOUNDATION, `\n--> statement-breakpoint\ncreate or replace function stratum.added() returns int language sql as 'select 1'`)

    expect(await migrate(connection, { folder: migrations.url })).toEqual([FOUNDATION, GRANTS])

    const [added] = await connection.query(`select has_function_privilege('public', 'stratum.added()', 'execute') as open`)
    expect(added).toEqual({ open: false })
    expect(await migrate(connection, { folder: migrations.url })).toEqual([])
  })

  it('is refused where a migration was changed after it had been applied', async () => {
    const db = await database()
    const connection = await db.tcp()
    const migrations = await folder()
    await migrate(connection, { folder: migrations.url })
    await migrations.append(FIRST, '\n-- changed')

    expect(await migrate(connection, { folder: migrations.url }).catch(refusal)).toEqual({
      code: 'CONFIGURATION_INVALID',
      message: `Migration ${FIRST} was changed after it was applied. Put its text back and add a new migration instead.`,
    })
  })

  it('is refused where it is newer than this version, and left as it is', async () => {
    const db = await database()
    const connection = await db.tcp()
    const migrations = await folder()
    await migrations.write('0001_newer.sql', 'create table stratum.newer (id int);')
    await migrations.append(FOUNDATION, '\n-- newer')
    await migrate(connection, { folder: migrations.url })

    expect(await migrate(connection).catch(refusal)).toEqual({
      code: 'CONFIGURATION_INVALID',
      message: 'The database is newer than this version: it has migration 0001_newer.sql. Use the version that applied it, or a later one.',
    })
    expect(await migrate(connection, { folder: migrations.url })).toEqual([])
  })

  it('is refused where ltree lives in another schema, with the way out, which works', async () => {
    const db = await database()
    const connection = await db.tcp()
    await connection.query('create extension ltree')

    expect(await migrate(connection).catch(refusal)).toEqual({
      code: 'CONFIGURATION_INVALID',
      message: 'The extension ltree is installed in schema public; run ALTER EXTENSION ltree SET SCHEMA stratum (after CREATE SCHEMA stratum) and try again.',
    })
    await connection.query('create schema stratum')
    await connection.query('alter extension ltree set schema stratum')
    await ensureRoles(connection, passwords)
    await migrate(connection, OWNED)
    expect(await describeSchema(await db.client())).toBe(await readFile(SNAPSHOT, 'utf8'))
  })

  it('is handed to the role that shall own it, and opened to the edge and to tenants’ batches, where the application had migrated first', async () => {
    const db = await database()
    const rolePrefix = uniquePrefix()
    const connection = await db.tcp(await giveToNeonLikeOwner(db))
    await migrate(connection)
    await ensureRoles(connection, passwords, rolePrefix)

    expect(await migrate(connection, { owner: `${rolePrefix}owner` })).toEqual([GUARD, GRANTS])
    for (const part of ['app', 'tenants']) {
      const enters = `has_schema_privilege('${rolePrefix}${part}', 'stratum_guard', 'usage') and has_function_privilege('${rolePrefix}${part}', 'stratum_guard.enter(uuid, bigint)', 'execute')`
      expect(await connection.query(`select ${enters} as enters`)).toEqual([{ enters: true }])
    }

    const picture = await describeSchema(await db.client(), { rolePrefix })
    expect(picture.replaceAll(rolePrefix, 'stratum_')).toBe(await readFile(SNAPSHOT, 'utf8'))
    // and the application, migrating again, leaves it there
    const migrations = await folder()
    await migrations.append(FOUNDATION, `\n--> statement-breakpoint\ncreate or replace function stratum.added() returns int language sql as 'select 1'`)
    await migrate(connection, { folder: migrations.url })
    const [added] = await connection.query(`select pg_get_userbyid(proowner)::text as owner from pg_proc where proname = 'added'`)
    expect(added).toEqual({ owner: `${rolePrefix}owner` })
  })
})

it('tries again when a lock is held that it needs', async () => {
  const db = await database()
  const holder = await db.client()
  await holder.query('begin')
  await holder.query(`select pg_advisory_xact_lock(hashtextextended('stratum.migrate', 0))`)
  const connection = await db.tcp()
  const refused: unknown[] = []
  const watched: MigrationConnection = {
    query: connection.query,
    transaction: (statements) =>
      connection
        .transaction(statements.map((statement) => statement.replace(`lock_timeout = '3s'`, `lock_timeout = '50ms'`)))
        .catch(async (error: { code?: string }) => {
          refused.push(error.code)
          if (refused.length === 2) await holder.query('rollback')
          throw error
        }),
  }

  expect(await migrate(watched)).toContain(FIRST)
  expect(refused).toEqual(['55P03', '55P03'])
})
