/** Workers with a gateway, an origin behind it and tenants in front; each test file starts its own. */
import { request as httpRequest, type IncomingMessage, type RequestOptions } from 'node:http'
import { connect } from 'node:net'
import { text } from 'node:stream/consumers'
import { expect } from 'vitest'
import { generateRingKey } from '../../src/crypto/key-ring.ts'
import { generateContextKey } from '../../src/gateway/context-keys.ts'
import { createClient, type StratumClient } from '../../src/sdk/client.ts'
import { Stratum } from '../../src/stratum.ts'
import { AUDIENCE, createInstallation, type Installation, ISSUER, JWT_SECRET } from '../support/installation.ts'
import { type Seen, startOrigin, type TestOrigin } from './gateway-origin.ts'
import { startWorkers, type Workerd } from './workerd.ts'

/** A bound Worker that shows what reached it. */
const BOUND_APP = `export default { async fetch(request) {
  return Response.json({ bound: true, method: request.method, url: request.url, headers: Object.fromEntries(request.headers), body: await request.text() })
} }`

export interface Answer {
  status: number
  headers: IncomingMessage['headers']
  body: string
}

export interface Setting {
  installation: Installation
  workerd: Workerd
  origin: TestOrigin
  /** A global admin, over the API of the base domain. */
  admin: StratumClient
  adminKey: string
  /** One request to a host, as it stands. */
  send(host: string, path: string, options?: RequestOptions & { body?: string }): Promise<Answer>
  /** What reached the origin of a request that was forwarded. */
  seen(host: string, path: string, options?: RequestOptions & { body?: string }): Promise<Seen>
  /** An upload in parts. */
  upload(host: string, path: string): { write(part: string): void; end(part: string): Promise<Answer> }
  /** The line of the log about the request of this id, once it is there. */
  logged(requestId: string): Promise<Record<string, unknown>>
  /** The bytes of a request as they are, and of its answer. */
  raw(request: string): Promise<string>
  stop(): Promise<void>
}

/**
 * `stratum.test` forwards to the origin; `tenants.test` only where a tenant's config says so; `bound.test` to a Worker that
 * is bound to it; `before.test` is `stratum.test` before its keys were rotated; `keyless.test` lacks them.
 * @param own further hosts that forward to the origin, with variables of their own
 */
export async function startSetting(own: Record<string, Record<string, string>> = {}): Promise<Setting> {
  const [installation, origin] = await Promise.all([createInstallation(), startOrigin()])
  const rings = { masterKeys: generateRingKey('edge'), apiKeySecrets: generateRingKey('edge') }
  const [older, newer] = await Promise.all([generateContextKey('older'), generateContextKey('newer')])
  const key = { kty: 'oct', k: Buffer.from(JWT_SECRET).toString('base64url') }
  const common = {
    DATABASE_URL: installation.urls.control,
    NEON_ENDPOINT: installation.neonEndpoint,
    STRATUM_MASTER_KEYS: rings.masterKeys,
    STRATUM_API_KEY_SECRETS: rings.apiKeySecrets,
    STRATUM_ISSUERS: JSON.stringify([{ issuer: ISSUER, audience: AUDIENCE, algorithms: ['HS256'], keys: [key], max_scopes: ['admin'] }]),
    // Each request sees what was changed before it.
    STRATUM_MAXIMUM_STALENESS_MS: '0',
    STRATUM_REFUSED_LIMIT: '100000/60',
    STRATUM_ORIGIN_TIMEOUT_MS: '1500',
    STRATUM_CONTEXT_CONFIG: 'theme, smtp_password, absent',
  }
  const environment = (host: string, own: Record<string, string>) => ({ ...common, STRATUM_BASE_DOMAINS: host, ...own })
  const rotated = JSON.stringify([newer, older])
  const forwarding = { STRATUM_ORIGIN: origin.url, STRATUM_CONTEXT_KEYS: rotated }
  const others = Object.entries(own).map(([host, variables]) => [host, environment(host, { ...forwarding, ...variables })] as const)
  const workerd = await startWorkers(
    {
      'stratum.test': environment('stratum.test', { ...forwarding, STRATUM_CONTEXT_AUDIENCE: 'the-app' }),
      'before.test': environment('before.test', { STRATUM_ORIGIN: origin.url, STRATUM_CONTEXT_KEYS: JSON.stringify([older]) }),
      'tenants.test': environment('tenants.test', { STRATUM_CONTEXT_KEYS: rotated, STRATUM_DEVELOPMENT: 'true' }),
      'bound.test': environment('bound.test', { STRATUM_CONTEXT_KEYS: rotated }),
      'keyless.test': environment('keyless.test', { STRATUM_ORIGIN: origin.url }),
      ...Object.fromEntries(others),
    },
    { 'bound.test': { ORIGIN: BOUND_APP, INTERNAL: BOUND_APP }, 'tenants.test': { ORIGIN_SHOP: BOUND_APP, INTERNAL: BOUND_APP } },
  )
  origin.gatewayPort = workerd.port
  const stratum = new Stratum({ databaseUrl: installation.urls.control, neonEndpoint: installation.neonEndpoint, ...rings })
  const adminKey = (await stratum.createApiKey(null, { scopes: ['admin'] })).key

  const open = (host: string, path: string, options: RequestOptions = {}) => {
    const request = httpRequest({ port: workerd.port, host: '127.0.0.1', path, ...options, headers: { host, ...options.headers } })
    const answered = new Promise<Answer>((resolve, reject) => {
      request.once('error', reject)
      request.once('response', (answer) => {
        text(answer).then((body) => resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body }), reject)
      })
    })
    return { request, answered }
  }
  const send: Setting['send'] = (host, path, { body, ...options } = {}) => {
    const { request, answered } = open(host, path, options)
    request.end(body)
    return answered
  }

  return {
    installation,
    workerd,
    origin,
    admin: createClient({ baseUrl: 'http://stratum.test', fetch: workerd.fetch, apiKey: adminKey }),
    adminKey,
    send,
    async seen(host, path, options) {
      const answer = await send(host, path, options)
      if (answer.status !== 200) throw new Error(`${answer.status} ${answer.body}`)
      return JSON.parse(answer.body) as Seen
    },
    upload(host, path) {
      const { request, answered } = open(host, path, { method: 'POST' })
      return {
        write: (part) => void request.write(part),
        end(part) {
          request.end(part)
          return answered
        },
      }
    },
    async logged(requestId) {
      const found = () => workerd.logs.map(({ message }) => JSON.parse(message)).find(({ request_id }) => request_id === requestId)
      await expect.poll(found).toBeDefined()
      return found()
    },
    async raw(request) {
      const port = await workerd.directPort('stratum.test')
      return new Promise((resolve, reject) => {
        let answer = ''
        const socket = connect(port, '127.0.0.1', () => socket.write(request))
        socket.setEncoding('utf8')
        socket.on('data', (part) => {
          answer += part
        })
        socket.on('close', () => resolve(answer))
        socket.on('error', reject)
      })
    },
    async stop() {
      await workerd.stop()
      await origin.close()
      await installation.close()
    },
  }
}
