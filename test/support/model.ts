/**
 * Tenants as the contract describes them, in a few plain maps: what tree, lifecycle, config and permissions
 * must come to, without a database. Written from the contract and not from the SQL, to disagree with it
 * where that is wrong. Tenants are numbered in the order they were made.
 */
import type { Json } from '../../src/core/json.ts'

export type Status = 'active' | 'suspended' | 'archived'
export type Mode = 'LOCKED' | 'INHERITED' | 'DELEGATED'
export type Revocation = 'CASCADE' | 'SOFT' | 'PERMANENT'

export interface Entry {
  value: Json
  locked: boolean
}
export interface Policy {
  value: Json
  mode: Mode
  revocation_mode: Revocation
}
export interface ModelTenant {
  parent: number | null
  slug: string
  /** Every slug it ever had: they stay its own. */
  slugs: Set<string>
  name: string
  status: Status
  /** The top of the cascade that made it inactive: resuming that one resumes this one. */
  remembers: number | null
  /** `sort_order`: siblings stand by place, then by age. */
  place: number
  config: Map<string, Entry>
  policies: Map<string, Policy>
}

/** A tenant of a batch; its parent is one there is, or another of the batch, by slug. */
export interface Spec {
  slug: string
  parent: number | null | { slug: string }
}
export interface KeyedEntry extends Entry {
  key: string
}

export interface ResolvedEntry extends Entry {
  source: number
}
export interface ResolvedPolicy {
  value: Json
  mode: Mode
  source: number
}

const LEVELS = 20

export class Model {
  readonly tenants: ModelTenant[] = []

  at(id: number): ModelTenant {
    const tenant = this.tenants[id]
    if (!tenant) throw new RangeError(`no tenant ${id}`)
    return tenant
  }

  /** Root first, the tenant itself last. */
  lineage(id: number): number[] {
    const { parent } = this.at(id)
    return parent === null ? [id] : [...this.lineage(parent), id]
  }

  /** The tenants under a parent, or the roots, in their order. */
  children = (id: number | null): number[] =>
    this.tenants.flatMap(({ parent }, child) => (parent === id ? [child] : [])).sort((a, b) => this.at(a).place - this.at(b).place || a - b)
  /** The tenant itself first. */
  subtree = (id: number): number[] => [id, ...this.children(id).flatMap(this.subtree)]
  depth = (id: number): number => this.lineage(id).length - 1
  /** Levels from the tenant to its lowest descendant, both counted. */
  height = (id: number): number => 1 + Math.max(0, ...this.children(id).map(this.height))

  /** A fold from the root: the nearest setter wins, until a level locks the key. */
  config(id: number): Map<string, ResolvedEntry> {
    const resolved = new Map<string, ResolvedEntry>()
    for (const source of this.lineage(id)) {
      for (const [key, entry] of this.at(source).config) {
        if (!resolved.get(key)?.locked) resolved.set(key, { ...entry, source })
      }
    }
    return resolved
  }

  /** A fold from the root: what is effective above decides what a policy means. */
  permissions(id: number | null): Map<string, ResolvedPolicy> {
    const resolved = new Map<string, ResolvedPolicy>()
    for (const source of id === null ? [] : this.lineage(id)) {
      for (const [key, { value, mode }] of this.at(source).policies) {
        const above = resolved.get(key)?.mode
        if (above === 'LOCKED') continue
        resolved.set(key, { value, mode: above === 'INHERITED' ? 'INHERITED' : mode, source })
      }
    }
    return resolved
  }

  // Operations answer every reason there is to refuse them; with none, the change is made.

  create(parent: number | null, slug: string): string[] {
    const place = this.#lastPlace(parent)
    const born = { parent, slug, slugs: new Set([slug]), name: slug, status: 'active' as const, remembers: null, place, config: new Map(), policies: new Map() }
    return this.#attempt(
      {
        TENANT_INVALID_STATE: parent !== null && this.at(parent).status !== 'active',
        TENANT_DEPTH_EXCEEDED: parent !== null && this.depth(parent) + 2 > LEVELS,
        TENANT_SLUG_TAKEN: this.tenants.some(({ slugs }) => slugs.has(slug)),
      },
      () => this.tenants.push(born),
    )
  }

  /** All or nothing. Each pass makes, in the order given, those whose parents are there. */
  batchCreate(specs: Spec[]): string[] {
    const before = this.tenants.length
    const faults = new Set<string>()
    const made = new Map<string, number | 'refused'>()
    let waiting = specs
    for (let passed = -1; passed !== made.size; ) {
      passed = made.size
      waiting = waiting.filter(({ slug, parent }) => {
        const under = parent !== null && typeof parent === 'object' ? made.get(parent.slug) : parent
        if (under === undefined) return true
        const refusals = under === 'refused' ? [] : this.create(under, slug)
        for (const fault of refusals) faults.add(fault)
        made.set(slug, under === 'refused' || refusals.length > 0 ? 'refused' : this.tenants.length - 1)
        return false
      })
    }
    if (waiting.length > 0) faults.add('TENANT_PARENT_NOT_IN_BATCH')
    if (faults.size > 0) this.tenants.length = before
    return [...faults]
  }

  /** New among siblings: the last of them where they were put in order, else by age as they all are. */
  #lastPlace(parent: number | null): number {
    const last = Math.max(0, ...this.children(parent).map((sibling) => this.at(sibling).place))
    return last === 0 ? 0 : last + 1
  }

  /** Put at a place among its siblings, counted from 0; beyond the last it is the last. */
  reorder(id: number, position: number): string[] {
    const siblings = this.children(this.at(id).parent).filter((sibling) => sibling !== id)
    siblings.splice(position, 0, id)
    for (const [place, sibling] of siblings.entries()) this.at(sibling).place = place
    return []
  }

  update(id: number, patch: { slug?: string; name?: string }): string[] {
    const { slug } = patch
    const taken = slug !== undefined && this.tenants.some(({ slugs }, other) => other !== id && slugs.has(slug))
    return this.#write(id, { TENANT_SLUG_TAKEN: taken }, (tenant) => {
      Object.assign(tenant, patch)
      if (slug !== undefined) tenant.slugs.add(slug)
    })
  }

  move(id: number, to: number | null): string[] {
    const tenant = this.at(id)
    return this.#attempt(
      {
        TENANT_CYCLE_DETECTED: to !== null && this.lineage(to).includes(id),
        TENANT_INVALID_STATE: to !== null && tenant.status === 'active' && this.at(to).status !== 'active',
        TENANT_DEPTH_EXCEEDED: (to === null ? 0 : this.depth(to) + 1) + this.height(id) > LEVELS,
      },
      () => {
        if (tenant.parent === to) return
        tenant.place = this.#lastPlace(to)
        tenant.parent = to
      },
    )
  }

  suspend = (id: number, cascade = false): string[] => this.#deactivate(id, 'suspended', ['active'], cascade)
  archive = (id: number, cascade = false): string[] => this.#deactivate(id, 'archived', ['active', 'suspended'], cascade)

  /** With a cascade all active ones below go too and remember the top. Those inactive before stay as they are. */
  #deactivate(id: number, status: Status, from: Status[], cascade: boolean): string[] {
    const activeChild = this.children(id).some((child) => this.at(child).status === 'active')
    return this.#attempt({ TENANT_INVALID_STATE: !from.includes(this.at(id).status), TENANT_HAS_CHILDREN: activeChild && !cascade }, () => {
      for (const below of this.subtree(id)) {
        const tenant = this.at(below)
        if (below === id || tenant.status === 'active') Object.assign(tenant, { status, remembers: below === id ? null : id })
      }
    })
  }

  /**
   * Resumes exactly those that remember it, wherever they are by now, as an active tenant's parent is active:
   * one that moved under an inactive tenant stays, and forgets.
   */
  resume(id: number): string[] {
    return this.#attempt({ TENANT_INVALID_STATE: this.at(id).status === 'active' || !this.mayBeActive(id) }, () => {
      const remembering = this.tenants.flatMap(({ remembers }, tenant) => (remembers === id ? [tenant] : []))
      Object.assign(this.at(id), { status: 'active', remembers: null })
      for (const tenant of remembering.sort((a, b) => this.depth(a) - this.depth(b))) {
        Object.assign(this.at(tenant), { remembers: null }, this.mayBeActive(tenant) ? { status: 'active' } : {})
      }
    })
  }

  /** An active tenant's parent is active. */
  mayBeActive(id: number): boolean {
    const { parent } = this.at(id)
    return parent === null || this.at(parent).status === 'active'
  }

  setConfig(id: number, key: string, entry: Entry): string[] {
    const lockedAbove = this.lineage(id)
      .slice(0, -1)
      .some((above) => this.at(above).config.get(key)?.locked)
    return this.#write(id, { CONFIG_LOCKED: lockedAbove }, ({ config }) => config.set(key, entry))
  }

  /** Each entry that is refused is left out and told with its key, unless all or none was asked for. */
  batchSetConfig(id: number, entries: KeyedEntry[], atomic: boolean): { faults: string[]; refused: Map<string, string[]> } {
    const refused = new Map<string, string[]>()
    const inactive = this.#inactive(id)
    if (inactive.length > 0) return { faults: inactive, refused }
    const before = new Map(this.at(id).config)
    for (const { key, ...entry } of entries) {
      const faults = this.setConfig(id, key, entry)
      if (faults.length > 0) refused.set(key, faults)
    }
    if (!atomic || refused.size === 0) return { faults: [], refused }
    this.at(id).config = before
    return { faults: [...refused.values()].flat(), refused: new Map() }
  }

  deleteConfig(id: number, key: string): string[] {
    return this.#write(id, { CONFIG_NOT_FOUND: !this.at(id).config.has(key) }, ({ config }) => config.delete(key))
  }

  createPermission(id: number, key: string, policy: Policy): string[] {
    return this.#write(id, { PERMISSION_EXISTS: this.at(id).policies.has(key), ...this.#unwritable(id, key, policy.mode) }, ({ policies }) =>
      policies.set(key, policy),
    )
  }

  updatePermission(id: number, key: string, patch: Partial<Policy>): string[] {
    const old = this.at(id).policies.get(key)
    if (!old) return ['PERMISSION_NOT_FOUND', ...this.#inactive(id)]
    const policy = { ...old, ...patch }
    const frozen = { PERMISSION_REVOCATION_DENIED: old.revocation_mode === 'PERMANENT' }
    return this.#write(id, { ...frozen, ...this.#unwritable(id, key, policy.mode) }, ({ policies }) => policies.set(key, policy))
  }

  deletePermission(id: number, key: string): string[] {
    const old = this.at(id).policies.get(key)
    if (!old) return ['PERMISSION_NOT_FOUND', ...this.#inactive(id)]
    return this.#write(id, { PERMISSION_REVOCATION_DENIED: old.revocation_mode === 'PERMANENT' }, () => {
      if (old.revocation_mode === 'SOFT') this.#handDown(id, key, old)
      else this.#revokeBelow(id, key)
      this.at(id).policies.delete(key)
    })
  }

  /** CASCADE: every descendant policy of the key goes, PERMANENT ones excepted. */
  #revokeBelow(id: number, key: string) {
    for (const below of this.subtree(id)) {
      const { policies } = this.at(below)
      if (policies.get(key)?.revocation_mode !== 'PERMANENT') policies.delete(key)
    }
  }

  /** SOFT: each direct child in which it was in effect gets a copy, in place of a shadowed policy that is not PERMANENT. */
  #handDown(id: number, key: string, policy: Policy) {
    const heirs = this.children(id).filter((child) => this.permissions(child).get(key)?.source === id)
    for (const heir of heirs) {
      const { policies } = this.at(heir)
      if (policies.get(key)?.revocation_mode !== 'PERMANENT') policies.set(key, { ...policy })
    }
  }

  #unwritable(id: number, key: string, mode: Mode): Record<string, boolean> {
    const above = this.permissions(this.at(id).parent).get(key)?.mode
    return { PERMISSION_LOCKED: above === 'LOCKED', PERMISSION_NOT_DELEGATED: above === 'INHERITED' && mode !== 'INHERITED' }
  }

  #inactive = (id: number): string[] => (this.at(id).status === 'active' ? [] : ['TENANT_INVALID_STATE'])

  #write(id: number, faults: Record<string, boolean>, change: (tenant: ModelTenant) => unknown): string[] {
    const tenant = this.at(id)
    return this.#attempt({ TENANT_INVALID_STATE: tenant.status !== 'active', ...faults }, () => change(tenant))
  }

  #attempt(faults: Record<string, boolean>, change: () => unknown): string[] {
    const found = Object.keys(faults).filter((fault) => faults[fault])
    if (found.length === 0) change()
    return found
  }
}
