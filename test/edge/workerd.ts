/** The built Worker inside workerd, reached over HTTP with whatever Host a request names. */
import { mkdtemp, rm } from 'node:fs/promises'
import { request as httpRequest } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { buffer } from 'node:stream/consumers'
import { convertV4MiniflareOptions, Miniflare, type WorkerdStructuredLog } from 'miniflare'
import { bundleWorker } from '../../scripts/bundle-size.ts'

export interface Workerd {
  port: number
  /** What the Workers wrote to the console so far. */
  logs: WorkerdStructuredLog[]
  /** The port of one host's Worker alone, where its requests come as they were sent; the shared one's router reads them first. */
  directPort(host: string): Promise<number>
  /** A fetch that connects to workerd and sends the URL's host, which no resolver knows, as Host. */
  fetch(request: Request): Promise<Response>
  stop(): Promise<void>
}

async function send(port: number, request: Request): Promise<Response> {
  const { host, pathname, search } = new URL(request.url)
  const body = Buffer.from(await request.arrayBuffer())
  const headers = { ...Object.fromEntries(request.headers), host, 'content-length': String(body.byteLength) }
  return new Promise((resolve, reject) => {
    const outgoing = httpRequest({ host: '127.0.0.1', port, path: pathname + search, method: request.method, headers }, (answer) => {
      const plain = Object.entries(answer.headers).map(([name, value]): [string, string] => [name, String(value)])
      buffer(answer).then((bytes) => resolve(new Response(new Uint8Array(bytes), { status: answer.statusCode ?? 0, headers: plain })), reject)
    })
    outgoing.once('error', reject)
    outgoing.end(body)
  })
}

/**
 * Bundle the Worker as a deployment would and start it once for each host, with an environment of its own.
 * @param services scripts of further Workers that a host's Worker is bound to, by host and name of the binding
 * @param callers scripts of Workers that are reached at hosts of their own and bound to a host's Worker as `STRATUM`, by that host
 */
export async function startWorkers(
  environments: Record<string, Record<string, string>>,
  services: Record<string, Record<string, string>> = {},
  callers: Record<string, { host: string; script: string }> = {},
): Promise<Workerd> {
  const directory = await mkdtemp(join(tmpdir(), 'stratum-edge-'))
  const scriptPath = await bundleWorker(directory)
  const logs: WorkerdStructuredLog[] = []
  const serviceName = (host: string, binding: string) => `${host.replaceAll('.', '-')}-${binding}`
  const workers = Object.entries(environments).map(([host, bindings]) => ({
    name: host.replaceAll('.', '-'),
    serviceBindings: Object.fromEntries(Object.keys(services[host] ?? {}).map((binding) => [binding, serviceName(host, binding)])),
    routes: [`${host}/*`, `*.${host}/*`],
    unsafeDirectSockets: [{ host: '127.0.0.1', port: 0 }],
    modules: true,
    scriptPath,
    modulesRoot: directory,
    compatibilityDate: '2026-11-09',
    bindings,
  }))
  const bound = Object.entries(services).flatMap(([host, scripts]) =>
    Object.entries(scripts).map(([binding, script]) => ({ name: serviceName(host, binding), modules: true, script, compatibilityDate: '2026-11-09' })),
  )
  const calling = Object.entries(callers).map(([host, caller]) => ({
    ...{ name: caller.host.replaceAll('.', '-'), routes: [`${caller.host}/*`], modules: true, script: caller.script, compatibilityDate: '2026-11-09' },
    serviceBindings: { STRATUM: host.replaceAll('.', '-') },
  }))
  const all = [...workers, ...bound, ...calling]
  const miniflare = new Miniflare(
    convertV4MiniflareOptions({ host: '127.0.0.1', port: 0, cf: false, handleStructuredLogs: (line) => logs.push(line), workers: all }),
  )
  const port = Number((await miniflare.ready).port)
  return {
    port,
    logs,
    directPort: async (host) => Number((await miniflare.unsafeGetDirectURL(host.replaceAll('.', '-'))).port),
    fetch: (request) => send(port, request),
    async stop() {
      await miniflare.dispose()
      await rm(directory, { recursive: true })
    },
  }
}
