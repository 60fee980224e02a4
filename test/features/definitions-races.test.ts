/** Definitions that change while others write: a value is never left that does not fit. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import type { CallOf } from '../../src/core/endpoint.ts'
import type { Json } from '../../src/core/json.ts'
import { neonDatabase } from '../../src/db/neon.ts'
import { ConfigDefinitions } from '../../src/features/config/definitions.ts'
import type { endpoints } from '../../src/features/endpoints.ts'
import { createApp } from '../../src/http/app.ts'
import { createClient, type StratumClient } from '../../src/sdk/client.ts'
import { BASE, createInstallation, type Installation } from '../support/installation.ts'
import { plantTree, refusal } from '../support/tree.ts'
import { untilWaiting, whileOpen } from '../support/waiting.ts'

let installation: Installation
let admin: StratumClient
beforeAll(async () => {
  installation = await createInstallation()
  admin = await installation.clientFor(null)
})
afterEach(async () => {
  const { data } = await admin.listConfigDefinitions()
  await admin.putConfigDefinitions({ definitions: [], remove: data.map(({ key }) => key), strict: false })
})
afterAll(() => installation.close())

type Definition = CallOf<typeof endpoints.putConfigDefinitions>['definitions'][number]

const line = { root: null, mid: 'root', leaf: 'mid' } as const
const put = (definitions: Definition[], options: { remove?: string[]; strict?: boolean } = {}) => admin.putConfigDefinitions({ definitions, ...options })
const number = (key: string, more: Partial<Definition> = {}): Definition => ({ key, schema: { type: 'number' }, ...more })

/** Another process of the same installation: it has definitions of its own in memory. */
async function otherProcess(db = neonDatabase(installation.urls.control, { endpoint: installation.neonEndpoint })): Promise<StratumClient> {
  const services = { ...installation.services, db, definitions: new ConfigDefinitions() }
  const app = createApp({ services, version: 'test' })
  return createClient({ baseUrl: BASE, fetch: (request) => app.fetch(request), apiKey: await installation.apiKey(null) })
}

describe('a process that knows older definitions', () => {
  it('checks a write again with the newer ones, whether these are stricter or not', async () => {
    const { root } = await plantTree(admin, line)
    const other = await otherProcess()
    const set = (value: Json) => other.setConfig({ id: root.id, key: 'level', value })
    await set('free')

    await admin.deleteConfig({ id: root.id, key: 'level' })
    await put([number('level')])
    expect((await refusal(set('free'), 'CONFIG_INVALID')).details).toMatchObject({ key: 'level' })
    await set(1)
    await admin.deleteConfig({ id: root.id, key: 'level' })
    await put([{ key: 'level', schema: { type: 'string' } }])
    expect(await set('free')).toMatchObject({ value: 'free' })
    await put([], { remove: ['level'], strict: true })
    expect((await refusal(set('free'), 'CONFIG_INVALID')).details).toMatchObject({ reason: 'the key is not defined' })
    await put([{ key: 'level', schema: {}, sensitive: false }], { strict: false })
    await admin.deleteConfig({ id: root.id, key: 'level' })
    await put([{ key: 'level', schema: {}, sensitive: true }])
    expect(await set('now secret')).toMatchObject({ value: null, sensitive: true })
    const batch = await other.batchSetConfig({ id: root.id, entries: [{ key: 'level', value: 'still' }] })
    expect(batch.results[0]?.entry).toMatchObject({ value: null, sensitive: true })
  })

  it('asks for the definitions once and then writes with one request each', async () => {
    const { root } = await plantTree(admin, line)
    const other = await otherProcess()
    const requestsOf = async (work: Promise<unknown>) => {
      const before = installation.databaseRequests()
      await work
      return installation.databaseRequests() - before
    }
    expect(await requestsOf(other.setConfig({ id: root.id, key: 'k', value: 1 }))).toBe(2)
    expect(await requestsOf(other.setConfig({ id: root.id, key: 'k', value: 2 }))).toBe(1)
  })

  // SQL alone: what any process would send that had checked against this version
  const write = `select stratum.set_config('{"credential": {"type": "embedded", "actor_type": "test", "actor_id": "racer"}, "named": [], "exposed": false}', $1)`
  const inputOf = async (id: string, value: Json) => {
    const { rows } = await installation.owner.query<{ version: number }>('select definitions_version::int as version from stratum.installation')
    return [JSON.stringify({ id, key: 'race', value, locked: false, definitions_version: rows[0]?.version })]
  }

  it('is waited for by who puts new ones, and they are refused when its value does not fit', async () => {
    const { root } = await plantTree(admin, line)
    const input = await inputOf(root.id, 'text')
    const outcome = await whileOpen(
      installation.owner,
      (held) => held.query(write, input),
      async (commit) => {
        const putting = put([number('race')]).catch((error: unknown) => error)
        await untilWaiting(installation.owner)
        await commit()
        return putting
      },
    )
    expect(outcome).toMatchObject({ code: 'CONFIG_DEFINITIONS_CHANGED' })
    expect((await admin.listConfigDefinitions()).data).toEqual([])
    expect((await refusal(put([number('race')]), 'CONFIG_DEFINITION_CONFLICT')).details).toMatchObject({ tenant_id: root.id, key: 'race' })
    await admin.deleteConfig({ id: root.id, key: 'race' })
  })

  it('is seen also where a purge takes as many values as it brings, and another is newer', async () => {
    const { root } = await plantTree(admin, line)
    const { doomed, newer } = await plantTree(admin, { doomed: null, newer: null })
    await admin.setConfig({ id: doomed.id, key: 'race', value: 5 })
    const input = await inputOf(root.id, 'text')
    const outcome = await whileOpen(
      installation.owner,
      (held) => held.query(write, input),
      async (commit) => {
        await admin.setConfig({ id: newer.id, key: 'race', value: 6 })
        const { db } = installation.services
        const putter = await otherProcess({
          call: async (operation, ...rest) => {
            if (operation === 'put_config_definitions') {
              await commit()
              await admin.purgeTenant({ id: doomed.id })
            }
            return db.call(operation, ...rest)
          },
        })
        return putter.putConfigDefinitions({ definitions: [number('race')] }).catch((error: unknown) => error)
      },
    )
    expect(outcome).toMatchObject({ code: 'CONFIG_DEFINITIONS_CHANGED' })
    expect((await admin.listConfigDefinitions()).data).toEqual([])
    for (const { id } of [root, newer]) await admin.deleteConfig({ id, key: 'race' })
  })

  it('waits for who puts new ones, and is then judged by these', async () => {
    const { root } = await plantTree(admin, line)
    await admin.setConfig({ id: root.id, key: 'other', value: 1 })
    const putting = `select stratum.put_config_definitions('{"credential": {"type": "embedded", "actor_type": "test", "actor_id": "racer"}, "named": [], "exposed": false}', $1)`
    const definition = { ...number('race'), default: null, description: '', sensitive: false }
    const { rows } = await installation.owner.query<{ digest: string }>(`select stratum.stored_config_digest('["race"]') as digest`)
    const input = { definitions: [definition], remove: [], keys: ['race'], digest: rows[0]?.digest }
    const outcome = await whileOpen(
      installation.owner,
      (held) => held.query(putting, [JSON.stringify(input)]),
      async (commit) => {
        const writing = admin.setConfig({ id: root.id, key: 'race', value: 'text' }).catch((error: unknown) => error)
        await untilWaiting(installation.owner)
        await commit()
        return writing
      },
    )
    expect(outcome).toMatchObject({ code: 'CONFIG_INVALID', details: { key: 'race', path: '' } })
    expect((await admin.resolveConfig({ id: root.id })).config['race']).toBeUndefined()
    expect(await admin.setConfig({ id: root.id, key: 'race', value: 7 })).toMatchObject({ value: 7 })
  })

  it('never leaves a value that does not fit, however writers and definitions meet', async () => {
    const { root, mid, leaf } = await plantTree(admin, line)
    const clients = await Promise.all([otherProcess(), otherProcess(), otherProcess()])
    for (let round = 0; round < 6; round++) {
      const writes = [root, mid, leaf].map(({ id }, index) => clients[index]?.setConfig({ id, key: 'race', value: round % 2 === 0 ? 'text' : index }))
      const outcomes = await Promise.allSettled([...writes, put([number('race')])])
      const codes = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [String((outcome.reason as { code?: string }).code)] : []))
      const [definition] = (await admin.listConfigDefinitions()).data
      const { rows } = await installation.owner.query<{ value: Json }>(`select value from stratum.config_entries where key = 'race'`)
      if (definition) expect(rows.filter(({ value }) => typeof value !== 'number')).toEqual([])
      expect(codes.filter((code) => !['CONFIG_INVALID', 'CONFIG_DEFINITION_CONFLICT', 'CONFIG_DEFINITIONS_CHANGED'].includes(code))).toEqual([])
      for (const { id } of [root, mid, leaf]) await admin.deleteConfig({ id, key: 'race' }).catch(() => null)
      await put([], { remove: ['race'] })
    }
  })
})
