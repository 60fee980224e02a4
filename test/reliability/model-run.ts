/** Runs of random steps, each on fresh trees in one database that it empties, until enough steps were played. */
import fc from 'fast-check'
import type { Installation } from '../support/installation.ts'
import { Model } from '../support/model.ts'
import { expectConsistent } from './invariants.ts'
import { BackendClient } from './operations.ts'
import { type Progress, playable } from './play.ts'
import type { Step } from './steps.ts'
import { World } from './world.ts'

export interface ModelRun {
  seed: number
  /** Steps to play at least. */
  steps: number
  /** Steps of one run at most. */
  longest: number
  /** How many tenants are compared after each step besides those it touched. Default 5. */
  sample?: number
  /** Steps that come more often than else. */
  focus?: ReadonlyArray<Step['op']>
  /** Do not look for a shorter history that fails too. */
  unshortened?: boolean
}

/** What was played. A difference rejects with the seed and a shortened history. */
export async function playModel(
  { urls, owner, client, apiKey }: Installation,
  { seed, steps, longest, sample = 5, focus = [], unshortened = false }: ModelRun,
): Promise<Progress & { runs: number }> {
  // Not a pool: that drops its connection at every refusal.
  const control = await BackendClient.open(urls.control)
  const progress: Progress = { played: 0, ended: {}, levels: 0 }
  let runs = 0
  const history = fc.commands([playable(progress, sample, focus)], { maxCommands: longest, size: 'max' })
  const property = fc.asyncProperty(history, async (commands) => {
    const model = new Model()
    // Alone in the database: places among roots count all there are, and what is asked stays as quick as in the first run.
    await owner.query('truncate stratum.tenants cascade')
    const world = new World(control, owner, client({ apiKey: await apiKey(null) }), `w${++runs}_`)
    await fc.asyncModelRun(() => ({ model, real: world }), commands)
    await world.compareAll(model)
    await expectConsistent(owner)
  })
  try {
    // The lengths are drawn too, so how many runs it takes shows only by playing them.
    for (let batch = 0; progress.played < steps; batch++) {
      await fc.assert(property, { seed: seed + batch, numRuns: 1, interruptAfterTimeLimit: 300_000, endOnFailure: unshortened })
    }
  } finally {
    await control.end()
  }
  return { ...progress, runs }
}
