/** `stratum tenants`: migrations over every place, told to people and to scripts. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createStage, type Made, type Stage } from '../isolation/stage.ts'
import { linesOf, stratum } from './command.ts'

let stage: Stage
let folder: string
let first: Made
let slug: string
let env: Record<string, string>
beforeAll(async () => {
  stage = await createStage()
  env = { DATABASE_URL: stage.urls.owner }
  folder = await mkdtemp(join(tmpdir(), 'stratum-cli-'))
  await stage.asOwner((client) => client.query('create table orders (id uuid primary key default gen_random_uuid())'))
  await stage.manage('orders')
  first = await stage.placed('SCHEMA_PER_TENANT')
  slug = (await stage.stratum.getTenant(first.id)).slug
  await stage.placed('SCHEMA_PER_TENANT')
})
afterAll(async () => {
  await rm(folder, { recursive: true })
  await stage.close()
})

const put = (name: string, text: string) => writeFile(join(folder, name), text)

describe('stratum tenants', () => {
  it('shows what it would do, does it, and says that all is current', async () => {
    await put('0001.sql', 'alter table orders add column note text')
    const dry = await stratum(['tenants', 'migrate', folder, '--dry-run', '--canary', slug], { env })
    expect(dry).toMatchObject({ code: 0, errors: '' })
    expect(dry.output).toContain(`3 places would be migrated, in this order:\n  ${slug}: 0001.sql\n  the shared tables: 0001.sql\n`)
    const done = await stratum(['tenants', 'migrate', folder], { env })
    expect(done).toMatchObject({ code: 0, output: '3 places migrated; every place is current.\n' })
    expect(done.errors).toContain(`canary: ${slug}`)
    expect(await stratum(['tenants', 'status'], { env })).toMatchObject({ code: 0, output: 'current: 3 current; the last migration is 0001.sql\n', errors: '' })
  })

  it("answers a script in JSON, and fails with the database's own words", async () => {
    await put('0002.sql', 'alter table nothing add column note text')
    const failed = await stratum(['tenants', 'migrate', folder, '--json'], { env })
    expect(failed).toMatchObject({ code: 1, errors: '' })
    expect(linesOf(failed)).toMatchObject([
      { event: 'progress', stage: 'canary', place: slug, done: 1, total: 1, failed: 1 },
      {
        event: 'report',
        migrated: 0,
        failed: [{ place: slug, migration: '0002.sql', error: { message: 'relation "nothing" does not exist', sqlstate: '42P01' } }],
      },
    ])
    const status = await stratum(['tenants', 'status', '--json'], { env })
    expect(status.code).toBe(1)
    expect(JSON.parse(status.output)).toMatchObject({ current: false, places: [{ slug, state: 'failed' }] })
    await put('0002.sql', 'select 1')
    expect(await stratum(['tenants', 'migrate', folder], { env })).toMatchObject({ code: 0 })
  })

  it('finds the local stack by itself, and says what is missing without it', async () => {
    const missing = await stratum(['tenants', 'status'], { cwd: folder })
    expect(missing).toMatchObject({ code: 1, output: '' })
    expect(missing.errors).toMatch(/^stratum: No database is named: .*\n$/)
    await mkdir(join(folder, '.stratum'))
    await writeFile(join(folder, '.stratum', 'dev.json'), JSON.stringify({ database_url: stage.urls.owner }))
    expect(await stratum(['tenants', 'status'], { cwd: folder })).toMatchObject({ code: 0 })
  })

  it.each([
    [['tenants', 'migrate'], 2, "error: missing required argument 'folder'"],
    [['tenants', 'migrate', '.', '--concurrency', '0'], 2, 'a whole number from 1 on'],
    [['isolation', 'migrate', 'acme', 'TABLE_PER_TENANT'], 2, 'Allowed choices are SHARED_RLS'],
    [['tenants', 'migrate', '/nowhere/at/all'], 1, 'stratum: There is no folder /nowhere/at/all to read migrations from.'],
    [['tenants', 'status', '--database-url', 'postgresql://nobody:x@127.0.0.1:1/none'], 1, 'stratum: The database at 127.0.0.1:1 cannot be reached'],
    [['tenants', 'migrate', '--help'], 0, ''],
  ] as const)('%j ends with %d and a sentence', async (args, code, says) => {
    const ran = await stratum(args, { env })
    expect(ran).toMatchObject({ code })
    expect(ran.errors).toContain(says)
    expect(ran.errors).not.toMatch(/\n\s+at /)
    if (code === 0) expect(ran.output).toContain('stratum tenants migrate db/tenants --dry-run')
  })
})
