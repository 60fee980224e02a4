import { defineConfig } from 'drizzle-kit'

export default defineConfig({
  dialect: 'postgresql',
  schema: ['./src/db/tables.ts', './src/db/isolation-tables.ts'],
  out: './migrations',
  schemaFilter: ['stratum'],
})
