import { startDev } from '../local/dev.ts'

const NAMED = ['acmesec', 'northstar_msp', 'client_alpha'] as const

function guide({ url, api_key, jwt }: { url: string; api_key: string; jwt: string }, data: string): string {
  const host = url.replace('://', '://northstar-msp.')
  return `
Stratum is up.

  API          ${url}/api/v1
  Docs         ${url}/docs
  API key      ${api_key}
  JWT          ${jwt}
  For scripts  ${data}/dev.json

Try:
  curl -H 'x-api-key: ${api_key}' ${host}/api/v1/context
  curl -H 'authorization: Bearer ${jwt}' ${url}/api/v1/context
  curl -H 'x-api-key: ${api_key}' ${url}/api/v1/tenants/by-slug/${NAMED[2]}

Ctrl-C stops it; the data stays in ${data}.`
}

/** Start the local stack and keep it until a signal, or until the Worker ends by itself. */
export async function dev({ port, data }: { port: number; data: string }): Promise<void> {
  const stopped = new Promise<null>((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => resolve(null))
  })
  const starting = startDev({ port, data, log: (line) => console.log(line) })
  const early = await Promise.race([stopped, starting])
  const { stack, failed, stop } = early ?? (await starting)
  if (early) console.log(guide(stack, data))
  const failure = early ? await Promise.race([stopped, failed]) : null
  await stop()
  if (failure) throw failure
}
