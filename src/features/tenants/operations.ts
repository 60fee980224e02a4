import type { InputOf } from '../../core/endpoint.ts'
import { stratumError } from '../../core/error-classes.ts'
import { operation } from '../operation.ts'
import * as contract from './contract.ts'

type Spec = InputOf<typeof contract.batchCreateTenants>['tenants'][number]

/** The entries whose parent the batch never makes: it is not in the batch, or they are under each other. */
function findOrphans(specs: readonly Spec[]): readonly Spec[] {
  const made = new Set<string>()
  let left = specs
  for (let before = Number.POSITIVE_INFINITY; left.length < before; ) {
    before = left.length
    for (const { slug, parent_slug } of left) if (parent_slug === undefined || made.has(parent_slug)) made.add(slug)
    left = left.filter(({ slug }) => !made.has(slug))
  }
  return left
}

/** A batch that contradicts itself is told so here, since what is invalid comes before scope, reach and state. */
export const batchCreateTenants = operation(contract.batchCreateTenants, async (_services, input, call) => {
  const orphans = findOrphans(input.tenants)
  const slugs = new Set(input.tenants.map(({ slug }) => slug))
  const lost = orphans.find(({ parent_slug = '' }) => !slugs.has(parent_slug))
  if (lost) throw stratumError('TENANT_PARENT_NOT_IN_BATCH', { slug: lost.slug, parent_slug: lost.parent_slug })
  if (orphans.length > 0) {
    const message = `these are under each other, so none can be made first: ${orphans.map(({ slug }) => slug).join(', ')}`
    throw stratumError('VALIDATION_FAILED', { reason: `tenants: ${message}`, issues: [{ path: 'tenants', message }] })
  }
  return call(input)
})
