/** A purge leaves nothing of a tenant but what erasure keeps by design: ids, slugs, and the skeleton of its audit chain. */
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Tenant } from '../../src/features/tenants/contract.ts'
import type { StratumClient } from '../../src/sdk/client.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { contents, readChain, SYSTEM_CHAIN, verifyChain } from '../support/record.ts'
import { plantTree, refusal, uniqueSlug } from '../support/tree.ts'
import { untilWaiting, whileOpen } from '../support/waiting.ts'

const MARKER = 'planted-marker-of-a-person'
const ACTOR = JSON.stringify({ credential: { type: 'embedded', actor_id: 'test', actor_type: 'system' }, named: [], exposed: false })

let installation: Installation
let admin: StratumClient
beforeAll(async () => {
  installation = await createInstallation()
  admin = await installation.clientFor(null)
})
afterAll(() => installation.close())

const sql = async <Row extends object>(text: string, values: unknown[] = []) => (await installation.owner.query<Row>(text, values)).rows

/** The tables of every schema of ours that hold a text anywhere in a row. */
async function tablesHolding(text: string): Promise<string[]> {
  const tables = await sql<{ name: string }>(`
    select format('%I.%I', schemaname, tablename) as name from pg_tables
    where schemaname in ('stratum', 'stratum_guard', 'graphile_worker', 'public') and tablename <> 'public_suffixes' and has_table_privilege(format('%I.%I', schemaname, tablename), 'select') order by 1`)
  const parts = tables.map(({ name }) => `select '${name}' as name where exists (select from ${name} t where t::text like '%' || $1 || '%')`)
  return (await sql<{ name: string }>(parts.join(' union all '), [text])).map(({ name }) => name)
}

/** Something of everything that a tenant can have, each with the marker in it. */
async function furnish({ id }: Tenant, parent: Tenant) {
  await admin.updateTenant({ id, name: MARKER, metadata: { note: MARKER } })
  await admin.setConfig({ id, key: 'plain', value: MARKER })
  await admin.setConfig({ id, key: 'plain', value: `${MARKER} again` })
  await admin.setConfig({ id, key: 'secret', value: MARKER, sensitive: true })
  await admin.setConfig({ id, key: 'gone', value: MARKER })
  await admin.deleteConfig({ id, key: 'gone' })
  await admin.createPermission({ id, key: 'may', value: MARKER, revocation_mode: 'PERMANENT' })
  const { key } = await admin.createApiKey({ tenant_id: id, name: MARKER, scopes: ['admin'] })
  const own = installation.client({ apiKey: key })
  await own.createPermission({ id, key: 'once', value: MARKER }, { idempotencyKey: randomUUID() })
  await admin.createTenant({ slug: uniqueSlug('below'), name: MARKER, parent_id: id }, { idempotencyKey: randomUUID() })
  await admin.createPermission({ id, key: 'by_admin', value: MARKER }, { idempotencyKey: randomUUID() })
  await admin.createDomain({ id, domain: `${MARKER}.example` }, { idempotencyKey: randomUUID() })
  // an answer that does not name its tenant
  const history = { operation: 'get_config_history', input: { id, key: 'plain', limit: 10 }, key: randomUUID(), input_hash: 'h' }
  await sql('select stratum.run_once($1, $2)', [ACTOR, JSON.stringify(history)])
  await sql('update stratum.custom_domains set verified_at = now() where tenant_id = $1', [id])
  await sql(`insert into stratum.issuers (id, tenant_id, issuer, audience, settings) values ($1, $2, $3, 'a', '{}')`, [randomUUID(), id, MARKER])
  await sql(`insert into stratum.tenant_external_ids (issuer, external_id, tenant_id, reach_tenant_id) values ('i', $1, $2, $2), ('i', $1 || '2', $3, $2)`, [
    MARKER,
    id,
    parent.id,
  ])
  return { key: key as string }
}

describe('a purge', () => {
  it('leaves no marker in any table, and the ids only where they belong', async () => {
    const { root, target } = await plantTree(admin, { root: null, target: 'root' })
    const { key } = await furnish(target, root)
    const [child] = (await admin.getChildren({ id: target.id })).data
    expect(await tablesHolding(MARKER)).toEqual(
      expect.arrayContaining(['tenants', 'config_history', 'api_keys', 'audit_entries', 'outbox', 'idempotency_keys'].map((table) => `stratum.${table}`)),
    )

    const answer = await admin.purgeTenant({ id: target.id, subtree: true })
    expect(answer).toMatchObject({ id: target.id, purged: [target.id, child?.id], job_ids: [] })
    expect(answer.erased).toMatchObject({ tenants: 2, config_entries: 2, data_keys: 1, permission_policies: 3, api_keys: 1, custom_domains: 1, issuers: 1 })

    // which host and issuer to forget is told to caches, and goes as the feed is trimmed
    expect(await tablesHolding(MARKER)).toEqual(['stratum.changes'])
    await sql(`delete from stratum.changes where kind in ('host', 'issuer')`)
    expect(await tablesHolding(MARKER)).toEqual([])
    const kept = ['audit_entries', 'audit_heads', 'outbox', 'tenant_slugs'].map((table) => `stratum.${table}`)
    expect(await tablesHolding(target.id)).toEqual(kept)
    expect(await tablesHolding(target.slug)).toEqual(['stratum.tenant_slugs'])
    expect(await tablesHolding('planted')).toEqual([])
    await refusal(installation.client({ apiKey: key }).getContext(), 'API_KEY_INVALID')
  })

  it('reaches every table with a tenant_id: one that is new is erased, or listed here', async () => {
    const { target } = await plantTree(admin, { target: null })
    await furnish(target, await admin.createTenant({ slug: uniqueSlug(), name: 'Parent' }))
    await admin.purgeTenant({ id: target.id, subtree: true })
    const columns = await sql<{ name: string; column: string }>(`
      select format('%I.%I', n.nspname, c.relname) as name, quote_ident(a.attname) as column
      from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_attribute a on a.attrelid = c.oid
      where n.nspname in ('stratum', 'stratum_guard') and c.relkind = 'r' and a.attname in ('tenant_id', 'of_tenant', 'reach_tenant_id', 'suspended_with', 'archived_with', 'parent_id')`)
    const left: string[] = []
    for (const { name, column } of columns) {
      if ((await sql(`select from ${name} where ${column} = $1`, [target.id])).length > 0) left.push(`${name}.${column}`)
    }
    expect(left.sort()).toEqual(['stratum.audit_entries.tenant_id', 'stratum.audit_heads.tenant_id', 'stratum.tenant_slugs.tenant_id'])
  })

  it('keeps both audit chains whole: its own without payloads, and in the system chain ids and counts', async () => {
    const { root, target } = await plantTree(admin, { root: null, target: 'root' })
    await furnish(target, root)
    const before = await readChain(installation.owner, target.id)
    const { purged } = await admin.purgeTenant({ id: target.id, subtree: true })

    expect(await readChain(installation.owner, target.id)).toEqual(before.map((entry) => ({ ...entry, payload: null, salt: null })))
    expect(await verifyChain(installation.owner, target.id)).toBeNull()
    expect(await verifyChain(installation.owner, SYSTEM_CHAIN)).toBeNull()
    const tombstone = JSON.parse((await readChain(installation.owner, SYSTEM_CHAIN)).at(-1)?.payload ?? '')
    expect(tombstone).toMatchObject({ action: 'tenant.purged', resource: { type: 'tenant', id: target.id }, before: null })
    expect(tombstone.after.purged).toEqual({ count: purged.length, ids: purged })
    expect(Object.values(tombstone.after.erased).every(Number.isInteger)).toBe(true)
  })

  it.each(['active', 'suspended', 'archived'] as const)('ends a tenant that is %s, which then is unknown and whose slug stays taken', async (status) => {
    const slug = uniqueSlug('ended')
    const { id } = await admin.createTenant({ slug, name: 'Ended' })
    if (status === 'suspended') await admin.suspendTenant({ id })
    if (status === 'archived') await admin.archiveTenant({ id })
    await admin.purgeTenant({ id })
    await refusal(admin.getTenant({ id }), 'TENANT_NOT_FOUND')
    await refusal(admin.resolve({ host: `${slug.replaceAll('_', '-')}.stratum.test` }), 'TENANT_NOT_FOUND')
    await refusal(admin.purgeTenant({ id }), 'TENANT_NOT_FOUND')
    await refusal(admin.createTenant({ slug, name: 'Another' }), 'TENANT_SLUG_TAKEN')
    expect(await sql('select from stratum_guard.route where tenant_id = $1', [id])).toEqual([])
  })

  it('is refused over tenants below unless they go with it, and then it takes exactly those', async () => {
    const { root, target, child, beside } = await plantTree(admin, { root: null, target: 'root', child: 'target', beside: 'root' })
    await admin.archiveTenant({ id: child.id })
    const before = await contents(installation.owner)
    await refusal(admin.purgeTenant({ id: target.id }), 'TENANT_HAS_CHILDREN')
    expect(await contents(installation.owner)).toEqual(before)
    expect((await admin.purgeTenant({ id: target.id, subtree: true })).purged).toEqual([target.id, child.id])
    expect((await admin.getDescendants({ id: root.id })).data.map(({ id }) => id)).toEqual([beside.id])
  })

  it('is refused while the isolation of one of them is being changed', async () => {
    const { target, child } = await plantTree(admin, { target: null, child: 'target' })
    const job = randomUUID()
    await sql(
      `insert into stratum.isolation_changes (id, tenant_id, job_id, from_strategy, to_strategy, to_name) values ($1, $2, $3, 'SHARED_RLS', 'SCHEMA_PER_TENANT', 't')`,
      [randomUUID(), child.id, job],
    )
    const { details } = await refusal(admin.purgeTenant({ id: target.id, subtree: true }), 'ISOLATION_CHANGE_RUNNING')
    expect(details).toMatchObject({ job_id: job })
    await sql(`update stratum.isolation_changes set finished_at = now(), phase = 'cancelled' where job_id = $1`, [job])
  })

  it('leaves one that was suspended with it and has moved elsewhere as it is, and free to be resumed', async () => {
    const { top, mid, elsewhere } = await plantTree(admin, { top: null, mid: 'top', elsewhere: null })
    await admin.suspendTenant({ id: top.id, cascade: true })
    await admin.moveTenant({ id: mid.id, new_parent_id: elsewhere.id })
    await admin.purgeTenant({ id: top.id })
    expect(await admin.getTenant({ id: mid.id })).toMatchObject({ status: 'suspended', parent_id: elsewhere.id })
    expect(await admin.resumeTenant({ id: mid.id })).toMatchObject({ status: 'active' })
    // what held while the purged one was above is told without it
    expect(await admin.resolveConfig({ id: mid.id, at: mid.created_at })).toEqual({ config: {} })
  })

  it('does for the embedded class what it does over HTTP', async () => {
    const { target } = await plantTree(admin, { target: null })
    expect(await installation.stratum.purgeTenant(target.id)).toMatchObject({ purged: [target.id] })
  })
})

describe('a purge that meets another request', () => {
  it.each([
    ['a write of config', ({ id }: Tenant) => admin.setConfig({ id, key: 'late', value: MARKER })],
    ['a new API key', ({ id }: Tenant) => admin.createApiKey({ tenant_id: id, name: MARKER })],
    ['a new child', ({ id }: Tenant) => admin.createTenant({ slug: uniqueSlug('late'), name: MARKER, parent_id: id })],
    ['a secret being revealed', ({ id }: Tenant) => admin.resolveConfig({ id, reveal: true })],
  ])('goes first: %s finds no tenant, and adds nothing', async (_, late) => {
    const { target } = await plantTree(admin, { target: null })
    await admin.setConfig({ id: target.id, key: 'secret', value: 1, sensitive: true })
    await whileOpen(
      installation.owner,
      (held) => held.query('select stratum.purge_tenant($1, $2)', [ACTOR, JSON.stringify({ id: target.id, subtree: false })]),
      async (commit) => {
        const outcome = refusal(late(target), 'TENANT_NOT_FOUND')
        await untilWaiting(installation.owner)
        await commit()
        await outcome
      },
    )
    // hosts of others that were furnished above are still in the feed
    expect((await tablesHolding(MARKER)).filter((table) => table !== 'stratum.changes')).toEqual([])
    expect((await readChain(installation.owner, target.id)).every(({ payload }) => payload === null)).toBe(true)
  })

  it('goes between who may and what is read: a read that was judged before it finds no tenant', async () => {
    const { target } = await plantTree(admin, { target: null })
    const pause = 4_713
    const [function_] = await sql<{ text: string }>(`select pg_get_functiondef('stratum.get_tenant'::regproc) as text`)
    const text = function_?.text ?? ''
    await sql(text.replace('select * into strict t', `perform pg_advisory_xact_lock(${pause}); select * into strict t`))
    await whileOpen(
      installation.owner,
      (held) => held.query('select pg_advisory_xact_lock($1)', [pause]),
      async (goOn) => {
        const outcome = refusal(admin.getTenant({ id: target.id }), 'TENANT_NOT_FOUND')
        await untilWaiting(installation.owner)
        await admin.purgeTenant({ id: target.id })
        await goOn()
        await outcome
      },
    )
    await sql(text)
  })
})
