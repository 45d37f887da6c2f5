// Pure values: errors, seeded random, progress.
export * from './errors.ts'
export type { OnProgress, Progress } from './progress.ts'
export { Random } from './random.ts'
