import type { InputOf } from '../../core/endpoint.ts'
import { stratumError } from '../../core/error-classes.ts'
import { operation } from '../operation.ts'
import * as contract from './contract.ts'

type Spec = InputOf<typeof contract.batchCreateTenants>['tenants'][number]

/** An entry whose parent the batch never makes, because it is not in it or in a circle; rather one of the former. */
function findOrphan(specs: readonly Spec[]): Spec | undefined {
  const made = new Set<string>()
  let left = specs
  for (let before = Number.POSITIVE_INFINITY; left.length < before; ) {
    before = left.length
    for (const { slug, parent_slug } of left) if (parent_slug === undefined || made.has(parent_slug)) made.add(slug)
    left = left.filter(({ slug }) => !made.has(slug))
  }
  const slugs = new Set(specs.map(({ slug }) => slug))
  return left.find(({ parent_slug }) => parent_slug !== undefined && !slugs.has(parent_slug)) ?? left[0]
}

/** A batch that contradicts itself is told so here, since what is invalid comes before scope, reach and state. */
export const batchCreateTenants = operation(contract.batchCreateTenants, async (_services, input, call) => {
  const orphan = findOrphan(input.tenants)
  if (orphan) throw stratumError('TENANT_PARENT_NOT_IN_BATCH', { slug: orphan.slug, parent_slug: orphan.parent_slug })
  return call(input)
})
