/** `stratum doctor`: whether isolation holds as it should. */
import { doctor, type Finding } from '../isolation/doctor.ts'
import { withOwner } from './owner-database.ts'

const describe = ({ level, check, subject, problem, advice }: Finding) => `${level.padEnd(7)}  ${subject} (${check})\n         ${problem}\n         ${advice}`

/** Prints what is found; the exit code is 1 where an error is among it. */
export async function doctorCommand({ databaseUrl, json }: { databaseUrl?: string; json?: boolean }): Promise<void> {
  const findings = await withOwner(databaseUrl, (client) => doctor(client))
  const errors = findings.filter(({ level }) => level === 'error').length
  if (json) console.log(JSON.stringify({ findings, errors, warnings: findings.length - errors }, null, 2))
  else if (findings.length === 0) console.log('Nothing found: isolation holds as it should.')
  else console.log(`${findings.map(describe).join('\n\n')}\n\n${errors} errors, ${findings.length - errors} warnings`)
  if (errors > 0) process.exitCode = 1
}
