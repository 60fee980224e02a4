/** Reading a request: who asks, which tenant it names, what it says. Nothing here asks the database, but for issuers that are not known yet. */
import type { Context } from 'hono'
import type * as z from 'zod'
import { looksLikeApiKey } from '../auth/api-keys.ts'
import type { Credential, NamedTenant } from '../core/actor.ts'
import type { Endpoint } from '../core/endpoint.ts'
import { stratumError } from '../core/error-classes.ts'
import { StratumError } from '../core/errors.ts'
import type { Services } from '../features/operation.ts'
import { counts, identifyCookie, identifyName, inOrder, readHost } from '../resolver/identify.ts'

/** The largest body that is read. */
export const MAXIMUM_BODY_BYTES = 1_048_576

/**
 * The credential of a request, or null without one.
 * @param beforeAsking called before the database is asked for an issuer; what it throws ends that
 * @throws CREDENTIALS_AMBIGUOUS, TOKEN_INVALID, API_KEY_INVALID
 */
export async function readCredential(request: Request, { tokens, apiKeys }: Services, beforeAsking?: () => void): Promise<Credential | null> {
  const { headers } = request
  const authorization = headers.get('authorization')
  const apiKey = headers.get('x-api-key')
  if (authorization !== null && apiKey !== null) throw stratumError('CREDENTIALS_AMBIGUOUS')
  if (apiKey === null && authorization === null) return null
  const bearer = authorization === null ? apiKey : /^bearer +(\S+) *$/i.exec(authorization)?.[1]
  if (bearer === undefined || bearer === null) throw stratumError('TOKEN_INVALID', { reason: 'the Authorization header must read "Bearer" and one token' })
  if (looksLikeApiKey(bearer)) return { type: 'api_key', hashes: await apiKeys.hashes(bearer) }
  if (apiKey !== null || bearer.startsWith('sk_')) throw stratumError('API_KEY_INVALID')
  return tokens.known(bearer) ?? tokens.verify(bearer, { beforeAsking })
}

const isOutdated = (error: unknown): error is StratumError => error instanceof StratumError && error.code === 'ISSUER_OUTDATED'

/**
 * Do what asks SQL. Where that says that the issuer of a token is gone, what is kept of it goes too, the credential
 * is read again, and it is done once more: the issuer may have been replaced.
 * @throws TOKEN_INVALID where the token is nobody's now
 */
export async function withStandingIssuer<T>({ tokens }: Services, readAgain: () => Promise<void>, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (!isOutdated(error)) throw error
    tokens.forget(String(error.details['issuer_id']))
  }
  await readAgain()
  try {
    return await work()
  } catch (error) {
    throw isOutdated(error) ? stratumError('TOKEN_INVALID', { reason: 'its issuer is not trusted' }) : error
  }
}

/**
 * What else of the request names a tenant. The header counts from API keys only, as these are held by
 * servers: a browser's user must not pick a tenant by a header.
 */
export function readNamedTenants(context: Context, credential: Credential, { hosts }: Services): NamedTenant[] {
  const { headers } = context.req.raw
  const header = headers.get('x-tenant-id')
  // Where it does not count it is refused too: whoever sends it would act for another tenant than it names.
  if (header !== null && (credential.type !== 'api_key' || !counts(hosts, 'header'))) throw stratumError('TENANT_HEADER_UNTRUSTED')
  const inPath = context.req.param('named_tenant')
  const host = readHost(headers.get('host') ?? new URL(context.req.url).host, hosts).named
  const path = inPath === undefined ? null : identifyName('path', inPath, hosts)
  const cookie = hosts.cookie === undefined ? null : identifyCookie(headers.get('cookie') ?? undefined, hosts)
  return inOrder([host, path, header === null ? null : identifyName('header', header), cookie], hosts)
}

/** The body as text, never reading more than is allowed. */
async function readText(request: Request): Promise<string> {
  const tooLarge = () => stratumError('BODY_TOO_LARGE', { maximum_bytes: MAXIMUM_BODY_BYTES })
  if (Number(request.headers.get('content-length') ?? 0) > MAXIMUM_BODY_BYTES) throw tooLarge()
  const decoder = new TextDecoder('utf-8', { fatal: true })
  let text = ''
  let bytes = 0
  try {
    for await (const chunk of request.body ?? []) {
      bytes += chunk.byteLength
      if (bytes > MAXIMUM_BODY_BYTES) throw tooLarge()
      text += decoder.decode(chunk, { stream: true })
    }
    return text + decoder.decode()
  } catch (cause) {
    // It is not UTF-8, or the sender broke off.
    throw cause instanceof StratumError ? cause : stratumError('INVALID_JSON', {}, { cause })
  }
}

async function readBody(request: Request): Promise<unknown> {
  const text = await readText(request)
  if (text.trim() === '') return {}
  try {
    return JSON.parse(text)
  } catch {
    throw stratumError('INVALID_JSON')
  }
}

/** Messages and paths name keys of the input, which may be as long and as many as the body allows. */
const brief = (text: string) => (text.length > 300 ? `${text.slice(0, 299)}…` : text)

function check<T extends z.ZodType>(schema: T, value: unknown, code: 'INVALID_REQUEST' | 'VALIDATION_FAILED'): z.output<T> {
  const parsed = schema.safeParse(value)
  if (parsed.success) return parsed.data
  const issues = parsed.error.issues.slice(0, 20).map((issue) => ({ path: brief(issue.path.join('.')), message: brief(issue.message) }))
  const [first] = issues
  throw stratumError(code, { reason: first ? `${first.path === '' ? '' : `${first.path}: `}${first.message.replace(/\.$/, '')}` : 'unknown', issues })
}

const single = (values: Record<string, string[]>) => Object.fromEntries(Object.entries(values).map(([key, all]) => [key, all.length === 1 ? all[0] : all]))

/**
 * Params, query and body as one object, parsed.
 * @throws INVALID_REQUEST, INVALID_JSON, BODY_TOO_LARGE, VALIDATION_FAILED
 */
export async function readInput<E extends Endpoint>(context: Context, endpoint: E): Promise<Record<string, unknown>> {
  const { named_tenant: _, ...given } = context.req.param() as Record<string, string>
  const params = check(endpoint.params, given, 'INVALID_REQUEST')
  const { dry_run: _preview, ...asked } = context.req.queries()
  const query = check(endpoint.query, single(asked), 'INVALID_REQUEST')
  const hasBody = endpoint.method !== 'GET' && endpoint.method !== 'DELETE'
  const body = hasBody ? check(endpoint.body, await readBody(context.req.raw), 'VALIDATION_FAILED') : {}
  return { ...params, ...query, ...body }
}
