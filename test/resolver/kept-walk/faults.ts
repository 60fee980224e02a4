/** What a walk over kept contexts has to notice: isolates that do not hear of all that changed. */
import { BESIDE } from './beside.ts'
import { OPERATIONS } from './steps.ts'
import type { Fault } from './walked.ts'

type Row = [kind: string, ref: string]

/** The feed comes with other rows. */
const feed = (name: string, at: string[], told: (rows: Row[]) => Row[]): Fault => ({
  name,
  at,
  corrupt: (operation, answer) => {
    if (operation !== 'read_changes') return answer
    const poll = answer as { rows: Row[] }
    return { ...poll, rows: told(poll.rows) }
  },
})

/** What an answer hangs on comes as something else. */
const keeping = (name: string, at: string[], instead: object): Fault => ({
  name,
  at,
  corrupt: (_, answer) => {
    const kept = answer as { keeping?: object } | null
    return kept?.keeping ? { ...kept, keeping: { ...kept.keeping, ...instead } } : answer
  },
})

/** Steps that write rows of a kind which nothing else tells of. */
const KINDS: Record<string, string[]> = {
  host: ['deleteDomain', 'domainReleased'],
  issuer: ['deleteIssuer', 'setExternalId', 'deleteExternalId'],
  principal: ['revokeApiKey'],
  subtree: ['setConfig', 'moveTenant', 'createPermission'],
  installation: ['reorderTenant'],
}

/** Rows of a kind go, and with them what a change of any kind does: refusals are kept. */
const dropped = Object.entries(KINDS).map(([kind, at]) => feed(`rows of kind ${kind} are dropped`, at, (rows) => rows.filter((row) => row[0] !== kind)))

/** Rows of a kind match nothing: refusals go, as with any change, and what was answered stays. */
const misread = Object.entries(KINDS).map(([kind, at]) =>
  feed(`rows of kind ${kind} match nothing`, at, (rows) => rows.map((row) => (row[0] === kind ? ['nothing', ''] : row))),
)

/** Steps that write no row, or one that nothing hangs on, and why that is well so. */
const SILENT: Record<string, string> = {
  createApiKey: 'nobody asks with a key that is not made yet',
  createDomain: 'a claim names nobody',
  migrateIsolation: 'a tenant stays where it is until the cutover',
  isolationAbandoned: 'and stays there where it is called off',
  feedTrimmed: 'it changes nothing',
  keyExpired: 'an answer itself says until when it holds',
}

const untold = Object.keys({ ...OPERATIONS, ...BESIDE })
  .filter((step) => !Object.hasOwn(SILENT, step))
  .map((step) => feed(`${step} writes no row`, [step], () => []))

export const FAULTS: readonly Fault[] = [
  ...dropped,
  ...misread,
  ...untold,
  feed('moveTenant writes no row of kind issuer', ['moveTenant'], (rows) => rows.filter(([kind]) => kind !== 'issuer')),
  keeping('an answer says nothing of its API key', ['revokeApiKey'], { principal: null }),
  keeping('an answer says nothing of when its API key expires', ['keyExpired'], { until: null }),
  keeping('an answer says another tenant than its own', ['setConfig'], { path: 'another' }),
]
