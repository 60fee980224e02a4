/** `If-Match` that has to wait: what others do meanwhile was not shown, so it is not done unseen. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Tenant } from '../../src/features/tenants/contract.ts'
import type { StratumClient } from '../../src/sdk/client.ts'
import { createInstallation, type Installation } from '../support/installation.ts'
import { type Call, dryRun, run } from '../support/showable.ts'
import { plantTree, refusal, uniqueSlug } from '../support/tree.ts'
import { untilWaiting, whileOpen } from '../support/waiting.ts'

const ACTOR = JSON.stringify({ credential: { type: 'embedded', actor_id: 'test', actor_type: 'system' }, named: [], exposed: false })

let installation: Installation
let admin: StratumClient
beforeAll(async () => {
  installation = await createInstallation()
  admin = await installation.clientFor(null)
})
afterAll(() => installation.close())

type Tree = Record<'root' | 'top' | 'below' | 'other', Tenant>
/** An operation that somebody else began and has not committed yet. */
interface Begun {
  operation: string
  input: object
}

const newTenant = (parent_id: string): Begun => ({
  operation: 'create_tenant',
  input: { slug: uniqueSlug('late'), name: 'Late', parent_id, isolation_strategy: 'SHARED_RLS', metadata: {} },
})
const policyOf = async (id: string) => (await admin.createPermission({ id, key: 'p', value: 1, mode: 'DELEGATED' })).id

/** Show a call, begin something else, send the call as it was shown, and let the other commit while that waits. */
async function meet(call: Call, begun: Begun) {
  const { version } = await dryRun(admin, call)
  await whileOpen(
    installation.owner,
    (held) => held.query(`select stratum.${begun.operation}($1, $2)`, [ACTOR, JSON.stringify(begun.input)]),
    async (commit) => {
      const outcome = refusal(run(admin, call, version), 'VERSION_MISMATCH')
      await untilWaiting(installation.owner)
      await commit()
      await outcome
    },
  )
}

describe('what was shown does not take in', () => {
  const cases: Array<[string, (tree: Tree) => Promise<[Call, Begun]>]> = [
    [
      'a tenant that was made meanwhile below one that is suspended with all below',
      async ({ top }) => [{ operation: 'suspendTenant', input: { id: top.id, cascade: true } }, newTenant(top.id)],
    ],
    [
      'a tenant that was moved meanwhile below one that is archived with all below',
      async ({ top, other }) => [
        { operation: 'archiveTenant', input: { id: top.id, cascade: true } },
        { operation: 'move_tenant', input: { id: other.id, new_parent_id: top.id } },
      ],
    ],
    [
      'a tenant that was made meanwhile below one that moves',
      async ({ root, top, other }) => {
        await admin.setConfig({ id: root.id, key: 'k', value: 'root' })
        await admin.setConfig({ id: other.id, key: 'k', value: 'other' })
        return [{ operation: 'moveTenant', input: { id: top.id, new_parent_id: other.id } }, newTenant(top.id)]
      },
    ],
    [
      'a tenant that was moved meanwhile below one that moves',
      async ({ root, top, other }) => {
        const { late } = await plantTree(admin, { late: null })
        await admin.setConfig({ id: other.id, key: 'k', value: 'other' })
        await admin.moveTenant({ id: late.id, new_parent_id: root.id })
        return [
          { operation: 'moveTenant', input: { id: top.id, new_parent_id: other.id } },
          { operation: 'move_tenant', input: { id: late.id, new_parent_id: top.id } },
        ]
      },
    ],
    [
      'a status that another gave meanwhile',
      async ({ below }) => [
        { operation: 'archiveTenant', input: { id: below.id } },
        { operation: 'suspend_tenant', input: { id: below.id } },
      ],
    ],
    [
      'a value that another wrote meanwhile',
      async ({ top }) => {
        await admin.setConfig({ id: top.id, key: 'k', value: 1 })
        return [
          { operation: 'setConfig', input: { id: top.id, key: 'k', value: 2 } },
          { operation: 'set_config', input: { id: top.id, key: 'k', value: 500, locked: false } },
        ]
      },
    ],
    [
      'a policy that another changed meanwhile',
      async ({ top }) => {
        const policy_id = await policyOf(top.id)
        return [
          { operation: 'updatePermission', input: { id: top.id, policy_id, value: 2 } },
          { operation: 'update_permission', input: { id: top.id, policy_id, value: 500 } },
        ]
      },
    ],
    [
      'a policy below that another changed meanwhile, and that goes too',
      async ({ top, below }) => {
        const [policy_id, lower_id] = [await policyOf(top.id), await policyOf(below.id)]
        return [
          { operation: 'deletePermission', input: { id: top.id, policy_id } },
          { operation: 'update_permission', input: { id: below.id, policy_id: lower_id, value: 500 } },
        ]
      },
    ],
  ]
  it.each(cases)('%s', async (_, prepare) => {
    const tree = await plantTree(admin, { root: null, top: 'root', below: 'top', other: 'root' })
    await meet(...(await prepare(tree)))
  })
})

describe('the structure lock', () => {
  it('is taken by a dry run as the operation itself takes it, so that it never has to be widened', async () => {
    const { root, top, below } = await plantTree(admin, { root: null, top: 'root', below: 'top' })
    await admin.setConfig({ id: top.id, key: 'k', value: 1 })
    const policy_id = await policyOf(top.id)
    const { id } = below
    const calls: Array<[operation: string, input: object]> = [
      ...['suspend_tenant', 'archive_tenant', 'delete_tenant'].flatMap(
        (operation): Array<[string, object]> => [
          [operation, { id }],
          [operation, { id, cascade: true }],
        ],
      ),
      ['move_tenant', { id, new_parent_id: root.id }],
      ['set_config', { id, key: 'k', value: 1, locked: false }],
      ['batch_set_config', { id, entries: [], atomic: false }],
      ['delete_config', { id: top.id, key: 'k' }],
      ['create_permission', { id, key: 'p', value: 1, mode: 'DELEGATED', revocation_mode: 'CASCADE' }],
      ['update_permission', { id: top.id, policy_id, value: 2 }],
      ['delete_permission', { id: top.id, policy_id }],
    ]
    const lockOf = async (call: string, input: object) => {
      const held = await installation.owner.connect()
      await held.query('begin')
      await held.query(`select stratum.${call}($1, $2)`, [ACTOR, JSON.stringify(input)])
      const { rows } = await held.query(
        `select mode from pg_locks where pid = pg_backend_pid() and relation = 'stratum.structure_lock'::regclass order by mode`,
      )
      await held.query('rollback')
      held.release()
      return rows
    }
    for (const [operation, input] of calls) {
      expect(await lockOf('dry_run', { operation, input }), operation).toEqual(await lockOf(operation, input))
    }
    await admin.suspendTenant({ id })
    expect(await lockOf('dry_run', { operation: 'resume_tenant', input: { id } })).toEqual(await lockOf('resume_tenant', { id }))
  })
})
