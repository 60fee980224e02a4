/** The daily check that verified domains still show their record, for whoever runs as the owner of the schema. */
import type { DomainProofs } from '../../auth/domain-proofs.ts'
import type { TxtResolver } from '../../resolver/dns.ts'
import { type Claim, lookForProof } from './proof.ts'

/** A connection or a pool of the role that owns schema `stratum`; the edge's role may not do this. */
export interface OwnerConnection {
  query(text: string, values: unknown[]): Promise<{ rows: Array<Record<string, unknown>> }>
}

export interface RecheckOptions {
  db: OwnerConnection
  dns: TxtResolver
  domainProofs: DomainProofs
  /** The time of this round; days are counted by it. Default: now. */
  at?: Date
  /** How many domains a round looks at. Default 500. */
  maximum?: number
}

/** What became of the domains of one round. */
export interface RecheckResult {
  checked: number
  /** Showed no record for the first time. */
  missing: number
  /** Showed it again. */
  found: number
  /** Showed none for 7 days and are verified no more. */
  released: number
  /** DNS gave no answer, which counts for nothing. */
  unanswered: number
}

/** So many look-ups are under way at once. */
const PARALLEL = 10

const seenOf = async ({ dns, domainProofs }: RecheckOptions, claim: Claim): Promise<boolean | null> => (await lookForProof(domainProofs, dns, claim)).proven

/**
 * One round: look for the records of the domains that are due and write down what was found. A domain is due a day
 * after it was last looked for, so rounds may come as often as one likes, and several at once do no harm.
 * @throws API_KEY_SECRET_MISSING, and what the connection throws
 */
export async function recheckDomains(options: RecheckOptions): Promise<RecheckResult> {
  const { db, at = new Date(), maximum = 500 } = options
  const result: RecheckResult = { checked: 0, missing: 0, found: 0, released: 0, unanswered: 0 }
  const { rows } = await db.query('select tenant_id, domain from stratum.domains_to_check($1, $2)', [at, maximum])
  const due = rows as unknown as Claim[]
  for (let start = 0; start < due.length; start += PARALLEL) {
    const claims = due.slice(start, start + PARALLEL)
    const seen = await Promise.all(claims.map((claim) => seenOf(options, claim)))
    for (const [index, { tenant_id, domain }] of claims.entries()) {
      const settled = await db.query('select stratum.settle_domain_check($1, $2, $3, $4) as outcome', [tenant_id, domain, seen[index], at])
      const outcome = settled.rows[0]?.['outcome']
      result.checked++
      if (seen[index] === null) result.unanswered++
      if (outcome === 'missing' || outcome === 'found' || outcome === 'released') result[outcome]++
    }
  }
  return result
}
