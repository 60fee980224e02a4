/** What a purge does to the answers that are remembered for `Idempotency-Key`: those that name its tenants go, at no cost of the others. */
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { StratumClient } from '../../src/sdk/client.ts'
import { BackendClient, RACER, run } from '../reliability/operations.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { contents } from '../support/record.ts'
import { plantTree, refusal, uniqueSlug } from '../support/tree.ts'

/** Enough that an index over them holds most of them in the list of what it has yet to sort in. */
const OTHERS = 10_000

let installation: Installation
let admin: StratumClient
beforeAll(async () => {
  installation = await createInstallation()
  admin = await installation.clientFor(null)
})
afterAll(() => installation.close())

const sql = async <Row extends object>(text: string, values: unknown[] = []) => (await installation.owner.query<Row>(text, values)).rows
const once = (idempotencyKey: string = randomUUID()) => ({ idempotencyKey })
const kept = async (key: { idempotencyKey: string }) => (await sql('select from stratum.idempotency_keys where key = $1', [key.idempotencyKey])).length

/** Answers about tenants of no concern here, as many as a day may bring. */
const rememberOthers = (principal: string) =>
  sql(
    `insert into stratum.idempotency_keys (principal, operation, key, input_hash, answer, tenant_ids)
     select $1, 'create_tenant', n::text, 'h', jsonb_build_object('id', o.id, 'name', repeat('x', 500)), array[o.id, o.id]
     from generate_series(1, $2) as n cross join lateral (select gen_random_uuid() as id where n > 0) as o`,
    [principal, OTHERS],
  )

const somebody = (name: string) => JSON.stringify(['token', 'https://issuer.test', name, null])

/** A root with so many tenants below it. */
async function plantMany(count: number) {
  const { root } = await plantTree(admin, { root: null })
  const tenants = Array.from({ length: count }, () => ({ slug: uniqueSlug('many'), name: 'One of many', parent_id: root.id }))
  const key = once()
  const made = (await admin.batchCreateTenants({ tenants }, key)).tenants
  return { root, made, key }
}

/** The plans of all statements that a purge runs, as the server logs them. */
async function plansOfPurge(id: string): Promise<string[]> {
  const plans: string[] = []
  // only a superuser may load what logs the plans of nested statements
  const watched = await BackendClient.open(installation.urls.admin)
  watched.on('notice', ({ message }) => plans.push(message ?? ''))
  await watched.query("load 'auto_explain'")
  for (const setting of [
    'log_min_duration = 0',
    'log_nested_statements = on',
    'log_level = notice',
    'log_analyze = on',
    'log_buffers = on',
    'log_timing = off',
  ]) {
    await watched.query(`set auto_explain.${setting}`)
  }
  await run(watched, { operation: 'purge_tenant', input: { id, subtree: true }, actor: RACER }).finally(() => watched.end())
  return plans.filter((plan) => plan.includes('on idempotency_keys'))
}

describe('a purge', () => {
  it.each([1, 100])('of a tenant with %i below finds their answers by the index, whatever else is remembered', async (count) => {
    await rememberOthers(somebody(`others ${count}`))
    const { root, key } = await plantMany(count)
    const plans = await plansOfPurge(root.id)
    expect(plans.length).toBeGreaterThan(0)
    for (const plan of plans) {
      expect(plan).toContain('idempotency_keys_tenant_ids_idx')
      expect(plan).not.toContain('Seq Scan')
      // and not by reading through what the index has yet to sort in
      expect(Math.max(...[...plan.matchAll(/shared hit=(\d+)/g)].map(([, pages]) => Number(pages)))).toBeLessThan(60)
    }
    expect(await kept(key)).toBe(0)
    expect(await sql('select from stratum.idempotency_keys where principal = $1', [somebody(`others ${count}`)])).toHaveLength(OTHERS)
  })

  it('erases what names a tenant in its request or answer, or was asked by a principal of its own, and nothing else', async () => {
    const { root, target, child, beside } = await plantTree(admin, { root: null, target: 'root', child: 'target', beside: 'root' })
    const own = await installation.clientFor(target.id)
    const asks: Record<string, (key: { idempotencyKey: string }) => Promise<unknown>> = {
      'by its id, however it is spelled': (key) => admin.createPermission({ id: target.id.toUpperCase(), key: 'upper' }, key),
      'in the body': (key) => admin.createApiKey({ tenant_id: target.id, name: 'in the body' }, key),
      'by a principal of its own': (key) => own.createPermission({ id: child.id, key: 'p' }, key),
      'in the answer alone': (key) => admin.createTenant({ slug: 'below_target', name: 'Below', parent_id: root.id }, key),
      'the tenant above': (key) => admin.createPermission({ id: root.id, key: 'p' }, key),
      'the tenant beside': (key) => admin.reorderTenant({ id: beside.id, position: 0 }, key),
    }
    const keys = Object.keys(asks).map((name) => [name, once()] as const)
    for (const [name, key] of keys) await asks[name]?.(key)
    for (const [name, key] of keys) expect(await kept(key), name).toBe(1)
    await admin.moveTenant({ id: child.id, new_parent_id: root.id })
    await admin.moveTenant({ id: (await admin.getTenantBySlug({ slug: 'below_target' })).id, new_parent_id: target.id })
    await admin.purgeTenant({ id: target.id, subtree: true })
    const left: string[] = []
    for (const [name, key] of keys) if ((await kept(key)) > 0) left.push(name)
    expect(left).toEqual(['the tenant above', 'the tenant beside'])
  })
})

describe('a purge sent again with its key', () => {
  const purge = async (client: StratumClient) => {
    const { root, target, child } = await plantTree(admin, { root: null, target: 'root', child: 'target' })
    await client.createPermission({ id: target.id, key: 'p', value: 'planted' }, once())
    const asked = { id: target.id, subtree: true }
    const key = once()
    return { root, target, child, asked, key, first: await client.purgeTenant(asked, key) }
  }

  it('is answered as it was at first, and writes nothing', async () => {
    const { target, child, asked, key, first } = await purge(admin)
    expect(first.purged).toEqual([target.id, child.id])
    const before = await contents(installation.owner)
    expect([await admin.purgeTenant(asked, key), await admin.purgeTenant(asked, key)]).toEqual([first, first])
    expect(await contents(installation.owner)).toEqual(before)
    await refusal(admin.purgeTenant({ ...asked, subtree: false }, key), 'IDEMPOTENCY_KEY_REUSED')
  })

  it('is not answered to anybody else, without its key, or after 24 hours, and leaves nothing of that', async () => {
    const { root, asked, key } = await purge(admin)
    const before = await contents(installation.owner)
    for (const client of [await installation.clientFor(null), await installation.clientFor(root.id)]) {
      await refusal(client.purgeTenant(asked, key), 'TENANT_NOT_FOUND')
    }
    await refusal(admin.purgeTenant(asked, once()), 'TENANT_NOT_FOUND')
    await refusal(admin.purgeTenant(asked), 'TENANT_NOT_FOUND')
    const { api_keys, audit_entries, audit_heads, outbox, changes, ...rest } = await contents(installation.owner)
    expect(before).toMatchObject(rest)
    expect(Object.keys({ api_keys, audit_entries, audit_heads, outbox, changes })).toHaveLength(5)
    await sql(`update stratum.idempotency_keys set created_at = now() - interval '24 hours 1 minute' where key = $1`, [key.idempotencyKey])
    await refusal(admin.purgeTenant(asked, key), 'TENANT_NOT_FOUND')
  })

  it("is answered to who has the scope still, through the host that it was sent to, until the asker's own tenant is purged", async () => {
    const { top } = await plantTree(admin, { top: null })
    const subject = async (scope: string) => installation.client({ token: await installation.token({ tenant: top.slug, scope }) })
    const { id } = await admin.createTenant({ slug: uniqueSlug(), name: 'Below', parent_id: top.id })
    const key = once()
    const first = await (await subject('admin')).purgeTenant({ id }, key)
    expect(await (await subject('admin')).purgeTenant({ id }, key)).toEqual(first)
    await refusal((await subject('write')).purgeTenant({ id }, key), 'SCOPE_REQUIRED')
    const onHost = installation.client({ token: await installation.token({ tenant: top.slug, scope: 'admin' }), baseUrl: `http://stratum.test/t/${top.slug}` })
    await refusal(onHost.purgeTenant({ id }, key), 'IDEMPOTENCY_KEY_REUSED')
    await admin.suspendTenant({ id: top.id })
    await refusal((await subject('admin')).purgeTenant({ id }, key), 'TENANT_SUSPENDED')
    await admin.purgeTenant({ id: top.id })
    await refusal((await subject('admin')).purgeTenant({ id }, key), 'TOKEN_INVALID')
    expect(await kept(key)).toBe(0)
  })

  it('is done by one and answered alike to all, when they are sent at once', async () => {
    const { target } = await plantTree(admin, { target: null })
    const key = once()
    const answers = await Promise.all(Array.from({ length: 6 }, () => admin.purgeTenant({ id: target.id }, key)))
    expect(new Set(answers.map((answer) => JSON.stringify(answer))).size).toBe(1)
    expect(answers[0]?.purged).toEqual([target.id])
  })
})
