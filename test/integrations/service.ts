/** The service of an installation, under an address of its own as an app reaches it. */
import { BASE, type Installation } from '../support/installation.ts'
import { serve } from './web-server.ts'

export interface ServedService {
  url: string
  /** Requests so far. */
  asked(): number
  close(): Promise<void>
}

export async function serveService(installation: Installation): Promise<ServedService> {
  let asked = 0
  const { url, close } = await serve((request) => {
    asked++
    const headers = new Headers(request.headers)
    headers.delete('host')
    return installation.fetch(
      new Request(BASE + new URL(request.url).pathname, { method: request.method, headers, body: request.body, duplex: 'half' } as RequestInit),
    )
  })
  return { url, asked: () => asked, close }
}
