/** Looking up TXT records at a resolver that answers well, badly, or not at all. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { DnsUnavailableError } from '../../src/core/error-classes.ts'
import { dnsOverHttps } from '../../src/resolver/dns.ts'

type Reply = (request: IncomingMessage, response: ServerResponse) => void
let server: Server
let reply: Reply
let asked: IncomingMessage[]
beforeAll(async () => {
  server = createServer((request, response) => {
    asked.push(request)
    reply(request, response)
  })
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening))
})
afterAll(() => new Promise((closed) => server.close(closed)))
beforeEach(() => {
  asked = []
})

const NAME = '_stratum.shop.example'
const here = () => `http://127.0.0.1:${(server.address() as AddressInfo).port}`
const look = (name = NAME, url = `${here()}/dns-query`) => dnsOverHttps({ url }).resolveTxt(name)
const text = (body: string, status = 200, headers: Record<string, string> = {}): Reply => {
  return (_, response) => void response.writeHead(status, headers).end(body)
}
const json = (body: unknown): Reply => text(JSON.stringify(body))
const txt = (data: string, name = NAME) => ({ name, type: 16, TTL: 60, data })
const answering = (...records: object[]): Reply => json({ Status: 0, TC: false, Question: [{ name: NAME, type: 16 }], Answer: records })

describe('a name', () => {
  it('is asked for by type TXT, in the JSON form, besides what the URL says already', async () => {
    reply = answering()
    await look(NAME, `${here()}/resolve?token=t`)
    const url = new URL(asked[0]?.url ?? '', here())
    expect([asked[0]?.method, url.pathname, Object.fromEntries(url.searchParams)]).toEqual(['GET', '/resolve', { token: 't', name: NAME, type: 'TXT' }])
    expect(asked[0]?.headers['accept']).toBe('application/dns-json')
  })
  it.each([
    ['one quoted part', '"abc"', 'abc'],
    ['several parts, joined', '"abc" "def""ghi"', 'abcdefghi'],
    ['no quotes', 'abc def', 'abc def'],
    ['escaped characters', String.raw`"a\"b\\c\065"`, 'a"b\\cA'],
    ['nothing in it', '""', ''],
    ['a quote that does not end', '"abc', ''],
  ])('has a record of %s', async (_, data, value) => {
    reply = answering(txt(data))
    expect(await look()).toEqual({ values: [value], status: 'NOERROR' })
  })
  it('is the same with a final dot and in capitals', async () => {
    reply = answering(txt('"a"', '_Stratum.SHOP.example.'), txt('"b"'))
    expect((await look()).values).toEqual(['a', 'b'])
  })
  it('has only the records that stand at it, and of type TXT', async () => {
    const alias = { name: NAME, type: 5, TTL: 60, data: 'target.evil.example.' }
    reply = answering(alias, txt('"stolen"', 'target.evil.example.'), txt('"other"', 'shop.example'), { ...txt('"spf"'), type: 99 })
    expect(await look()).toEqual({ values: [], status: 'NOERROR' })
  })
  it.each([
    ['does not exist', { Status: 3 }, 'NXDOMAIN'],
    ['has no name server that answers', { Status: 2 }, 'SERVFAIL'],
    ['is refused', { Status: 5, Answer: [] }, 'RCODE 5'],
    ['has no such record', { Status: 0 }, 'NOERROR'],
  ])('that %s has none', async (_, body, status) => {
    reply = json(body)
    expect(await look()).toEqual({ values: [], status })
  })
})

describe('an answer that cannot be used', () => {
  const unavailable = async (reason: RegExp, lookup = look()) => {
    const error = await lookup.catch((thrown: unknown) => thrown)
    expect(error).toBeInstanceOf(DnsUnavailableError)
    expect(error).toMatchObject({ status: 503, retryAfter: 1, details: { reason: expect.stringMatching(reason) } })
  }
  it.each([301, 302, 307, 308])('redirects with %i, to where nobody goes', async (status) => {
    reply = (request, response) => {
      if (request.url?.startsWith('/dns-query')) response.writeHead(status, { location: `${here()}/elsewhere` }).end()
      else answering(txt('"a"'))(request, response)
    }
    await unavailable(/redirects/)
    expect(asked).toHaveLength(1)
  })
  it.each<[string, Reply, RegExp]>([
    ['is an error', text('{"Status":0}', 500), /status 500/],
    ['is refused for being too many', text('', 429), /status 429/],
    ['is empty', text(''), /not DNS/],
    ['is a page', text('<html>'), /not DNS/],
    ['is JSON that is no object', json([]), /not DNS/],
    ['has no status', json({ Answer: [] }), /not DNS/],
    ['has records that are none', json({ Status: 0, Answer: ['x'] }), /not DNS/],
    ['has data that is no text', json({ Status: 0, Answer: [{ name: NAME, type: 16, data: 1 }] }), /not DNS/],
    ['is not UTF-8', (_, response) => void response.end(Buffer.from([0x22, 0xff, 0x22])), /could not be read/],
    ['breaks off', (_, response) => void response.writeHead(200, { 'content-length': '1000' }).write('{', () => response.destroy()), /could not be read/],
  ])('%s', async (_, given, reason) => {
    reply = given
    await unavailable(reason)
  })
  it('is larger than 64 KiB, or has no end', async () => {
    const body = JSON.stringify({ Status: 0, Answer: [txt('"a"')] })
    reply = text(body.padEnd(65_536))
    expect((await look()).values).toEqual(['a'])
    reply = text(body.padEnd(65_537))
    await unavailable(/could not be read/)
    let ended = false
    reply = (_, response) => {
      const more = setInterval(() => response.write(' '.repeat(65_536)), 1)
      response.on('close', () => {
        clearInterval(more)
        ended = true
      })
    }
    await unavailable(/could not be read/)
    await vi.waitFor(() => expect(ended).toBe(true), { timeout: 15_000 })
  })
  it('does not come in time', async () => {
    const expired = new AbortController()
    const spied = vi.spyOn(AbortSignal, 'timeout').mockReturnValue(expired.signal)
    reply = (_, response) => {
      expired.abort(new DOMException('The operation was aborted due to timeout', 'TimeoutError'))
      response.end()
    }
    await unavailable(/within 5 seconds/)
    expect(spied.mock.calls).toEqual([[5000]])
    spied.mockRestore()
  })
  it('is nobody’s, as nobody listens', async () => {
    await unavailable(/could not be read/, look(NAME, 'http://127.0.0.1:1/'))
  })
})

it('calls the global fetch as a function of its own', async () => {
  reply = answering()
  const real = globalThis.fetch
  const receivers: unknown[] = []
  globalThis.fetch = function (this: unknown, ...parameters: Parameters<typeof fetch>) {
    receivers.push(this)
    return real(...parameters)
  }
  try {
    await look()
  } finally {
    globalThis.fetch = real
  }
  expect(receivers).toEqual([undefined])
})
