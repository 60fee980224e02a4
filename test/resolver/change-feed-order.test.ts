/** Between a poll's answer and the dropping of what it names nobody may be served what is kept. */
import { expect, it } from 'vitest'
import { Contexts, type Loaded } from '../../src/resolver/contexts.ts'

const answer = (value: string): Loaded<string> => ({
  value,
  tags: { path: 'a.b', names: [], principal: null, issuers: [] },
  feed: { snapshot: '5:5:', identity: 'x', anchor: null },
})

/** What is served to who asks so many turns of the microtask queue after the answer came that names the key. */
async function servedAfter(turns: number): Promise<string> {
  let tell = (_: unknown) => {}
  let asked = () => {}
  const isAsked = new Promise<void>((resolve) => (asked = resolve))
  const read = () => {
    asked()
    return new Promise((resolve) => (tell = resolve))
  }
  const contexts = new Contexts<string>(read, { now: () => 0 })
  await contexts.resolve('begins', async () => answer('begun'))
  await contexts.resolve('key', async () => answer('old'))
  const ask = () => contexts.resolve('key', async () => answer('new'), { minimumVersion: '6' })
  const first = ask()
  await isAsked
  tell({ snapshot: '7:7:', identity: 'x', anchor: null, rows: [['subtree', 'a']], complete: true })
  for (let turn = 0; turn < turns; turn++) await Promise.resolve()
  const second = ask()
  expect((await first).value).toBe('new')
  return (await second).value
}

it('who asks just as the answer of a poll arrives is served the change that it must see', async () => {
  const served: string[] = []
  for (let turns = 0; turns < 12; turns++) served.push(await servedAfter(turns))
  expect(served).toEqual(served.map(() => 'new'))
})
