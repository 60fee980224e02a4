/** The readable page of the API: one HTML document, rendered from the OpenAPI document alone, without scripts. */
import type { JsonSchema, OpenApiDocument, OpenApiOperation } from './openapi.ts'

/** Text that is HTML already. Everything else is escaped on its way into `html`. */
class Html {
  readonly text: string
  constructor(text: string) {
    this.text = text
  }
}
type Part = Html | string | number | false | undefined | readonly Part[]

const ENTITIES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' }

function render(part: Part): string {
  if (part instanceof Html) return part.text
  if (Array.isArray(part)) return part.map(render).join('')
  return part === undefined || part === false ? '' : String(part).replace(/[&<>"']/g, (character) => ENTITIES[character] ?? '')
}

const html = (texts: TemplateStringsArray, ...parts: Part[]) => new Html(texts.map((text, index) => text + render(parts[index])).join(''))
const joined = (parts: readonly Part[], separator: string): Part[] => parts.flatMap((part, index) => (index === 0 ? [part] : [separator, part]))
const anchor = (kind: string, name: string) => `${kind}-${name.replace(/[^\w.-]+/g, '-')}`
const badge = (method: string) => html`<span class="method ${method.toLowerCase()}">${method}</span>`
const literal = (value: unknown) => html`<code>${JSON.stringify(value)}</code>`
/** Lets a long path break after its slashes. */
const breakable = (path: string): Part => path.split(/(?<=\/)/).map((piece, index) => (index === 0 ? piece : html`<wbr>${piece}`))

interface Entry {
  path: string
  method: string
  operation: OpenApiOperation
}
type Failure = [status: string, code: string]
type Schemas = Record<string, JsonSchema>

const asSchema = (schema: unknown): JsonSchema => (typeof schema === 'object' && schema !== null ? (schema as JsonSchema) : {})
const nameOf = ({ $ref }: JsonSchema) => $ref?.split('/').at(-1)
const propertiesOf = (schema: JsonSchema) => Object.entries(schema.properties ?? {}).map(([name, property]) => [name, asSchema(property)] as const)

/** What kind of value a schema stands for, in a few words. */
function typeOf(schema: JsonSchema): Part {
  const name = nameOf(schema)
  if (name !== undefined) return html`<a href="#${anchor('schema', name)}">${name}</a>`
  if (schema.const !== undefined) return literal(schema.const)
  if (schema.enum) return joined(schema.enum.map(literal), ' | ')
  const choices = schema.anyOf ?? schema.oneOf
  if (choices) return joined(choices.map(typeOf), ' or ')
  if (schema.type === 'array') return ['array of ', typeOf(asSchema(schema.items))]
  const values = asSchema(schema.additionalProperties)
  if (schema.type === 'object' && !schema.properties && Object.keys(values).length > 0) return ['map of ', typeOf(values)]
  if (schema.type === undefined) return 'any JSON'
  return schema.format ?? [schema.type].flat().join(' or ')
}

/** Default and limits of a value, its own and those of the schema it refers to. */
function limitsOf(own: JsonSchema, schemas: Schemas): Part[] {
  const schema = { ...schemas[nameOf(own) ?? ''], ...own }
  const range = (least: unknown, most: unknown, unit: string) => {
    if (least === undefined && most === undefined) return []
    const span = least === undefined ? `at most ${most}` : most === undefined ? `at least ${least}` : `${least} to ${most}`
    return [`${span}${unit}`]
  }
  return [
    ...(schema.default === undefined ? [] : [html`default ${literal(schema.default)}`]),
    ...(own.$ref !== undefined && schema.enum ? [['one of ', joined(schema.enum.map(literal), ', ')]] : []),
    ...range(schema.minimum, schema.maximum, ''),
    ...range(schema.minLength, schema.maxLength, ' characters'),
    ...range(schema.minItems, schema.maxItems, ' items'),
    ...(schema.pattern === undefined ? [] : [html`matches <code>${schema.pattern}</code>`]),
  ]
}

function field(name: string, schema: JsonSchema, schemas: Schemas, note: string, description = schema.description): Html {
  const limits = limitsOf(schema, schemas)
  return html`<dt><code class="name">${name}</code>
<span class="type">${typeOf(schema)}</span>${note && html` <span class="note">${note}</span>`}</dt>
<dd>${description && html`<p>${description}</p>`}
${limits.length > 0 && html`<p class="limits">${joined(limits, ' · ')}</p>`}${fields(inner(schema), schemas)}</dd>`
}

/** The object described in place within a schema: itself, or what its items or values are. */
function inner(schema: JsonSchema): JsonSchema {
  if (schema.properties) return schema
  if (schema.type === 'array') return inner(asSchema(schema.items))
  return schema.type === 'object' ? asSchema(schema.additionalProperties) : {}
}

/** The fields of an object. In what is sent the required ones are marked, in what is answered the optional ones. */
function fields(schema: JsonSchema, schemas: Schemas, mark: 'required' | 'optional' = 'optional'): Part {
  const properties = propertiesOf(schema)
  if (properties.length === 0) return ''
  const note = (name: string) => ((schema.required ?? []).includes(name) === (mark === 'required') ? mark : '')
  return html`<dl class="fields">${properties.map(([name, property]) => field(name, property, schemas, note(name)))}</dl>`
}

/** A value that a schema accepts, for an example. */
function exampleOf(schema: JsonSchema, schemas: Schemas): unknown {
  const target = schemas[nameOf(schema) ?? '']
  if (target) return exampleOf(target, schemas)
  const given = schema.const ?? schema.default ?? schema.enum?.[0]
  if (given !== undefined) return given
  const choice = (schema.anyOf ?? schema.oneOf)?.[0]
  if (choice) return exampleOf(choice, schemas)
  if (schema.format === 'uuid') return '01939c5e-7a40-7d2b-9c1e-5b0f8a6d4e21'
  if (schema.format === 'date-time') return '2030-01-01T00:00:00Z'
  if (schema.type === 'boolean') return true
  if (schema.type === 'integer' || schema.type === 'number') return schema.minimum ?? 1
  if (schema.type === 'array') return [exampleOf(asSchema(schema.items), schemas)]
  if (schema.type !== 'object') return 'acme'
  const properties = propertiesOf(schema)
  const required = properties.filter(([name]) => schema.required?.includes(name))
  return Object.fromEntries((required.length > 0 ? required : properties.slice(0, 1)).map(([name, property]) => [name, exampleOf(property, schemas)]))
}

const isOpen = ({ security }: OpenApiOperation) => security.some((alternative) => Object.keys(alternative).length === 0)

/** A command to paste into a shell. */
function curl({ path, method, operation }: Entry, document: OpenApiDocument): string {
  const { schemas } = document.components
  const server = document.servers[0]?.url ?? ''
  const origin = server.startsWith('/') ? '$STRATUM_URL' : ''
  const value = (schema: JsonSchema) => encodeURIComponent(String(exampleOf(schema, schemas)))
  const within = (place: string) => (operation.parameters ?? []).filter((parameter) => parameter.in === place)
  const filled = within('path').reduce((url, { name, schema }) => url.replace(`{${name}}`, value(schema)), path)
  const query = within('query').flatMap(({ name, schema, required }) => (required ? [`${name}=${value(schema)}`] : []))
  const body = operation.requestBody?.content['application/json'].schema
  const lines = [
    `curl${method === 'GET' ? '' : ` -X ${method}`} "${origin}${server}${filled}${query.length > 0 ? `?${query.join('&')}` : ''}"`,
    ...(isOpen(operation) ? [] : ['-H "authorization: Bearer $STRATUM_KEY"']),
    ...(body ? ["-H 'content-type: application/json'", `-d '${JSON.stringify(exampleOf(body, schemas)).replaceAll("'", "'\\''")}'`] : []),
  ]
  return lines.join(' \\\n  ')
}

/** Every error an operation may answer, as status and code. */
function errorsOf(operation: OpenApiOperation): Failure[] {
  return Object.entries(operation.responses).flatMap(([status, response]) =>
    Object.keys(response.content['application/json'].examples ?? {}).map((code): Failure => [status, code]),
  )
}

const errorList = (failures: readonly Failure[], { components: { examples } }: OpenApiDocument) => {
  const item = ([status, code]: Failure) => html`<dt><span class="status">${status}</span> <code class="name">${code}</code></dt>
<dd>${examples[code]?.value.error.message}</dd>`
  return html`<dl class="fields errors">${failures.map(item)}</dl>`
}

function operationSection(entry: Entry, document: OpenApiDocument, common: ReadonlySet<string>): Html {
  const { path, method, operation } = entry
  const [id, title] = [anchor('op', operation.operationId), anchor('title', operation.operationId)]
  const body = operation.requestBody?.content['application/json'].schema
  const [status, success] = Object.entries(operation.responses).find(([code]) => code.startsWith('2')) ?? ['200', undefined]
  const output = success?.content['application/json'].schema ?? {}
  const { schemas } = document.components
  const parameters = (operation.parameters ?? []).map(({ name, in: place, required, schema, description }) =>
    field(name, schema, schemas, required ? place : `${place}, optional`, description),
  )
  const errors = errorsOf(operation)
  const own = errors.filter(([, code]) => !common.has(code))
  const never = [...common].filter((missing) => !errors.some(([, code]) => code === missing))
  const except = never.length > 0 && [', except ', joined(never, ', ')]
  const scope = html`scope <strong>${operation['x-stratum-scope']}</strong>`
  const access = isOpen(operation) ? html`answers without a credential; with one of ${scope} it may tell more` : html`needs ${scope}`
  return html`<article id="${id}" aria-labelledby="${title}">
<h3 id="${title}">${badge(method)} <a class="self" href="#${id}">${breakable(path)}</a></h3>
<p class="summary">${operation.summary}</p>
<p class="meta"><code>${operation.operationId}</code> · ${access}</p>
${parameters.length > 0 && html`<h4>Parameters</h4><dl class="fields">${parameters}</dl>`}
${body && html`<h4>Body</h4>${fields(body, schemas, 'required')}`}
<h4>Response <span class="status">${status}</span></h4>
${output.properties ? fields(output, schemas) : html`<p class="type">${typeOf(output)}</p>`}
<h4>Errors</h4>
${own.length > 0 && errorList(own, document)}
<p class="meta">${own.length > 0 ? 'Besides these, those' : 'Those'} that <a href="#errors">any operation may answer</a>${except}.</p>
<h4>Example</h4>
<pre><code>${curl(entry, document)}</code></pre>
</article>`
}

function schemaSection(name: string, schema: JsonSchema, schemas: Schemas): Html {
  const limits = limitsOf(schema, schemas)
  const shape = schema.properties ? fields(schema, schemas) : html`<p class="type">${typeOf(schema)}${limits.length > 0 && [' · ', joined(limits, ' · ')]}</p>`
  const content = schema.description ? html`<p>${schema.description}</p>` : shape
  return html`<article><h3 id="${anchor('schema', name)}">${name}</h3>${content}</article>`
}

function guide(document: OpenApiDocument, common: readonly Failure[]): Html {
  const { securitySchemes, examples } = document.components
  const sample = (examples.TENANT_NOT_FOUND ?? Object.values(examples)[0])?.value
  return html`<section><h2 id="authentication">Authentication</h2>
<p>Unless its operation says otherwise, a request carries one credential:</p>
<ul>${Object.values(securitySchemes).map(({ description }) => html`<li>${description}</li>`)}</ul>
<p>A credential has scopes. <code>read</code> is part of <code>write</code>, which is part of <code>admin</code>;
<code>secrets:read</code> is part of <code>admin</code> alone. It reaches the tenant it is bound to and all below;
what lies outside answers as if it did not exist. With an API key, the header <code>x-tenant-id</code> names the tenant to act as.</p>
<p>The examples read your address from <code>$STRATUM_URL</code> and an API key or token from <code>$STRATUM_KEY</code>.</p></section>
<section><h2 id="errors">Errors</h2>
<p>Whatever goes wrong is answered in one shape. Decide by <code>code</code>, which is stable;
<code>message</code> is for people, with the words in braces filled in; <code>details</code> is there when there are facts to tell.
On 503, <code>Retry-After</code> says after how many seconds to try again.</p>
<pre><code>${JSON.stringify(sample, null, 2)}</code></pre>
<p>Any operation may answer:</p>${errorList(common, document)}</section>
<section><h2 id="lists">Lists</h2>
<p>Every list is answered as one page. While <code>has_more</code> is true, send <code>next_cursor</code> as <code>cursor</code>,
with the other parameters unchanged.</p>
<pre><code>${JSON.stringify({ data: ['…'], next_cursor: 'WyJs…', has_more: true }, null, 2)}</code></pre></section>`
}

/** The page's only style. It needs no `style` attributes, so a hash of this text suits a content security policy. */
export const DOCS_STYLE = `
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--soft:#57606a;--line:#dfe3e8;--fill:#f5f7f9;--link:#1f4fbf;--get:#0a56a8;--post:#17663a;--put:#8a4600;--patch:#6b35a8;--delete:#b3212b}
@media(prefers-color-scheme:dark){:root{--bg:#14171b;--fg:#e7eaee;--soft:#a4aeb9;--line:#2d343c;--fill:#1c2127;--link:#93b4ff;--get:#7fb8ff;--post:#74d39a;--put:#f0b26b;--patch:#c9a5ff;--delete:#ff9a9f}
}*{box-sizing:border-box}html{scroll-padding-top:1rem;-webkit-text-size-adjust:100%}body{margin:0;background:var(--bg);color:var(--fg);font:16px/1.6 system-ui,sans-serif}
a{color:var(--link);text-underline-offset:.15em}:focus-visible{outline:2px solid var(--link);outline-offset:2px;border-radius:3px}.skip{position:absolute;left:-99rem}
.skip:focus{left:1rem;top:.5rem;background:var(--bg);padding:.25rem .75rem;z-index:1}code,pre{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.875em}
code{overflow-wrap:anywhere}
pre{margin:.75rem 0;padding:.875rem 1rem;background:var(--fill);border:1px solid var(--line);border-radius:8px;white-space:pre-wrap;overflow-wrap:anywhere;user-select:all;line-height:1.55}
pre code{font-size:1em}h1,h2,h3,h4{line-height:1.3;text-wrap:balance}h1{margin:0;font-size:1.75rem;letter-spacing:-.01em}
h2{margin:3.5rem 0 1rem;padding-bottom:.4rem;border-bottom:1px solid var(--line);font-size:1.375rem}h3{margin:0;font-size:1.0625rem;overflow-wrap:anywhere}
h4{margin:1.5rem 0 .5rem;font-size:.8125rem;color:var(--soft);text-transform:uppercase;letter-spacing:.05em}main,header{padding:0 1.25rem;max-width:50rem;min-width:0}main{padding-bottom:6rem}
header{padding-top:1.75rem}header p,.meta,.note,.limits{color:var(--soft)}.meta,.limits{font-size:.9375rem}article{padding:1.75rem 0;border-top:1px solid var(--line)}
h2+article{border-top:0;padding-top:.5rem}article:target h3{text-decoration:underline;text-decoration-color:var(--link);text-underline-offset:.3em}
.self{color:inherit;text-decoration:none;font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.9375rem}.self:hover{text-decoration:underline}.summary{margin:.5rem 0 .25rem}
.meta{margin:0}
.method{display:inline-block;min-width:4.1rem;padding:.05rem .4rem;border:1px solid currentColor;border-radius:5px;font:600 .75rem/1.5 ui-monospace,monospace;text-align:center;vertical-align:.08em}
.get{color:var(--get)}.post{color:var(--post)}.put{color:var(--put)}.patch{color:var(--patch)}.delete{color:var(--delete)}.fields{margin:0;border:1px solid var(--line);border-radius:8px}
.fields .fields{margin:.5rem 0 .25rem}dt{padding:.5rem .875rem 0}dt:not(:first-child){border-top:1px solid var(--line)}dd{margin:0;padding:0 .875rem .5rem;font-size:.9375rem}dd p{margin:.1rem 0}
dd p.limits{font-size:.875rem}.name{font-weight:600;margin-right:.35rem}.type{font-size:.9375rem}.note{font-size:.8125rem;font-style:italic;margin-left:.25rem}
.status{font-variant-numeric:tabular-nums;font-weight:600;color:var(--soft)}.errors dd{color:var(--soft)}.errors+.meta{margin-top:.6rem}
nav{margin-top:1rem;padding:1.25rem;border-block:1px solid var(--line);background:var(--fill)}nav summary{cursor:pointer;font-weight:600}
nav details>div{max-height:40vh;overflow-y:auto;margin-top:.5rem}nav ul{list-style:none;margin:0;padding:0}
nav li a{display:flex;gap:.25rem;padding:.25rem 0;color:inherit;font-size:.875rem;text-decoration:none;overflow-wrap:anywhere}nav li a:hover{text-decoration:underline}
nav p a{color:inherit;text-decoration:none}nav p{margin:1.1rem 0 .25rem;font-size:.8125rem;font-weight:600;color:var(--soft);text-transform:uppercase;letter-spacing:.05em}
nav .method{min-width:0;padding:0;border:0;flex:0 0 3.2rem;text-align:left;line-height:2.1;font-size:.6875rem}@media(min-width:44rem){.errors{display:grid;grid-template-columns:minmax(17rem,auto) 1fr}
.errors dt,.errors dd{padding-block:.4rem}.errors dd:not(:nth-child(2)){border-top:1px solid var(--line)}}@media(min-width:60rem){body{display:grid;grid-template:auto 1fr/20rem minmax(0,1fr)}
nav{grid-area:1/1/3;margin:0;position:sticky;top:0;height:100vh;overflow-y:auto;border-block:0;border-right:1px solid var(--line)}nav details>div{max-height:none;overflow:visible}
header,main{grid-column:2;padding-inline:3rem;max-width:56rem}header{padding-top:2.5rem}}@media print{nav{display:none}article{break-inside:avoid-page}}
`

const METHODS = ['get', 'post', 'put', 'patch', 'delete']

const contentsItem = ({ path, method, operation }: Entry) =>
  html`<li><a href="#${anchor('op', operation.operationId)}">${badge(method)} <span>${breakable(path)}</span></a></li>`

const contents = (groups: ReadonlyArray<[tag: string, entries: Entry[]]>) =>
  html`<nav aria-label="Contents"><details open><summary>Contents</summary><div>
<ul>${['Authentication', 'Errors', 'Lists', 'Schemas'].map((title) => html`<li><a href="#${title.toLowerCase()}">${title}</a></li>`)}</ul>
${groups.map(([tag, entries]) => [html`<p><a href="#${anchor('tag', tag)}">${tag}</a></p>`, html`<ul>${entries.map(contentsItem)}</ul>`])}
</div></details></nav>`

/** The page for an OpenAPI document that `openApiDocument` made. */
export function docsPage(document: object): string {
  const openapi = document as OpenApiDocument
  const { info, servers, tags, paths, components } = openapi
  const entries = Object.entries(paths).flatMap(([path, item]) =>
    METHODS.flatMap((method): Entry[] => (item[method] ? [{ path, method: method.toUpperCase(), operation: item[method] }] : [])),
  )
  const groups = tags.map(({ name }): [string, Entry[]] => [name, entries.filter(({ operation }) => operation.tags.includes(name))])
  // said once, under Errors, instead of at every operation
  const all = entries.filter(({ operation }) => !isOpen(operation)).map(({ operation }) => errorsOf(operation))
  const common = (all[0] ?? []).filter(([, code]) => all.every((errors) => errors.some(([, other]) => other === code)))
  const commonCodes = new Set(common.map(([, code]) => code))
  const base = servers[0]?.url ?? ''
  // on this host, whichever the document names
  const documentPath = `${new URL(base, 'http://localhost').pathname}/openapi.json`
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${info.title}</title>
<style>${new Html(DOCS_STYLE)}</style>
</head>
<body>
<a class="skip" href="#content">Skip to content</a>
<header><h1 id="top">${info.title}</h1>
<p>${info.description} Version ${info.version}. All paths begin with <code>${base}</code>; bodies and answers are JSON.
The same as an <a href="${documentPath}">OpenAPI 3.1 document</a>.</p></header>
${contents(groups)}
<main id="content">
${guide(openapi, common)}
${groups.map(
  ([tag, members]) => html`<section><h2 id="${anchor('tag', tag)}">${tag.charAt(0).toUpperCase() + tag.slice(1)}</h2>
${members.map((entry) => operationSection(entry, openapi, commonCodes))}</section>`,
)}
<section><h2 id="schemas">Schemas</h2>
${Object.entries(components.schemas).map(([name, schema]) => schemaSection(name, schema, components.schemas))}</section>
</main>
</body>
</html>
`.text
}
