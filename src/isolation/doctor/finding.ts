/** Something that is not as it should be, and what to do about it. */
export interface Finding {
  /** An error lets tenants see, reach or lose what they must not; a warning may become one. */
  level: 'error' | 'warning'
  /** Which check found it; stable, for scripts. */
  check: string
  /** The table, view, role, schema or database it is about. */
  subject: string
  problem: string
  advice: string
}

export const error = (check: string, subject: string, problem: string, advice: string): Finding => ({ level: 'error', check, subject, problem, advice })
export const warning = (check: string, subject: string, problem: string, advice: string): Finding => ({ level: 'warning', check, subject, problem, advice })
