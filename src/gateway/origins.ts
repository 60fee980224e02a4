/** Where requests are forwarded to, and how. */
import { networkOf } from '../auth/network.ts'
import { stratumError } from '../core/error-classes.ts'
import { BoundedMap } from '../crypto/bounded-map.ts'

/** A Worker that is bound to this one. */
export interface ServiceBinding {
  fetch(url: string, init: RequestInit): Promise<Response>
}

/** Bindings that may be origins, by their name. */
export type ServiceBindings = Readonly<Record<string, ServiceBinding>>

/** What a URL asks for. */
export interface Target {
  /** Scheme, host and port. */
  readonly site: string
  /** Path and query, which begin with a slash. */
  readonly path: string
}

/** An application that requests are forwarded to. */
export interface Origin {
  /** What it is called as the audience of a context, unless configured otherwise: its URL's origin, or `service:NAME`. */
  readonly identity: string
  /** The URL at the origin that a request's URL stands for. */
  urlFor(asked: Target): string
  fetch(url: string, init: RequestInit): Promise<Response>
}

const isService = (binding: unknown): binding is ServiceBinding => typeof (binding as ServiceBinding | null)?.fetch === 'function'

/** The Worker's bindings that may be origins: those of such a name. Any other may not, as tenants' config says which. */
export const originBindings = (env: Record<string, unknown>): ServiceBindings =>
  Object.fromEntries(
    Object.entries(env).filter((entry): entry is [string, ServiceBinding] => /^ORIGIN(_[A-Z0-9_]{1,60})?$/.test(entry[0]) && isService(entry[1])),
  )

function urlOrigin({ origin: identity }: URL): Origin {
  return {
    identity,
    urlFor: ({ path }) => identity + path,
    fetch: (url, init) => fetch(url, init),
  }
}

/** A bound Worker sees the URL that was asked for: it is reached by its name, not by a host. */
const serviceOrigin = (name: string, service: ServiceBinding): Origin => ({
  identity: `service:${name}`,
  urlFor: ({ site, path }) => site + path,
  fetch: (url, init) => service.fetch(url, init),
})

function problemOfUrl(text: string, development: boolean): string | null {
  if (!URL.canParse(text)) return 'it is neither a URL nor the name of a service binding'
  const { protocol, hostname, username, password, pathname, search, hash } = new URL(text)
  if (protocol !== 'https:' && protocol !== 'http:') return 'its scheme must be https or http'
  if (username || password) return 'it must not carry a user name or password'
  if (pathname !== '/' || search || hash) return 'it must be scheme, host and port alone, as the path is that of each request'
  if (networkOf(hostname) !== 'public' && !development) return 'it must name a public host'
  return null
}

export interface OriginsOptions {
  /** See {@link originBindings}. */
  services: ServiceBindings
  /** Private hosts and this machine may be origins of a tenant's config. */
  development: boolean
}

/** The reason is the cause too, which the log tells and no visitor sees. */
const invalid = (reason: string) => stratumError('ORIGIN_INVALID', { reason }, { cause: new Error(reason) })

/** Origins by the text that names them. */
export class Origins {
  readonly #options: OriginsOptions
  readonly #known = new BoundedMap<string, Origin>(500)

  constructor(options: OriginsOptions) {
    this.#options = options
  }

  /**
   * The origin that config names: a URL, or `service:NAME`.
   * @throws ORIGIN_INVALID
   */
  named(value: unknown): Origin {
    if (typeof value !== 'string') throw invalid('it is no text')
    const known = this.#known.get(value)
    if (known) return known
    const origin = this.#open(value, this.#options.development)
    this.#known.set(value, origin)
    return origin
  }

  /** The origin that the environment names, which may lie in a private network. @throws ORIGIN_INVALID */
  ofEnvironment(value: string): Origin {
    return this.#open(value, true)
  }

  #open(value: string, development: boolean): Origin {
    const [, name] = /^service:(.*)$/.exec(value) ?? []
    if (name !== undefined) {
      const service = Object.hasOwn(this.#options.services, name) ? this.#options.services[name] : undefined
      if (service === undefined) throw invalid('there is no such service binding; one that may be an origin is named ORIGIN or ORIGIN_…')
      return serviceOrigin(name, service)
    }
    const problem = problemOfUrl(value, development)
    if (problem !== null) throw invalid(problem)
    return urlOrigin(new URL(value))
  }
}
