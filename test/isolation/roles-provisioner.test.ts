/** STRATUM_TENANT_ROLES: what the provisioner refuses at its start, whom it gives a role, and who keeps it. */
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { generateRingKey } from '../../src/crypto/key-ring.ts'
import { parseProvisionerEnvironment } from '../../src/provisioning/environment.ts'
import { type LoggedLine, start, until } from '../provisioning/support.ts'
import { createStage, type Made, type Stage, uniqueSlug } from './stage.ts'

let stage: Stage
beforeAll(async () => {
  stage = await createStage()
  await stage.owner.query('create table orders (id uuid primary key default gen_random_uuid(), item text)')
  await stage.manage('orders')
  // what the provisioner makes of them is dropped with the stage
  stage.server.tenantRoles = true
})
afterAll(() => stage.close())

const roleOf = (id: string) => `stratum_tenant_${id.replaceAll('-', '')}`
const roleNow = async (id: string) => (await stage.batch({ id, place: { strategy: 'SCHEMA_PER_TENANT', name: null } }, 'select current_user::text as role'))[0]
const created = (strategy: 'SCHEMA_PER_TENANT' | 'SHARED_RLS') => {
  const slug = uniqueSlug('roles')
  return stage.stratum.createTenant({ slug, name: slug, isolation_strategy: strategy })
}
const ready = (id: string) => until(`${id} is ready`, async () => (await stage.stratum.getTenant(id)).provisioning_status === 'ready')

describe('the setting', () => {
  const ring = generateRingKey('1')
  const keys = { DATABASE_URL: 'postgresql://o:p@localhost/db', STRATUM_MASTER_KEYS: ring, STRATUM_API_KEY_SECRETS: ring }
  it('is off by default, on or off, and nothing else', () => {
    expect(parseProvisionerEnvironment(keys).tenantRoles).toBe(false)
    expect(parseProvisionerEnvironment({ ...keys, STRATUM_TENANT_ROLES: 'on' }).tenantRoles).toBe(true)
    expect(() => parseProvisionerEnvironment({ ...keys, STRATUM_TENANT_ROLES: 'yes' })).toThrow('The variable STRATUM_TENANT_ROLES must be on or off.')
  })
})

describe('a start with roles', () => {
  /** As this login, which owns schema stratum for as long as `work` runs. */
  async function asOwnerOf<T>(login: string, attributes: string, work: (databaseUrl: string) => Promise<T>): Promise<T> {
    const admin = new pg.Client(stage.urls.admin)
    await admin.connect()
    const owner = async (role: string) => admin.query(`alter schema stratum owner to ${role}`)
    await admin.query(`create role ${login} login password 'secret' ${attributes} in role stratum_owner`)
    await owner(login)
    try {
      return await work(Object.assign(new URL(stage.urls.owner), { username: login, password: 'secret' }).href)
    } finally {
      await owner('stratum_owner')
      await admin.query(`drop role ${login}`)
      await admin.end()
    }
  }
  const refused = (sentence: string) => ({ code: 'CONFIGURATION_INVALID', message: expect.stringContaining(sentence) })

  it.each([
    ['without CREATEROLE', 'may not make roles. Grant it: alter role', 'createdb'],
    ['in an installation without their group', 'Make it: npx stratum setup', 'createdb createrole'],
  ])('%s is refused in a sentence, and begins without them', async (_, sentence, attributes) => {
    const login = `limited_${crypto.randomUUID().slice(0, 8)}`
    await asOwnerOf(login, attributes, async (databaseUrl) => {
      await expect(start(stage, { databaseUrl, tenantRoles: true })).rejects.toMatchObject(refused(sentence))
      await (await start(stage, { databaseUrl })).stop()
    })
  })

  it('whose group may not enter is refused in a sentence', async () => {
    await stage.owner.query('revoke usage on schema stratum_guard from stratum_tenants')
    await expect(start(stage, { tenantRoles: true })).rejects.toMatchObject(refused('has no admin option on stratum_tenants, or that may not enter'))
    await stage.owner.query('grant usage on schema stratum_guard to stratum_tenants')
  })
})

describe('tenants', () => {
  it('with a schema get a role, new ones and those of before; without the setting they keep it and new ones get none', async () => {
    const lines: LoggedLine[] = []
    const without = await start(stage)
    const before = await created('SCHEMA_PER_TENANT')
    await ready(before.id)
    expect(await roleNow(before.id)).toEqual({ role: 'stratum_app' })
    await without.stop()

    const queued = await created('SCHEMA_PER_TENANT')
    const provisioner = await start(stage, { tenantRoles: true }, lines)
    await until('it has its role', async () => lines.some(({ event, tenant_id }) => event === 'tenant_role.given' && tenant_id === before.id))
    await ready(queued.id)
    for (const { id } of [before, queued]) expect(await roleNow(id)).toEqual({ role: roleOf(id) })
    expect(lines.filter(({ event }) => event === 'tenant_role.given')).toHaveLength(1)
    await provisioner.stop()

    const again = await start(stage)
    const after = await created('SCHEMA_PER_TENANT')
    await ready(after.id)
    expect(await roleNow(after.id)).toEqual({ role: 'stratum_app' })
    expect(await roleNow(before.id)).toEqual({ role: roleOf(before.id) })
    await again.stop()
  })

  it('made at once by several workers all get theirs', async () => {
    const provisioner = await start(stage, { tenantRoles: true })
    const made = await stage.stratum.batchCreateTenants(
      Array.from({ length: 12 }, () => ({ slug: uniqueSlug('many'), name: 'Many', isolation_strategy: 'SCHEMA_PER_TENANT' as const })),
    )
    for (const { id } of made) await ready(id)
    for (const { id } of made) expect(await roleNow(id)).toEqual({ role: roleOf(id) })
    await provisioner.stop()
  })

  it('whose role is not to be had do not keep the others from theirs', async () => {
    const lines: LoggedLine[] = []
    stage.server.tenantRoles = false
    const [first, second] = [await stage.placed('SCHEMA_PER_TENANT'), await stage.placed('SCHEMA_PER_TENANT')] as [Made, Made]
    stage.server.tenantRoles = true
    await stage.owner.query(`comment on schema "${first.place.name}" is 'mine'`)
    const provisioner = await start(stage, { tenantRoles: true }, lines)
    await until('the other has its role', async () => lines.some(({ event, tenant_id }) => event === 'tenant_role.given' && tenant_id === second.id))
    expect(lines).toContainEqual(expect.objectContaining({ level: 'warn', event: 'tenant_role.not_given', tenant_id: first.id }))
    await provisioner.stop()
    await stage.owner.query(`comment on schema "${first.place.name}" is 'stratum tenant ${first.id}'`)
  })
})
