import { generateKeyPairSync, randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parseIssuers } from '../../src/auth/issuers.ts'
import { networkOf } from '../../src/auth/network.ts'
import { ConfigurationInvalidError } from '../../src/core/error-classes.ts'
import { privateJwk, publicJwk, TENANT } from './signing.ts'

const remote = { issuer: 'https://id.example.com', audience: 'api', jwks_uri: 'https://id.example.com/keys', algorithms: ['RS256'] }
const { jwks_uri: _, ...bare } = remote
const secret = (bytes: number, change = {}) => ({ kty: 'oct', k: randomBytes(bytes).toString('base64url'), ...change })
const shared = { ...bare, algorithms: ['HS256'], keys: [secret(32)] }
const fixed = (keys: unknown[], algorithms = ['ES256']) => ({ ...bare, algorithms, keys })

const parse = (...issuers: unknown[]) => parseIssuers(JSON.stringify(issuers))
const refusal = (json: string, development = false): string => {
  try {
    parseIssuers(json, { development })
  } catch (error) {
    expect(error).toBeInstanceOf(ConfigurationInvalidError)
    return (error as Error).message
  }
  throw new Error(`accepted: ${json}`)
}

describe('parseIssuers', () => {
  it('fills in what is left out', () => {
    expect(parse(remote)).toEqual([{ ...remote, tenant_id: null, tenant_claim: 'tenant', scopes_claim: 'scope', max_scopes: ['read'], global: false }])
    expect(parse()).toEqual([])
  })

  it('keeps what is given', () => {
    const given = { ...shared, tenant_id: TENANT, tenant_claim: 'app.tenant', scopes_claim: null, max_scopes: ['admin'], global: false }
    expect(parse(given)).toEqual([given])
    expect(parse({ ...remote, tenant_id: TENANT.toUpperCase() })[0]?.tenant_id).toBe(TENANT)
    expect(parse({ ...remote, global: true })[0]?.global).toBe(true)
    expect(parse({ ...remote, tenant_claim: 'https://example.com/tenant' })[0]?.tenant_claim).toBe('https://example.com/tenant')
  })

  it('takes public keys of every kind, with what else their issuers publish', () => {
    const keys = [
      publicJwk('RSA', { kid: 'r', use: 'sig', x5t: 'abc' }),
      publicJwk('P-256', { kid: '2', alg: 'ES256' }),
      publicJwk('P-384', { kid: '3', key_ops: ['verify'] }),
      publicJwk('P-521', { kid: '5' }),
      publicJwk('Ed25519', { kid: 'e' }),
    ]
    expect(parse(fixed(keys, ['RS256', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA']))[0]?.keys).toEqual(keys)
  })

  it('takes one issuer for several audiences, once each', () => {
    expect(parse(remote, { ...remote, audience: 'other' })).toHaveLength(2)
    expect(refusal(JSON.stringify([remote, { ...remote, audience: 'other' }, { ...shared }]))).toContain('at [2]: Has issuer and audience')
  })

  const small = generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey.export({ format: 'jwk' })
  it.each<[string, unknown, string]>([
    ['something else', 'x', 'expected object'],
    ['an unknown member', { ...remote, tenant: 'acme' }, 'Unrecognized key: "tenant"'],
    ['no issuer', { ...remote, issuer: undefined }, '[0].issuer'],
    ['an empty audience', { ...remote, audience: '' }, '[0].audience'],
    ['neither keys nor jwks_uri', bare, 'exactly one'],
    ['both', { ...remote, keys: [publicJwk('RSA')] }, 'exactly one'],
    ['no algorithms', { ...remote, algorithms: [] }, '[0].algorithms'],
    ['the algorithm none', { ...remote, algorithms: ['none'] }, '[0].algorithms[0]'],
    ['an inherited name as algorithm', { ...remote, algorithms: ['constructor'] }, '[0].algorithms[0]'],
    ['HS with a jwks_uri', { ...remote, algorithms: ['HS256'] }, 'HS* needs keys'],
    ['HS with others', { ...shared, algorithms: ['HS256', 'RS256'] }, 'Must not mix'],
    ['HS with a public key', { ...shared, keys: [publicJwk('RSA')] }, 'Fits, by type'],
    ['a secret with RS', fixed([secret(32)], ['RS256']), 'Fits, by type'],
    ['a short secret', { ...shared, keys: [secret(31)] }, 'at least 32 bytes'],
    ['a secret shorter than the hash', { ...shared, algorithms: ['HS512'], keys: [secret(63)] }, 'Fits, by type and size'],
    ['a secret that is not base64url', { ...shared, keys: [{ kty: 'oct', k: 'ä'.repeat(60) }] }, '[0].keys[0].k'],
    ['an algorithm that no key fits', fixed([publicJwk('P-256')], ['ES256', 'ES384']), '[0].algorithms[1]'],
    ['a key for another algorithm', fixed([publicJwk('P-256', { alg: 'ES384' })]), 'Fits, by type'],
    ['a private EC key', fixed([privateJwk('P-256')]), '[0].keys[0].d: Is private'],
    ['a private RSA key', fixed([privateJwk('RSA')], ['RS256']), 'Is private'],
    ['a private Ed25519 key', fixed([privateJwk('Ed25519')], ['EdDSA']), 'Is private'],
    ['only the primes of one', fixed([publicJwk('RSA', { p: 'AQAB' })], ['RS256']), '[0].keys[0].p: Is private'],
    ['a small RSA key', fixed([small], ['RS256']), '[0].keys[0].n'],
    ['a point of the wrong size', fixed([publicJwk('P-256', { crv: 'P-384' })], ['ES384']), '48 bytes each'],
    ['an encryption key', fixed([publicJwk('P-256', { use: 'enc' })]), '[0].keys[0].use'],
    ['a key that may not verify', fixed([publicJwk('P-256', { key_ops: ['sign'] })]), '[0].keys[0].key_ops'],
    ['an unknown key type', fixed([{ kty: 'AKP' }]), '[0].keys[0]'],
    ['several keys without kid', fixed([publicJwk('P-256'), publicJwk('P-256')]), 'a kid of its own'],
    ['several keys of one kid', fixed([publicJwk('P-256', { kid: 'a' }), publicJwk('P-384', { kid: 'a' })]), 'a kid of its own'],
    ['no keys', fixed([]), '[0].keys'],
    ['a slug as tenant', { ...remote, tenant_id: 'acme' }, '[0].tenant_id'],
    ['global and bound', { ...remote, tenant_id: TENANT, global: true }, 'together with tenant_id'],
    ['an unknown scope', { ...remote, max_scopes: ['root'] }, '[0].max_scopes[0]'],
    ['no scopes', { ...remote, max_scopes: [] }, '[0].max_scopes'],
    ['a path with an empty name', { ...remote, tenant_claim: 'a..b' }, 'single dots'],
    ['an empty path', { ...remote, scopes_claim: '' }, '[0].scopes_claim'],
    ['a NUL', { ...remote, issuer: 'a\0b' }, '[0].issuer'],
  ])('refuses %s', (_, issuer, reason) => {
    const message = refusal(JSON.stringify([issuer]))
    expect(message).toContain(reason)
    expect(message).toMatch(/^STRATUM_ISSUERS is not valid at [^\n]*[^.]\.$/)
  })

  it('never prints what it read', () => {
    const { k } = secret(31)
    for (const json of [`[{"keys":[{"k":"${k}"`, `${k}`, JSON.stringify([{ ...shared, keys: [{ kty: 'oct', k }] }]), JSON.stringify(k)]) {
      expect(refusal(json)).not.toContain(k.slice(0, 6))
    }
    for (const json of ['', 'null', '{}', '1', '[null]']) expect(refusal(json)).toMatch(/^STRATUM_ISSUERS is not valid/)
  })

  it('ends in issuers or in its own error, whatever it reads', () => {
    const almost = fc.record(
      {
        issuer: fc.string(),
        audience: fc.string(),
        jwks_uri: fc.oneof(fc.string(), fc.webUrl()),
        algorithms: fc.jsonValue(),
        tenant_claim: fc.string(),
        keys: fc.jsonValue(),
      },
      { requiredKeys: [] },
    )
    fc.assert(
      fc.property(
        fc.oneof(
          fc.json(),
          fc.string(),
          almost.map((issuer) => JSON.stringify([issuer])),
        ),
        (json) => {
          if (json.trim() !== '[]') refusal(json)
        },
      ),
    )
  })
})

describe('jwks_uri', () => {
  const at = (jwks_uri: string) => JSON.stringify([{ ...remote, jwks_uri }])

  it.each(['https://id.example.com/keys', 'https://8.8.8.8/keys', 'https://[2606:4700::1111]:8443/k', 'https://localhost.example.com/'])('may be %s', (uri) => {
    expect(parseIssuers(at(uri))[0]?.jwks_uri).toBe(uri)
  })

  it.each([
    'http://id.example.com/keys',
    'ftp://id.example.com/',
    'file:///etc/keys',
    'data:application/json,{}',
    'id.example.com',
    '',
    'https://user:password@id.example.com/',
    'https://user@id.example.com/',
  ])('is never %j', (uri) => {
    for (const development of [true, false]) expect(refusal(at(uri), development)).toContain('[0].jwks_uri')
  })

  it.each([
    'localhost',
    'LOCALHOST.',
    'a.localhost',
    '127.0.0.1',
    '127.1',
    '0x7f.1',
    '2130706433',
    '0177.0.0.1',
    '[::1]',
    '0.0.0.0',
    '10.1.2.3',
    '100.64.0.1',
    '169.254.169.254',
    '172.16.0.1',
    '172.31.255.255',
    '192.168.1.1',
    '192.0.0.8',
    '198.18.0.1',
    '224.0.0.1',
    '255.255.255.255',
    '[::]',
    '[fe80::1]',
    '[fd00::1]',
    '[::ffff:127.0.0.1]',
    '[::ffff:8.8.8.8]',
    '[64:ff9b::a00:1]',
    '[2002:7f00:1::]',
    '[2001::1]',
    '[2001:db8::1]',
    '[ff02::1]',
    '127.0.0.1.',
  ])('names %s only in development', (host) => {
    expect(refusal(at(`https://${host}/keys`))).toContain('Must name a public host')
    expect(parseIssuers(at(`https://${host}/keys`), { development: true })).toHaveLength(1)
  })

  it('is http only on this machine, in development', () => {
    for (const host of ['localhost:8080', 'id.localhost', '127.0.0.1:1', '[::1]:1']) {
      expect(parseIssuers(at(`http://${host}/keys`), { development: true })).toHaveLength(1)
      expect(refusal(at(`http://${host}/keys`))).toContain('Must begin with https://')
    }
    expect(refusal(at('http://192.168.1.1/keys'), true)).toContain('Must begin with https://')
  })

  it('knows the neighbours of private networks for public', () => {
    for (const host of ['100.63.0.1', '100.128.0.1', '172.15.0.1', '172.32.0.1', '192.169.0.1', '11.0.0.1', '[2001:4860:4860::8888]', '[2a00::1]']) {
      expect(networkOf(new URL(`https://${host}`).hostname)).toBe('public')
    }
  })
})
