/** A process that runs docs/examples as they stand, each on a free port, and tells its parent the ports. */
import { registerHooks } from 'node:module'

// The examples import the package by its name; here that is this repository's sources.
registerHooks({
  resolve(specifier, context, next) {
    const [, entry] = /^stratum-edge\/(\w+)$/.exec(specifier) ?? []
    return next(entry === undefined ? specifier : new URL(`../../src/integrations/${entry}.ts`, import.meta.url).href, context)
  },
})
process.env['PORT'] = '0'

const example = (name: string) => import(new URL(`../../docs/examples/${name}`, import.meta.url).href)

/** The port that an example says it listens on. */
async function listening(name: string): Promise<number> {
  const { log } = console
  const printed = new Promise<string>((said) => {
    console.log = said
  })
  await example(name)
  const line = await printed
  console.log = log
  return JSON.parse(line.slice(line.indexOf('{'))).port
}

const { serve } = await import('./web-server.ts')
const { default: hono } = await example('hono/app.ts')
const route = await example('next/app/orders/route.ts')
// As Next.js does, which itself is in next.prove.ts: a file for each path, an export for each method.
const next = (request: Request) => {
  const { pathname } = new URL(request.url)
  return pathname === '/health' ? new Response('ok') : route[request.method](request, { params: Promise.resolve({}) })
}

process.send?.({
  express: await listening('express/app.ts'),
  fastify: await listening('fastify/app.ts'),
  hono: (await serve((request) => hono.fetch(request))).port,
  next: (await serve(next)).port,
})
