/** The Public Suffix List as the database knows it: the examples of its own algorithm, and its renewal. */
import { readFile } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parseRules, routineOf } from '../../scripts/public-suffixes.ts'
import { createInstallation, type Installation } from '../support/installation.ts'

const ROUTINE = new URL('../../migrations/routines/54_public_suffixes.sql', import.meta.url)
let installation: Installation
beforeAll(async () => {
  installation = await createInstallation()
})
afterAll(() => installation.close())

const isPublicSuffix = async (domain: string) =>
  (await installation.owner.query<{ answer: boolean }>('select stratum.is_public_suffix($1) as answer', [domain])).rows[0]?.answer
const rulesStored = async () =>
  (await installation.owner.query<{ rule: string }>('select rule from stratum.public_suffixes order by rule collate "C"')).rows.map(({ rule }) => rule)

describe('a public suffix', () => {
  it.each(['co.uk', 'github.io', 'kobe.jp', 'anything.ck', 'tokyo.jp', 'xn--55qx5d.cn', 's3.amazonaws.com', 'pages.dev', 'workers.dev', 'vercel.app'])(
    '%s is one',
    async (domain) => {
      expect(await isPublicSuffix(domain)).toBe(true)
    },
  )
  it.each(['example.co.uk', 'example.com', 'me.github.io', 'city.kobe.jp', 'a.city.kobe.jp', 'www.ck', 'b.anything.ck', 'shop.xn--55qx5d.cn', 'no-such-tld'])(
    '%s is none',
    async (domain) => {
      expect(await isPublicSuffix(domain)).toBe(false)
    },
  )
})

describe('the rules', () => {
  it('are those of the generated routine, a star only as a whole first label', async () => {
    const rules = await rulesStored()
    expect(rules.length).toBeGreaterThan(9000)
    for (const rule of rules) expect(rule).toMatch(/^(!|\*\.)?([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]*[a-z0-9])?$/)
    expect(routineOf(rules)).toBe(await readFile(ROUTINE, 'utf8'))
  })
  it('are read from the list as it is published', () => {
    const list = '// ===BEGIN ICANN DOMAINS===\n\ncom\n*.ck \n!www.ck\n公司.cn // Chinese\r\nCOM\n'
    expect(parseRules(list)).toEqual(['!www.ck', '*.ck', 'com', 'xn--55qx5d.cn'])
    expect(() => parseRules('not a rule/\n<html>')).toThrow('This is no rule')
  })
  it('are renewed by touching what changed and nothing else', async () => {
    const before = await rulesStored()
    const transactions = async () =>
      new Set((await installation.owner.query<{ xmin: string }>('select distinct xmin::text from stratum.public_suffixes')).rows.map(({ xmin }) => xmin))
    const written = await transactions()
    const renewed = [...before.filter((rule) => rule !== 'co.uk'), 'zz-new.example'].sort()
    await installation.owner.query(routineOf(renewed))
    expect(await rulesStored()).toEqual(renewed)
    expect((await transactions()).size).toBe(written.size + 1)

    await installation.owner.query(await readFile(ROUTINE, 'utf8'))
    expect(await rulesStored()).toEqual(before)
  })
})
