/** What must hold of the tree holds whoever writes: the owner's own SQL cannot break it either. */
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { Tenant } from '../../src/features/tenants/contract.ts'
import type { StratumClient } from '../../src/sdk/client.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { plantLine, plantTree } from '../support/tree.ts'

let installation: Installation
let admin: StratumClient
beforeAll(async () => {
  installation = await createInstallation()
  admin = await installation.clientFor(null)
})
afterAll(() => installation.close())

const tree = () => plantTree(admin, { a: null, a1: 'a', a2: 'a1', b: null, b1: 'b' })
const everyRow = async () => (await installation.owner.query('select * from stratum.tenants order by id')).rows

/** The SQLSTATE the statement was refused with; nothing may have changed. */
async function refused(sql: string, values: unknown[]): Promise<unknown> {
  const before = await everyRow()
  const outcome = await installation.owner.query(`set search_path = stratum; ${sql}`.replace(/\$(\d)/g, (_, n) => `'${values[Number(n) - 1]}'`)).then(
    () => 'accepted',
    (error: { code?: string }) => error.code,
  )
  expect(await everyRow()).toEqual(before)
  return outcome
}

const CHECK = '23514'
const INTEGRITY = '23000'

it.each<[name: string, sql: string, values: (t: Record<'a' | 'a1' | 'a2' | 'b' | 'b1', Tenant>) => unknown[], sqlState: string]>([
  ['a path that leaves out the parent', 'update tenants set path = text2ltree(to_hex(number)) where id = $1', ({ a1 }) => [a1.id], INTEGRITY],
  [
    "another tenant's place under its own parent",
    'update tenants t set path = (select path from tenants where id = $2) || text2ltree(to_hex(t.number)) where id = $1',
    ({ a1, b }) => [a1.id, b.id],
    INTEGRITY,
  ],
  ['a parent that the path does not follow', 'update tenants set parent_id = $2 where id = $1', ({ a1, b }) => [a1.id, b.id], INTEGRITY],
  ['no parent under a path that has one', 'update tenants set parent_id = null where id = $1', ({ a1 }) => [a1.id], INTEGRITY],
  ['a cycle of two', 'update tenants set parent_id = $2 where id = $1', ({ a, a1 }) => [a.id, a1.id], INTEGRITY],
  ['a tenant that is its own parent', 'update tenants set parent_id = id where id = $1', ({ a }) => [a.id], INTEGRITY],
  [
    'a cycle whose paths are changed with it',
    'update tenants t set parent_id = $2, path = (select path from tenants where id = $2) || text2ltree(to_hex(t.number)) where id = $1',
    ({ a, a2 }) => [a.id, a2.id],
    INTEGRITY,
  ],
  [
    'a tenant that moves without its descendants',
    'update tenants t set parent_id = $2, path = (select path from tenants where id = $2) || text2ltree(to_hex(t.number)) where id = $1',
    ({ a1, b }) => [a1.id, b.id],
    INTEGRITY,
  ],
  ['an active tenant under a suspended one', "update tenants set status = 'suspended' where id = $1", ({ a }) => [a.id], INTEGRITY],
  ['an active tenant under an archived one', "update tenants set status = 'archived', deleted_at = now() where id = $1", ({ a1 }) => [a1.id], INTEGRITY],
  ['a label that is not its number', "update tenants set path = subpath(path, 0, -1) || 'ffffff' where id = $1", ({ b1 }) => [b1.id], CHECK],
  ['a number that is not its label', 'update tenants set number = 4242424 where id = $1', ({ b1 }) => [b1.id], CHECK],
  ['an archived tenant without the time', "update tenants set status = 'archived' where id = $1", ({ a2 }) => [a2.id], CHECK],
  ['a status nobody knows', "update tenants set status = 'purged' where id = $1", ({ a2 }) => [a2.id], CHECK],
  ['a slug with capitals', "update tenants set slug = 'Capitals' where id = $1", ({ a2 }) => [a2.id], CHECK],
  ['the slug of another', 'update tenants set slug = (select slug from tenants where id = $2) where id = $1', ({ a, b }) => [a.id, b.id], '23505'],
  ['a parent that is gone', 'delete from tenants where id = $1', ({ a1 }) => [a1.id], '23503'],
])('refuses %s', async (_, sql, values, sqlState) => {
  expect(await refused(sql, values(await tree()))).toBe(sqlState)
})

const INSERT = 'insert into tenants (id, number, parent_id, path, slug, name, status, deleted_at)'

it('refuses level twenty-one', async () => {
  const line = await plantLine(admin, 20)
  const sql = `${INSERT} select uuid_v7(), 16777215, id, path || 'ffffff', 'level_21', 'X', 'active', null from tenants where id = $1`
  expect(await refused(sql, [line.at(-1)?.id])).toBe(CHECK)
})

it('refuses an active tenant made under one that is not', async () => {
  const { a2 } = await tree()
  await admin.suspendTenant({ id: a2.id })
  const insert = (status: string, deleted_at: string) =>
    `${INSERT} select uuid_v7(), 16777214, id, path || 'fffffe', 'made_here', 'X', '${status}', ${deleted_at} from tenants where id = $1`

  expect(await refused(insert('active', 'null'), [a2.id])).toBe(INTEGRITY)
  await installation.owner.query(`set search_path = stratum; ${insert('archived', 'now()').replace('$1', `'${a2.id}'`)}`)
  expect((await admin.getTenantBySlug({ slug: 'made_here' })).ancestor_ids).toContain(a2.id)
})

it('accepts what keeps it whole: a subtree that moves in one statement', async () => {
  const { a1, a2, b } = await tree()
  await installation.owner.query(
    `update stratum.tenants t set path = target.path operator(stratum.||) stratum.subpath(t.path, 1), parent_id = case when t.id = $1 then target.id else t.parent_id end
     from stratum.tenants target where target.id = $3 and t.id in ($1, $2)`,
    [a1.id, a2.id, b.id],
  )
  expect((await admin.getTenant({ id: a2.id })).ancestor_ids).toEqual([b.id, a1.id])
})
