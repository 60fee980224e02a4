/**
 * Writes what is derived from the contracts into files that other tools read. `--check` fails when a
 * file is not up to date.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { sqlName } from '../src/core/endpoint.ts'
import { endpointList } from '../src/features/endpoints.ts'

const literal = (text: string) => `'${text.replaceAll("'", "''")}'`

const rows = endpointList
  .map((endpoint) => `  (${literal(sqlName(endpoint.id))}, ${literal(endpoint.scope)}, ${literal(JSON.stringify(endpoint.reach))})`)
  .sort()

const operations = `-- Generated from the contracts by \`npm run generate\`: what each operation asks of its caller.
-- stratum.authorize reads it; an operation without a row cannot run.
with rules (name, scope, reach) as (values
${rows.join(',\n')}
), written as (
  insert into stratum.operations (name, scope, reach) select name, scope, reach::jsonb from rules
  on conflict (name) do update set scope = excluded.scope, reach = excluded.reach
)
delete from stratum.operations where name not in (select name from rules);
`

const files: Array<[path: URL, content: string]> = [[new URL('../migrations/routines/05_operations.sql', import.meta.url), operations]]

const current = (path: URL) => {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return null
  }
}

for (const [path, content] of files) {
  if (current(path) === content) continue
  if (process.argv.includes('--check')) {
    console.error(`${path.pathname} is not up to date: run npm run generate.`)
    process.exitCode = 1
  } else {
    writeFileSync(path, content)
    console.log(`wrote ${path.pathname}`)
  }
}
