import { generateKeyPairSync } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { TokenVerifier } from '../../src/auth/tokens.ts'
import { ServerUnreachableError, TokenInvalidError } from '../../src/core/error-classes.ts'
import type { StratumError } from '../../src/core/errors.ts'
import { claims, issuer, NOW, privateJwk, publicJwk, token } from './signing.ts'

type Answer = (request: IncomingMessage, response: ServerResponse) => void

const json =
  (value: unknown, status = 200): Answer =>
  (_, response) => {
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value))
  }
const set = (...keys: unknown[]) => json({ keys })
const good = set(publicJwk('P-256', { kid: 'a' }))
const signed = (header: Record<string, unknown> = { kid: 'a' }) => token(claims(), { header })

let server: Server
let answer: Answer = good
let asked: string[] = []
let clock = NOW

beforeAll(async () => {
  server = createServer((request, response) => {
    asked.push(request.url ?? '')
    answer(request, response)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
})
afterAll(() => new Promise((resolve) => server.close(resolve)))
beforeEach(() => {
  asked = []
  answer = good
  clock = NOW
})
afterEach(() => {
  vi.useRealTimers()
})

const here = () => `http://127.0.0.1:${(server.address() as AddressInfo).port}`
const verifier = (options: { fetch?: typeof fetch } = {}) =>
  new TokenVerifier([issuer({ jwks_uri: `${here()}/keys`, algorithms: ['ES256', 'RS256', 'EdDSA'] })], {
    now: () => clock * 1000,
    maximumCached: 0,
    ...options,
  })

async function failure(using: TokenVerifier, text = signed()): Promise<unknown> {
  return using.verify(text).then(
    () => 'verified',
    (error: unknown) => error,
  )
}
async function unreachable(using = verifier()) {
  const error = await failure(using)
  expect(error).toBeInstanceOf(ServerUnreachableError)
  expect((error as StratumError).details).toEqual({ reason: 'the key set of the issuer cannot be fetched' })
}

describe('a published key set', () => {
  it('is fetched when first needed, and once', async () => {
    const using = verifier()
    expect(asked).toEqual([])
    for (let i = 0; i < 5; i++) expect((await using.verify(signed())).subject).toBe('user-1')
    expect(asked).toEqual(['/keys'])
  })

  it('is not fetched for tokens that could never be verified', async () => {
    const using = verifier()
    for (const text of ['a.b.c', token(claims({ iss: 'x' })), token(claims({ aud: 'x' })), token(claims(), { alg: 'HS256', secret: 'x' })]) {
      expect(await failure(using, text)).toBeInstanceOf(TokenInvalidError)
    }
    expect(asked).toEqual([])
  })

  it('is read again for a kid it did not have, but not for every such token', async () => {
    const using = verifier()
    const added = generateKeyPairSync('ed25519')
    const text = token(claims(), { alg: 'EdDSA', header: { kid: 'b' }, key: added.privateKey })
    await using.verify(signed())
    answer = set(publicJwk('P-256', { kid: 'a' }), { ...added.publicKey.export({ format: 'jwk' }), kid: 'b' })
    for (let i = 0; i < 3; i++) expect(await failure(using, text)).toBeInstanceOf(TokenInvalidError)
    expect(asked).toHaveLength(1)
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 31_000 })
    expect((await using.verify(text)).subject).toBe('user-1')
    expect(asked).toHaveLength(2)
  })

  it.each<[string, () => Answer]>([
    ['a key of another kid', () => set(publicJwk('P-256', { kid: 'z' }))],
    ['no keys', () => set()],
    ['a shared secret', () => set({ kty: 'oct', kid: 'a', k: 'AAAA' })],
    ['a private key', () => set({ ...privateJwk('P-256'), kid: 'a' })],
    ['a key for encryption', () => set(publicJwk('P-256', { kid: 'a', use: 'enc' }))],
    ['a broken key', () => set({ kty: 'EC', crv: 'P-256', kid: 'a', x: 'AAAA', y: 'AAAA' })],
    ['a key of another family', () => set(publicJwk('RSA', { kid: 'a' }))],
    ['two keys of one kid', () => set(publicJwk('P-256', { kid: 'a' }), publicJwk('P-256', { kid: 'a' }))],
  ])('of %s verifies nothing', async (_, made) => {
    answer = made()
    expect(await failure(verifier())).toBeInstanceOf(TokenInvalidError)
  })

  it('is kept without what fits no algorithm of the issuer, and without what verifying does not need', async () => {
    const cloned = vi.spyOn(globalThis, 'structuredClone')
    const key = publicJwk('P-256', { kid: 'a', alg: 'ES256', use: 'sig', key_ops: ['verify'] })
    const others = [{}, publicJwk('P-256', { kid: 'b', alg: 'ES384' }), publicJwk('P-256', { kid: 'c', use: 'enc' }), { kty: 'new', kid: 'd' }]
    answer = set({ ...key, x5c: ['x'.repeat(1_000)], more: Array.from({ length: 100 }, () => ({})) }, ...others)
    expect(await verifier().verify(signed())).toBeTruthy()
    const { crv, x, y } = publicJwk('P-256') as Record<string, unknown>
    expect(cloned.mock.calls).toEqual([[{ keys: [{ kty: 'EC', kid: 'a', alg: 'ES256', crv, x, y }] }]])
    cloned.mockRestore()
  })

  it('of a small RSA key verifies nothing', async () => {
    const small = generateKeyPairSync('rsa', { modulusLength: 1024 })
    answer = set({ ...small.publicKey.export({ format: 'jwk' }), kid: 'a' })
    const text = token(claims(), { alg: 'RS256', header: { kid: 'a' }, key: small.privateKey })
    expect(await failure(verifier(), text)).toBeInstanceOf(TokenInvalidError)
  })
})

describe('a key set that cannot be had', () => {
  it.each([301, 302, 303, 307, 308])('redirects with %i, to where nobody goes', async (status) => {
    answer = (request, response) => {
      if (request.url === '/keys') response.writeHead(status, { location: `${here()}/elsewhere` }).end()
      else good(request, response)
    }
    await unreachable()
    expect(asked).toEqual(['/keys'])
  })

  it.each<[string, Answer]>([
    ['an error', json({ keys: [] }, 500)],
    ['nothing', (_, response) => void response.writeHead(204).end()],
    ['an empty body', (_, response) => void response.end()],
    ['something other than JSON', (_, response) => void response.end('<html>')],
    ['bytes that are not UTF-8', (_, response) => void response.end(Buffer.from('{"keys":[],"x":"\xff"}', 'latin1'))],
    ['JSON that is no key set', json([])],
    ['keys that are not objects', json({ keys: [1] })],
    ['more than a hundred keys', set(publicJwk('P-256', { kid: 'a' }), ...Array.from({ length: 100 }, () => ({})))],
    [
      'half of a key set, then silence',
      (_, response) => {
        response.writeHead(200, { 'content-length': '1000' }).write('{"keys":', () => response.destroy())
      },
    ],
  ])('answers %s', async (_, given) => {
    answer = given
    await unreachable()
  })

  it('is larger than 64 KiB, however it says so', async () => {
    const padded = (size: number) => JSON.stringify({ keys: [publicJwk('P-256', { kid: 'a' })] }).padEnd(size, ' ')
    answer = (_, response) => void response.end(padded(65_536))
    expect(await verifier().verify(signed())).toBeTruthy()
    answer = (_, response) => void response.end(padded(65_537))
    await unreachable()
    let ended = false
    answer = (_, response) => {
      const more = setInterval(() => response.write(' '.repeat(65_536)), 1)
      response.on('close', () => {
        clearInterval(more)
        ended = true
      })
    }
    await unreachable()
    await vi.waitFor(() => expect(ended).toBe(true), { timeout: 15_000 })
  })

  it('has nobody listening', async () => {
    const using = new TokenVerifier([issuer({ jwks_uri: 'http://127.0.0.1:1/keys' })], { now: () => clock * 1000 })
    await unreachable(using)
  })

  it('is slow to begin, or to end', async () => {
    const signals: AbortSignal[] = []
    const timeout = new DOMException('The operation was aborted due to timeout', 'TimeoutError')
    await unreachable(
      verifier({
        fetch: (_, init) => {
          if (init?.signal) signals.push(init.signal)
          return Promise.reject(timeout)
        },
      }),
    )
    expect(signals).toHaveLength(1)

    // A runtime whose bodies outlive the signal of their request.
    const expired = new AbortController()
    const spied = vi.spyOn(AbortSignal, 'timeout').mockReturnValue(expired.signal)
    const cancel = vi.fn()
    // once what there is has been read
    const pull = () => expired.abort(timeout)
    const body = new ReadableStream({ start: (to) => to.enqueue(new TextEncoder().encode('{"keys":[]}')), pull, cancel })
    const slow = failure(verifier({ fetch: () => Promise.resolve(new Response(body)) }))
    expect(await slow).toBeInstanceOf(ServerUnreachableError)
    expect([cancel.mock.calls.length, spied.mock.calls]).toEqual([1, [[5000]]])
    spied.mockRestore()
  })

  it('is not asked for again for 5 seconds, and then it is', async () => {
    const using = verifier()
    answer = json({}, 503)
    for (let i = 0; i < 5; i++) await unreachable(using)
    expect(asked).toHaveLength(1)
    answer = good
    clock += 4
    await unreachable(using)
    clock += 1
    expect((await using.verify(signed())).subject).toBe('user-1')
    expect(asked).toHaveLength(2)
  })

  it('leaves tokens that were verified before as they are', async () => {
    const using = new TokenVerifier([issuer({ jwks_uri: `${here()}/keys` })], { now: () => clock * 1000 })
    const text = signed()
    await using.verify(text)
    answer = json({}, 500)
    vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 700_000 })
    expect((await using.verify(text)).subject).toBe('user-1')
    await unreachable(using)
  })
})

describe('the fetch', () => {
  it('is the global one, called as a function of its own', async () => {
    const real = globalThis.fetch
    const receivers: unknown[] = []
    globalThis.fetch = function (this: unknown, ...parameters: Parameters<typeof fetch>) {
      receivers.push(this)
      return real(...parameters)
    }
    try {
      await verifier().verify(signed())
    } finally {
      globalThis.fetch = real
    }
    expect(receivers).toEqual([undefined])
  })
})
