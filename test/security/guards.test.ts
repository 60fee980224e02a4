/** For each guard, the leak that shows when it is taken out: so that the tests of refusals prove something. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { Tenant } from '../../src/features/tenants/contract.ts'
import { type Asked, ask, expectRefusal } from '../support/answers.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { plantTree } from '../support/tree.ts'

let installation: Installation
let t: Record<'acme' | 'north' | 'south' | 'paused', Tenant>
let keys: Record<'north' | 'reader' | 'paused', string>
beforeAll(async () => {
  installation = await createInstallation()
  t = await plantTree(await installation.clientFor(null), { acme: null, north: 'acme', south: 'acme', paused: 'acme' })
  keys = {
    north: await installation.apiKey(t.north.id),
    reader: await installation.apiKey(t.north.id, ['read']),
    paused: await installation.apiKey(t.paused.id),
  }
  await installation.stratum.suspendTenant(t.paused.id)
})
afterAll(() => installation.close())

/** Replace the body of a routine for as long as `run` takes. */
async function without<T>(signature: string, body: string, run: () => Promise<T>): Promise<T> {
  const { rows } = await installation.owner.query<{ definition: string }>(`select pg_get_functiondef('stratum.${signature}'::regprocedure) as definition`)
  const original = rows[0]?.definition ?? ''
  const declaration = original.slice(0, original.indexOf('AS $function$'))
  await installation.owner.query(`${declaration} AS $function$ ${body} $function$`)
  try {
    return await run()
  } finally {
    await installation.owner.query(original)
  }
}
const send = (path: string, asked: Asked) => ask(installation.fetch, `/api/v1${path}`, asked)

interface Guard {
  name: string
  signature: string
  /** What stands in its place: lets everything through. */
  body: string
  code: Parameters<typeof expectRefusal>[1]
  attempt: () => Promise<Awaited<ReturnType<typeof send>>>
}
const guards: Guard[] = [
  {
    name: 'reach of the tenant an operation names',
    signature: 'require_reach(jsonb, jsonb, jsonb)',
    body: 'begin end',
    code: 'TENANT_NOT_FOUND',
    attempt: () => send(`/tenants/${t.south.id}`, { apiKey: keys.north }),
  },
  {
    name: 'the bounds of a reach',
    signature: 'within(stratum.ltree, stratum.ltree)',
    body: 'select true',
    code: 'TENANT_NOT_FOUND',
    attempt: () => send(`/tenants/by-slug/${t.south.slug}`, { apiKey: keys.north }),
  },
  {
    name: 'scopes',
    signature: 'holds_scope(text[], text)',
    body: 'select true',
    code: 'SCOPE_REQUIRED',
    attempt: () => send(`/tenants/${t.north.id}`, { apiKey: keys.reader, method: 'PATCH', json: { name: 'North' } }),
  },
  {
    name: 'the status of the tenant of a credential',
    signature: 'require_resolvable(text)',
    body: 'begin end',
    code: 'TENANT_SUSPENDED',
    attempt: () => send('/context', { apiKey: keys.paused }),
  },
  {
    name: 'agreement of host and header',
    signature: 'agreed_tenant(jsonb, stratum.ltree)',
    body: `begin return (select t.id from stratum.tenants t where t.slug = replace(named -> 0 ->> 'tenant', '-', '_')); end`,
    code: 'TENANT_NOT_FOUND',
    attempt: () => send('/context', { apiKey: keys.north, base: `http://${t.south.subdomain}.stratum.test` }),
  },
]

describe.each(guards)('without $name', ({ signature, body, code, attempt }) => {
  beforeEach(async () => {
    expectRefusal(await attempt(), code)
  })
  it('what is refused goes through', async () => {
    const answer = await without(signature, body, attempt)
    expect(answer.status, answer.text.slice(0, 200)).toBe(200)
    expectRefusal(await attempt(), code)
  })
})
