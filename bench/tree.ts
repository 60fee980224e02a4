/**
 * What the tree costs in Postgres, and how that grows: `node bench/tree.ts`, with `--million` for 1,000,000
 * tenants too. Each figure is the median of the execution times that `explain analyze` gives, prepared and
 * warm, in one run on a server of its own; ratios are to the smallest tree.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import pg from 'pg'
import { migrate, overPostgres } from '../src/db/migrate.ts'
import { ensureRoles, generatePassword } from '../src/db/roles.ts'
import { startPostgres } from '../src/local/postgres.ts'
import { type GeneratedTree, generateTree } from './tree-data.ts'

const SIZES = [1_000, 10_000, 100_000, ...(process.argv.includes('--million') ? [1_000_000] : [])]
const ACTOR = { credential: { type: 'embedded', actor_id: 'bench', actor_type: 'system' }, named: [], exposed: false, request_id: null, source_ip: null }

interface Measure {
  name: string
  operation: string
  rounds: number
  actor?: (tree: GeneratedTree) => object
  /** Inputs are taken in turn: a move goes there and back. */
  inputs: (tree: GeneratedTree) => object[]
}

const page = { limit: 100, include_archived: false }
const onHost = (tree: GeneratedTree) => ({ ...ACTOR, named: [{ source: 'subdomain', tenant: tree.subdomain }] })
const withKey = (tree: GeneratedTree) => ({ ...ACTOR, credential: { type: 'api_key', hashes: [tree.keyHash, 'unknown'] } })
const there = (id: string, parents: Array<string | null>) => parents.map((new_parent_id) => ({ id, new_parent_id }))

const MEASURES: Measure[] = [
  { name: 'context at depth 20, 50 keys a level, by host', operation: 'get_context', rounds: 101, actor: onHost, inputs: () => [{}] },
  { name: 'the same, by API key', operation: 'get_context', rounds: 101, actor: withKey, inputs: () => [{}] },
  { name: 'tenant by slug', operation: 'get_tenant_by_slug', rounds: 101, inputs: (tree) => [{ slug: tree.slug }] },
  { name: 'children, page of 100', operation: 'get_children', rounds: 51, inputs: (tree) => [{ id: tree.large, ...page }] },
  { name: 'descendants, page of 100', operation: 'get_descendants', rounds: 51, inputs: (tree) => [{ id: tree.large, ...page }] },
  { name: 'roots, page of 100', operation: 'list_tenants', rounds: 11, inputs: () => [{ root: true, ...page }] },
  { name: 'set config at depth 20', operation: 'set_config', rounds: 51, inputs: (tree) => [{ id: tree.deepest, key: 'own', value: 1, locked: false }] },
  { name: 'move the middling subtree', operation: 'move_tenant', rounds: 5, inputs: (tree) => there(tree.middling, [tree.elsewhere, tree.root]) },
  { name: 'move the large subtree', operation: 'move_tenant', rounds: 5, inputs: (tree) => there(tree.large, [tree.elsewhere, tree.root]) },
]

const median = (values: number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN

/** Milliseconds in the executor, as the server measured them. */
async function executionTime(client: pg.Client, statement: string): Promise<number> {
  const { rows } = await client.query<{ 'QUERY PLAN': [{ 'Execution Time': number }] }>(`explain (analyze, timing off, format json) execute ${statement}`)
  return rows[0]?.['QUERY PLAN'][0]['Execution Time'] ?? Number.NaN
}

async function measure(client: pg.Client, tree: GeneratedTree, { operation, rounds, actor, inputs }: Measure): Promise<number> {
  const json = (value: object) => client.escapeLiteral(JSON.stringify(value))
  await client.query(`prepare measured (jsonb, jsonb) as select stratum.${operation}($1, $2)`)
  const calls = inputs(tree).map((input) => `measured (${json(actor?.(tree) ?? ACTOR)}, ${json(input)})`)
  const times: number[] = []
  // The first calls warm caches and plans, and are not counted.
  for (let round = -6; round < rounds; round++) {
    const time = await executionTime(client, calls[(round + 6) % calls.length] ?? '')
    if (round >= 0) times.push(time)
  }
  await client.query('deallocate measured')
  return median(times)
}

/** The same answer as one plain statement each: what a page of a subtree costs without JSON and without asking who asks. */
async function bareSubtree(client: pg.Client, tree: GeneratedTree): Promise<number> {
  await client.query(
    'prepare measured (uuid) as select t.id from stratum.tenants p join stratum.tenants t on t.path >= p.path and t.path < stratum.subtree_end(p.path) where p.id = $1',
  )
  const times: number[] = []
  for (let round = 0; round < 21; round++) times.push(await executionTime(client, `measured ('${tree.middling}')`))
  await client.query('deallocate measured')
  return median(times)
}

async function measureSize(url: (database: string) => string, size: number): Promise<Map<string, number>> {
  const admin = new pg.Client(url('postgres'))
  await admin.connect()
  await admin.query(`create database tree_${size}`)
  await admin.end()
  const client = new pg.Client(url(`tree_${size}`))
  await client.connect()
  try {
    const connection = overPostgres(client)
    await ensureRoles(connection, { owner: generatePassword(), control: generatePassword(), app: generatePassword() })
    await migrate(connection, { owner: 'stratum_owner' })
    // Before the tree is made: the path is the schema's own for what the statements below name.
    await client.query('set search_path = stratum, public')
    const tree = await generateTree(client, size)
    const figures = new Map<string, number>()
    for (const each of MEASURES) figures.set(each.name, await measure(client, tree, each))
    figures.set('ids of the middling subtree, bare', await bareSubtree(client, tree))
    console.log(`${size.toLocaleString('en')} tenants measured; large subtree ${tree.largeSize}, middling ${tree.middlingSize}`)
    return figures
  } finally {
    await client.end()
  }
}

function print(results: Array<[size: number, figures: Map<string, number>]>) {
  const [, smallest] = results[0] ?? [0, new Map<string, number>()]
  console.log(`\n${'median ms in Postgres (ratio)'.padEnd(48)}${results.map(([size]) => size.toLocaleString('en').padStart(20)).join('')}`)
  for (const [name, base] of smallest) {
    const cells = results.map(([, figures]) => {
      const value = figures.get(name) ?? Number.NaN
      return `${value.toFixed(2)} (${(value / base).toFixed(2)})`.padStart(20)
    })
    console.log(name.padEnd(48) + cells.join(''))
  }
}

const directory = await mkdtemp(join(tmpdir(), 'stratum-bench-'))
const postgres = await startPostgres({ directory: join(directory, 'postgres'), password: 'admin', durable: false })
try {
  const results: Array<[number, Map<string, number>]> = []
  for (const size of SIZES) results.push([size, await measureSize((database) => postgres.url(database), size)])
  print(results)
} finally {
  await postgres.stop()
  await rm(directory, { recursive: true, force: true })
}
