/** Trees to test on, and what tests of lists and refusals share. */
import { randomUUID } from 'node:crypto'
import { expect } from 'vitest'
import type { ErrorCode } from '../../src/core/errors.ts'
import { CATALOGUE, StratumError } from '../../src/core/errors.ts'
import type { Tenant } from '../../src/features/tenants/contract.ts'
import type { StratumClient } from '../../src/sdk/client.ts'

let planted = 0
const RUN = randomUUID().slice(0, 8)

/** A slug that no other test of this file uses. */
export const uniqueSlug = (name = 'tenant'): string => `${name}_${++planted}`

/** A slug that no other test of the run uses: databases belong to the whole server, which the files share. */
export const serverSlug = (name = 'tenant'): string => uniqueSlug(`${name}_${RUN}`)

/** Create tenants, each name with its parent's: `{ acme: null, north: 'acme' }`. Answered by name; slugs are made unique. */
export async function plantTree<Name extends string>(client: StratumClient, parents: Record<Name, NoInfer<Name> | null>): Promise<Record<Name, Tenant>> {
  const tenants = {} as Record<Name, Tenant>
  for (const [name, parent] of Object.entries<Name | null>(parents) as Array<[Name, Name | null]>) {
    tenants[name] = await client.createTenant({ slug: uniqueSlug(name), name, parent_id: parent === null ? null : tenants[parent].id })
  }
  return tenants
}

/** A line of tenants, each under the one before, the first under `under`. */
export async function plantLine(client: StratumClient, length: number, under: string | null = null): Promise<Tenant[]> {
  const line: Tenant[] = []
  for (let level = 0; level < length; level++) {
    line.push(await client.createTenant({ slug: uniqueSlug('level'), name: `Level ${level}`, parent_id: line.at(-1)?.id ?? under }))
  }
  return line
}

/** The error an operation was refused with; that it has this code, and the code's status, is asserted. */
export async function refusal(operation: Promise<unknown>, code: ErrorCode): Promise<StratumError> {
  const outcome = await operation.catch((error: unknown) => error)
  expect(outcome, `expected a refusal with ${code}`).toBeInstanceOf(StratumError)
  const error = outcome as StratumError
  expect(error.code).toBe(code)
  expect(error.status).toBe(CATALOGUE[code][0])
  return error
}

interface Page<T> {
  data: T[]
  next_cursor: string | null
  has_more: boolean
}

/** All pages of a list, one after the other. `between` runs after each. */
export async function walk<T>(list: (page: { cursor?: string }) => Promise<Page<T>>, between?: (page: Page<T>) => Promise<unknown>): Promise<T[]> {
  const all: T[] = []
  let cursor: string | null = null
  do {
    const page: Page<T> = await list(cursor === null ? {} : { cursor })
    expect(page.has_more).toBe(page.next_cursor !== null)
    all.push(...page.data)
    cursor = page.next_cursor
    await between?.(page)
  } while (cursor !== null)
  return all
}

export const idsOf = (tenants: readonly { id: string }[]): string[] => tenants.map((tenant) => tenant.id)
