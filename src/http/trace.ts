/** The trace that a request belongs to: W3C Trace Context. */

const TRACEPARENT = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?$/
const NONE = /^0+$/

export interface Trace {
  id: string
  /** The `traceparent` of a trace that begins here; null where the client's own, which is valid, goes on. */
  begun: string | null
}

/**
 * The trace of a request by its `traceparent`. A valid one passes unchanged, and `tracestate` with it, as through every
 * proxy that records no spans: a parent of our own would be one that nobody finds.
 */
export function traceOf(traceparent: string | undefined): Trace {
  const [, version, given, span, more] = TRACEPARENT.exec(traceparent ?? '') ?? []
  if (given !== undefined && span !== undefined && version !== 'ff' && !(version === '00' && more) && !NONE.test(given) && !NONE.test(span)) {
    return { id: given, begun: null }
  }
  const id = crypto.randomUUID().replaceAll('-', '')
  // "Sampled", as the line of the log is a record of it, and as samplers follow their parent unless told otherwise:
  // by "not sampled" an app would record nothing any more.
  return { id, begun: `00-${id}-${id.slice(16)}-01` }
}
