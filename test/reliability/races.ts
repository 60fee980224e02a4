/** The races of the tree and of status: what is raced, and how a round may end. */
import { type Arena, race, tenantInput } from './arena.ts'
import { boundTo, type Outcome } from './operations.ts'

const oneOf =
  (...allowed: string[]) =>
  (_context: unknown, outcomes: Outcome[]) => {
    const ended = outcomes.map(({ code }) => code).join(' + ')
    return allowed.includes(ended) ? null : 'no order of these calls, one after the other, ends so'
  }

const suspend = (id: string) => ({ operation: 'suspend_tenant', input: { id } })
const archive = (id: string) => ({ operation: 'archive_tenant', input: { id } })
const resume = (id: string) => ({ operation: 'resume_tenant', input: { id } })
const move = (id: string, to: string | null) => ({ operation: 'move_tenant', input: { id, new_parent_id: to } })
const create = (parentId: string | null, slug: string) => ({ operation: 'create_tenant', input: tenantInput(parentId, slug) })
const setConfig = (id: string, value: unknown, locked = false) => ({ operation: 'set_config', input: { id, key: 'limit', value, locked } })

export const crossMoves = race({
  name: "A under B's child, B under A's child",
  prepare: async (arena) => ({ a: await arena.line(2), b: await arena.line(2) }),
  calls: ({ a, b }) => [move(a[0] ?? '', b[1] ?? ''), move(b[0] ?? '', a[1] ?? '')],
  judge: oneOf('ok + TENANT_CYCLE_DETECTED', 'TENANT_CYCLE_DETECTED + ok'),
  codes: ['TENANT_CYCLE_DETECTED'],
})

export const createUnderMove = race({
  name: 'create under a moving subtree, at two depths',
  prepare: async (arena) => ({ moving: await arena.line(3), target: await arena.line(2), slugs: [arena.slug(), arena.slug()] }),
  calls: ({ moving, target, slugs }) => [
    create(moving[1] ?? '', slugs[0] ?? ''),
    move(moving[0] ?? '', target[1] ?? ''),
    create(moving[2] ?? '', slugs[1] ?? ''),
  ],
  judge: oneOf('ok + ok + ok'),
  codes: [],
})

/** Made once, and put back before each round: lines this long are slow to make. */
const lasting = <C>(make: (arena: Arena) => Promise<C>, putBack: (arena: Arena, context: C) => Promise<unknown>) => {
  let made: Promise<C> | undefined
  return async (arena: Arena): Promise<C> => {
    made ??= make(arena)
    const context = await made
    await putBack(arena, context)
    return context
  }
}

export const deepMoves = race({
  name: 'two moves that together would be too deep',
  lasting: true,
  prepare: lasting(
    async (arena) => ({ a: await arena.line(8), b: await arena.line(8), c: await arena.line(8) }),
    (arena, { b, c }) => Promise.all([b[0], c[0]].map((id) => arena.call('move_tenant', { id, new_parent_id: null }))),
  ),
  calls: ({ a, b, c }) => [move(b[0] ?? '', a[7] ?? ''), move(c[0] ?? '', b[7] ?? '')],
  judge: oneOf('ok + TENANT_DEPTH_EXCEEDED', 'TENANT_DEPTH_EXCEEDED + ok'),
  codes: ['TENANT_DEPTH_EXCEEDED'],
})

const deepTarget = lasting(
  (arena) => arena.line(18),
  async () => {},
)

export const createUnderDeepMove = race({
  name: 'create at the bottom of a subtree that moves to the last level',
  lasting: true,
  prepare: async (arena) => ({ target: await deepTarget(arena), moving: await arena.line(2), slug: arena.slug() }),
  calls: ({ moving, target, slug }) => [create(moving[1] ?? '', slug), move(moving[0] ?? '', target[17] ?? '')],
  judge: oneOf('ok + TENANT_DEPTH_EXCEEDED', 'TENANT_DEPTH_EXCEEDED + ok'),
  codes: ['TENANT_DEPTH_EXCEEDED'],
})

export const moveUnderItself = race({
  name: 'move under itself with three writes to the tenant',
  prepare: (arena) => arena.tenant(),
  calls: (id) => [setConfig(id, 1), { operation: 'update_tenant', input: { id, name: 'renamed' } }, move(id, id), setConfig(id, 2)],
  judge: (_id, outcomes) => oneOf('ok + ok + TENANT_CYCLE_DETECTED + ok')(null, outcomes),
  codes: ['TENANT_CYCLE_DETECTED'],
})

const createWith = (name: string, status: typeof suspend) =>
  race({
    name: `create with ${name} of the parent`,
    prepare: async (arena) => ({ parent: await arena.tenant(), slug: arena.slug() }),
    calls: ({ parent, slug }) => [create(parent, slug), status(parent)],
    judge: oneOf('ok + TENANT_HAS_CHILDREN', 'TENANT_INVALID_STATE + ok'),
    codes: ['TENANT_HAS_CHILDREN', 'TENANT_INVALID_STATE'],
  })

export const createWithSuspend = createWith('suspend', suspend)
export const createWithArchive = createWith('archive', archive)

export const resumeWithSuspend = race({
  name: 'resume of a child with suspend of its parent',
  prepare: async (arena) => {
    const [parent = '', child = ''] = await arena.line(2)
    await arena.call('suspend_tenant', { id: child })
    return { parent, child }
  },
  calls: ({ parent, child }) => [resume(child), suspend(parent)],
  judge: oneOf('ok + TENANT_HAS_CHILDREN', 'TENANT_INVALID_STATE + ok'),
  codes: ['TENANT_HAS_CHILDREN', 'TENANT_INVALID_STATE'],
})

export const moveWithSuspend = race({
  name: 'move under a parent that is being suspended',
  prepare: async (arena) => ({ moving: await arena.tenant(), parent: await arena.tenant() }),
  calls: ({ moving, parent }) => [move(moving, parent), suspend(parent)],
  judge: oneOf('ok + TENANT_HAS_CHILDREN', 'TENANT_INVALID_STATE + ok'),
  codes: ['TENANT_HAS_CHILDREN', 'TENANT_INVALID_STATE'],
})

export const oneSlug = race({
  name: 'two creates of one slug',
  prepare: async (arena) => ({ parents: [await arena.tenant(), await arena.tenant()], slug: arena.slug() }),
  calls: ({ parents, slug }) => [create(parents[0] ?? '', slug), create(parents[1] ?? '', slug)],
  judge: oneOf('ok + TENANT_SLUG_TAKEN', 'TENANT_SLUG_TAKEN + ok'),
  codes: ['TENANT_SLUG_TAKEN'],
})

export const renameWithCreate = race({
  name: 'rename to a slug with create of it',
  prepare: async (arena) => ({ tenant: await arena.tenant(), slug: arena.slug() }),
  calls: ({ tenant, slug }) => [{ operation: 'update_tenant', input: { id: tenant, slug } }, create(null, slug)],
  judge: oneOf('ok + TENANT_SLUG_TAKEN', 'TENANT_SLUG_TAKEN + ok'),
  codes: ['TENANT_SLUG_TAKEN'],
})

export const renameTwoAround = race({
  name: "two renames to each other's slug",
  prepare: async (arena) => {
    const slugs = [arena.slug(), arena.slug()]
    return { slugs, ids: [await arena.tenant(null, slugs[0]), await arena.tenant(null, slugs[1])] }
  },
  calls: ({ ids, slugs }) => [
    { operation: 'update_tenant', input: { id: ids[0], slug: slugs[1] } },
    { operation: 'update_tenant', input: { id: ids[1], slug: slugs[0] } },
  ],
  judge: oneOf('TENANT_SLUG_TAKEN + TENANT_SLUG_TAKEN'),
  codes: ['TENANT_SLUG_TAKEN'],
})

export const moveWithConfig = race({
  name: 'move with config writes at three levels of its subtree',
  prepare: async (arena) => ({ moving: await arena.line(3), target: await arena.tenant() }),
  calls: ({ moving, target }) => [setConfig(moving[0] ?? '', 0), move(moving[0] ?? '', target), setConfig(moving[1] ?? '', 1), setConfig(moving[2] ?? '', 2)],
  judge: async ({ moving }, outcomes, arena) => {
    const { config } = await arena.call<{ config: Record<string, { value: unknown }> }>('resolve_config', { id: moving[2], reveal: false })
    return config['limit']?.value === 2 ? oneOf('ok + ok + ok + ok')(null, outcomes) : 'the nearest setter does not win'
  },
  codes: [],
})

export const sameTenant = race({
  name: 'update, suspend and archive of one tenant',
  prepare: (arena) => arena.tenant(),
  calls: (id) => [{ operation: 'update_tenant', input: { id, name: 'renamed' } }, suspend(id), archive(id)],
  judge: async (id, outcomes, arena) => {
    const { status, name } = await arena.call<{ status: string; name: string }>('get_tenant', { id, include_archived: true })
    const [update] = outcomes
    if (status !== 'archived') return `archived, but answers as ${status}`
    if ((update?.code === 'ok') !== (name === 'renamed')) return 'the update and its answer differ'
    // Suspend before archive, or refused after it; the update before both, or refused.
    return oneOf(
      'ok + ok + ok',
      'ok + TENANT_INVALID_STATE + ok',
      'TENANT_INVALID_STATE + ok + ok',
      'TENANT_INVALID_STATE + TENANT_INVALID_STATE + ok',
    )(null, outcomes)
  },
  codes: ['TENANT_INVALID_STATE'],
})

const seqOf = `select (select seq from stratum.audit_entries where tenant_id = $1 and payload::jsonb ->> 'action' = 'tenant.moved') as moved,
  (select seq from stratum.audit_entries where tenant_id = $1 and payload::jsonb ->> 'action' = $2) as written`

const writeWhileLeaving = (action: string, operation: string, input: Record<string, unknown>) =>
  race({
    name: `${operation} of a tenant-bound admin while the tenant leaves its reach`,
    prepare: async (arena) => ({ line: await arena.line(2), elsewhere: await arena.tenant() }),
    calls: ({ line, elsewhere }) => [{ operation, input: { ...input, id: line[1] }, actor: boundTo(line[0] ?? '') }, move(line[1] ?? '', elsewhere)],
    judge: async ({ line }, outcomes, arena) => {
      const { rows } = await arena.owner.query(seqOf, [line[1], action])
      const { moved, written } = rows[0] as { moved: string; written: string | null }
      if (written !== null && Number(written) > Number(moved)) return 'written after it had left the reach'
      return oneOf('ok + ok', 'TENANT_NOT_FOUND + ok')(null, outcomes)
    },
    codes: ['TENANT_NOT_FOUND'],
  })

export const configWhileLeaving = writeWhileLeaving('config.set', 'set_config', { key: 'limit', value: 1, locked: false })
export const updateWhileLeaving = writeWhileLeaving('tenant.updated', 'update_tenant', { name: 'renamed' })

export const treeRaces = [
  crossMoves,
  createUnderMove,
  deepMoves,
  createUnderDeepMove,
  moveUnderItself,
  createWithSuspend,
  createWithArchive,
  resumeWithSuspend,
  moveWithSuspend,
  oneSlug,
  renameWithCreate,
  renameTwoAround,
  moveWithConfig,
  sameTenant,
  configWhileLeaving,
  updateWhileLeaving,
]
