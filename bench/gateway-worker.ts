/** What bench/gateway.ts measures, side by side in one workerd: the Worker as it is deployed, and one that only forwards. */
import edge from '../workers/edge.ts'

type Serve = typeof edge.fetch

export default {
  fetch: ((request, env, context) =>
    request.url.endsWith('/bare') ? fetch(String(env['STRATUM_ORIGIN']), request) : edge.fetch(request, env, context)) satisfies Serve as Serve,
}
