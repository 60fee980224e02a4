/** The whole thread: create a tenant, set config, resolve by host and by token. */
import { afterAll, beforeAll, expect, it } from 'vitest'
import { BASE, createInstallation, type Installation } from '../support/installation.ts'

let installation: Installation
beforeAll(async () => {
  installation = await createInstallation()
})
afterAll(() => installation.close())

it('creates a tenant, sets config and resolves it by host and by token alike', async () => {
  const admin = await installation.clientFor(null)
  const root = await admin.createTenant({ slug: 'acme', name: 'Acme' })
  const child = await admin.createTenant({ slug: 'north_star', name: 'North Star', parent_id: root.id })
  await admin.setConfig({ id: root.id, key: 'max_users', value: 1000 })

  const byHost = await installation.client({ baseUrl: BASE.replace('://', '://north-star.'), apiKey: await installation.apiKey(null, ['read']) }).getContext()
  const byToken = await installation.client({ token: await installation.token({ tenant: 'north_star', scope: 'read' }) }).getContext()

  for (const context of [byHost, byToken]) {
    expect(context.tenant.id).toBe(child.id)
    expect(context.config['max_users']).toMatchObject({ value: 1000, inherited: true, source_tenant_id: root.id })
  }
  expect(byHost.acting_as).toBe(child.id)
  expect(byToken.acting_as).toBeUndefined()
})
