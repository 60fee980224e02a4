/** What a config value and a key may be: all of JSON that Postgres can hold, and nothing that it cannot. */
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Json, unstorable } from '../../src/core/json.ts'
import type { StratumClient } from '../../src/sdk/client.ts'
import { BASE, createInstallation, type Installation } from '../support/installation.ts'
import { canonical } from '../support/json.ts'
import { plantTree, refusal } from '../support/tree.ts'

let installation: Installation
let admin: StratumClient
let apiKey: string
let id: string
let below: string
beforeAll(async () => {
  installation = await createInstallation()
  apiKey = await installation.apiKey(null)
  admin = installation.client({ apiKey })
  const { tenant, child } = await plantTree(admin, { tenant: null, child: 'tenant' })
  id = tenant.id
  below = child.id
})
afterAll(() => installation.close())

const nested = (levels: number): string => `${'['.repeat(levels)}1${']'.repeat(levels)}`

/** Send the value as the very text given. */
async function putText(value: string, key = 'k'): Promise<{ status: number; code?: string; message?: string }> {
  const request = new Request(`${BASE}/api/v1/tenants/${id}/config/${key}`, {
    method: 'PUT',
    headers: { 'x-api-key': apiKey, 'content-type': 'application/json' },
    body: `{"value":${value}}`,
  })
  const response = await installation.fetch(request)
  const { error } = (await response.json()) as { error?: { code: string; message: string } }
  return { status: response.status, ...error }
}

describe('a value', () => {
  it.each([
    'null',
    'true',
    'false',
    '0',
    '-1.5',
    '0.1',
    '9007199254740991',
    '-9007199254740991',
    '5e-324',
    '""',
    '"\\"\\\\\\n\\u0001"',
    '"naïve ключ 漢字 😀 \u2028"',
    '[]',
    '{}',
    '[[],{},[null]]',
    '{"":{"a b":1},"constructor":1,"toString":2,"__proto__":{"polluted":true},"prototype":null}',
    '{"__proto__":1}',
    '[{"__proto__":[1]}]',
    nested(64),
  ])('reads as it was written: %s', async (text) => {
    expect((await putText(text)).status).toBe(200)

    const value = (await admin.resolveConfig({ id: below })).config['k']?.value
    expect(canonical(value)).toBe(canonical(JSON.parse(text)))
    expect(canonical((await admin.setConfig({ id, key: 'k', value: JSON.parse(text) })).value)).toBe(canonical(JSON.parse(text)))
    const secret = { id, key: 'secret', value: JSON.parse(text), sensitive: true }
    await admin.setConfig(secret)
    expect(canonical((await admin.resolveConfig({ id: below, reveal: true })).config['secret']?.value)).toBe(canonical(secret.value))
    expect(Object.getPrototypeOf({})).not.toHaveProperty('polluted')
  })

  it('may be any that JSON can write', async () => {
    const storable = fc.jsonValue({ maxDepth: 5, stringUnit: 'binary' }).filter((value) => unstorable(value) === null)
    await fc.assert(
      fc.asyncProperty(storable, async (given) => {
        const value = JSON.parse(JSON.stringify(given)) as Json
        await admin.setConfig({ id, key: 'any', value })
        expect(canonical((await admin.resolveConfig({ id: below })).config['any']?.value)).toBe(canonical(value))
      }),
      { numRuns: 20 },
    )
  })

  it.each([
    ['a NUL', '"a\\u0000b"'],
    ['a NUL in a member name', '{"a":{"\\u0000":1}}'],
    ['an unpaired surrogate', '"\\ud83d"'],
    ['an unpaired surrogate in a member name', '{"\\udc00":1}'],
    ['a number beyond what JSON can write', '[1e999]'],
    ['an integer that readers would round', '{"a":9007199254740993}'],
    ['an integer of 309 digits', '1e308'],
    ['65 levels', nested(65)],
    ['10,000 levels', nested(10_000)],
    ['300,000 levels', nested(300_000)],
    ['10,000 levels of objects', `${'{"a":'.repeat(10_000)}1${'}'.repeat(10_000)}`],
    ['more than 64 KiB', `"${'x'.repeat(65_535)}"`],
    ['more than 64 KiB in bytes', `"${'é'.repeat(32_768)}"`],
  ])('is refused with %s, kept secret or not', async (_, text) => {
    const before = (await admin.resolveConfig({ id })).config
    const { status, code, message } = await putText(text)

    expect([status, code]).toEqual([422, 'VALIDATION_FAILED'])
    expect(message).toContain('value')
    expect((await putText(`${text},"sensitive":true`)).status).toBe(422)
    expect((await admin.resolveConfig({ id })).config).toEqual(before)
  })

  it('of 64 KiB is stored', async () => {
    for (const value of ['x'.repeat(65_534), 'é'.repeat(32_767)]) {
      await admin.setConfig({ id, key: 'large', value })
      expect((await admin.resolveConfig({ id: below })).config['large']?.value).toBe(value)
    }
  })

  it('that is missing is refused, and so is what is not JSON or too much of it', async () => {
    const put = (body: string) =>
      installation.fetch(new Request(`${BASE}/api/v1/tenants/${id}/config/k`, { method: 'PUT', headers: { 'x-api-key': apiKey }, body }))
    expect((await put('{}')).status).toBe(422)
    expect((await put('{"value":1,"values":2}')).status).toBe(422)
    expect((await put('{"value":1,"locked":"yes"}')).status).toBe(422)
    expect((await put('{"value":undefined}')).status).toBe(400)
    expect((await put(`{"value":"${'x'.repeat(1_048_576)}"}`)).status).toBe(413)
  })
})

describe('a key', () => {
  it.each(['constructor', 'toString', 'hasOwnProperty', 'valueOf', 'prototype', 'a', 'Z9_.:-', 'a'.repeat(255), 'batch.', 'Batch', 'explain', 'inheritance'])(
    'may be %s',
    async (key) => {
      await admin.setConfig({ id, key, value: { of: key } })
      const { config } = await admin.resolveConfig({ id: below })
      expect(Object.hasOwn(config, key)).toBe(true)
      expect(config[key]).toMatchObject({ key, value: { of: key }, source_tenant_id: id })
      expect((await admin.getConfigInheritance({ id: below })).config[key]?.levels).toHaveLength(1)
      expect((await admin.getTenantContext({ id: below })).config[key]?.value).toEqual({ of: key })
      await admin.deleteConfig({ id, key })
      expect(Object.hasOwn((await admin.resolveConfig({ id: below })).config, key)).toBe(false)
    },
  )

  it.each(['__proto__', '_a', '1a', '-', '.a', 'a b', 'ä', 'a/b', '%', 'a\u0000', 'a'.repeat(256)])('may not be %j', async (key) => {
    await refusal(admin.setConfig({ id, key, value: 1 }), 'INVALID_REQUEST')
    await refusal(admin.deleteConfig({ id, key }), 'INVALID_REQUEST')
    await refusal(installation.stratum.setConfig(id, key, { value: 1 }), 'VALIDATION_FAILED')
  })
})
