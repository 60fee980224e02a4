/** Types that a config key may have, with values that fit and values that do not, and where these fail. */
import * as z from 'zod'
import type { Json } from '../../src/core/json.ts'

export interface Example {
  name: string
  type: z.ZodType
  fits: Json[]
  misfits: Array<[value: Json, path: string]>
}

const Node = z.object({
  name: z.string(),
  get below() {
    return z.array(Node).optional()
  },
})

export const CONFIG_EXAMPLES: Example[] = [
  {
    name: 'a string',
    type: z.string().min(2).max(3),
    fits: ['ab', 'äöü'],
    misfits: [
      ['a', ''],
      ['abcd', ''],
      [1, ''],
      [null, ''],
    ],
  },
  { name: 'a pattern', type: z.string().regex(/^a+$/), fits: ['aa'], misfits: [['b', '']] },
  {
    name: 'an integer in a range',
    type: z.int().min(1).max(9),
    fits: [1, 9],
    misfits: [
      [0, ''],
      [10, ''],
      [1.5, ''],
      ['1', ''],
    ],
  },
  {
    name: 'a number above another',
    type: z.number().gt(0).multipleOf(0.5),
    fits: [0.5, 2],
    misfits: [
      [0, ''],
      [0.3, ''],
    ],
  },
  {
    name: 'a boolean',
    type: z.boolean(),
    fits: [true, false],
    misfits: [
      [0, ''],
      ['true', ''],
    ],
  },
  { name: 'a literal', type: z.literal(['on', 3]), fits: ['on', 3], misfits: [['off', '']] },
  { name: 'an enum', type: z.enum(['red', 'blue']), fits: ['red'], misfits: [['green', '']] },
  { name: 'something or null', type: z.string().nullable(), fits: ['x', null], misfits: [[1, '']] },
  {
    name: 'a union',
    type: z.union([z.string(), z.number()]),
    fits: ['x', 1],
    misfits: [
      [true, ''],
      [{}, ''],
    ],
  },
  { name: 'an email', type: z.email(), fits: ['a@b.test'], misfits: [['a', '']] },
  { name: 'a URL', type: z.url(), fits: ['https://a.test/x'], misfits: [['no url', '']] },
  { name: 'a UUID', type: z.uuid(), fits: ['0190a6c0-5d0e-7c3e-8d1b-0a1b2c3d4e5f'], misfits: [['0190a6c0', '']] },
  {
    name: 'a moment',
    type: z.iso.datetime(),
    fits: ['2026-01-31T12:00:00Z'],
    misfits: [
      ['2026-02-31T12:00:00Z', ''],
      ['today', ''],
    ],
  },
  { name: 'a date', type: z.iso.date(), fits: ['2026-01-31'], misfits: [['2026-13-01', '']] },
  { name: 'an IPv4 address', type: z.ipv4(), fits: ['192.0.2.1'], misfits: [['192.0.2.256', '']] },
  {
    name: 'an array',
    type: z.array(z.number()).min(1).max(2),
    fits: [[1], [1, 2]],
    misfits: [
      [[], ''],
      [[1, 2, 3], ''],
      [[1, 'x'], '1'],
      [{}, ''],
    ],
  },
  {
    name: 'a tuple',
    type: z.tuple([z.string(), z.number()]),
    fits: [['a', 1]],
    misfits: [
      [['a', 'b'], '1'],
      [[1, 1], '0'],
    ],
  },
  {
    name: 'nested objects',
    type: z.object({ a: z.object({ b: z.array(z.object({ c: z.boolean() })) }), d: z.string().optional() }),
    fits: [{ a: { b: [] } }, { a: { b: [{ c: true }] }, d: 'x', further: 1 }],
    misfits: [
      [{}, 'a'],
      [{ a: { b: [{ c: true }, { c: 1 }] } }, 'a.b.1.c'],
      [{ a: { b: [] }, d: 1 }, 'd'],
    ],
  },
  {
    name: 'a strict object',
    type: z.strictObject({ a: z.number() }),
    fits: [{ a: 1 }],
    misfits: [
      [{ a: 1, b: 2 }, 'b'],
      [{}, 'a'],
    ],
  },
  {
    name: 'a record',
    type: z.record(z.string(), z.int()),
    fits: [{}, { x: 1 }],
    misfits: [
      [{ x: 'y' }, 'x'],
      [[], ''],
    ],
  },
  { name: 'an object with defaults', type: z.object({ a: z.number().default(3) }), fits: [{}, { a: 1 }], misfits: [[{ a: 'x' }, 'a']] },
  {
    name: 'one of several objects',
    type: z.discriminatedUnion('kind', [z.object({ kind: z.literal('a'), n: z.number() }), z.object({ kind: z.literal('b') })]),
    fits: [{ kind: 'a', n: 1 }, { kind: 'b' }],
    misfits: [
      [{ kind: 'c' }, 'kind'],
      [{ kind: 'a' }, 'kind'],
    ],
  },
]
