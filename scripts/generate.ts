/**
 * Writes what is derived from the contracts into files that other tools read. `--check` fails when a
 * file is not up to date.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { sqlName } from '../src/core/endpoint.ts'
import { endpointList } from '../src/features/endpoints.ts'

const literal = (text: string) => `'${text.replaceAll("'", "''")}'`

const rows = endpointList
  .map(
    (endpoint) =>
      `  (${literal(sqlName(endpoint.id))}, ${literal(endpoint.scope)}, ${literal(JSON.stringify(endpoint.reach))}, ${endpoint.alsoScope ? literal(JSON.stringify(endpoint.alsoScope)) : 'null'})`,
  )
  .sort()

const operations = `-- Generated from the contracts by \`npm run generate\`: what each operation asks of its caller.
-- stratum.authorize reads it; an operation without a row cannot run. Rules of operations that are gone stay for
-- the Workers of the previous release; a migration of the next one drops rule and function together.
insert into stratum.operations (name, scope, reach, also_scope)
select name, scope, reach::jsonb, also_scope::jsonb from (values
${rows.join(',\n')}
) as rules (name, scope, reach, also_scope)
on conflict (name) do update set scope = excluded.scope, reach = excluded.reach, also_scope = excluded.also_scope;
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
