// Two tenants, one table, no way across. Run it beside `npm run dev`: node docs/examples/tenant-rows.mjs
import { readFileSync } from 'node:fs'
import pg from 'pg'
import { createTenantPool, migrateTable } from 'stratum-edge/db-adapters'
import { getTenantContext, runWithTenant } from 'stratum-edge/sdk'

const stack = JSON.parse(readFileSync(process.env.STACK ?? '.stratum/dev.json', 'utf8'))

// Once, as the owner: a table of the application's own, made to hold tenants' rows.
const owner = new pg.Client(stack.database_url)
await owner.connect()
await owner.query('create table if not exists orders (id uuid primary key default gen_random_uuid(), total integer not null)')
await migrateTable(owner, 'orders')
await owner.end()

// At run time, as the data plane's role: a pool like any other, for the tenant of the current request.
const pool = new pg.Pool({ connectionString: stack.app_database_url })
const tenantPool = createTenantPool(pool, () => getTenantContext().tenant_id)
const as = (slug, work) => runWithTenant({ tenant_id: stack.tenants[slug] }, work)
const totals = async () => (await tenantPool.query('select total from orders order by total')).rows.map((row) => row.total)
const refused = (work) =>
  work().then(
    () => 'allowed',
    (error) => error.code,
  )

await as('client_alpha', () => tenantPool.query('delete from orders'))
await as('client_alpha', () => tenantPool.query('insert into orders (total) values ($1), ($2)', [42, 43]))
console.log('client_alpha sees', await as('client_alpha', totals))
console.log('client_gamma sees', await as('client_gamma', totals))
console.log(
  'client_gamma writes for client_alpha:',
  await as('client_gamma', () => refused(() => tenantPool.query('insert into orders (tenant_id, total) values ($1, 1)', [stack.tenants.client_alpha]))),
)
const insert = 'insert into orders (total) values (44)'
console.log(
  'nobody writes:',
  await refused(() => tenantPool.query(insert)),
  'from the handle,',
  await refused(() => pool.query(insert)),
  'from the pool itself',
)

await tenantPool.end()
await pool.end()
