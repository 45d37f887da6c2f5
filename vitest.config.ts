import { defineConfig } from 'vitest/config'
export default defineConfig({ test: { pool: 'forks', maxWorkers: 2, isolate: false, include: ['tests/**/*.test.ts'], testTimeout: 60000 } })
