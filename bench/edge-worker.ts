/** What bench/edge.ts measures, side by side in one workerd: the service's own parts, and the bare ones that they are compared with. */
import { neon } from '@neondatabase/serverless'
import { type Context, Hono } from 'hono'
import type { Actor } from '../src/core/actor.ts'
import { sendToEndpoint } from '../src/db/neon.ts'
import { getContext } from '../src/features/context/operations.ts'
import type { Services } from '../src/features/operation.ts'
import { readCredential, readNamedTenants } from '../src/http/request.ts'
import worker from '../workers/edge.ts'
import { parseEnvironment } from '../workers/env.ts'
import { openServices } from '../workers/services.ts'

let services: { kept: Services; asked: Services; settings: ReturnType<typeof parseEnvironment> } | undefined

function open(env: Record<string, unknown>) {
  if (services) return services
  const settings = parseEnvironment(env)
  if (settings.NEON_ENDPOINT) sendToEndpoint(settings.DATABASE_URL, settings.NEON_ENDPOINT)
  const kept = openServices(settings)
  const { contexts: _, ...asked } = kept
  services = { kept, asked, settings }
  return services
}

async function resolve(context: Context, using: Services) {
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
app.get('/warm-logged', async (context) => {
  const answer = await resolve(context, open(context.env).kept)
  console.log(JSON.stringify({ level: 'info', request_id: 'bench', method: 'GET', route: '/warm', status: 200, duration_ms: 0.1, context: 'hit' }))
  return answer
})
app.get('/api/*', (context) => worker.fetch(context.req.raw, context.env, context.executionCtx))
app.get('/cold', (context) => resolve(context, open(context.env).asked))
app.get('/query', async (context) => {
  const { settings } = open(context.env)
  const [row] = await neon(settings.DATABASE_URL).query('select $1::jsonb as answer', ['{"tenant_id": null}'])
  return context.json(row?.['answer'] as object)
})

export default app
