import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Random } from '../../src/core/random.ts'
import { decompose, mergePcaStates, type PcaState } from '../../src/pca/pca-state.ts'
import { allocateRanks, estimateRank } from '../../src/pca/rank.ts'
import { StreamingPca } from '../../src/pca/streaming-pca.ts'
import { expectClose } from '../check-op.ts'
import { gpu, withoutLeaks } from '../gpu.ts'

/** Rows of a Gaussian with a power-law spectrum along turned axes, far from zero. */
function powerLaw(random: Random, rows: number, d: number): Float32Array<ArrayBuffer> {
  const x = new Float32Array(rows * d)
  for (let r = 0; r < rows; r++) {
    const z = Array.from({ length: d }, (_, c) => random.normal() / (c + 1))
    for (let c = 0; c < d; c++) x[r * d + c] = 5 + (z[c] + z[(c + 1) % d]) / Math.SQRT2
  }
  return x
}

function exactState(x: Float32Array, rows: number, d: number): PcaState {
  const mean = new Float64Array(d)
  for (let i = 0; i < rows * d; i++) mean[i % d] += x[i] / rows
  const scatter = new Float64Array(d * d)
  for (let r = 0; r < rows; r++)
    for (let i = 0; i < d; i++)
      for (let j = 0; j < d; j++) scatter[i * d + j] += (x[r * d + i] - mean[i]) * (x[r * d + j] - mean[j])
  return { count: rows, mean, scatter }
}


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
      const merged = parts.reduce(mergePcaStates)
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

test.each([8, 24])('a planted rank of %d is found, and one channel 60 times larger does not move it', (rank) => {
  const d = 96
  const n = 4000
  const random = new Random(5)
  const noise = Array.from({ length: d }, () => 1 + 0.05 * random.normal()).sort((a, b) => b - a)
  const spectrum = Float64Array.from(noise, (value, i) => (i < rank ? 20 + rank - i : value))
  expect(estimateRank(spectrum, n).gavishDonoho).toBe(rank)
  const outlier = Float64Array.from(spectrum)
  outlier[0] = 3600 * spectrum[0]
  expect(estimateRank(outlier, n).gavishDonoho).toBe(rank)
  expect(estimateRank(outlier, n).explained95).toBe(1) // the fragile one
})

test('estimates of a flat and of an empty spectrum', () => {
  const flat = estimateRank(new Float64Array(10).fill(2), 1000)
  expect(flat.participationRatio).toBeCloseTo(10)
  expect(flat.effectiveRank).toBeCloseTo(10)
  expect(flat.gavishDonoho).toBe(0)
  expect(estimateRank(new Float64Array(10), 1000).effectiveRank).toBe(0)
})

test('ranks follow the dimensions, fit the budget and never exceed what a place needs', () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.integer({ min: 1, max: 60 }), fc.integer({ min: 10, max: 500 })), {
        minLength: 1,
        maxLength: 12,
      }),
      fc.integer({ min: 1, max: 20 }),
      (facts, room) => {
        const places = facts.map(([dimension, cost], i) => ({ name: String(i), dimension, cost }))
        const floor = places.reduce((sum, { cost }) => sum + 4 * cost, 0)
        const ranks = allocateRanks(places, floor * room)
        const spent = places.reduce((sum, { name, cost }) => sum + ranks.get(name)! * cost, 0)
        expect(spent).toBeLessThanOrEqual(floor * room)
        for (const { name, dimension } of places) {
          expect(ranks.get(name)! % 4).toBe(0)
          expect(ranks.get(name)!).toBeLessThanOrEqual(Math.max(4, dimension))
        }
      },
    ),
    { seed: 42 },
  )
  expect(() => allocateRanks([{ name: 'a', dimension: 9, cost: 100 }], 399)).toThrow('the budget is 399')
})
