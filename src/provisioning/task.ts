/** What a task is: the code of one kind of job, to be run again from any point at which it was broken off. */
import type { Server } from './places.ts'

/** What a task works with. */
export interface TaskContext {
  /** Its `step` ends the task where the provisioner is to stop, or has lost the lock of the job. */
  server: Server
  job: { id: string; tenant_id: string | null; payload: Record<string, unknown> }
  /** Say how far it is: what `GET /jobs/:id` shows as `progress`. */
  progress(value: object): Promise<void>
  /** True once somebody asked to call the job's change of isolation off. */
  cancelled(): Promise<boolean>
  /** A line of the provisioner's log, with the job's id. For people: no rows, no secrets. */
  log(line: object): void
}

/**
 * Does a job. It resolves when all is done, and else throws: the job is tried again later, and its error is shown as
 * a code of the catalogue. It may be run again after it was done, or broken off anywhere, and must then do the rest.
 */
export type Task = (context: TaskContext) => Promise<void>
