/** `stratum isolation`: a change of strategy, asked for and followed from the command line. */
import { afterAll, beforeAll, expect, it } from 'vitest'
import { stratumError } from '../../src/core/error-classes.ts'
import { changeIsolationWith } from '../../src/provisioning/change-isolation.ts'
import type { Provisioner } from '../../src/provisioning/runner.ts'
import { createStage, type Made, type Stage } from '../isolation/stage.ts'
import { start } from '../provisioning/support.ts'
import { linesOf, stratum } from './command.ts'

let stage: Stage
let tenant: Made
let slug: string
let provisioner: Provisioner | undefined
let env: Record<string, string>
beforeAll(async () => {
  stage = await createStage()
  env = { DATABASE_URL: stage.urls.owner }
  await stage.asOwner((client) => client.query('create table orders (id uuid primary key default gen_random_uuid())'))
  await stage.manage('orders')
  tenant = await stage.tenant()
  slug = (await stage.stratum.getTenant(tenant.id)).slug
  await stage.batch(tenant, 'insert into orders default values')
})
afterAll(async () => {
  await provisioner?.stop()
  await stage.close()
})

it('asks for a change without waiting, shows it, and calls it off', async () => {
  const asked = await stratum(['isolation', 'migrate', slug, 'SCHEMA_PER_TENANT', '--no-wait', '--json'], { env })
  expect(asked).toMatchObject({ code: 0, errors: '' })
  expect(linesOf(asked)).toMatchObject([{ event: 'begun', tenant_id: tenant.id, to_strategy: 'SCHEMA_PER_TENANT' }])
  const status = await stratum(['isolation', 'status', slug], { env })
  expect(status.output).toContain(
    `${slug}: SHARED_RLS, ready\nchanging: SHARED_RLS → SCHEMA_PER_TENANT (tenant_${slug}): preparing\nNo provisioner has taken this up yet. Start one: stratum provisioner\ncall it off with: stratum isolation cancel ${slug}\n`,
  )
  expect(await stratum(['isolation', 'migrate', slug, 'DB_PER_TENANT'], { env })).toMatchObject({
    code: 1,
    errors: expect.stringContaining('being changed already'),
  })
  expect(await stratum(['isolation', 'cancel', slug], { env })).toMatchObject({ code: 0, output: expect.stringContaining('stays as it was') })
  expect((await stratum(['isolation', 'status', slug], { env })).output).toMatch(
    /: preparing\nNo provisioner .*\nit was asked to be called off, and the provisioner will\n$/,
  )
})

it('follows a change to its end', async () => {
  provisioner = await start(stage)
  await expect.poll(async () => (await stage.stratum.listIsolationChanges(tenant.id)).data[0]?.finished_at, { timeout: 10_000 }).toEqual(expect.any(String))
  const done = await stratum(['isolation', 'migrate', slug, 'SCHEMA_PER_TENANT'], { env })
  expect(done).toMatchObject({ code: 0, output: expect.stringMatching(`^${slug} is SCHEMA_PER_TENANT now. Its writes waited \\d+ ms`) })
  expect((await stratum(['isolation', 'status', slug, '--json'], { env })).output).toContain('"phase": "done"')
  expect(await stratum(['isolation', 'migrate', slug, 'SCHEMA_PER_TENANT'], { env })).toMatchObject({
    code: 1,
    errors: 'stratum: The tenant is isolated by SCHEMA_PER_TENANT already.\n',
  })
  expect(await stratum(['isolation', 'status', 'nobody_here'], { env })).toMatchObject({
    code: 1,
    errors: 'stratum: There is no tenant with the slug nobody_here. GET /api/v1/tenants lists those there are.\n',
  })
})

it.each([
  [['isolation', 'status', 'nobody_here'], 'TENANT_NOT_FOUND', { slug: 'nobody_here' }],
  [['isolation', 'cancel', 'nobody_here'], 'TENANT_NOT_FOUND', { slug: 'nobody_here' }],
  [['migrate', 'nothing'], 'TABLE_NOT_MANAGEABLE', { table: 'nothing', reasons: ['there is no such table in schema public'] }],
  [['tenants', 'migrate', '/nowhere/at/all'], 'CONFIGURATION_INVALID', { reason: expect.stringContaining('/nowhere/at/all') }],
  [['doctor', '--database-url', 'nonsense'], 'CONFIGURATION_INVALID', { reason: expect.stringContaining('--database-url') }],
])('refuses %j to a script as the API would', async (args, code, details) => {
  const refused = await stratum([...args, '--json'], { env })
  const [line, ...more] = linesOf(refused)
  const error = line?.['error'] as { code: string; message: string }
  expect(error).toMatchObject({ code, details })
  expect({ code: refused.code, errors: refused.errors, more }).toEqual({ code: 1, errors: `stratum: ${error.message}\n`, more: [] })
})

it('tells of a try that fails, and what with, and goes on following', async () => {
  await provisioner?.stop()
  let busy = true
  provisioner = await start(stage, {
    tasks: {
      async change_isolation(context) {
        if (busy) throw stratumError('DATABASE_BUSY')
        await changeIsolationWith({})(context)
      },
    },
  })
  const other = await stage.tenant()
  const { slug: name } = await stage.stratum.getTenant(other.id)
  const told = Promise.withResolvers<void>()
  const followed = stratum(['isolation', 'migrate', name, 'SCHEMA_PER_TENANT', '--json'], {
    env,
    onOutput: (text) => text.includes('try_failed') && told.resolve(),
  })
  await told.promise
  const sentence = 'try( \\d+)? failed: DATABASE_BUSY, The database was too busy to answer in time\\. .*'
  expect((await stratum(['isolation', 'status', name], { env })).output).toMatch(new RegExp(`: preparing\n(an earlier )?${sentence}\ncall it off with`))
  busy = false
  const lines = linesOf(await followed)
  expect(lines.map(({ event }) => event)).toEqual(expect.arrayContaining(['begun', 'try_failed', 'ended']))
  expect(lines.filter(({ event }) => event === 'try_failed').at(0)).toMatchObject({ attempts: expect.any(Number), error: { code: 'DATABASE_BUSY' } })
})
