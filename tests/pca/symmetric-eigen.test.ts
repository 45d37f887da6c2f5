import { EigenvalueDecomposition, Matrix } from 'ml-matrix'
import { expect, test } from 'vitest'
import { Random } from '../../src/core/random.ts'
import { eigensystem, factorRows } from '../../src/pca/symmetric-eigen.ts'

/** A covariance of `rows` rows with channels of falling size; fewer rows than columns leave it without full rank. */
function covariance(random: Random, n: number, rows: number): Float64Array {
  const x = Float64Array.from({ length: rows * n }, (_, i) => random.normal() / (1 + (i % n)))
  const a = new Float64Array(n * n)
  for (let i = 0; i < n; i++)
    for (let j = 0; j < n; j++) for (let r = 0; r < rows; r++) a[i * n + j] += x[r * n + i] * x[r * n + j]
  return a
}

test.each([
  [1, 5],
  [2, 5],
  [37, 90],
  [64, 20],
  [120, 200],
])('values and vectors of a covariance %i wide of %i rows', (n, rows) => {
  const a = covariance(new Random(n), n, rows)
  const system = eigensystem(a, n)
  const { values } = system
  const vectors = system.vectors(n)
  // Few vectors are the first of all.
  expect([...system.vectors(Math.min(n, 3))]).toEqual([...vectors.subarray(0, Math.min(n, 3) * n)])
  const { realEigenvalues } = new EigenvalueDecomposition(Matrix.from1DArray(n, n, [...a]), { assumeSymmetric: true })
  const expected = [...realEigenvalues].sort((p, q) => q - p)
  for (const [i, value] of values.entries()) expect(Math.abs(value - expected[i])).toBeLessThan(1e-13 * expected[0])
  for (let k = 0; k < n; k++)
    for (let i = 0; i < n; i++) {
      let product = 0
      for (let j = 0; j < n; j++) product += a[i * n + j] * vectors[k * n + j]
      expect(Math.abs(product - values[k] * vectors[k * n + i])).toBeLessThan(1e-12 * expected[0])
      if (i > k) continue
      let dot = 0
      for (let j = 0; j < n; j++) dot += vectors[k * n + j] * vectors[i * n + j]
      expect(Math.abs(dot - (i === k ? 1 : 0))).toBeLessThan(1e-11)
    }
})

test('equal eigenvalues have orthonormal vectors, and zeros end the iteration', () => {
  const n = 30
  const a = new Float64Array(n * n)
  for (let i = 0; i < n; i++) a[i * n + i] = i < 5 ? 3 : i < 20 ? 1 : 0
  const system = eigensystem(a, n)
  const { values } = system
  const vectors = system.vectors(20)
  expect([...values]).toEqual([...Array(5).fill(3), ...Array(15).fill(1), ...Array(10).fill(0)])
  for (let k = 0; k < 20; k++)
    for (let i = 0; i <= k; i++) {
      let dot = 0
      for (let j = 0; j < n; j++) dot += vectors[k * n + j] * vectors[i * n + j]
      expect(Math.abs(dot - (i === k ? 1 : 0))).toBeLessThan(1e-12)
    }
  expect(() => eigensystem(new Float64Array([1, 0, 0, Number.NaN]), 2)).toThrow('entries that are not finite')
  expect(() => eigensystem(new Float64Array(5), 2)).toThrow('Cannot decompose 5 values as 2 × 2')
})

test.each([
  [40, 90],
  [40, 7],
])('rows whose product is a covariance %i wide of %i rows', (n, rows) => {
  const a = covariance(new Random(rows), n, rows)
  const factor = factorRows(a, n)
  expect(factor.length / n).toBeLessThanOrEqual(Math.min(n, rows))
  for (let i = 0; i < n; i++)
    for (let j = 0; j < n; j++) {
      let sum = 0
      for (let r = 0; r < factor.length / n; r++) sum += factor[r * n + i] * factor[r * n + j]
      expect(Math.abs(sum - a[i * n + j])).toBeLessThan(1e-11 * a[0])
    }
})
