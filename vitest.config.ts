import { defineConfig } from 'vitest/config'

// Where the CI script wants the counts as JSON.
const report = process.env.NEXUS_TEST_REPORT

export default defineConfig({
  test: {
    include: ['tests/**/*.test.ts'],
    globalSetup: 'tests/global-setup.ts',
    setupFiles: 'tests/setup.ts',
    // Real processes, so that the environment of the GPU driver reaches them; one GPU for all files of a worker.
    pool: 'forks',
    maxWorkers: 2,
    isolate: false,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    reporters: report ? ['default', 'json'] : ['default'],
    outputFile: report ? { json: report } : undefined,
  },
})
