import { type DevStack, startDev } from '../local/dev.ts'
import { baseDomainOf } from '../local/worker-variables.ts'

const NAMED = ['acmesec', 'northstar_msp', 'client_alpha'] as const

function attempts({ url, api_key, jwt, gateway }: DevStack, baseDomain: string): string[] {
  const host = `http://northstar-msp.${baseDomain}:${new URL(url).port}`
  const bySlug = `curl -H 'x-api-key: ${api_key}' ${url}/api/v1/tenants/by-slug/${NAMED[2]}`
  const byToken = `curl -H 'authorization: Bearer ${jwt}' ${url}/api/v1/context`
  if (gateway === null) return [`curl -H 'x-api-key: ${api_key}' ${host}/api/v1/context`, byToken, bySlug]
  return [`curl --compressed ${host}/`, `curl --compressed -H 'authorization: Bearer ${jwt}' ${host}/`, byToken, bySlug]
}

function guide(stack: DevStack, { data, baseDomain }: { data: string; baseDomain: string }): string {
  const { url, api_key, jwt, gateway } = stack
  const forwards = gateway && `\n  Gateway      tenants' hosts → ${gateway.origin}, contexts signed as ${gateway.issuer} for ${gateway.audience}`
  return `
Stratum is up.

  API          ${url}/api/v1
  Docs         ${url}/docs
  API key      ${api_key}
  JWT          ${jwt}${forwards ?? ''}
  For scripts  ${data}/dev.json

Try:
${attempts(stack, baseDomain)
  .map((command) => `  ${command}`)
  .join('\n')}

Ctrl-C stops it; the data stays in ${data}.`
}

/** Start the local stack and keep it until a signal, or until the Worker ends by itself. */
export async function dev({ port, data }: { port: number; data: string }): Promise<void> {
  const stopped = new Promise<null>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => resolve(null))
  })
  const starting = startDev({ port, data, environment: process.env, log: (line) => console.log(line) })
  const early = await Promise.race([stopped, starting])
  const { stack, failed, stop } = early ?? (await starting)
  if (early) console.log(guide(stack, { data, baseDomain: baseDomainOf(process.env) }))
  const failure = early ? await Promise.race([stopped, failed]) : null
  await stop()
  if (failure) throw failure
}
