/** A resolver that speaks DNS over HTTPS in JSON, for Workers, which no resolver can be handed to. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface DnsServer {
  url: string
  /** TXT values by name. */
  records: Map<string, string[]>
  close(): Promise<void>
}

export async function startDns(): Promise<DnsServer> {
  const records = new Map<string, string[]>()
  const server = createServer(({ url = '' }, response) => {
    const name = new URL(url, 'http://x').searchParams.get('name') ?? ''
    const values = records.get(name)
    const Answer = (values ?? []).map((value) => ({ name: `${name}.`, type: 16, TTL: 60, data: `"${value}"` }))
    response.writeHead(200, { 'content-type': 'application/dns-json' }).end(JSON.stringify({ Status: values ? 0 : 3, Answer }))
  })
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/dns-query`,
    records,
    async close() {
      server.closeAllConnections()
      await new Promise((closed) => server.close(closed))
    },
  }
}
