/** What a move is, and how far it is. */
import type pg from 'pg'
import type { ManagedTable } from '../../isolation/catalog.ts'
import type { Place } from '../../isolation/place.ts'
import type { Server } from '../places.ts'
import type { Ends } from './apply.ts'
import type { Key } from './range.ts'
import type { Sequence } from './sequences.ts'

export type Phase = 'preparing' | 'copying' | 'catching_up' | 'verifying' | 'fenced'

export interface TableProgress {
  copied: number
  /** Rows there were when copying began. */
  total: number
  last_key: Key | null
  done: boolean
  verified: boolean
}

/** How far a move is, as it is stored after each step; a table that is not in it is not begun. */
export interface Progress {
  phase: Phase
  tables: Record<string, TableProgress>
}

/** What a database of the tenant's own is opened with. */
export interface Route {
  status: string
  routing_version: number
}

export interface Limits {
  /** Milliseconds that a step of copying should take; the size of the chunks follows. */
  stepMs: number
  /** Rows compared at once. */
  compareRows: number
  /** Milliseconds that the fence is waited for, while new batches wait too. */
  fenceWaitMs: number
  /** Changed rows that may be left for the time in which the tenant is fenced. */
  fencedKeys: number
  /** How often the cutover is tried. */
  fenceTries: number
}

export const LIMITS: Limits = { stepMs: 500, compareRows: 50_000, fenceWaitMs: 200, fencedKeys: 2_000, fenceTries: 60 }

export interface Move {
  /** Names what the move makes; no two moves have the same. */
  id: string
  server: Server
  tenantId: string
  source: Place
  target: Place
  /** The managed tables as the move found them. */
  tables: readonly ManagedTable[]
  progress: Progress
  save(progress: Progress): Promise<void>
  /** Told when whatever was at the target's place before is gone. */
  cleared(): Promise<void>
  /** Throws when the move is to end here: it was called off, or another goes on with it. */
  checkpoint(name: string): Promise<void>
  /** Send everybody to the target, in one transaction that also calls `open`. @returns when it is committed */
  switchOver(open: (route: Route) => Promise<void>): Promise<void>
  limits: Limits
}

/** A move with its two sessions. */
export interface Running extends Ends {
  move: Move
  source: pg.ClientBase
  target: pg.ClientBase
  sequences: readonly Sequence[]
}

/** Store how far it is, and in which phase from now on. */
export async function save({ move }: Running, phase: Phase = move.progress.phase): Promise<void> {
  move.progress.phase = phase
  await move.save(move.progress)
}
