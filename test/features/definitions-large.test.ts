/** Putting definitions over more stored values than one answer may hold: they are read and checked page by page. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Json } from '../../src/core/json.ts'
import type { StratumClient } from '../../src/sdk/client.ts'
import { BackendClient, run } from '../reliability/operations.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { contents } from '../support/record.ts'
import { plantTree, refusal, uniqueSlug } from '../support/tree.ts'

/** 80 tenants with 15 values of 64 KB are more than Neon answers at once. */
const TENANTS = 80
const KEYS = Array.from({ length: 15 }, (_, index) => `large_${index}`)
const PAGE_BYTES = 8 * 1024 * 1024

let installation: Installation
let admin: StratumClient
let ids: string[]
beforeAll(async () => {
  installation = await createInstallation()
  admin = await installation.clientFor(null)
  const { root } = await plantTree(admin, { root: null })
  const tenants = Array.from({ length: TENANTS }, () => ({ slug: uniqueSlug('large'), name: 'Large', parent_id: root.id }))
  ids = (await admin.batchCreateTenants({ tenants })).tenants.map(({ id }) => id).sort()
  await installation.owner.query(
    `insert into stratum.config_entries (tenant_id, key, value, locked)
     select t.id, k.key, to_jsonb(t.id::text || repeat('x', 65000)), false from unnest($1::uuid[]) as t (id), unnest($2::text[]) as k (key)`,
    [ids, KEYS],
  )
})
afterAll(() => installation.close())

const put = (schema: Record<string, Json>) => admin.putConfigDefinitions({ definitions: KEYS.map((key) => ({ key, schema })) })

/** The outcome of an operation, and the requests it made to the database. */
async function counted<T>(work: () => Promise<T>): Promise<{ outcome: T; requests: number }> {
  const before = installation.databaseRequests()
  return { outcome: await work(), requests: installation.databaseRequests() - before }
}

describe('putting definitions over a large store', () => {
  it('checks all of it, in one request more for each further page', async () => {
    const { outcome, requests } = await counted(() => put({ type: 'string', maxLength: 65_036 }))
    expect(outcome.data).toHaveLength(KEYS.length)
    const pages = Math.ceil((TENANTS * KEYS.length * 65_100) / PAGE_BYTES)
    expect([pages, pages + 1]).toContain(requests - 1)
  })

  it('is refused where the last of it contradicts, and nothing is written', async () => {
    await installation.owner.query(`update stratum.config_entries set value = '7' where tenant_id = $1 and key = $2`, [ids.at(-1), KEYS.at(-1)])
    const before = await contents(installation.owner)
    const { details } = await refusal(put({ type: 'string' }), 'CONFIG_DEFINITION_CONFLICT')
    expect(details).toMatchObject({ key: KEYS.at(-1), tenant_id: ids.at(-1) })
    expect(await contents(installation.owner)).toEqual(before)
  })

  it('stops at the first page that contradicts', async () => {
    const { requests } = await counted(() => refusal(put({ type: 'boolean' }), 'CONFIG_DEFINITION_CONFLICT'))
    expect(requests).toBe(1)
  })

  it('counts a value as often as it is held, and tells it once a page', async () => {
    await installation.owner.query(
      `insert into stratum.config_entries (tenant_id, key, value, locked) select t.id, 'small', 'true', false from unnest($1::uuid[]) as t (id)`,
      [ids],
    )
    const connection = await BackendClient.open(installation.urls.control)
    const page = await run(connection, { operation: 'read_stored_config', input: { keys: ['small', 'none'] } }).finally(() => connection.end())
    expect(page).toEqual({ values: [{ key: 'small', value: true, tenant_id: ids[0] }], next: null, digest: expect.any(String) })
  })

  it('is refused where a value changes between two pages, or where not all pages were read', async () => {
    const connection = await BackendClient.open(installation.urls.control)
    const read = async (after?: unknown) =>
      (await run(connection, { operation: 'read_stored_config', input: { keys: KEYS, after } })) as { next: unknown; digest: string | null }
    const write = (digest: unknown) =>
      run(connection, { operation: 'put_config_definitions', input: { keys: KEYS, definitions: [], remove: [], digest } }).then(
        () => 'done',
        ({ message }: Error) => message,
      )
    let page = await read()
    expect(page).toMatchObject({ next: expect.any(Array), digest: null })
    // an earlier release knows of no pages, and sends what it was not given
    expect(await write(undefined)).toBe('CONFIG_DEFINITIONS_CHANGED')
    await admin.setConfig({ id: ids[0] ?? '', key: KEYS[0] ?? '', value: 'meanwhile' })
    while (page.next !== null) page = await read(page.next)
    expect(await write(page.digest)).toBe('CONFIG_DEFINITIONS_CHANGED')
    for (page = await read(); page.next !== null; ) page = await read(page.next)
    expect(await write(page.digest)).toBe('done')
    await connection.end()
  })
})
