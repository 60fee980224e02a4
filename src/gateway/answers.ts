/** The gateway's own answers: a page for browsers, the API's shape of an error for everything else. */

import type { StratumError } from '../core/errors.ts'
import { toBase64 } from '../crypto/base64.ts'
import { ERROR_HEADER } from './headers.ts'
import type { Maintenance } from './settings.ts'

/** What a visitor is told, who knows nothing of tenants. */
const WORDS: Record<number, string> = {
  400: 'This request cannot be served.',
  401: 'Your sign-in is not valid. Sign in again.',
  403: 'This site is suspended.',
  404: 'There is no site at this address.',
  410: 'This site is closed.',
  429: 'There were too many requests. Try again shortly.',
  502: 'The application behind this site cannot be reached.',
  503: 'This site is not available right now. Try again shortly.',
  504: 'The application behind this site takes too long to answer.',
}
const OTHERWISE = 'Something went wrong.'

const STYLE = 'body{font:1rem/1.5 system-ui,sans-serif;max-width:32rem;margin:20vh auto;padding:0 1rem}small{opacity:.7}'
const NOT_BY_THEMSELVES = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
/** A tenant's own page: as it looks, but nothing that runs, and nothing of the site's origin. */
const SANDBOX = `default-src 'none'; style-src 'unsafe-inline'; img-src data: https:; sandbox; ${NOT_BY_THEMSELVES}`

const escapeHtml = (text: string) => text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`)

const page = (words: string, small: string) =>
  `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">` +
  `<title>${escapeHtml(words)}</title><style>${STYLE}</style><h1>${escapeHtml(words)}</h1><p><small>${escapeHtml(small)}</small></p></html>\n`

async function policy(): Promise<string> {
  const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', new TextEncoder().encode(STYLE)))
  return `default-src 'none'; style-src 'sha256-${toBase64(hash)}'; ${NOT_BY_THEMSELVES}`
}

/** Does who asks read pages? */
const wantsPage = ({ headers }: Request) => /\btext\/html\b/i.test(headers.get('accept') ?? '')

/** The answer to a request that is not forwarded, or whose origin gave none. */
export async function errorAnswer(request: Request, error: StratumError, requestId: string, maintenance: Maintenance | null = null): Promise<Response> {
  const { status, code, message } = error
  // What a tenant's config says is not for visitors; the log tells it.
  const details = code === 'ORIGIN_INVALID' ? {} : error.details
  const retryAfter = maintenance?.retryAfter ?? error.retryAfter
  const headers = new Headers({
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    'x-request-id': requestId,
    vary: 'accept',
    [ERROR_HEADER]: '1',
  })
  if (retryAfter !== undefined) headers.set('retry-after', String(retryAfter))
  if (status === 401) headers.set('www-authenticate', 'Bearer')
  if (!wantsPage(request)) {
    headers.set('content-type', 'application/json')
    const body = { error: { code, message, ...(Object.keys(details).length > 0 ? { details } : {}), request_id: requestId } }
    return new Response(JSON.stringify(body), { status, headers })
  }
  headers.set('content-type', 'text/html; charset=utf-8')
  headers.set('content-security-policy', maintenance?.html === undefined ? await policy() : SANDBOX)
  const html = maintenance?.html ?? page(maintenance?.message ?? WORDS[status] ?? OTHERWISE, `${code} · ${requestId}`)
  return new Response(html, { status, headers })
}

/** To the same place on another host. 308, as the method stays; not to be kept, as config may change. */
export function redirectToHost(url: string, host: string, requestId: string): Response {
  const target = new URL(url)
  target.hostname = host
  return new Response(null, { status: 308, headers: { location: target.href, 'cache-control': 'no-store', 'x-request-id': requestId } })
}
