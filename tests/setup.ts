import { afterEach, expect } from 'vitest'
import { gpu } from './gpu.ts'

// Every step gives back what it took, in every test.
afterEach(() => {
  expect(gpu.live, 'blocks of GPU memory left behind').toBe(0)
})
