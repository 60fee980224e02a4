/** Policies that let through what they should not, or that no index serves. */
import type pg from 'pg'
import { POLICY } from '../definitions.ts'
import { isOurs } from '../obstacles.ts'
import type { PolicyFacts, TableFacts } from '../table-facts.ts'
import { error, type Finding, warning } from './finding.ts'

const PUT_BACK = 'Drop it: the one policy that stratum migrate makes is enough.'

/** Names of functions in an expression, as it is printed. */
const functionsIn = (expression: string) => [...expression.matchAll(/([a-z_][\w.]*)\s*\(/gi)].map(([, name]) => name?.toLowerCase() ?? '')

/** Of these functions, the volatile ones: no index serves a comparison with what may change from row to row. */
async function volatileOf(client: pg.ClientBase, names: readonly string[]): Promise<Set<string>> {
  const { rows } = await client.query<{ name: string }>(
    `select f.name from unnest($1::text[]) as f (name) where exists (
       select from pg_proc p where p.provolatile = 'v' and f.name in (p.proname, p.pronamespace::regnamespace || '.' || p.proname))`,
    [names],
  )
  return new Set(rows.map(({ name }) => name))
}

function lintExpression(expression: string, report: (check: string, problem: string) => void) {
  if (/\bOR\b/.test(expression)) report('policy_or', 'has an OR, so that one side of it lets rows through which the other would not')
  if (/tenant_id\)?::/.test(expression)) report('policy_cast', 'casts tenant_id, so that no index on it is used')
  if (/current_setting\(/.test(expression)) {
    report('policy_bare_setting', 'asks current_setting itself: on a recycled connection that is empty, and either fails on a cast or silently yields no rows')
  }
  if (/current_tenant_id\(\)/.test(expression) && !/SELECT\s+stratum_guard\.current_tenant_id\(\)/i.test(expression)) {
    report('policy_per_row', 'calls current_tenant_id() outside of a sub-select, and so for each row')
  }
}

async function lintPolicy(client: pg.ClientBase, table: TableFacts, policy: PolicyFacts, level: typeof error): Promise<Finding[]> {
  const found: Finding[] = []
  const report = (check: string, problem: string) => found.push(level(check, table.name, `The policy ${policy.name} ${problem}.`, PUT_BACK))
  const expressions = [policy.using, policy.check].filter((expression) => expression !== null)
  for (const expression of new Set(expressions)) lintExpression(expression, report)
  for (const name of await volatileOf(client, expressions.flatMap(functionsIn)))
    report('policy_volatile', `calls ${name}, which is volatile, so that no index is used`)
  if (policy.name === POLICY && !isOurs(policy) && found.length === 0) report('policy_differs', 'is another than the one that is due')
  return found
}

/** Policies of the managed tables, and of others that seem to hold rows of tenants. */
export async function checkPolicies(client: pg.ClientBase, tables: readonly TableFacts[], registered: ReadonlySet<string>): Promise<Finding[]> {
  const found: Finding[] = []
  for (const table of tables) {
    const managed = registered.has(table.name)
    if (!managed && !table.columns.some(({ name }) => name === 'tenant_id')) continue
    const level = managed ? error : warning
    for (const policy of table.policies) found.push(...(await lintPolicy(client, table, policy, level)))
    const others = table.policies.filter(({ permissive }) => permissive)
    if (others.length > 1) {
      found.push(
        level(
          'policies_ored',
          table.name,
          `Its policies ${others.map(({ name }) => name).join(', ')} are OR-ed: each lets through what the others would not.`,
          PUT_BACK,
        ),
      )
    }
  }
  return found
}
