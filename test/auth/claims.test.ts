import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { claimAt } from '../../src/auth/claims.ts'
import { TokenVerifier } from '../../src/auth/tokens.ts'
import { TokenInvalidError } from '../../src/core/error-classes.ts'
import type { StratumError } from '../../src/core/errors.ts'
import { claims, encode, issuer, NOW, token } from './signing.ts'

const verify = (payload: unknown, change: Record<string, unknown> = {}) => new TokenVerifier([issuer(change)], { now: () => NOW * 1000 }).verify(token(payload))

async function refusal(payload: unknown, change: Record<string, unknown> = {}): Promise<unknown> {
  const error: unknown = await verify(payload, change).catch((error: unknown) => error)
  expect(error).toBeInstanceOf(TokenInvalidError)
  return (error as StratumError).details['reason']
}

describe('claimAt', () => {
  it('walks own members of objects', () => {
    const payload = { a: { b: { c: 1 } }, 'a.b': 2, 'https://x.example.com/a.b': 3, list: [{ c: 4 }], text: 'abc', nothing: null }
    const found = ['a.b.c', 'a.b', 'a', 'https://x.example.com/a.b'].map((path) => claimAt(payload, path))
    expect(found).toEqual([1, { c: 1 }, { b: { c: 1 } }, 3])
    for (const path of ['b', 'a.c', 'a.b.c.d', 'list.0', 'list.length', 'text.length', 'text.0', 'nothing.a', 'https://x']) {
      expect(claimAt(payload, path)).toBeUndefined()
    }
  })

  it.each(['__proto__', 'constructor', 'constructor.name', 'toString', 'hasOwnProperty.name', '__proto__.constructor.name', 'a.__proto__', 'a.constructor'])(
    'finds no %s that the token does not have',
    (path) => {
      expect(claimAt({ a: {} }, path)).toBeUndefined()
    },
  )

  it('finds those the token has', () => {
    const payload = JSON.parse('{"__proto__":{"tenant":"a"},"constructor":{"name":"b"}}')
    expect([claimAt(payload, '__proto__.tenant'), claimAt(payload, 'constructor.name'), claimAt(payload, 'tenant')]).toEqual(['a', 'b', undefined])
  })
})

describe('the tenant', () => {
  it.each([
    ['tenant', { tenant: 'acme' }],
    ['app.tenant', { app: { tenant: 'acme' } }],
    ['https://example.com/tenant', { 'https://example.com/tenant': 'acme' }],
    ['constructor', { constructor: 'acme' }],
  ])('is read from %s', async (tenant_claim, change) => {
    expect((await verify(claims({ tenant: undefined, ...change }), { tenant_claim })).tenant).toBe('acme')
    expect((await verify(claims({ tenant: undefined }), { tenant_claim })).tenant).toBeNull()
  })

  it.each([null, '', 0, false, {}, ['acme'], 'x'.repeat(256), 'a\0b', '\ud800'])('is never %j', async (tenant) => {
    expect(await refusal(claims({ tenant }), { global: true })).toBe('its tenant is not a text of 1 to 255 characters')
  })

  it('may have 255 characters', async () => {
    expect((await verify(claims({ tenant: 'x'.repeat(255) }))).tenant).toHaveLength(255)
  })
})

describe('the subject', () => {
  it.each([null, '', 7, ['a'], 'x'.repeat(256), 'a\0b'])('is never %j', async (sub) => {
    expect(await refusal(claims({ sub }))).toBe('its subject is not a text of 1 to 255 characters')
  })
})

describe('the scopes', () => {
  it.each<[unknown, string[], string[]]>([
    ['read', ['read'], ['read']],
    ['write', ['read'], ['read']],
    ['write', ['write'], ['read', 'write']],
    ['admin', ['write'], ['read', 'write']],
    ['read', ['admin'], ['read']],
    ['openid profile', ['admin'], []],
    ['', ['admin'], []],
    [' read  write ', ['admin'], ['read', 'write']],
    ['secrets:read', ['read'], []],
    ['secrets:read', ['admin'], ['secrets:read']],
    [['read', 'email'], ['admin'], ['read']],
    [[], ['admin'], []],
    ['constructor __proto__ toString', ['admin'], []],
    ['READ', ['admin'], []],
    [undefined, ['admin'], []],
  ])('of %j under %j are %j', async (scope, max_scopes, scopes) => {
    expect((await verify(claims({ scope }), { max_scopes })).scopes).toEqual(scopes)
  })

  it('are all the issuer gives when no claim is configured', async () => {
    expect((await verify(claims({ scope: 'read' }), { scopes_claim: null, max_scopes: ['write', 'secrets:read'] })).scopes).toEqual([
      'read',
      'write',
      'secrets:read',
    ])
  })

  it('are read from where the issuer keeps them', async () => {
    const change = { scopes_claim: 'realm_access.roles', max_scopes: ['admin'] }
    expect((await verify(claims({ scope: 'admin', realm_access: { roles: ['write'] } }), change)).scopes).toEqual(['read', 'write'])
    expect((await verify(claims({ scope: 'admin' }), change)).scopes).toEqual([])
  })

  it.each([null, 1, true, {}, [1], ['read', null], [['read']]])('are never %j', async (scope) => {
    expect(await refusal(claims({ scope }), { max_scopes: ['admin'] })).toBe('its scopes are neither a text nor a list of texts')
  })
})

describe('any text at all', () => {
  const using = new TokenVerifier([issuer()], { now: () => NOW * 1000 })
  const invalid = async (text: string) => {
    const error: unknown = await using.verify(text).catch((error: unknown) => error)
    expect(error).toBeInstanceOf(TokenInvalidError)
    const { reason } = (error as StratumError).details
    expect(reason).toMatch(/^[a-zA-Z0-9 ]{10,80}$/)
  }
  const [, payload = '', signature = ''] = token().split('.')

  it.each([
    '',
    '.',
    '..',
    '...',
    '....',
    'a.b',
    'a.b.c',
    'a.b.c.d.e',
    ' ',
    'null',
    '{}',
    'Bearer x',
    `${token()}\n`,
    ` ${token()}`,
    `${token()}=`,
    `${token()}.`,
    token().replace('.', '..'),
    token().replaceAll('.', ' '),
    `${encode('[]')}.${payload}.${signature}`,
    `${encode('null')}.${payload}.${signature}`,
    `${encode('{"alg":"ES256"')}.${payload}.${signature}`,
    token('text'),
    token('"text"'),
    token('null'),
    token('[]'),
    token(''),
    token('{'),
    token({}),
  ])('is refused: %j', invalid)

  it.each<Record<string, unknown>>([
    { b64: false, crit: ['b64'] },
    { b64: 'no', crit: ['b64'] },
    { crit: [] },
    { crit: 'b64' },
    { crit: ['exp'] },
    { crit: ['x'], x: 1 },
    { crit: ['b64'] },
    { crit: [1] },
    { crit: null },
    { crit: ['b64', 'b64', 'x'], b64: true },
    { crit: ['enc'], enc: 'A256GCM' },
    { crit: ['__proto__'] },
  ])('is refused with the header %j', async (header) => {
    await invalid(token(claims(), { header }))
  })

  it('is refused when it is encrypted, or as JSON', async () => {
    await invalid(`${encode({ alg: 'dir', enc: 'A256GCM' })}..AAAAAAAAAAAAAAAA.AAAA.AAAAAAAAAAAAAAAAAAAAAA`)
    await invalid(JSON.stringify({ payload, signatures: [{ protected: encode({ alg: 'ES256' }), signature }] }))
    await invalid(JSON.stringify({ payload, protected: encode({ alg: 'ES256' }), signature }))
  })

  it('is refused when it is detached, or holds what is not UTF-8', async () => {
    await invalid(token().replace(payload, ''))
    await invalid(token().replace(payload, Buffer.from([0x7b, 0xff, 0x7d]).toString('base64url')))
  })

  it('is refused when it is long, before anything reads it', async () => {
    const started = performance.now()
    for (const text of ['a'.repeat(1_000_000), '.'.repeat(1_000_000), 'a.'.repeat(500_000), token(claims({ x: 'x'.repeat(1_000_000) }))]) {
      const error: unknown = await using.verify(text).catch((error: unknown) => error)
      expect((error as StratumError).details['reason']).toBe('it is longer than 16384 characters')
    }
    expect(performance.now() - started).toBeLessThan(2000)
    await invalid(token('['.repeat(12_000)))
    await invalid(token(`{"iss":${'['.repeat(6000)}${']'.repeat(6000)}}`))
    expect(await using.verify(token(claims({ x: 'x'.repeat(11_000) })))).toBeTruthy()
  })

  it('is refused when it is random', async () => {
    const part = fc.oneof(fc.string(), fc.string({ unit: 'binary' }), fc.json().map(encode), fc.base64String())
    await fc.assert(
      fc.asyncProperty(
        fc.oneof(
          fc.string({ unit: 'binary', maxLength: 200 }),
          fc.array(part, { maxLength: 6 }).map((parts) => parts.join('.')),
        ),
        invalid,
      ),
      { numRuns: 500 },
    )
  })

  it('is refused when its header or claims are, under a true issuer and audience', async () => {
    const header = fc.record(
      { alg: fc.oneof(fc.constant('ES256'), fc.jsonValue()), kid: fc.jsonValue(), crit: fc.jsonValue(), b64: fc.jsonValue(), typ: fc.jsonValue() },
      { requiredKeys: [] },
    )
    await fc.assert(
      fc.asyncProperty(header, fc.dictionary(fc.string(), fc.jsonValue()), fc.base64String(), async (header, extra, end) => {
        await invalid(`${encode(header)}.${encode({ ...extra, ...claims() })}.${end.replaceAll(/[^A-Za-z0-9]/g, '')}`)
      }),
      { numRuns: 500 },
    )
  })

  it('is answered or refused when its claims are random and signed', async () => {
    const claim = fc.oneof(fc.jsonValue(), fc.string({ unit: 'binary' }))
    const change = fc.record({ sub: claim, tenant: claim, scope: claim, exp: claim, nbf: claim, iat: claim, jti: claim }, { requiredKeys: [] })
    await fc.assert(
      fc.asyncProperty(change, async (change) => {
        const answer: unknown = await using.verify(token(claims(change))).catch((error: unknown) => error)
        if (answer instanceof Error) expect(answer).toBeInstanceOf(TokenInvalidError)
        else expect(answer).toMatchObject({ type: 'token', global: false })
      }),
      { numRuns: 300 },
    )
  })
})
