/** What a walk over kept contexts is told, and what it tells. */
import type { Answer } from './questions.ts'

/** Something wrong with what an isolate gets of the database's answers, to be noticed at one of these steps. */
export interface Fault {
  name: string
  at: readonly string[]
  corrupt(operation: string, answer: unknown): unknown
}

export interface Difference {
  /** How many steps were done, and the last of them. */
  step: number
  after: string
  question: string
  answer: Answer
  expected: Answer
}

export interface Walked {
  /** How often each step was done, and refused with which code. */
  done: Record<string, number>
  refused: Record<string, number>
  comparisons: number
  /** Answers from what was kept, and those of them that were a context and no refusal. */
  kept: number
  contexts: number
  /** Of the sound isolate. */
  differences: Difference[]
  /** The first that each fault led to. */
  noticed: Record<string, Difference>
}

export interface WalkOptions {
  seed: number
  /** Steps at most: it ends where the sound isolate differs, and where every fault was noticed. */
  steps: number
  /** How many are asked after each step. */
  questions: number
  faults?: readonly Fault[]
  /** Every step as often as any other. */
  evenly?: boolean
}

/** All of some counts. */
export const sum = (counts: Record<string, number>): number => Object.values(counts).reduce((total, count) => total + count, 0)

/** Figures of a walk, in a line. */
export function summaryOf({ done, refused, comparisons, kept, contexts, differences, noticed }: Walked): string {
  const faults = Object.keys(noticed).length
  return [
    `${sum(done)} changes of ${Object.keys(done).length} kinds and ${sum(refused)} refused`,
    `${comparisons} comparisons, ${kept} with what was kept, ${contexts} of these with a context`,
    `${differences.length} differences${faults === 0 ? '' : `, ${faults} faults noticed`}`,
  ].join('; ')
}
