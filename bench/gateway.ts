/**
 * What the gateway adds to a hop: `node bench/gateway.ts`. Compared are the Worker as it is deployed, with a kept
 * context and no log, and a Worker that only forwards; both in one workerd, driven in turn, to one origin in this
 * process. The figure is the CPU that workerd spent on each request.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { generateContextKey } from '../src/gateway/context-keys.ts'
import { signDevToken } from '../src/local/dev.ts'
import { rawRequest } from './load.ts'
import { bundle, compare, HOST, startDatabase, startWorkerd, TOKEN_SECRET, type Workerd } from './workerd.ts'

const ANSWER = 'HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok'

/** An application that answers as cheaply as there is, so that it slows nobody down. Its requests have no body. */
function startOrigin(): Promise<{ url: string; stop(): void }> {
  const server = createServer({ noDelay: true }, (socket) => {
    socket.setEncoding('latin1').on('error', () => socket.destroy())
    let rest = ''
    socket.on('data', (text: string) => {
      const heads = (rest + text).split('\r\n\r\n')
      rest = heads.pop() ?? ''
      for (const _ of heads) socket.write(ANSWER)
    })
  })
  return new Promise((started) =>
    server.listen(0, '127.0.0.1', () => started({ url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, stop: () => server.close() })),
  )
}

const directory = await mkdtemp(join(tmpdir(), 'stratum-bench-'))
const [database, origin] = await Promise.all([startDatabase(directory), startOrigin()])
let workerd: Workerd | undefined
try {
  const environment = {
    ...database.environment,
    STRATUM_ORIGIN: origin.url,
    STRATUM_CONTEXT_KEYS: JSON.stringify([await generateContextKey('bench')]),
    STRATUM_LOG: 'off',
  }
  const script = await bundle(directory, 'bench/gateway-worker.ts')
  workerd = await startWorkerd(script, environment, rawRequest('/bare', { host: HOST }))
  const authorization = `Bearer ${await signDevToken(TOKEN_SECRET, { tenant: 'bench_client', scope: 'read' }, 'user')}`
  const get = (path: string, headers: object = { authorization }) => rawRequest(path, { host: HOST, accept: '*/*', 'user-agent': 'bench', ...headers })
  const target = '≤ 1.3× the CPU'
  await compare(workerd, { name: 'warm gateway hop, by token', ours: get('/orders'), bare: get('/bare'), requests: 4_000, target })
  await compare(workerd, { name: 'warm gateway hop, of a visitor', ours: get('/orders', {}), bare: get('/bare', {}), requests: 4_000, target })
} finally {
  workerd?.stop()
  origin.stop()
  await database.stop()
  await rm(directory, { recursive: true, force: true })
}
