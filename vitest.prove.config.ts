import { defineConfig } from 'vitest/config'

/** The long searches: races, models, fuzz. */
export default defineConfig({
  test: {
    include: ['test/**/*.prove.ts'],
    globalSetup: ['test/support/global-setup.ts'],
    reporters: ['default', './test/support/summary-reporter.ts'],
    testTimeout: 600_000,
    hookTimeout: 60_000,
    // What is polled for comes when the machine gets to it.
    expect: { poll: { timeout: 15_000 } },
  },
})
