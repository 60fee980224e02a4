/**
 * Every managed table × verb × strategy × way to come by a connection: a tenant's rows are its own. The tables come
 * from the catalog, so one that is managed and has no sample here fails.
 */
import pg from 'pg'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { type ManagedTable, readManagedTables } from '../../src/isolation/catalog.ts'
import { createTenantPool, type TenantPool } from '../../src/isolation/handles/tenant-pool.ts'
import type { IsolationStrategy } from '../../src/isolation/place.ts'
import { schemaOf } from '../../src/isolation/place.ts'
import { createStage, type Made, type Stage } from './stage.ts'

const STRATEGIES: IsolationStrategy[] = ['SHARED_RLS', 'SCHEMA_PER_TENANT', 'DB_PER_TENANT']
/** The columns of a row beside its key and its tenant, for each managed table; `$order` is the id of an order. */
const SAMPLES: Record<string, { columns: string[]; values: string[]; change: string }> = {
  orders: { columns: ['item'], values: [`'kept'`], change: `item = 'stolen'` },
  order_lines: { columns: ['order_id', 'amount'], values: ['$order', '1'], change: 'amount = 99' },
}

type Run = (text: string) => Promise<pg.QueryResult>
interface Target {
  victim: Made
  intruder: Made
  /** Ids of the victim's row in each table, and of the intruder's. */
  rows: Record<string, { victim: string; intruder: string }>
}

let stage: Stage
let pool: pg.Pool
let tables: ManagedTable[]
const targets = {} as Record<IsolationStrategy, Target>

async function fill(tenant: Made): Promise<Record<string, string>> {
  const ids: Record<string, string> = {}
  for (const { name } of tables) {
    const { columns, values } = sampleOf(name)
    const text = `insert into ${name} (${columns.join(', ')}) values (${values.join(', ').replace('$order', `'${ids['orders']}'`)}) returning id`
    const [row] = await stage.batch(tenant, text)
    ids[name] = String(row?.['id'])
  }
  return ids
}

function sampleOf(name: string) {
  const sample = SAMPLES[name]
  if (!sample) throw new Error(`the managed table ${name} has no sample in SAMPLES`)
  return sample
}

beforeAll(async () => {
  stage = await createStage()
  await stage.owner.query(`
    create table orders (id uuid primary key default gen_random_uuid(), item text not null);
    create table order_lines (id uuid primary key default gen_random_uuid(), order_id uuid not null references orders, amount integer not null)`)
  await stage.manage(['orders', 'order_lines'])
  tables = await stage.asOwner((client) => readManagedTables(client))
  for (const strategy of STRATEGIES) {
    const [victim, intruder] = [await stage.placed(strategy), await stage.placed(strategy)]
    const [kept, own] = [await fill(victim), await fill(intruder)]
    targets[strategy] = {
      victim,
      intruder,
      rows: Object.fromEntries(tables.map(({ name }) => [name, { victim: kept[name] ?? '', intruder: own[name] ?? '' }])),
    }
  }
  pool = new pg.Pool({ connectionString: stage.urls.app, max: 2 })
})
afterAll(async () => {
  await pool.end()
  await stage.close()
})
// Whatever was tried: the victim's rows are as they were.
afterEach(async () => {
  for (const { victim, rows } of Object.values(targets)) {
    expect(await stage.batch(victim, 'select id, item from orders')).toEqual([{ id: rows['orders']?.victim, item: 'kept' }])
    expect(await stage.batch(victim, 'select id, order_id, amount from order_lines')).toEqual([
      { id: rows['order_lines']?.victim, order_id: rows['orders']?.victim, amount: 1 },
    ])
  }
})

/** What a verb may come to: nothing found, or one of these SQLSTATEs. */
type Outcome = 'nothing' | string

/** Statements that would reach the victim's row, as written by somebody who knows its id, and what comes of them. */
function verbs({ victim, rows }: Target, { name, references }: ManagedTable, qualified: string): Record<string, [text: string, outcome: Outcome[]]> {
  const { columns, values, change } = sampleOf(name)
  const row = rows[name]?.victim
  const list = values.join(', ').replace('$order', `'${rows['orders']?.intruder}'`)
  const insert = (id: string, tenant: string) => `insert into ${qualified} (id, tenant_id, ${columns.join(', ')}) values (${id}, ${tenant}, ${list})`
  const stolen = `'${victim.id}'`
  return {
    select: [`select id from ${qualified} where id = '${row}'`, ['nothing']],
    'select by tenant': [`select id from ${qualified} where tenant_id = ${stolen}`, ['nothing']],
    update: [`update ${qualified} set ${change} where id = '${row}' returning id`, ['nothing']],
    // The intruder has rows of its own to give in the shared tables, and none in a place of the victim's own.
    'give away': [`update ${qualified} set tenant_id = ${stolen}`, victim.place.strategy === 'SHARED_RLS' ? ['42501'] : ['42501', 'nothing']],
    delete: [`delete from ${qualified} where id = '${row}' returning id`, ['nothing']],
    lock: [`select id from ${qualified} where id = '${row}' for update`, ['nothing']],
    insert: [insert('gen_random_uuid()', stolen), ['42501']],
    'insert returning': [`${insert('gen_random_uuid()', stolen)} returning *`, ['42501']],
    upsert: [`${insert(`'${row}'`, stolen)} on conflict (id) do update set ${change} returning id`, ['42501']],
    ...(victim.place.strategy === 'SHARED_RLS' && {
      'upsert as own': [
        `insert into ${qualified} (id, ${columns.join(', ')}) values ('${row}', ${list}) on conflict (id) do update set ${change}`,
        ['42501'],
      ] satisfies [string, Outcome[]],
    }),
    truncate: [`truncate ${qualified} cascade`, ['42501']],
    'copy from': [`copy ${qualified} from stdin`, ['0A000', '42501']],
    'merge into': [`merge into ${qualified} t using (select 1) s on t.id = '${row}' when matched then delete`, ['nothing']],
    ...(references.length > 0 && {
      'refer to': [
        `insert into ${qualified} (${columns.join(', ')}) values (${values.join(', ').replace('$order', `'${rows['orders']?.victim}'`)})`,
        ['23503'],
      ] satisfies [string, Outcome[]],
    }),
  }
}

async function outcomeOf(run: Run, text: string): Promise<{ outcome: Outcome; message?: string }> {
  try {
    const { rows, rowCount } = await run(text)
    return { outcome: rows.length === 0 && !rowCount ? 'nothing' : 'something' }
  } catch (error) {
    const { code, message } = error as { code: string; message: string }
    return { outcome: code, message }
  }
}

/** Run each cell of a target; without context nearly all come to one error. */
async function refuseAll(target: Target, run: Run, options: { context?: boolean } = {}) {
  const schema = schemaOf(target.victim.place)
  for (const table of tables) {
    const qualified = target.victim.place.strategy === 'DB_PER_TENANT' ? table.name : `"${schema}".${table.name}`
    for (const [verb, [text, outcomes]] of Object.entries(verbs(target, table, qualified))) {
      const { outcome, message } = await outcomeOf(run, text)
      const allowed = options.context === false && !['truncate', 'copy from'].includes(verb) ? ['STRAT', 'TENANT_CONTEXT_REQUIRED'] : outcomes
      expect(allowed, `${table.name}: ${verb} came to ${outcome}: ${message}`).toContain(outcome)
    }
  }
}

/** A connection of the data plane's role where the victim's rows are, entered by nobody. */
async function bare<T>({ victim }: Target, work: (client: pg.Client, enter: (tenant: Made) => Promise<unknown>) => Promise<T>): Promise<T> {
  const url = new URL(stage.urls.app)
  if (victim.place.strategy === 'DB_PER_TENANT') url.pathname = `/${victim.place.name}`
  const client = new pg.Client(url.href)
  await client.connect()
  const version = victim.place.strategy === 'DB_PER_TENANT' ? 1 : null
  return work(client, (tenant) => client.query('select stratum_guard.enter($1, $2)', [tenant.id, version])).finally(() => client.end())
}

async function withHandle<T>({ intruder }: Target, work: (handle: TenantPool) => Promise<T>): Promise<T> {
  const handle = createTenantPool(pool, () => intruder.id)
  return work(handle).finally(() => handle.end())
}

const withClient = (target: Target, work: (client: pg.PoolClient) => Promise<unknown>) =>
  withHandle(target, async (handle) => {
    const client = await handle.connect()
    await work(client).finally(() => client.release())
  })

/** Each statement between savepoints, as most of them are refused. */
const between =
  (client: pg.PoolClient): Run =>
  async (text) => {
    await client.query('savepoint tried')
    try {
      return await client.query(text)
    } finally {
      await client.query('rollback to savepoint tried')
    }
  }

/** In a transaction of the intruder's handle, begun this way, after these statements. */
const within =
  (begin: string, ...first: Array<string | ((target: Target) => string)>) =>
  (target: Target) =>
    withClient(target, async (client) => {
      await client.query(begin)
      for (const statement of first) await client.query(typeof statement === 'string' ? statement : statement(target)).catch(() => {})
      await refuseAll(target, between(client))
      await client.query('rollback')
    })

const SITUATIONS: Record<string, (target: Target) => Promise<unknown>> = {
  'without context on a fresh connection': (target) => bare(target, (client) => refuseAll(target, (text) => client.query(text), { context: false })),
  'without context on a recycled connection': (target) =>
    bare(target, async (client, enter) => {
      await client.query('begin')
      await enter(target.victim)
      await client.query('commit')
      await refuseAll(target, (text) => client.query(text), { context: false })
    }),
  'after a rollback of the victim’s own transaction': (target) =>
    bare(target, async (client, enter) => {
      await client.query('begin')
      await enter(target.victim)
      await client.query('rollback')
      await refuseAll(target, (text) => client.query(text), { context: false })
    }),
  'with an empty setting': (target) =>
    bare(target, async (client) => {
      await client.query(`set app.current_tenant_id = ''`)
      await refuseAll(target, (text) => client.query(text), { context: false })
    }),
  'with the intruder’s setting by hand, where the victim is': (target) =>
    bare(target, async (client) => {
      await client.query(`set app.current_tenant_id = '${target.intruder.id}'`)
      await refuseAll(target, (text) => client.query(text))
    }),
  'by single queries of another’s handle': (target) => withHandle(target, (handle) => refuseAll(target, (text) => handle.query(text))),
  'after a rollback': (target) =>
    withClient(target, async (client) => {
      await client.query('begin')
      await client.query('rollback')
      await refuseAll(target, (text) => client.query(text))
    }),
  'in a transaction, after a rollback to a savepoint': within('begin', 'savepoint before', 'select 1 / 0', 'rollback to savepoint before'),
  'after set role': within('begin', 'set role stratum_app'),
  'in a repeatable read transaction': within('begin isolation level repeatable read'),
  'in a serializable transaction': within('start transaction isolation level serializable'),
  'with the search path of the victim': within('begin', ({ victim }) => `set local search_path = "${schemaOf(victim.place)}"`),
  'by prepared statements': (target) =>
    withHandle(target, async (handle) => {
      let name = 0
      await refuseAll(target, (text) => handle.query({ name: `named_${name++}`, text, values: [] }))
    }),
}

for (const strategy of STRATEGIES) {
  describe(`rows of a ${strategy} tenant`, () => {
    for (const [situation, meet] of Object.entries(SITUATIONS)) {
      it(`are refused ${situation}`, () => meet(targets[strategy]))
    }
  })
}
