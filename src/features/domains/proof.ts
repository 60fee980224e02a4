/** The record that proves a claim, and looking for it. */
import type { DomainProofs } from '../../auth/domain-proofs.ts'
import { type ErrorDetails, StratumError } from '../../core/errors.ts'
import type { TxtResolver } from '../../resolver/dns.ts'
import { txtName } from './canonical.ts'

/** A tenant's claim to a domain, which is in canonical form. */
export interface Claim {
  tenant_id: string
  domain: string
}

/** The record to publish: computed and stored nowhere. @throws API_KEY_SECRET_MISSING */
export const recordOf = async (domainProofs: DomainProofs, { tenant_id, domain }: Claim) => ({
  txt_name: txtName(domain),
  txt_value: await domainProofs.value(tenant_id, domain),
})

/** What DNS shows of a claim. */
export interface Seen {
  /** Null where DNS gave no answer. */
  proven: boolean | null
  /** For whom it is refused: what was looked for and how much was there, or why nothing could be. */
  evidence: ErrorDetails
}

/** Look for the record of a claim. @throws API_KEY_SECRET_MISSING */
export async function lookForProof(domainProofs: DomainProofs, dns: TxtResolver, { tenant_id, domain }: Claim): Promise<Seen> {
  const accepted = await domainProofs.values(tenant_id, domain)
  try {
    const { values, status } = await dns.resolveTxt(txtName(domain))
    const evidence = { txt_name: txtName(domain), txt_value: accepted[0], found: values.length, dns_status: status }
    return { proven: accepted.some((value) => values.includes(value)), evidence }
  } catch (error) {
    if (error instanceof StratumError && error.code === 'DNS_UNAVAILABLE') return { proven: null, evidence: error.details }
    throw error
  }
}
