/** `stratum isolation`: a change of strategy, asked for and followed from the command line. */
import { afterAll, beforeAll, expect, it } from 'vitest'
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
  expect(status.output).toContain(`${slug}: SHARED_RLS, ready\nchanging: SHARED_RLS → SCHEMA_PER_TENANT (tenant_${slug}): preparing\n`)
  expect(await stratum(['isolation', 'migrate', slug, 'DB_PER_TENANT'], { env })).toMatchObject({
    code: 1,
    errors: expect.stringContaining('being changed already'),
  })
  expect(await stratum(['isolation', 'cancel', slug], { env })).toMatchObject({ code: 0, output: expect.stringContaining('stays as it was') })
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
  expect(await stratum(['isolation', 'status', 'nobody_here'], { env })).toMatchObject({ code: 1, errors: expect.stringMatching(/^stratum: No such tenant/) })
})
