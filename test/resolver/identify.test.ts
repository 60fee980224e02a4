import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  canonicalHost,
  DEFAULT_SOURCES,
  type HostRules,
  identifyCookie,
  identifyHost,
  identifyName,
  identifyPath,
  inOrder,
  type Source,
} from '../../src/resolver/identify.ts'

const rules: HostRules = { baseDomains: ['example.com', 'eu.example.com', 'localhost'], apiHosts: ['api.other.test'], pathPrefix: '/t' }
const NOTHING = ''

describe('a host', () => {
  const named: Array<[host: string, tenant: string]> = [
    ['acme.example.com', 'acme'],
    ['north-star.example.com', 'north-star'],
    ['ACME.Example.COM', 'acme'],
    ['acme.example.com.', 'acme'],
    ['acme.example.com:8787', 'acme'],
    ['acme.example.com.:443', 'acme'],
    ['acme.example.com:', 'acme'],
    [' acme.example.com ', 'acme'],
    ['acme.localhost:8787', 'acme'],
    ['acme.eu.example.com', 'acme'],
    ['xn--bcher-kva.example.com', 'xn--bcher-kva'],
    [`${'a'.repeat(63)}.example.com`, 'a'.repeat(63)],
    ['1.example.com', '1'],
  ]
  it.each(named)('%s names %s', (host, tenant) => {
    expect(identifyHost(host, rules)).toEqual({ source: 'subdomain', tenant })
  })
  it.each(['example.com', 'EXAMPLE.com:80', 'example.com.', 'eu.example.com', 'localhost:8787', 'api.other.test'])(
    "%s is the API's own and names none",
    (host) => {
      expect(identifyHost(host, rules)).toBeNull()
    },
  )
  const nobody = [
    'a.b.example.com',
    'north_star.example.com',
    '-acme.example.com',
    'acme-.example.com',
    '',
    '.',
    ':80',
    '.example.com',
    'acme..example.com',
    'acme.example.com..',
    `${'a'.repeat(64)}.example.com`,
    'ac me.example.com',
    'ac\tme.example.com',
    'ac\nme.example.com',
    'acme.example.com\0',
    'acme.example.com/path',
    'acme.example.com\\path',
    'acme.example.com?x',
    'acme.example.com#x',
    'acme.example.com@evil.test',
    'user@acme.example.com',
    'acme.example.com:80:80',
    'acme.example.com:8o',
    'acme.example.com:123456',
    'acme%2eexample.com',
    '*.example.com',
    "acme'--.example.com",
    '[acme.example.com]',
    'https://acme.example.com',
    'acme.example.com, beta.example.com',
    'acme\ud800.example.com',
    `${'a.'.repeat(130)}example.com`,
    'a'.repeat(100_000),
    'acme',
    'com',
  ]
  it.each(nobody.map((host) => [host.slice(0, 80), host]))('%j names a tenant that cannot be', (_, host) => {
    expect(identifyHost(host, rules)?.tenant).toBe(NOTHING)
  })
  const addresses = [
    '127.0.0.1',
    '127.1',
    '2130706433',
    '0x7f.1',
    '0x7f000001',
    '0177.0.0.1',
    '127.0.0.1.',
    '１２７.0.0.1',
    '[::1]',
    '[::1]:8787',
    '[::ffff:127.0.0.1]',
  ]
  it.each([...addresses, '8.8.8.8:80', '[2606:4700::1111]', '[::1%25eth0]', '[v1.x]', '::1', '1.2.3', '1.2.3.4.5', '256.1.1.1'])(
    '%s is an address or none, and never a tenant',
    (host) => {
      expect(identifyHost(host, rules)?.tenant).toBe(NOTHING)
      expect(identifyHost(host, { ...rules, sources: ['token', 'domain'] })?.tenant).toBe(NOTHING)
    },
  )
  it.each([
    ['other.test', 'other.test'],
    ['ACME.Other.Test.:443', 'acme.other.test'],
    ['example.com.evil.test', 'example.com.evil.test'],
    ['notexample.com', 'notexample.com'],
    ['bücher.test', 'xn--bcher-kva.test'],
    ['BÜCHER.test', 'xn--bcher-kva.test'],
    ['shop.example.co.uk', 'shop.example.co.uk'],
  ])('%s is a domain of its own: %s', (host, tenant) => {
    expect(identifyHost(host, rules)).toEqual({ source: 'domain', tenant })
  })
  it('is compared without port, final dot, capitals and white space around, in punycode, addresses in one form', () => {
    expect(canonicalHost(' ACME.Example.com.:8787\t')).toBe('acme.example.com')
    expect(canonicalHost('[2001:DB8:0::0001]:443')).toBe('[2001:db8::1]')
    expect(canonicalHost('[2001:db8::1]')).toBe('[2001:db8::1]')
    expect(canonicalHost('Acmé.example.com')).toBe('xn--acm-dma.example.com')
    expect(canonicalHost('acme。example．com')).toBe('acme.example.com')
    expect(canonicalHost('0x7f.1')).toBe('127.0.0.1')
  })
  it('is its own canonical form, or none, whatever is written', () => {
    const part = fc.oneof(
      fc.string(),
      fc.domain(),
      fc.webAuthority(),
      fc.ipV4Extended(),
      fc.ipV6(),
      fc.constantFrom('.', ':', '[', ']', '%00', '@', '\\', ' ', '。', '­'),
    )
    const written = fc.array(part, { maxLength: 5 }).map((parts) => parts.join(''))
    fc.assert(
      fc.property(fc.oneof(written, fc.domain(), fc.webAuthority()), (host) => {
        const canonical = canonicalHost(host)
        if (canonical === null) return
        expect(canonical).toMatch(/^(\[[0-9a-f:]+\]|[a-z0-9.-]{1,253})$/)
        expect(canonicalHost(canonical)).toBe(canonical)
        expect(canonicalHost(`${canonical.toUpperCase()}:1`)).toBe(canonical)
        const named = identifyHost(host, rules)
        expect(named === null || /^([a-z0-9-]{1,63}|[a-z0-9.-]{3,253})?$/.test(named.tenant)).toBe(true)
      }),
      { numRuns: 500 },
    )
  })
})

describe('sources', () => {
  const only = (...sources: Source[]): HostRules => ({ ...rules, sources, cookie: 'tenant' })
  it('count where they are listed: of hosts the other kind names nobody, and where neither is, none is looked at', () => {
    expect(identifyHost('acme.example.com', only('token', 'domain'))?.tenant).toBe(NOTHING)
    expect(identifyHost('other.test', only('token', 'subdomain'))?.tenant).toBe(NOTHING)
    for (const host of ['acme.example.com', 'other.test', '127.0.0.1', '']) expect(identifyHost(host, only('token', 'path'))).toBeNull()
  })
  it('that are not listed name nobody by path, rather than leave it to another', () => {
    expect(identifyPath('/t/acme', only('token', 'subdomain'))).toEqual({ source: 'path', tenant: NOTHING })
  })
  it('are judged in their order', () => {
    const named = (['cookie', 'header', 'path', 'subdomain'] as const).map((source) => ({ source, tenant: 'acme' }))
    expect(inOrder([null, ...named], rules).map(({ source }) => source)).toEqual(['cookie', 'subdomain', 'path', 'header'])
    expect(inOrder(named, only('header', 'token', 'cookie', 'subdomain', 'path')).map(({ source }) => source)).toEqual([
      'header',
      'cookie',
      'subdomain',
      'path',
    ])
  })
})

describe('a cookie', () => {
  const withCookie: HostRules = { ...rules, sources: [...DEFAULT_SOURCES, 'cookie'], cookie: 'tenant' }
  const id = '0197A000-0000-4000-8000-00000000000A'
  it.each([
    ['tenant=acme', 'acme'],
    ['a=1; tenant=acme; b=2', 'acme'],
    ['a=1;tenant=acme;', 'acme'],
    [`tenant=${id}`, id],
    ['tenant=acme; tenant=acme', 'acme'],
  ])('%s names %s', (header, tenant) => {
    expect(identifyCookie(header, withCookie)).toEqual({ source: 'cookie', tenant })
  })
  it.each(['tenant=', 'tenant=Acme', 'tenant="acme"', 'tenant=%61cme', 'tenant=a b', 'tenant=acme; tenant=beta', 'tenant=acme=', 'tenant=../x'])(
    '%j names a tenant that cannot be',
    (header) => {
      expect(identifyCookie(header, withCookie)).toEqual({ source: 'cookie', tenant: NOTHING })
    },
  )
  it.each(['', ';', 'tenants=acme', 'Tenant=acme', 'my-tenant=acme', 'a=tenant=acme', 'tenant', 'a="; b'])('%j is another one', (header) => {
    expect(identifyCookie(header, withCookie)).toBeNull()
  })
  it('is read where one is named and the source counts', () => {
    expect(identifyCookie('tenant=acme', rules)).toBeNull()
    expect(identifyCookie('tenant=acme', { ...withCookie, cookie: undefined })).toBeNull()
    expect(identifyCookie('tenant=acme', { ...withCookie, sources: DEFAULT_SOURCES })).toBeNull()
    expect(identifyCookie(undefined, withCookie)).toBeNull()
  })
})

describe('a path', () => {
  const id = '0197A000-0000-4000-8000-00000000000A'
  it.each([
    ['/t/acme', 'acme'],
    ['/t/acme/', 'acme'],
    ['/t/north_star/orders?x=1', 'north_star'],
    ['/t/acme#there', 'acme'],
    [`/t/${id}/api`, id],
  ])('%s names %s', (path, tenant) => {
    expect(identifyPath(path, rules)).toEqual({ source: 'path', tenant })
  })
  it.each(['/', '', '/t', '/tenants/acme', '/x/t/acme', 't/acme', '//t/acme', '?/t/acme', '/T/acme'])('%j names none', (path) => {
    expect(identifyPath(path, rules)).toBeNull()
  })
  it.each(['/t/', '/t//acme', '/t/Acme', '/t/north-star', '/t/%61cme', '/t/..', `/t/${'a'.repeat(64)}`, '/t/1st', '/t/a b', `/t/${id}0`])(
    '%j names a tenant that cannot be',
    (path) => {
      expect(identifyPath(path, rules)).toEqual({ source: 'path', tenant: NOTHING })
    },
  )
})

describe('a name', () => {
  it('is a slug or an id, and nothing else', () => {
    expect(identifyName('header', 'north_star').tenant).toBe('north_star')
    for (const name of ['', 'North', 'a-b', "a'b", 'a\n', ' a', 'é', '0197a000']) expect(identifyName('header', name).tenant).toBe(NOTHING)
  })
})
