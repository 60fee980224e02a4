/** The steps of a walk over kept contexts that are none of the API: what the provisioner, the daily check of domains and time change. */
import { job, type Step } from './steps.ts'
import type { World } from './world.ts'

type Statement = [text: string, ...values: unknown[]]

/** Run by the owner of the schema, in one transaction. */
async function asOwner({ installation }: World, ...statements: Statement[]): Promise<void> {
  const client = await installation.owner.connect()
  try {
    await client.query('begin')
    for (const [text, ...values] of statements) await client.query(text, values)
    await client.query('commit')
  } finally {
    client.release()
  }
}

const FAILURE = { code: 'INTERNAL_ERROR', message: 'It failed.' }
/** Milliseconds. A refusal says nothing of when the key expires that it was given to, so none is kept longer. */
const REFUSALS_KEPT = 60_001
const change = ({ random, known }: World) => random.any(known.changes)

export const BESIDE: Record<string, Step> = {
  placeMade: {
    weight: 3,
    input: (world) => {
      const tenant = world.anyTenant(({ provisioning_status }) => provisioning_status !== 'ready')
      return tenant && { id: tenant.id, status: world.random.any(['provisioning', 'ready']) }
    },
    run: (world, { id, status }) => asOwner(world, ['select stratum.set_provisioning_status($1, $2)', id, status]),
  },
  placeFailed: {
    weight: 3,
    input: (world) => job(world, ['queued']),
    run: (world, { id }) => asOwner(world, ['select stratum.fail_job($1, $2, true)', id, FAILURE]),
  },
  isolationSwitched: {
    weight: 2,
    input: change,
    run: (world, { id }) => asOwner(world, ['select stratum.lock_isolation_change($1)', id], [`select stratum.switch_isolation($1, '1 hour')`, id]),
  },
  isolationAbandoned: {
    weight: 1,
    input: change,
    run: (world, { id }) => asOwner(world, [`select stratum.abandon_isolation_change($1, 'cancelled', null)`, id]),
  },
  domainReleased: {
    weight: 3,
    input: ({ random, known }) => random.any(known.domains.filter(({ verified }) => verified)),
    run: (world, { tenant_id, domain }) => {
      const missingAfter = (days: number): Statement => [
        'select stratum.settle_domain_check($1, $2, false, now() + make_interval(days => $3))',
        ...[tenant_id, domain, days],
      ]
      return asOwner(world, missingAfter(0), missingAfter(8))
    },
  },
  feedTrimmed: { weight: 1, input: () => ({}), run: (world) => asOwner(world, [`select stratum.trim_changes('0')`]) },
  keyExpired: {
    weight: 4,
    input: ({ known, time }) => {
      const expiring = known.keys.flatMap(({ living, expires_at }) => (living && expires_at !== null ? [Date.parse(expires_at)] : []))
      return expiring.length === 0 ? undefined : { time: Math.max(time + REFUSALS_KEPT, Math.min(...expiring)) }
    },
    run: (world, { time }) => {
      world.time = time as number
      // Nobody can turn the database's clock on, so the time of expiry comes to meet it.
      const expire = `update stratum.api_keys set expires_at = now() - interval '1 second' where expires_at between now() and $1`
      return asOwner(world, [expire, new Date(world.time)])
    },
  },
}
