import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { ALGORITHMS, isSymmetric } from '../../src/auth/jwk.ts'
import { TokenVerifier } from '../../src/auth/tokens.ts'
import { TokenInvalidError } from '../../src/core/error-classes.ts'
import type { StratumError } from '../../src/core/errors.ts'
import { AUDIENCE, claims, encode, familyOf, ISSUER, issuer, NOW, publicJwk, publicKey, TENANT, token } from './signing.ts'

const now = () => NOW * 1000
const verifier = (change: Record<string, unknown> = {}) => new TokenVerifier([issuer(change)], { now })
const verify = (text: string, change: Record<string, unknown> = {}) => verifier(change).verify(text)

async function refusal(text: string, using: TokenVerifier = verifier()): Promise<string> {
  const error: unknown = await using.verify(text).then(
    () => 'verified',
    (error: unknown) => error,
  )
  expect(error).toBeInstanceOf(TokenInvalidError)
  return String((error as StratumError).details['reason'])
}

const secret = (change = {}) => ({ kty: 'oct', k: randomBytes(64).toString('base64url'), ...change })
const bytesOf = ({ k }: { k: string }) => Buffer.from(k, 'base64url')

afterEach(() => {
  vi.restoreAllMocks()
})

describe('a token that verifies', () => {
  it('answers the credential that SQL judges', async () => {
    const text = token(claims({ tenant: 'acme', scope: 'openid write' }))
    expect(await verify(text, { tenant_id: TENANT, max_scopes: ['write'] })).toEqual({
      type: 'token',
      issuer: ISSUER,
      subject: 'user-1',
      tenant: 'acme',
      issuer_tenant_id: TENANT,
      global: false,
      scopes: ['read', 'write'],
    })
    const bare = token({ iss: ISSUER, aud: ['other', AUDIENCE], exp: NOW + 1 })
    expect(await verify(bare, { global: true })).toEqual({
      type: 'token',
      issuer: ISSUER,
      subject: null,
      tenant: null,
      issuer_tenant_id: null,
      global: true,
      scopes: [],
    })
  })

  it.each(ALGORITHMS.filter((alg) => !isSymmetric(alg)))('may be signed by %s', async (alg) => {
    const text = token(claims(), { alg })
    expect((await verify(text, { algorithms: [alg], keys: [publicJwk(familyOf(alg))] })).subject).toBe('user-1')
  })

  it.each(ALGORITHMS.filter(isSymmetric))('may be signed by %s', async (alg) => {
    const key = secret()
    const text = token(claims(), { alg, secret: bytesOf(key) })
    expect((await verify(text, { algorithms: [alg], keys: [key] })).subject).toBe('user-1')
    expect(await refusal(token(claims(), { alg, secret: randomBytes(64) }), verifier({ algorithms: [alg], keys: [key] }))).toContain('signature')
  })

  it('is a known one: RFC 8037 appendix A, with claims in place of its text', async () => {
    // The key pair of the RFC; Ed25519 signatures are deterministic, so the token is one for ever.
    const jwk = { kty: 'OKP', crv: 'Ed25519', x: '11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo' }
    const text =
      'eyJhbGciOiJFZERTQSJ9.eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUuY29tLyIsImF1ZCI6Imh0dHBzOi8vYXBpLmV4YW1wbGUuY29tIiwiZXhwIjoyMDAwMDAwMDAwfQ.' +
      'OUBssD7tVNG2eEj9mfjh9md37mxggl_D3cvaisCVyjnd8vOMl6szZVGdSKtg6fdI8pMTHQimCQUupboJt0l7CA'
    expect((await verify(text, { algorithms: ['EdDSA'], keys: [jwk] })).issuer).toBe(ISSUER)
    expect(
      await refusal(
        'eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.' + 'hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg',
      ),
    ).toBe('it is malformed')
  })
})

describe('the key', () => {
  const other = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const two = [publicJwk('P-256', { kid: 'a' }), { ...other.publicKey.export({ format: 'jwk' }), kid: 'b' }]

  it('is the one the token names', async () => {
    expect(await verify(token(claims(), { header: { kid: 'a' } }), { keys: two })).toBeTruthy()
    expect(await verify(token(claims(), { header: { kid: 'b' }, key: other.privateKey }), { keys: two })).toBeTruthy()
    const using = verifier({ keys: two })
    expect(await refusal(token(claims(), { header: { kid: 'b' } }), using)).toContain('signature')
    expect(await refusal(token(claims(), { header: { kid: 'c' } }), using)).toBe('no key of its issuer fits it')
    expect(await refusal(token(claims(), { header: { kid: 1 } }), using)).toBe('no key of its issuer fits it')
    expect(await refusal(token(claims(), { header: { kid: null } }), using)).toBe('no key of its issuer fits it')
    expect(await refusal(token(), using)).toBe('it does not say which key of its issuer signed it')
  })

  it.each(['ES256', 'HS256'])('may go unnamed on one side when it is the sole one: %s', async (alg) => {
    const shared = secret()
    const key = alg === 'HS256' ? shared : publicJwk('P-256')
    const sign = (header = {}) => token(claims(), { alg, header, secret: bytesOf(shared) })
    const using = (kid?: string) => verifier({ algorithms: [alg], keys: [{ ...key, kid }] })
    await using().verify(sign())
    await using().verify(sign({ kid: 'a' }))
    await using('a').verify(sign())
    await using('a').verify(sign({ kid: 'a' }))
    expect(await refusal(sign({ kid: 'b' }), using('a'))).toBe('no key of its issuer fits it')
  })

  it('is the secret the token names, for an algorithm it is long enough for', async () => {
    const keys = [secret({ kid: 'a' }), { ...secret({ kid: 'b' }), k: randomBytes(32).toString('base64url') }, secret({ kid: 'c', alg: 'HS384' })]
    const using = verifier({ algorithms: ['HS256', 'HS384', 'HS512'], keys })
    const sign = (alg: string, kid: string | undefined, of: number) => token(claims(), { alg, header: { kid }, secret: bytesOf(keys[of] ?? secret()) })
    for (const text of [sign('HS256', 'a', 0), sign('HS512', 'a', 0), sign('HS256', 'b', 1), sign('HS384', 'c', 2)]) await using.verify(text)
    for (const text of [sign('HS512', 'b', 1), sign('HS256', 'c', 2), sign('HS256', undefined, 0), sign('HS256', 'd', 0)]) {
      expect(await refusal(text, using)).toBe('no key of its issuer fits it')
    }
    expect(await refusal(sign('HS256', 'b', 0), using)).toContain('signature')
  })

  it('is never what the token brings along', async () => {
    const jwk = other.publicKey.export({ format: 'jwk' })
    const header = { jwk, jku: 'https://evil.example.com/keys', x5u: 'https://evil.example.com/x', x5c: ['AAAA'] }
    const fetched = vi.spyOn(globalThis, 'fetch')
    expect(await refusal(token(claims(), { header, key: other.privateKey }))).toContain('signature')
    expect(fetched).not.toHaveBeenCalled()
  })
})

describe('a forged token', () => {
  it('is not verified with a public key in place of a secret', async () => {
    const using = verifier({ algorithms: ['RS256'], keys: [publicJwk('RSA')] })
    const texts = [
      publicKey('RSA').export({ type: 'spki', format: 'pem' }),
      publicKey('RSA').export({ type: 'spki', format: 'der' }),
      JSON.stringify(publicJwk('RSA')),
      String(publicJwk('RSA')['n']),
    ]
    for (const text of texts) {
      expect(await refusal(token(claims(), { alg: 'HS256', secret: text }), using)).toBe('its algorithm is not one of its issuer')
    }
    expect(await refusal(token(claims(), { alg: 'RS512' }), using)).toBe('its algorithm is not one of its issuer')
    expect(await refusal(token(claims(), { alg: 'PS256' }), using)).toBe('its algorithm is not one of its issuer')
  })

  it.each(['none', 'None', '', 'NONE', 'ES256 ', 'es256', '__proto__', 'constructor', 'dir', null, undefined, 1, {}, ['ES256']])(
    'is not saved by the algorithm %j',
    async (alg) => {
      const [, payload, signature] = token().split('.')
      for (const end of ['', signature]) expect(await refusal(`${encode({ alg })}.${payload}.${end}`)).toMatch(/algorithm|malformed/)
    },
  )

  it('does not pass with its signature cut off, emptied, or taken from another', async () => {
    const [header, payload, signature] = token().split('.')
    for (const end of [
      '',
      'AA',
      signature?.slice(0, -2),
      `${signature}AA`,
      token(claims({ tenant: 'other' })).split('.')[2],
      Buffer.alloc(64).toString('base64url'),
    ]) {
      expect(await refusal(`${header}.${payload}.${end}`)).toMatch(/signature|malformed/)
    }
    expect(await refusal(`${header}.${encode(claims({ tenant: 'other' }))}.${signature}`)).toContain('signature')
    expect(await refusal(`${encode({ alg: 'ES256', typ: 'JWT' })}.${payload}.${signature}`)).toContain('signature')
  })

  it('does not pass with any one bit changed', async () => {
    const using = verifier()
    const parts = token().split('.')
    for (const [part, text] of parts.entries()) {
      const bytes = Buffer.from(text, 'base64url')
      for (let bit = 0; bit < bytes.length * 8; bit += 3) {
        const changed = Buffer.from(bytes)
        changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7))
        await refusal(parts.with(part, changed.toString('base64url')).join('.'), using)
      }
    }
  })
})

describe('the times of a token', () => {
  it.each<[string, Record<string, unknown>, string]>([
    ['expired', { exp: NOW - 5 }, 'it has expired'],
    ['expired long ago', { exp: -1 }, 'it has expired'],
    ['without exp', { exp: undefined }, 'it has no exp'],
    ['with a text as exp', { exp: '2000000000' }, 'its exp is not valid'],
    ['with exp null', { exp: null }, 'its exp is not valid'],
    ['not valid yet', { nbf: NOW + 6 }, 'it is not valid yet'],
    ['with a text as nbf', { nbf: 'x' }, 'it is not valid yet'],
    ['with a text as iat', { iat: 'x' }, 'its iat is not valid'],
  ])('refuse one that is %s', async (_, change, reason) => {
    expect(await refusal(token(claims(change)))).toBe(reason)
  })

  it('refuse one that would never expire', async () => {
    expect(await refusal(token(JSON.stringify(claims()).replace(String(NOW + 3600), '1e999')))).toBe('its exp is not valid')
  })

  it('allow clocks to differ by 5 seconds', async () => {
    expect(await verify(token(claims({ exp: NOW - 4, nbf: NOW + 5 })))).toBeTruthy()
  })
})

describe('issuer and audience', () => {
  it.each<[Record<string, unknown>, string]>([
    [{ iss: 'https://evil.example.com/' }, 'its issuer is not trusted'],
    [{ iss: ISSUER.slice(0, -1) }, 'its issuer is not trusted'],
    [{ iss: undefined }, 'its issuer is not trusted'],
    [{ iss: [ISSUER] }, 'its issuer is not trusted'],
    [{ iss: '__proto__' }, 'its issuer is not trusted'],
    [{ aud: 'https://other.example.com' }, 'it is for another audience'],
    [{ aud: undefined }, 'it is for another audience'],
    [{ aud: [] }, 'it is for another audience'],
    [{ aud: [[AUDIENCE]] }, 'it is for another audience'],
    [{ aud: { 0: AUDIENCE } }, 'it is for another audience'],
    [{ aud: `${AUDIENCE} other` }, 'it is for another audience'],
  ])('refuse %j', async (change, reason) => {
    expect(await refusal(token(claims(change)))).toBe(reason)
  })

  it('trust nobody when nobody is listed', async () => {
    expect(await refusal(token(), new TokenVerifier([]))).toBe('its issuer is not trusted')
  })

  it('choose among several issuers, each with its own keys and bounds', async () => {
    const key = secret()
    const using = new TokenVerifier(
      [
        issuer({ tenant_id: TENANT }),
        issuer({ audience: 'b', algorithms: ['RS256'], keys: [publicJwk('RSA')], max_scopes: ['admin'] }),
        issuer({ issuer: 'other', algorithms: ['HS256'], keys: [key], global: true }),
      ],
      { now },
    )
    expect((await using.verify(token())).issuer_tenant_id).toBe(TENANT)
    expect((await using.verify(token(claims({ aud: ['x', 'b'], scope: 'admin' }), { alg: 'RS256' }))).scopes).toContain('admin')
    expect((await using.verify(token(claims({ iss: 'other' }), { alg: 'HS256', secret: bytesOf(key) }))).global).toBe(true)
    expect(await refusal(token(claims({ aud: 'b' })), using)).toBe('its algorithm is not one of its issuer')
    expect(await refusal(token(claims({ iss: 'other' })), using)).toBe('its algorithm is not one of its issuer')
    expect((await using.verify(token(claims({ aud: ['b', AUDIENCE] })))).issuer_tenant_id).toBe(TENANT)
  })
})
