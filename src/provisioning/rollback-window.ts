/** How long rows stay at the place that their tenant has left. */
import { stratumError } from '../core/error-classes.ts'

const UNITS: Record<string, string> = { s: 'seconds', m: 'minutes', h: 'hours', d: 'days' }

/**
 * The window that STRATUM_ROLLBACK_WINDOW sets, such as `90s`, `30m`, `24h` or `7d`, as an interval of Postgres. Default 24 hours.
 * @throws CONFIGURATION_INVALID
 */
export function rollbackWindow(text = '24h'): string {
  const [, count, unit = ''] = /^(\d{1,6})([smhd])$/.exec(text) ?? []
  if (count === undefined)
    throw stratumError('CONFIGURATION_INVALID', { reason: 'The variable STRATUM_ROLLBACK_WINDOW must be a number with a unit, such as 24h, 30m or 7d.' })
  return `${count} ${UNITS[unit]}`
}
