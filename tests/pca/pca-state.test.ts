import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Random } from '../../src/core/random.ts'
import { decompose, mergePcaStates, type PcaState } from '../../src/pca/pca-state.ts'
import { expectClose } from '../check-op.ts'
import { exactState, powerLaw } from './exact.ts'

test('states merge in any order to the state of all rows', () => {
  const d = 6
  const x = powerLaw(new Random(3), 200, d)
  const whole = exactState(x, 200, d)
  fc.assert(
    fc.property(fc.integer({ min: 2, max: 100 }), fc.integer({ min: 102, max: 198 }), fc.boolean(), (a, b, flip) => {
      const parts = [
        [0, a],
        [a, b],
        [b, 200],
      ].map(([from, to]) => exactState(x.subarray(from * d, to * d), to - from, d))
      if (flip) parts.reverse()
      const merged = parts.reduce((sum, part) => mergePcaStates(sum, part))
      expectClose('mean', merged.mean, whole.mean, 1e-12)
      expectClose('scatter', merged.scatter, whole.scatter, 1e-10)
    }),
    { seed: 42, numRuns: 50 },
  )
})

test('components are orthonormal and reproduce the covariance', () => {
  const d = 8
  const state = exactState(powerLaw(new Random(4), 300, d), 300, d)
  const { components, eigenvalues } = decompose(state)
  for (let i = 0; i < d; i++)
    for (let j = 0; j < d; j++) {
      let dot = 0
      let value = 0
      for (let k = 0; k < d; k++) {
        dot += components[k * d + i] * components[k * d + j]
        value += components[i * d + k] * eigenvalues[k] * components[j * d + k]
      }
      expect(dot).toBeCloseTo(i === j ? 1 : 0, 10)
      expect(value).toBeCloseTo(state.scatter[i * d + j] / 299, 10)
    }
  expect([...eigenvalues]).toEqual([...eigenvalues].sort((a, b) => b - a))
})

test('a state of no rows changes nothing, and unlike states are refused', () => {
  const state = exactState(powerLaw(new Random(5), 20, 4), 20, 4)
  const none: PcaState = { count: 0, mean: new Float64Array(4), scatter: new Float64Array(16) }
  expect(mergePcaStates(none, state)).toEqual(state)
  expect(mergePcaStates(state, none)).toEqual(state)
  expect(() => mergePcaStates(state, exactState([1, 2], 1, 2))).toThrow('dimensions 4 and 2')
  expect(() => decompose(none)).toThrow('it needs two or more')
})
