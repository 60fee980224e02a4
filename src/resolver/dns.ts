/** Looking up TXT records by DNS over HTTPS, in the JSON form that the public resolvers share (`application/dns-json`). */
import * as z from 'zod'
import { networkOf } from '../auth/network.ts'
import { stratumError } from '../core/error-classes.ts'
import { StratumError } from '../core/errors.ts'
import { responseText } from '../core/response-text.ts'

/** What DNS says of a name's TXT records. */
export interface TxtAnswer {
  /** Each record's text, its parts joined. Empty where the name has none or does not exist. */
  readonly values: readonly string[]
  /** DNS's own word for how the look-up went: `NOERROR`, `NXDOMAIN`, `SERVFAIL`, else `RCODE <number>`. */
  readonly status: string
}

/** Where TXT records are looked up. */
export interface TxtResolver {
  /** The TXT records of a name. @throws DNS_UNAVAILABLE when the resolver gives no usable answer */
  resolveTxt(name: string): Promise<TxtAnswer>
}

/** Who is asked where nobody else is configured. */
export const DEFAULT_DNS_URL = 'https://cloudflare-dns.com/dns-query'

/** True for a URL that may be asked. Whoever answers there decides which domains are proven: over http only on this machine. */
export function isDnsUrl(text: string): boolean {
  if (!URL.canParse(text)) return false
  const { protocol, hostname } = new URL(text)
  return protocol === 'https:' || (protocol === 'http:' && networkOf(hostname) === 'loopback')
}

const LOOKUP_MS = 5_000
const MAXIMUM_BYTES = 65_536
const TXT = 16
const STATUS: Record<number, string> = { 0: 'NOERROR', 2: 'SERVFAIL', 3: 'NXDOMAIN' }

const Answer = z.object({
  Status: z.number().int(),
  Answer: z.array(z.object({ name: z.string(), type: z.number(), data: z.string() })).optional(),
})

/** A TXT record is written as quoted parts with `\"`, `\\` and `\ddd` inside; some resolvers leave the quotes of a single part out. */
function joinParts(data: string): string {
  if (!data.startsWith('"')) return data
  const parts = [...data.matchAll(/"((?:[^"\\]|\\.)*)"/gs)].map(([, part = '']) => part)
  return parts.join('').replace(/\\(\d{3}|.)/gs, (_, escaped: string) => (/^\d{3}$/.test(escaped) ? String.fromCharCode(Number(escaped)) : escaped))
}

const bare = (name: string) => name.toLowerCase().replace(/\.$/, '')

const unavailable = (reason: string, cause?: unknown) => stratumError('DNS_UNAVAILABLE', { reason }, { cause })

async function fetchAnswer(fetcher: typeof fetch, url: URL): Promise<string> {
  const signal = AbortSignal.timeout(LOOKUP_MS)
  try {
    const response = await fetcher(url, { headers: { accept: 'application/dns-json' }, redirect: 'manual', signal })
    if (response.status !== 200) {
      await response.body?.cancel()
      throw unavailable(response.status >= 300 && response.status < 400 ? 'it redirects' : `it answered with status ${response.status}`)
    }
    return await responseText(response, { signal, maximumBytes: MAXIMUM_BYTES })
  } catch (cause) {
    if (cause instanceof StratumError) throw cause
    throw unavailable(signal.aborted ? `it did not answer within ${LOOKUP_MS / 1000} seconds` : 'its answer could not be read', cause)
  }
}

function parseAnswer(text: string): z.output<typeof Answer> {
  try {
    return Answer.parse(JSON.parse(text))
  } catch (cause) {
    throw unavailable('its answer is not DNS in JSON', cause)
  }
}

/**
 * A resolver that asks `url`. Only records that stand at the very name count: one reached over a CNAME would let
 * whoever holds the alias's target (of a wildcard, say) speak for the name.
 */
export function dnsOverHttps(options: { url?: string | undefined; fetch?: typeof fetch } = {}): TxtResolver {
  const fetcher = options.fetch ?? ((input, init) => fetch(input, init))
  return {
    async resolveTxt(name) {
      const url = new URL(options.url ?? DEFAULT_DNS_URL)
      url.searchParams.set('name', name)
      url.searchParams.set('type', 'TXT')
      const { Status, Answer: records = [] } = parseAnswer(await fetchAnswer(fetcher, url))
      const values = records.filter((record) => record.type === TXT && bare(record.name) === bare(name)).map(({ data }) => joinParts(data))
      return { values, status: STATUS[Status] ?? `RCODE ${Status}` }
    },
  }
}
