/** The world of a walk over kept contexts: tenants, all that names them or speaks for them, and chance by a seed. */
import pg from 'pg'
import { type Issuer, parseIssuers } from '../../../src/auth/issuers.ts'
import { TokenVerifier } from '../../../src/auth/tokens.ts'
import { StratumError } from '../../../src/core/errors.ts'
import type { Scope } from '../../../src/core/scopes.ts'
import type { Database } from '../../../src/db/database.ts'
import { postgresDatabase } from '../../../src/db/postgres.ts'
import { askDatabaseForIssuer } from '../../../src/features/issuers/stored.ts'
import type { Services } from '../../../src/features/operation.ts'
import { createApp } from '../../../src/http/app.ts'
import { AUDIENCE, BASE, type Installation, ISSUER, JWT_SECRET } from '../../support/installation.ts'
import { ownIssuer } from '../../support/issuers.ts'

/** Questions that are under way at once. */
export const AT_ONCE = 6

/** Numbers that are the same for the same seed (mulberry32). */
export class Random {
  #state: number

  constructor(seed: number) {
    this.#state = seed
  }

  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }

  chance = (probability: number): boolean => this.next() < probability
  below = (end: number): number => Math.floor(this.next() * end)
  /** One of them, undefined where there is none. */
  any = <T>(list: readonly T[]): T | undefined => list[this.below(list.length)]
  shuffled<T>(list: readonly T[]): T[] {
    const keyed = list.map((value) => ({ value, key: this.next() }))
    return keyed.sort((a, b) => a.key - b.key).map(({ value }) => value)
  }
}

export interface KnownTenant {
  id: string
  parent_id: string | null
  slug: string
  path: string
  status: 'active' | 'suspended' | 'archived'
  isolation_strategy: string
  provisioning_status: string
}

type OfTenant = { tenant_id: string }

/** What there is, read before each step. Each list is in an order that does not hang on what is random in the database. */
export interface Known {
  tenants: KnownTenant[]
  keys: Array<{ id: string; tenant_id: string | null; scopes: Scope[]; living: boolean; expires_at: string | null }>
  issuers: Array<{ id: string; tenant_id: string | null; issuer: string; audience: string }>
  externals: Array<OfTenant & { issuer: string; external_id: string }>
  domains: Array<OfTenant & { domain: string; verified: boolean }>
  policies: Array<OfTenant & { id: string; revocation_mode: string }>
  entries: Array<OfTenant & { key: string }>
  jobs: Array<OfTenant & { id: string; task: string; status: string }>
  changes: Array<OfTenant & { id: string }>
}

const list = (columns: string, from: string, order: string) =>
  `(select coalesce(jsonb_agg(to_jsonb(row)), '[]') from (select ${columns} from stratum.${from} order by ${order}) as row)`

const KNOWN = `select jsonb_build_object(
  'tenants', ${list('id, parent_id, slug, path, status, isolation_strategy, provisioning_status', 'tenants', 'path')},
  'keys', ${list(`id, tenant_id, scopes, expires_at, revoked_at is null and coalesce(expires_at > now(), true) as living`, 'api_keys', 'id')},
  'issuers', ${list('id, tenant_id, issuer, audience', 'issuers', 'issuer, audience')},
  'externals', ${list('tenant_id, issuer, external_id', 'tenant_external_ids', 'issuer, external_id')},
  'domains', ${list('tenant_id, d.domain, verified_at is not null as verified', 'custom_domains d join stratum.tenants t on t.id = d.tenant_id', 'd.domain, t.path')},
  'policies', ${list('p.id, tenant_id, revocation_mode', 'permission_policies p join stratum.tenants t on t.id = p.tenant_id', 't.path, p.key')},
  'entries', ${list('tenant_id, e.key', 'config_entries e join stratum.tenants t on t.id = e.tenant_id', 't.path, e.key')},
  'jobs', ${list('j.id, tenant_id, task, j.status', 'jobs j join stratum.tenants t on t.id = j.tenant_id', 'j.id')},
  'changes', ${list('c.id, tenant_id', 'isolation_changes c where finished_at is null', 'c.id')}) as known`

/** Who asks. `near` is a tenant that is within reach, if one is known. */
export interface Bearer {
  name: string
  headers: Record<string, string>
  token?: string
  claim?: Claim
  near: string | null
}

/** The tenant claim of a token. */
export interface Claim {
  issuer: string
  claim: string
}

const STORED = ['stored-0', 'stored-1', 'stored-2'].map((name) => ownIssuer(`https://${name}.issuer.test`))
const OF_ENVIRONMENT = { bound: ownIssuer('https://bound.issuer.test'), global: ownIssuer('https://global.issuer.test') }
export const DOMAINS = ['a', 'b', 'c', 'd', 'e'].map((name) => `${name}.customer.example`)
export const AUDIENCES = [AUDIENCE, 'second'] as const

export class World {
  readonly random: Random
  readonly installation: Installation
  known: Known = { tenants: [], keys: [], issuers: [], externals: [], domains: [], policies: [], entries: [], jobs: [], changes: [] }
  /** Keys themselves by id: they are shown once. */
  readonly keys = new Map<string, Bearer>()
  /** Slugs that tenants gave up, and those of tenants that are no more. */
  readonly formerSlugs: string[] = []
  /** What tokens claim to whom a question was answered. */
  claims: Claim[] = []
  /** Milliseconds since 1970 by the clocks of isolates. */
  time = Date.now()
  readonly stored = STORED
  readonly ofEnvironment = OF_ENVIRONMENT
  /** The tenant that an issuer of the environment is bound to. */
  boundTo = ''
  /** The database without what lies between it and the edge, which takes longer than the database. */
  readonly directly: Database
  readonly #pool: pg.Pool
  #issuers: Issuer[] = []
  /** A global admin, whose key is never revoked. */
  admin: Bearer = { name: 'admin', headers: {}, near: null }
  #slugs = 0
  #writer: { fetch(request: Request): Response | Promise<Response> } = { fetch: (request) => this.installation.fetch(request) }

  constructor(installation: Installation, seed: number) {
    this.installation = installation
    this.random = new Random(seed)
    this.#pool = new pg.Pool({ connectionString: installation.urls.control, max: AT_ONCE })
    // Dropping the database ends connections that are still closing.
    this.#pool.on('error', () => {})
    this.#pool.on('connect', (client) => client.on('error', () => {}))
    this.directly = postgresDatabase(this.#pool)
  }

  close = (): Promise<void> => this.#pool.end()

  /** Three roots with three levels below, and keys of several kinds. */
  async plant(): Promise<void> {
    const { stratum } = this.installation
    const plant = async (parent_id: string | null) => (await stratum.createTenant({ slug: this.takeSlug(), name: 'Planted', parent_id })).id
    this.admin = { ...this.admin, headers: { 'x-api-key': await this.installation.apiKey(null) } }
    for (let roots = 0; roots < 3; roots++) {
      const root = await plant(null)
      const middle = await plant(root)
      await plant(await plant(middle))
      await plant(root)
      if (roots === 0) this.boundTo = middle
      for (const tenant of [root, middle]) for (const scope of ['admin', 'read'] as const) await this.makeKey(tenant, scope)
    }
    for (const scope of ['admin', 'read'] as const) await this.makeKey(null, scope)
    const common = { audience: AUDIENCE, max_scopes: ['admin'] }
    const secret = { kty: 'oct', k: Buffer.from(JWT_SECRET).toString('base64url') }
    this.#issuers = parseIssuers(
      JSON.stringify([
        { ...common, issuer: ISSUER, algorithms: ['HS256'], keys: [secret] },
        { ...this.ofEnvironment.bound.fields(), tenant_id: this.boundTo },
        { ...this.ofEnvironment.global.fields(), global: true },
      ]),
    )
    this.#writer = createApp({ services: this.services(this.directly), version: 'test' })
    await this.look()
  }

  /** Services of a process of its own over this database, which knows nothing yet. */
  services(db: Database, now: () => number = Date.now): Services {
    const { hosts } = this.installation.services
    const tokens = new TokenVerifier(this.#issuers, { stored: askDatabaseForIssuer(db), now })
    const sources = ['token', 'subdomain', 'domain', 'path', 'header', 'cookie'] as const
    return { ...this.installation.services, db, tokens, hosts: { ...hosts, sources, cookie: 'tenant' } }
  }

  async look(): Promise<void> {
    const before = this.known.tenants
    this.known = (await this.installation.owner.query(KNOWN)).rows[0].known
    const slugs = new Set(this.known.tenants.map(({ slug }) => slug))
    this.formerSlugs.push(...before.flatMap(({ slug }) => (slugs.has(slug) ? [] : [slug])))
  }

  /** Call an operation through the front door, of a process that keeps nothing. */
  async call(
    operation: string,
    input: object,
    apiKey = this.admin.headers['x-api-key'] ?? '',
  ): Promise<{ code: string; version: string | null; answer: unknown }> {
    let version: string | null = null
    const fetch = async (request: Request) => {
      const response = await this.#writer.fetch(request)
      version = response.headers.get('stratum-version')
      return response
    }
    const client = this.installation.client({ baseUrl: BASE, apiKey, fetch }) as unknown as Record<string, (input: object) => Promise<unknown>>
    try {
      return { answer: await client[operation]?.(input), code: 'ok', version }
    } catch (error) {
      if (!(error instanceof StratumError) || error.status >= 500) throw error
      return { answer: null, code: error.code, version }
    }
  }

  async makeKey(tenant_id: string | null, scope: Scope): Promise<void> {
    const { id, key } = await this.installation.stratum.createApiKey(tenant_id, { scopes: [scope] })
    this.noteKey(id, key, tenant_id)
  }

  noteKey(id: string, key: string, tenant_id: string | null): void {
    this.keys.set(id, { name: `key ${this.keys.size}`, headers: { 'x-api-key': key }, near: tenant_id })
  }

  takeSlug = (): string => `tenant_${++this.#slugs}`
  /** A slug that nobody has had yet: after 0 others it is the next to be taken. */
  slugAhead = (others: number): string => `tenant_${this.#slugs + 1 + others}`

  tenant(id: string | null): KnownTenant | undefined {
    return this.known.tenants.find((tenant) => tenant.id === id)
  }
  /** The tenant of this id and all below it; with null everything. */
  within(id: string | null): KnownTenant[] {
    const { tenants } = this.known
    const top = this.tenant(id)
    if (top) return tenants.filter(({ path }) => path === top.path || path.startsWith(`${top.path}.`))
    return id === null ? tenants : []
  }
  anyTenant = (fits: (tenant: KnownTenant) => boolean = () => true): KnownTenant | undefined => this.random.any(this.known.tenants.filter(fits))
  anyActive = (): KnownTenant | undefined => this.anyTenant(({ status }) => status === 'active')
  /** A tenant with few below it. */
  anySmall = (fits: (tenant: KnownTenant) => boolean): KnownTenant | undefined => this.anyTenant((tenant) => fits(tenant) && this.within(tenant.id).length <= 2)

  /** Key of an admin that reaches all of these tenants: the global one mostly, now and then one that is bound as low as can be. */
  adminOf(ids: ReadonlyArray<string | null>, boundRather = 0.25): string | undefined {
    if (ids.includes(null) || !this.random.chance(boundRather)) return undefined
    const able = this.known.keys.filter(({ living, scopes, tenant_id }) => {
      const reach = tenant_id === null ? [] : this.within(tenant_id).map(({ id }) => id)
      return living && scopes.includes('admin') && ids.every((id) => id !== null && reach.includes(id))
    })
    return this.keys.get(this.random.any(able)?.id ?? '')?.headers['x-api-key']
  }
}
