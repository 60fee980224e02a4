import { availableParallelism } from 'node:os'
import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/support/global-setup.ts'],
    reporters: ['default', './test/support/summary-reporter.ts'],
    // One for each core; by default one is left free, of two that is half.
    maxWorkers: availableParallelism(),
    // A file that needs more is doing too much; each has its own database, so files run side by side.
    testTimeout: 20_000,
    hookTimeout: 60_000,
    // What is polled for comes when the machine gets to it.
    expect: { poll: { timeout: 15_000 } },
  },
})
