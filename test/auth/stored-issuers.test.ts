import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { TokenVerifier } from '../../src/auth/tokens.ts'
import { StratumError } from '../../src/core/errors.ts'
import { AUDIENCE, claims, ISSUER, NOW, publicJwk, token } from './signing.ts'

const ID = '0197a000-0000-4000-8000-0000000000a1'
const OTHER_ID = '0197a000-0000-4000-8000-0000000000a2'
const fields = {
  tenant_id: null,
  issuer: ISSUER,
  audience: AUDIENCE,
  algorithms: ['ES256'],
  keys: [publicJwk('P-256')],
  tenant_claim: 'tenant',
  scopes_claim: 'scope',
  max_scopes: ['read'],
  global: false,
}
const row = (change: object = {}) => ({ id: ID, ...fields, ...change })

/** A verifier over a database that answers what `database.row` is, and counts. */
function setUp(options: { development?: boolean; fetch?: typeof fetch } = {}) {
  const clock = { seconds: NOW }
  const database = { row: row() as unknown, asked: 0, answer: async () => database.row }
  const stored = () => {
    database.asked++
    return database.answer()
  }
  return { clock, database, using: new TokenVerifier([], { stored, now: () => clock.seconds * 1000, ...options }) }
}
const codeOf = (work: Promise<unknown>) =>
  work.then(
    () => 'verified',
    (error: unknown) => (error instanceof StratumError ? error.code : error),
  )
const fresh = (index: number) => token(claims({ index }))

describe('a stored issuer', () => {
  it('gives its tokens its id', async () => {
    const { using } = setUp()
    expect(await using.verify(token())).toEqual({
      ...{ type: 'token', issuer: ISSUER, issuer_id: ID, subject: 'user-1', tenant: 'acme', issuer_tenant_id: null, global: false, scopes: ['read'] },
    })
  })
  it('is asked for once, and again when it is forgotten, with its tokens', async () => {
    const { using, database } = setUp()
    for (let i = 0; i < 3; i++) await using.verify(fresh(i))
    expect(database.asked).toBe(1)
    database.row = null
    await using.verify(fresh(0))
    using.forget(ID)
    expect(await codeOf(using.verify(fresh(0)))).toBe('TOKEN_INVALID')
    expect(database.asked).toBe(2)
  })
  it('that is not there is asked for again after 5 seconds, or when one of its name was stored here', async () => {
    const { using, database, clock } = setUp()
    database.row = null
    const attempt = () => codeOf(using.verify(token()))
    for (clock.seconds = NOW; clock.seconds < NOW + 5; clock.seconds++) expect(await attempt()).toBe('TOKEN_INVALID')
    expect(database.asked).toBe(1)
    expect(await attempt()).toBe('TOKEN_INVALID')
    expect(database.asked).toBe(2)
    database.row = row()
    using.forgetNamed(ISSUER)
    expect(await attempt()).toBe('verified')
  })
  it('that refuses a token may have been replaced: it is asked for again, every 5 seconds at most', async () => {
    const { using, database, clock } = setUp()
    await using.verify(token())
    database.row = row({ id: OTHER_ID, algorithms: ['ES384'], keys: [publicJwk('P-384')] })
    const bySuccessor = token(claims(), { alg: 'ES384' })
    expect(await codeOf(using.verify(bySuccessor))).toBe('TOKEN_INVALID')
    expect(database.asked).toBe(1)
    clock.seconds += 5
    expect((await using.verify(bySuccessor)).issuer_id).toBe(OTHER_ID)
    const bad = () => codeOf(using.verify(token(claims(), { alg: 'ES384', header: { kid: String(Math.random()) }, secret: '' }).slice(0, -4)))
    for (let i = 0; i < 10; i++) expect(await bad()).toBe('TOKEN_INVALID')
    expect(database.asked).toBe(2)
  })
  it('is asked for by one of many, and what that is told all are', async () => {
    const { using, database } = setUp()
    expect(new Set(await Promise.all(Array.from({ length: 50 }, (_, index) => codeOf(using.verify(fresh(index))))))).toEqual(new Set(['verified']))
    expect(database.asked).toBe(1)
    using.forget(ID)
    database.answer = () => Promise.reject(new StratumError('DATABASE_UNAVAILABLE'))
    expect(new Set(await Promise.all(Array.from({ length: 5 }, (_, index) => codeOf(using.verify(fresh(index))))))).toEqual(new Set(['DATABASE_UNAVAILABLE']))
    expect(database.asked).toBe(2)
    database.answer = async () => database.row
    expect(await codeOf(using.verify(fresh(0)))).toBe('verified')
  })
})

describe('when whoever asked has ended and its answer never comes', () => {
  beforeEach(() => {
    vi.useFakeTimers()
  })
  afterEach(() => {
    vi.useRealTimers()
  })
  it('the others ask themselves after 2 seconds, and those that come later follow them', async () => {
    const { using, database } = setUp()
    database.answer = () => new Promise<never>(() => {})
    void using.verify(fresh(0))
    const follower = codeOf(using.verify(fresh(1)))
    database.answer = async () => database.row
    await vi.advanceTimersByTimeAsync(1_999)
    expect(database.asked).toBe(1)
    await vi.advanceTimersByTimeAsync(1)
    expect(await follower).toBe('verified')
    expect(await codeOf(using.verify(fresh(2)))).toBe('verified')
    expect(database.asked).toBe(2)
    expect(vi.getTimerCount()).toBe(0)
  })
})

describe('what the database holds is judged by each process', () => {
  const { keys: _, ...bare } = fields
  const secret = { kty: 'oct', k: Buffer.alloc(32, 'a-secret').toString('base64url') }
  it.each<[string, unknown]>([
    ['a key set on this machine', { ...bare, id: ID, jwks_uri: 'https://localhost/keys' }],
    ['a key set over http', { ...bare, id: ID, jwks_uri: 'http://127.0.0.1:1/keys' }],
    ['a key set in a private network', { ...bare, id: ID, jwks_uri: 'https://169.254.169.254/keys' }],
    ['a shared secret', row({ algorithms: ['HS256'], keys: [secret] })],
    ['no key', { ...bare, id: ID }],
    ['no id', fields],
    ['something else', 'x'],
  ])('%s is not trusted', async (_what, held) => {
    const asked: unknown[] = []
    const { using, database } = setUp({
      fetch: async (input) => {
        asked.push(input)
        return new Response('{"keys":[]}')
      },
    })
    database.row = held
    expect(await codeOf(using.verify(token()))).toBe('TOKEN_INVALID')
    expect(asked).toEqual([])
  })
  it('a key set on this machine is, in development', async () => {
    const { using, database } = setUp({ development: true, fetch: async () => Response.json({ keys: [publicJwk('P-256')] }) })
    database.row = { ...bare, id: ID, jwks_uri: 'http://127.0.0.1:1/keys' }
    expect(await codeOf(using.verify(token()))).toBe('verified')
  })
})

it('a verifier that was given no database knows no stored issuer', async () => {
  expect(await codeOf(new TokenVerifier([], { now: () => NOW * 1000 }).verify(token()))).toBe('TOKEN_INVALID')
})
