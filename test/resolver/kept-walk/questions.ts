/** What a walk asks again and again: for whom, of what names a tenant, in each of the ways in which a context is had. */

import type { NamedTenant } from '../../../src/core/actor.ts'
import { StratumError } from '../../../src/core/errors.ts'
import type { Arrival } from '../../../src/gateway/gateway.ts'
import { BASE, ISSUER, signToken } from '../../support/installation.ts'
import { AUDIENCES, type Bearer, DOMAINS, type World } from './world.ts'

/** A process that answers: its API, and its gateway for what is forwarded. */
export interface Service {
  app: { fetch(request: Request): Response | Promise<Response> }
  arrive(arrival: Arrival): unknown
}

export interface Question {
  /** What is asked, in words. */
  text: string
  /** True where it is the gateway that asks: for nobody known perhaps, who may not say how fresh the answer has to be. */
  forwarded: boolean
  /** Whose names of tenants decide. */
  bearers: Array<Bearer | undefined>
  ask(service: Service, minimumVersion?: string): Promise<Answer>
}

export interface Answer {
  /** A context or a refusal, without what differs each time. */
  text: string
  refused: boolean
  /** True for what was kept. */
  kept: boolean
}

/** What names the tenant. */
interface Place {
  host?: string
  path?: string
  header?: string
  cookie?: string
}

const HOST = BASE.replace('http://', '')
const comparable = (text: string) => text.replace(/"(version|request_id)":"[^"]*"/g, '')

async function askApp({ app }: Service, request: Request): Promise<Answer> {
  const response = await app.fetch(request)
  if (response.status >= 500) throw new Error(`${request.url} was answered ${response.status}: ${await response.text()}`)
  const kept = response.headers.get('server-timing')?.includes('context;desc=hit') ?? false
  return { text: comparable(await response.text()), refused: !response.ok, kept }
}

const words = (parts: object) => JSON.stringify(parts).replaceAll('"', '')

const tokens = new Map<string, Promise<string>>()

/** The same text for the same claims, as a client sends it. */
function signedOnce(name: string, sign: () => Promise<string>): Promise<string> {
  const signed = tokens.get(name) ?? sign()
  tokens.set(name, signed)
  return signed
}

const nearOf = (world: World, claim: string | undefined, otherwise: string | null) =>
  world.known.tenants.find(({ id, slug }) => claim === id || claim === slug)?.id ??
  world.known.externals.find(({ external_id }) => external_id === claim)?.tenant_id ??
  otherwise

/** A claim for a tenant within what an issuer is bound to, or perhaps for another. */
function claimOf(world: World, issuer: string, bound: string | null): string | undefined {
  const { random, known } = world
  const within = world.within(bound)
  const tenant = random.any(random.chance(0.8) && within.length > 0 ? within : known.tenants)
  const external = random.any(known.externals.filter((each) => each.issuer === issuer))
  if (external && random.chance(0.5)) return external.external_id
  if (random.chance(0.1)) return random.any([...world.formerSlugs, world.slugAhead(0), 'org_1'])
  return random.chance(0.75) ? tenant?.slug : tenant?.id
}

/** What signs tokens. */
interface Signer {
  issuer: string
  /** What it is bound to, if anything. */
  bound: string | null
  /** How often its tokens claim a tenant. */
  claiming: number
  audience?: string | string[] | undefined
  sign(claims: Record<string, unknown>, options: { subject: string; expires: string }): Promise<string>
}

function drawSigner({ random, known, stored, ofEnvironment, boundTo }: World): Signer | undefined {
  const kind = random.any(['free', 'free', 'free', 'bound', 'global', 'stored', 'stored', 'stored', 'stored'])
  if (kind === 'free') return { issuer: ISSUER, bound: null, claiming: 1, sign: signToken }
  if (kind === 'bound') return { issuer: ofEnvironment.bound.name, bound: boundTo, claiming: 0.7, sign: ofEnvironment.bound.token }
  if (kind === 'global') return { issuer: ofEnvironment.global.name, bound: null, claiming: 0.6, sign: ofEnvironment.global.token }
  const standing = random.any(known.issuers)
  const own = stored.find(({ name }) => name === standing?.issuer && random.chance(0.8)) ?? random.any(stored)
  const audience = random.any([...AUDIENCES, standing?.audience, [...AUDIENCES]])
  const bound = own?.name === standing?.issuer ? (standing?.tenant_id ?? null) : null
  return (
    own && { issuer: own.name, bound, claiming: 0.7, audience, sign: (claims, options) => own.token(claims, { ...options, ...(audience ? { audience } : {}) }) }
  )
}

/** Two users of one issuer with the same claims: what is kept for one is the other's as well. */
async function drawUsers(world: World): Promise<Bearer[]> {
  const { random } = world
  const signer = drawSigner(world)
  if (!signer) return []
  const { issuer, bound, audience, claiming, sign } = signer
  const tenant = random.chance(claiming) ? claimOf(world, issuer, bound) : undefined
  const claims = { scope: random.any(['read', 'read', 'read', 'admin', 'write', 'secrets:read']), ...(tenant === undefined ? {} : { tenant }) }
  const claim = tenant === undefined || issuer === ISSUER ? {} : { claim: { issuer, claim: tenant } }
  const users = ['ann', 'bob'].map(async (subject) => {
    const name = `${subject} of ${words({ issuer, ...claims, audience })}`
    const token = await signedOnce(name, () => sign(claims, { subject, expires: '30d' }))
    return { name, token, ...claim, near: nearOf(world, tenant, bound), headers: { authorization: `Bearer ${token}` } }
  })
  return Promise.all(users)
}

const drawKey = (world: World): Bearer | undefined => {
  const { random, known, keys } = world
  const living = known.keys.filter(({ living }) => living || random.chance(0.1))
  return keys.get(random.any(living.filter(({ id }) => keys.has(id)))?.id ?? '')
}

function drawPlace(world: World, near: string | null, ways: ReadonlyArray<keyof Place>): Place {
  const { random, known } = world
  const within = random.chance(0.8) ? world.within(near) : []
  const tenant = random.any(within.length > 0 ? within : known.tenants)
  const place: Place = {}
  for (const way of random.shuffled(ways).slice(0, random.chance(0.15) ? 2 : 1)) {
    const odd = random.any([random.any(world.formerSlugs), world.slugAhead(0), world.slugAhead(0), world.slugAhead(1)])
    const slug = (random.chance(0.15) ? odd : tenant?.slug) ?? ''
    const domains = known.domains.filter(({ tenant_id, verified }) => verified && within.some(({ id }) => id === tenant_id))
    if (way !== 'host') place[way] = random.chance(0.6) ? slug : (tenant?.id ?? slug)
    else place.host = random.chance(0.6) ? `${slug.replaceAll('_', '-')}.${HOST}` : (random.any(domains)?.domain ?? random.any(DOMAINS) ?? '')
  }
  return place
}

const minimum = (version: string | undefined): Record<string, string> => (version === undefined ? {} : { 'stratum-min-version': version })

export function contextQuestion(bearer: Bearer, { host = HOST, path, header, cookie }: Place): Question {
  const headers = {
    ...bearer.headers,
    ...(header === undefined ? {} : { 'x-tenant-id': header }),
    ...(cookie === undefined ? {} : { cookie: `tenant=${cookie}` }),
  }
  const url = `http://${host}${path === undefined ? '' : `/t/${path}`}/api/v1/context`
  return {
    text: `GET ${url} ${words({ header, cookie })} by ${bearer.name}`,
    forwarded: false,
    bearers: [bearer],
    ask: (service, version) => askApp(service, new Request(url, { headers: { ...headers, ...minimum(version) } })),
  }
}

function resolveQuestion(bearer: Bearer, { host, path }: Place, user?: Bearer): Question {
  const body = JSON.stringify({ ...(host === undefined ? {} : { host }), ...(path === undefined ? {} : { path }), ...(user ? { token: user.token } : {}) })
  const headers = { ...bearer.headers, 'content-type': 'application/json' }
  return {
    text: `POST /resolve ${words({ host, path })} for ${user?.name ?? 'nobody'} by ${bearer.name}`,
    forwarded: false,
    bearers: [bearer, user],
    ask: (service, version) => askApp(service, new Request(`${BASE}/api/v1/resolve`, { method: 'POST', headers: { ...headers, ...minimum(version) }, body })),
  }
}

function visitQuestion(bearer: Bearer | undefined, host: string): Question {
  const named: NamedTenant = host.endsWith(`.${HOST}`) ? { source: 'subdomain', tenant: host.slice(0, -HOST.length - 1) } : { source: 'domain', tenant: host }
  return {
    text: `visit ${host} by ${bearer?.name ?? 'nobody'}`,
    forwarded: true,
    bearers: [bearer],
    ask: async ({ arrive }, version) => {
      const arrival: Arrival = { fields: new Map(Object.entries({ ...bearer?.headers, ...minimum(version) })), named, requestId: 'one', facts: {} }
      const isKept = () => arrival.facts.context === 'hit'
      try {
        return { text: comparable(JSON.stringify(await arrive(arrival))), refused: false, kept: isKept() }
      } catch (error) {
        if (!(error instanceof StratumError) || error.status >= 500) throw error
        return { text: JSON.stringify([error.code, error.details]), refused: true, kept: isKept() }
      }
    },
  }
}

/** By who reaches everything, for the tenant that will be the next to be made or renamed. */
function aheadQuestions(world: World): Question[] {
  const slug = world.slugAhead(0)
  return [visitQuestion(undefined, `${slug.replaceAll('_', '-')}.${HOST}`), contextQuestion(world.admin, { path: slug })]
}

/** One or two questions about what there is, was, or is about to be. Two are those that could be taken for one another. */
export async function drawQuestions(world: World): Promise<Question[]> {
  const { random } = world
  if (random.chance(0.15)) return aheadQuestions(world)
  const [ann, bob] = await drawUsers(world)
  const key = drawKey(world)
  if (!ann || !bob) return []
  const asker = random.chance(0.5) && key ? key : ann
  const kind = random.any(['context', 'context', 'context', 'resolve', 'resolve', 'visit', 'visit'])
  if (kind === 'visit') {
    const bearer = random.any([undefined, asker, asker])
    const { host } = drawPlace(world, bearer?.near ?? null, ['host'])
    return [visitQuestion(bearer, host ?? '')]
  }
  if (kind === 'context') {
    const ways = asker === key ? (['host', 'path', 'header', 'cookie'] as const) : (['host', 'path', 'cookie'] as const)
    const place = random.chance(0.4) ? {} : drawPlace(world, asker.near, ways)
    return asker === ann && random.chance(0.3) ? [contextQuestion(ann, place), contextQuestion(bob, place)] : [contextQuestion(asker, place)]
  }
  const given = random.chance(0.7) ? drawPlace(world, bob.near ?? asker.near, ['host', 'path']) : {}
  const place = { ...given, path: given.path === undefined ? '/none' : `/t/${given.path}/a` }
  return [resolveQuestion(asker, place, random.chance(0.8) ? bob : undefined), ...(random.chance(0.5) ? [resolveQuestion(asker, place)] : [])]
}
