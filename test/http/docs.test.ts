import { describe, expect, test } from 'vitest'
import { CATALOGUE, type ErrorCode } from '../../src/core/errors.ts'
import { endpointList } from '../../src/features/endpoints.ts'
import { DOCS_STYLE, docsPage } from '../../src/http/docs.ts'
import { openApiDocument } from '../../src/http/openapi.ts'

const document = openApiDocument(endpointList, { version: '1.2.3' })
const page = docsPage(document)
const ENTITIES: Record<string, string> = { '&lt;': '<', '&gt;': '>', '&quot;': '"', '&#39;': "'", '&amp;': '&' }
const unescaped = (html: string) => html.replace(/&(?:lt|gt|quot|amp|#39);/g, (entity) => ENTITIES[entity] ?? entity)
const textOf = (html: string) => unescaped(html.replace(/<[^>]*>/g, ''))
const article = (id: string) => page.split(`<article id="op-${id}"`)[1]?.split('</article>')[0] ?? ''

describe('the page', () => {
  test('is one document with title, language, viewport and a heading', () => {
    expect(page).toMatch(/^<!doctype html>\n<html lang="en">/)
    expect(page).toContain('<title>Stratum API</title>')
    expect(page).toContain('name="viewport"')
    expect(page.match(/<h1\b/g)).toHaveLength(1)
    expect(page).toContain('href="/api/v1/openapi.json"')
  })

  test('explains credentials, errors and lists', () => {
    for (const id of ['authentication', 'errors', 'lists', 'schemas']) expect(page).toContain(`<h2 id="${id}">`)
    for (const words of ['x-api-key', 'Authorization: Bearer', 'next_cursor', 'has_more', 'request_id']) expect(textOf(page)).toContain(words)
  })

  test('loads nothing, runs nothing and styles nothing from elsewhere', () => {
    expect(page).not.toMatch(/<(?:script|link|img|iframe|object|embed|form|base)\b/i)
    expect(page).not.toMatch(/\s(?:on\w+|style|src)=/i)
    expect(page).not.toMatch(/https?:\/\/|@import|url\(/i)
    expect(page.match(/<style>/g)).toHaveLength(1)
    expect(page).toContain(`<style>${DOCS_STYLE}</style>`)
    const links = [...page.matchAll(/href="([^"]*)"/g)].map(([, href]) => href)
    expect(links.filter((href) => !href?.startsWith('#'))).toEqual(['/api/v1/openapi.json'])
  })

  test('gives every id once, to every heading above the fourth level, and links lead to ids', () => {
    const ids = [...page.matchAll(/\sid="([^"]*)"/g)].map(([, id]) => id)
    expect(new Set(ids).size).toBe(ids.length)
    expect(page).not.toMatch(/<h[123](?![^>]* id=)/)
    const targets = [...page.matchAll(/href="#([^"]*)"/g)].map(([, target]) => target)
    expect(targets.filter((target) => !ids.includes(target))).toEqual([])
  })

  test('closes what it opens', () => {
    const open: string[] = []
    for (const [, closing, name = ''] of page.matchAll(/<(\/?)([a-z][a-z0-9]*)\b[^>]*>/g)) {
      if (['meta', 'wbr'].includes(name)) continue
      if (closing === '/') expect(open.pop()).toBe(name)
      else open.push(name)
    }
    expect(open).toEqual([])
  })

  test('keeps text legible: contrast of at least 4.5 in light and in dark', () => {
    const schemes = [...DOCS_STYLE.matchAll(/:root\{([^}]*)\}/g)].map(([, rules = '']) =>
      Object.fromEntries([...rules.matchAll(/--(\w+):(#\w+)/g)].map(([, name, color]) => [name, color])),
    )
    expect(schemes).toHaveLength(2)
    const luminance = (color: string) => {
      const digits = color.length === 4 ? [...color.slice(1)].map((digit) => digit + digit) : (color.slice(1).match(/../g) ?? [])
      const [red = 0, green = 0, blue = 0] = digits
        .map((pair) => Number.parseInt(pair, 16) / 255)
        .map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
      return 0.2126 * red + 0.7152 * green + 0.0722 * blue
    }
    for (const scheme of schemes) {
      for (const ground of ['bg', 'fill']) {
        for (const name of ['fg', 'soft', 'link', 'get', 'post', 'put', 'patch', 'delete']) {
          const [dark = 0, light = 0] = [luminance(scheme[name] ?? ''), luminance(scheme[ground] ?? '')].sort((a, b) => a - b)
          expect((light + 0.05) / (dark + 0.05), `${name} on ${ground}`).toBeGreaterThanOrEqual(4.5)
        }
      }
    }
  })
})

describe('operations', () => {
  test('each have their place in the contents and a section with method, path, summary and scope', () => {
    for (const { id, method, path, summary, scope } of endpointList) {
      expect(page).toContain(`<li><a href="#op-${id}">`)
      const text = textOf(article(id).replace(/^>/, ''))
      for (const words of [`${method} ${path.replace(/:(\w+)/g, '{$1}')}`, summary, id, `scope ${scope}`]) expect(text).toContain(words)
    }
  })

  test('name each parameter and field, with type, default and limits', () => {
    for (const { id, params, query, body } of endpointList) {
      const names = [params, query, body].flatMap(({ shape }) => Object.keys(shape))
      for (const name of names) expect(article(id)).toContain(`<code class="name">${name}</code>`)
    }
    expect(textOf(article('listTenants'))).toContain('default 50 · 1 to 100')
    expect(textOf(article('createTenant'))).toContain('one of "SHARED_RLS", "SCHEMA_PER_TENANT", "DB_PER_TENANT"')
    expect(article('createTenant')).toContain('<a href="#schema-Tenant">Tenant</a>')
  })

  test('tell each error with status and sentence, those of all operations once', () => {
    const general = page.split('<h2 id="errors">')[1]?.split('</section>')[0] ?? ''
    const told = (html: string, code: ErrorCode) => textOf(html).includes(`${CATALOGUE[code][0]} ${code}\n${CATALOGUE[code][1]}`)
    for (const { id, errors } of endpointList) {
      for (const code of errors) expect([id, code, told(article(id), code) || told(general, code)]).toEqual([id, code, true])
    }
    expect(told(general, 'AUTHENTICATION_REQUIRED')).toBe(true)
    expect(textOf(article('getHealth'))).toContain('except AUTHENTICATION_REQUIRED')
  })

  test('come with a curl command that their contract accepts', () => {
    for (const { id, method, path, body, params } of endpointList) {
      const command = unescaped(/<pre><code>([^<]*)<\/code><\/pre>/.exec(article(id))?.[1] ?? '')
      expect(command).toContain(method === 'GET' ? 'curl "' : `curl -X ${method} "`)
      const url = /"\$STRATUM_URL\/api\/v1([^"?]*)/.exec(command)?.[1] ?? ''
      const names = path.split('/')
      const given = Object.fromEntries(url.split('/').flatMap((part, index) => (names[index]?.startsWith(':') ? [[names[index].slice(1), part]] : [])))
      expect([id, params.safeParse(given).error]).toEqual([id, undefined])
      const sent = / -d '(.*)'$/.exec(command)?.[1]
      expect(sent === undefined).toBe(Object.keys(body.shape).length === 0)
      expect([id, body.safeParse(JSON.parse(sent ?? '{}')).error]).toEqual([id, undefined])
    }
  })
})

describe('hostile text', () => {
  const hostile = `</pre><script>alert(1)</script><img src=x onerror="alert(2)">'&`

  test('is shown as text wherever it stands', () => {
    const [first, ...rest] = endpointList
    if (!first) throw new Error('no endpoints')
    const made = openApiDocument([{ ...first, summary: hostile, tag: hostile, id: hostile, path: `/${hostile}` }, ...rest], {
      version: hostile,
    })
    made.info.title = hostile
    for (const schema of Object.values(made.components.schemas)) Object.assign(schema, { pattern: hostile, default: hostile })
    for (const { value } of Object.values(made.components.examples)) value.error.message = hostile
    const shown = docsPage(made)
    expect(shown).not.toMatch(/<script|<img/i)
    expect(shown).toContain('&lt;/pre&gt;&lt;script&gt;alert(1)&lt;/script&gt;&lt;img src=x onerror=&quot;alert(2)&quot;&gt;&#39;&amp;')
    for (const [tag] of shown.matchAll(/<[a-z][^>]*>/g)) expect(tag).toMatch(/^<[a-z0-9]+(?: [a-z-]+(?:="[^"<>]*")?)*>$/)
  })

  test('cannot leave the quotes of the curl command', () => {
    const made = openApiDocument(endpointList, { version: '1' })
    const body = made.paths['/tenants/{id}/move']?.post?.requestBody
    if (!body) throw new Error('no body')
    body.content['application/json'].schema = { type: 'object', required: ['name'], properties: { name: { const: "it's; rm -rf /" } } }
    expect(unescaped(docsPage(made))).toContain(`-d '{"name":"it'\\''s; rm -rf /"}'`)
  })

  test('does not turn the address of the document into a script', () => {
    const shown = docsPage(openApiDocument(endpointList, { version: '1', serverUrl: 'javascript:alert(1)//' }))
    expect(shown).not.toMatch(/href="javascript:/i)
  })
})
