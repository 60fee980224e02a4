/** Operations that can be shown before they are done, and what holds before and after, as the API answers it. */
import type { CallOf, Preview } from '../../src/core/endpoint.ts'
import type { Json } from '../../src/core/json.ts'
import type { endpoints } from '../../src/features/endpoints.ts'
import type { StratumClient } from '../../src/sdk/client.ts'

type Showable = 'deleteTenant' | 'moveTenant' | 'suspendTenant' | 'resumeTenant' | 'archiveTenant' | 'setConfig' | 'deleteConfig' | 'batchSetConfig'
type Shown = Showable | 'createPermission' | 'updatePermission' | 'deletePermission'
/** A call of one of them. */
export type Call = { [K in Shown]: { operation: K; input: CallOf<(typeof endpoints)[K]> } }[Shown]
export type Change = Preview['changes'][number]

// The client's methods are typed one by one; a call of the union is one of them.
export const dryRun = (client: StratumClient, { operation, input }: Call) => (client.dryRun[operation] as (given: Call['input']) => Promise<Preview>)(input)
export const run = (client: StratumClient, { operation, input }: Call, ifMatch?: string) =>
  (client[operation] as (given: Call['input'], options: object) => Promise<unknown>)(input, ifMatch === undefined ? {} : { ifMatch })

const placeOf = ({ tenant_id, field, key }: Change) => `${tenant_id}|${field}|${key ?? ''}`
export const byPlace = (changes: Change[]) => [...changes].sort((a, b) => (placeOf(a) < placeOf(b) ? -1 : 1))

/** All that effectively holds for some tenants, as the API answers it, each thing under its place. */
export async function effective(admin: StratumClient, ids: readonly string[]): Promise<Map<string, Json>> {
  const state = new Map<string, Json>()
  for (const id of ids) {
    const { tenant, config, permissions } = await admin.getTenantContext({ id })
    state.set(`${id}|status|`, tenant.status)
    for (const { key, value, locked, sensitive } of Object.values(config))
      state.set(`${id}|config|${key}`, sensitive ? { sensitive, locked } : { value, locked })
    for (const { key, value, mode } of Object.values(permissions)) state.set(`${id}|permission|${key}`, { value, mode })
  }
  return state
}

export function difference(before: Map<string, Json>, after: Map<string, Json>): Change[] {
  const places = [...new Set([...before.keys(), ...after.keys()])].filter((place) => JSON.stringify(before.get(place)) !== JSON.stringify(after.get(place)))
  const changes = places.map((place) => {
    const [tenant_id = '', field, key] = place.split('|')
    return { tenant_id, field: field as Change['field'], key: key || null, from: before.get(place) ?? null, to: after.get(place) ?? null }
  })
  return byPlace(changes)
}
