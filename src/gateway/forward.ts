/** One hop to the origin: streaming both ways, with a limit on how long its answer may take to begin. */
import { stratumError } from '../core/error-classes.ts'
import { StratumError } from '../core/errors.ts'
import { isWebSocketUpgrade, unfitForClient } from './headers.ts'
import type { Origin, Target } from './origins.ts'

/** A Worker's answer to an upgrade holds the socket beside the body. */
type UpgradedResponse = Response & { webSocket?: unknown }

/** A stream of Workers that says how long what passes is, so that it is not sent in chunks where it came in one piece. */
type FixedLengthStreamClass = new (length: number) => TransformStream<Uint8Array, Uint8Array>

/** Tells when the origin was waited for so many milliseconds in a row, until its answer is there. */
class Deadline {
  readonly #milliseconds: number
  #timer: ReturnType<typeof setTimeout> | undefined
  #passed = () => {}
  #ended = false

  constructor(milliseconds: number) {
    this.#milliseconds = milliseconds
    this.wait()
  }

  /** From now on it is the origin that is waited for. */
  wait(): void {
    clearTimeout(this.#timer)
    if (!this.#ended) this.#timer = setTimeout(() => this.#passed(), this.#milliseconds)
  }

  /** From now on it is the client. */
  pause(): void {
    clearTimeout(this.#timer)
  }

  /**
   * What the origin answers. Once that is too late nobody waits for it: with a request's answer the platform ends what the
   * request asked for, so that none has to pay for a signal that does it.
   * @throws ORIGIN_TIMEOUT
   */
  of(answer: Promise<Response>): Promise<Response> {
    return new Promise((resolve, reject) => {
      this.#passed = () => {
        this.#ended = true
        const cancelled = answer.then((late) => late.body?.cancel())
        cancelled.catch(() => undefined)
        reject(stratumError('ORIGIN_TIMEOUT', { seconds: this.#milliseconds / 1000 }))
      }
      answer.then(resolve, reject)
    })
  }

  end(): void {
    this.#ended = true
    clearTimeout(this.#timer)
  }
}

/** Pass a body on part by part. Between two parts the client is waited for, and with a part in hand the origin. */
async function pump(body: ReadableStream<Uint8Array>, to: WritableStream<Uint8Array>, deadline: Deadline): Promise<void> {
  const [reader, writer] = [body.getReader(), to.getWriter()]
  try {
    for (;;) {
      deadline.pause()
      const part = await reader.read()
      deadline.wait()
      if (part.done) break
      await writer.write(part.value)
    }
    await writer.close()
  } catch (error) {
    // One side broke off, or the origin had its answer ready: the other need not go on.
    await Promise.allSettled([reader.cancel(error), writer.abort(error)])
  }
}

/** The body as it is, its length known if it was. */
function passing(body: ReadableStream<Uint8Array>, length: string | null, deadline: Deadline): ReadableStream<Uint8Array> {
  const { FixedLengthStream } = globalThis as { FixedLengthStream?: FixedLengthStreamClass }
  const { readable, writable } =
    length === null || FixedLengthStream === undefined ? new TransformStream<Uint8Array, Uint8Array>() : new FixedLengthStream(Number(length))
  void pump(body, writable, deadline)
  return readable
}

/** Before anything is sent, so that what the origin does wrong is not taken for this. @throws REQUEST_NOT_FORWARDABLE */
function requireForwardable(method: string, hasBody: boolean): void {
  const refuse = (what: string) => stratumError('REQUEST_NOT_FORWARDABLE', { reason: `${what} is not passed on` })
  // TRACE answers with the headers it got, the signed context among them.
  if (method === 'TRACE' || method === 'CONNECT') throw refuse(`the method ${method}`)
  if (hasBody && (method === 'GET' || method === 'HEAD')) throw refuse(`a body beside ${method}`)
}

/**
 * The origin's answer to a request, sent with these headers.
 * @param timeout milliseconds that the origin is waited for, in a row, until its headers are there
 * @param isReturned says of an answer whether it is our own refusal of this very request, which came back
 * @throws ORIGIN_TIMEOUT, ORIGIN_UNREACHABLE, ORIGIN_LOOP, REQUEST_NOT_FORWARDABLE
 */
export async function forward(
  { request, target, headers }: { request: Request; target: Target; headers: Headers },
  { origin, timeout, isReturned }: { origin: Origin; timeout: number; isReturned: (answer: Headers) => boolean },
): Promise<Response> {
  const { method, body } = request
  requireForwardable(method, body !== null)
  const deadline = new Deadline(timeout)
  try {
    // Not to be cached by the platform: for it, all tenants' requests to the origin have one and the same URL.
    const init: RequestInit & { duplex?: 'half' } = { method, headers, redirect: 'manual', cache: 'no-store' }
    if (body !== null) {
      init.body = passing(body, request.headers.get('content-length'), deadline)
      init.duplex = 'half'
    }
    const answer = await deadline.of(origin.fetch(origin.urlFor(target), init))
    return passOn(request, target, answer, { origin, isReturned })
  } catch (cause) {
    throw cause instanceof StratumError ? cause : stratumError('ORIGIN_UNREACHABLE', {}, { cause })
  } finally {
    deadline.end()
  }
}

/** The origin's answer as the client gets it: without what is not the origin's to say, its own host as the one that was asked. */
function passOn(
  request: Request,
  target: Target,
  answer: UpgradedResponse,
  { origin, isReturned }: { origin: Origin; isReturned: (answer: Headers) => boolean },
): Response {
  // An upgrade to something else than was asked for.
  if (answer.status === 101 && !(isWebSocketUpgrade(request) && answer.webSocket)) throw stratumError('ORIGIN_UNREACHABLE')
  const { headers } = answer
  const names = [...headers.keys()]
  const unfit = unfitForClient(names, headers)
  if (unfit.length > 0 && isReturned(headers)) throw stratumError('ORIGIN_LOOP')
  const location = names.includes('location') ? headers.get('location') : null
  const moved = location === null ? null : fromOutside(location, target, origin)
  if (unfit.length === 0 && moved === location) return answer
  const passed = new Response(answer.body, answer)
  for (const name of unfit) passed.headers.delete(name)
  if (moved !== null) passed.headers.set('location', moved)
  return passed
}

/** A redirect to the origin's own host, of which the client knows nothing, as one to the host that was asked. */
function fromOutside(location: string, asked: Target, origin: Origin): string {
  if (!URL.canParse(location)) return location
  const target = new URL(location)
  return target.origin === origin.identity ? asked.site + target.href.slice(target.origin.length) : location
}
