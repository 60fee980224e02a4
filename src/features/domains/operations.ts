import { operation } from '../operation.ts'
import { canonicalDomain, claimableDomain } from './canonical.ts'
import * as contract from './contract.ts'
import { type Claim, lookForProof, recordOf } from './proof.ts'

/** SQL knows a claim by its domain in canonical form; what has none is no claim's, which SQL says once it has judged who asks. */
const claimed = (tenant_id: string, given: string): Claim => ({ tenant_id, domain: canonicalDomain(given) ?? '' })

// In each of these the record comes first: where there is no secret to make it of, nothing may be changed.

export const listDomains = operation(contract.listDomains, async ({ domainProofs }, input, call) => {
  const { data, ...rest } = (await call(input)) as { data: Claim[] }
  return { ...rest, data: await Promise.all(data.map(async (claim) => ({ ...claim, ...(await recordOf(domainProofs, claim)) }))) }
})

export const createDomain = operation(contract.createDomain, async ({ domainProofs, hosts }, { id, domain: given }, call) => {
  const domain = claimableDomain(given, hosts)
  const record = await recordOf(domainProofs, { tenant_id: id, domain })
  return { ...((await call({ id, domain })) as Claim), ...record }
})

/** DNS is asked first and SQL judges everything, so that nobody learns anything by how DNS answers. */
export const verifyDomain = operation(contract.verifyDomain, async ({ domainProofs, dns }, { id, domain: given }, call) => {
  const claim = claimed(id, given)
  const record = await recordOf(domainProofs, claim)
  const seen = claim.domain === '' ? { proven: false } : await lookForProof(domainProofs, dns, claim)
  return { ...((await call({ id, domain: claim.domain, ...seen })) as Claim), ...record }
})

export const deleteDomain = operation(contract.deleteDomain, async ({ domainProofs }, { id, domain: given }, call) => {
  const claim = claimed(id, given)
  const record = await recordOf(domainProofs, claim)
  return { ...((await call({ id, domain: claim.domain })) as Claim), ...record }
})
