/** The process hands a context on as SQL made it, unchecked: so SQL is held to the contract here, to the last field. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Actor, Credential, NamedTenant } from '../../src/core/actor.ts'
import { TenantContext } from '../../src/features/context/contract.ts'
import { createInstallation, type Installation } from '../support/installation.ts'

let installation: Installation
const ids: Record<string, string> = {}

beforeAll(async () => {
  installation = await createInstallation()
  const { stratum } = installation
  await stratum.putConfigDefinitions([{ key: 'seats', schema: { type: 'integer' }, default: 5 }])
  let parent: string | null = null
  for (const slug of ['acme', 'north_star', 'lighthouse']) {
    const { id }: { id: string } = await stratum.createTenant({ slug, name: slug, parent_id: parent, metadata: { plan: { tier: 1, tags: ['a', null] } } })
    ids[slug] = parent = id
  }
  const [acme, below] = [ids['acme'] ?? '', ids['lighthouse'] ?? '']
  await stratum.setConfig(acme, 'locked', { value: { deep: [1, { two: null }] }, locked: true })
  await stratum.setConfig(acme, 'secret', { value: 'hidden', sensitive: true })
  await stratum.setConfig(below, 'own', { value: null })
  for (const mode of ['LOCKED', 'INHERITED', 'DELEGATED'] as const) {
    await stratum.createPermission(acme, { key: `reports.${mode.toLowerCase()}`, mode, value: { level: mode } })
  }
})
afterAll(() => installation.close())

const bearer = (tenant: string | null): Credential => ({
  type: 'token',
  issuer: 'https://issuer.test',
  subject: 'user',
  tenant,
  issuer_tenant_id: null,
  global: true,
  scopes: ['admin'],
})

async function ask(operation: string, credential: Credential, named: NamedTenant[], input: object): Promise<unknown> {
  const actor: Actor = { credential, named, exposed: true, request_id: null, source_ip: null }
  const { keeping, ...context } = (await installation.services.db.call(operation, actor, input)) as { keeping?: unknown }
  if ('keep' in input) expect(keeping).toEqual({ path: expect.any(String), principal: null, until: null, feed: expect.any(Object) })
  else expect(keeping).toBeUndefined()
  return context
}

const host = (slug: string): NamedTenant[] => [{ source: 'subdomain', tenant: slug.replaceAll('_', '-') }]

describe('a context fits its contract, and holds nothing besides', () => {
  it.each<[string, () => Promise<unknown>]>([
    ['of a root', () => ask('get_context', bearer('acme'), [], {})],
    ['of a tenant whose ancestors its principal does not reach', () => ask('get_context', bearer('lighthouse'), [], {})],
    ['of a tenant whose ancestors its principal reaches', () => ask('get_context', bearer('acme'), host('lighthouse'), {})],
    ['of a global principal at a host', () => ask('get_context', bearer(null), host('north_star'), {})],
    ['that is to be kept', () => ask('get_context', bearer('lighthouse'), host('lighthouse'), { keep: true })],
    ['for a visitor', () => ask('visit_tenant', { type: 'visitor' }, host('lighthouse'), { keep: true })],
    ['resolved for another', () => ask('resolve', bearer('acme'), [], { named: host('lighthouse'), keep: true })],
    ['resolved for a token', () => ask('resolve', bearer(null), [], { named: host('lighthouse'), credential: bearer('north_star') })],
    ['for an admin, by id', () => ask('get_tenant_context', bearer(null), [], { id: ids['north_star'] })],
  ])('%s', async (_, answered) => {
    const context = await answered()
    expect(TenantContext.parse(context)).toEqual(context)
  })

  it('also where the tenant is suspended', async () => {
    const { id } = await installation.stratum.createTenant({ slug: 'paused', name: 'Paused' })
    await installation.stratum.suspendTenant(id)
    const context = await ask('get_tenant_context', bearer(null), [], { id })
    expect(TenantContext.parse(context)).toEqual(context)
  })

  it('and says all there is to say', async () => {
    const context = TenantContext.parse(await ask('get_context', bearer('acme'), host('lighthouse'), {}))
    expect(Object.keys(context.config).sort()).toEqual(['locked', 'own', 'seats', 'secret'])
    expect(context.config['secret']).toMatchObject({ value: null, sensitive: true })
    expect(Object.keys(context.permissions).sort()).toEqual(['reports.delegated', 'reports.inherited', 'reports.locked'])
    expect(context.ancestors).toHaveLength(2)
    expect(context.acting_as).toBe(ids['lighthouse'])
  })
})
