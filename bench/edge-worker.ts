/** What bench/edge.ts measures, side by side in one workerd: the service's own parts, and the bare ones that they are compared with. */
import { neon } from '@neondatabase/serverless'
import { Hono } from 'hono'
import type { Actor } from '../src/core/actor.ts'
import { useLocalEndpoint } from '../src/db/neon.ts'
import { getContext } from '../src/features/context/operations.ts'
import type { Services } from '../src/features/operation.ts'
import { readCredential, readNamedTenants } from '../src/http/request.ts'
import { parseEnvironment } from '../workers/env.ts'
import { openServices } from '../workers/services.ts'

let services: { kept: Services; asked: Services; settings: ReturnType<typeof parseEnvironment> } | undefined

function open(env: Record<string, unknown>) {
  if (services) return services
  const settings = parseEnvironment(env)
  if (settings.NEON_ENDPOINT) useLocalEndpoint(settings.DATABASE_URL, settings.NEON_ENDPOINT)
  const kept = openServices(settings)
  const { contexts: _, ...asked } = kept
  services = { kept, asked, settings }
  return services
}

async function resolve(context: Parameters<typeof readNamedTenants>[0], using: Services) {
  const credential = await readCredential(context.req.raw, using)
  if (credential === null) return context.json({ error: 'no credential' }, 401)
  const actor: Actor = { credential, named: readNamedTenants(context, credential, using), exposed: true, request_id: null, source_ip: null }
  const asking = { waitUntil: (work: Promise<unknown>) => context.executionCtx.waitUntil(work) }
  const { tenant_id, version } = await getContext.run(using, actor, {}, { asking })
  return context.json({ tenant_id, version })
}

const app = new Hono<{ Bindings: Record<string, unknown> }>()
app.get('/bare', (context) => context.json({ tenant_id: '00000000-0000-7000-8000-000000000001', version: '1000:1000:' }))
app.get('/warm', (context) => resolve(context, open(context.env).kept))
app.get('/cold', (context) => resolve(context, open(context.env).asked))
app.get('/query', async (context) => {
  const { settings } = open(context.env)
  const [row] = await neon(settings.DATABASE_URL).query('select $1::jsonb as answer', ['{"tenant_id": null}'])
  return context.json(row?.['answer'] as object)
})
app.get('/forward', (context) => fetch(String(context.env['ORIGIN']), { headers: context.req.raw.headers }))
app.get('/counts', (context) => context.json(open(context.env).kept.contexts?.counts ?? {}))

export default app
