import { describe, expect, it } from 'vitest'
import { canonicalHost, type HostRules, identifyHost, identifyName, identifyPath } from '../../src/resolver/identify.ts'

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
    '',
    '.',
    ':80',
    'other.test',
    'acme.other.test',
    'example.com.evil.test',
    'notexample.com',
    '.example.com',
    'a.b.example.com',
    'acme..example.com',
    'acme.example.com..',
    '-acme.example.com',
    'acme-.example.com',
    'north_star.example.com',
    `${'a'.repeat(64)}.example.com`,
    'acmé.example.com',
    'ac me.example.com',
    'acme.example.com/path',
    'acme.example.com@evil.test',
    'user@acme.example.com',
    'acme.example.com:80:80',
    'acme.example.com:8o',
    'acme%2eexample.com',
    'acme。example.com',
    '*.example.com',
    "acme'--.example.com",
    '127.0.0.1',
    '[::1]',
    '[::1]:8787',
    '[acme.example.com]',
    'https://acme.example.com',
    'acme.example.com, beta.example.com',
  ]
  it.each(nobody)('%j names a tenant that cannot be', (host) => {
    expect(identifyHost(host, rules)).toEqual({ source: 'subdomain', tenant: NOTHING })
  })
  it('is compared without port, final dot, capitals and white space', () => {
    expect(canonicalHost(' ACME.Example.com.:8787\t')).toBe('acme.example.com')
    expect(canonicalHost('[2001:DB8::1]:443')).toBe('[2001:db8::1]')
    expect(canonicalHost('[2001:db8::1]')).toBe('[2001:db8::1]')
  })
  it('is nobody where no base domain is configured', () => {
    expect(identifyHost('acme.example.com', { baseDomains: [], apiHosts: [], pathPrefix: '/t' })).toEqual({ source: 'subdomain', tenant: NOTHING })
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
