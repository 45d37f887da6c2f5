import fc from 'fast-check'
import { EigenvalueDecomposition, Matrix } from 'ml-matrix'
import { expect, test } from 'vitest'
import { Random } from '../../src/core/random.ts'
import { jacobiEigen } from '../../src/kernels/frequent-directions.ts'
import { FrequentDirections } from '../../src/pca/frequent-directions.ts'
import { decompose, mergePcaStates } from '../../src/pca/pca-state.ts'
import type { PcaSketch } from '../../src/pca/sketch.ts'
import { loadPcaState, savePcaState } from '../../src/pca/state-file.ts'
import { expectClose } from '../check-op.ts'
import { gpu } from '../gpu.ts'
import { exactState, largestSine, powerLaw } from './exact.ts'

function eigenvalues(d: number, entry: (i: number, j: number) => number): number[] {
  const matrix = Matrix.zeros(d, d)
  for (let i = 0; i < d; i++) for (let j = 0; j < d; j++) matrix.set(i, j, entry(i, j))
  return new EigenvalueDecomposition(matrix, { assumeSymmetric: true }).realEigenvalues.sort((a, b) => b - a)
}

async function sketch(x: Float32Array, d: number, size: number, batches: readonly number[]): Promise<PcaSketch> {
  using collector = new FrequentDirections(gpu, d, size)
  let begin = 0
  for (const n of batches) {
    using step = gpu.step()
    // Row 0 of every batch has weight 0 and must leave no trace.
    const rows = new Float32Array((n + 1) * d).fill(Number.NaN)
    rows.set(x.subarray(begin * d, (begin + n) * d), d)
    const weights = Float32Array.from({ length: n + 1 }, (_, i) => (i === 0 ? 0 : 1))
    collector.update(step, step.upload('f32', [n + 1, d], rows), step.upload('f32', [n + 1], weights), n)
    begin += n
  }
  return collector.state()
}

/** Fails unless 0 ≤ S − BᵀB ≤ shed ≤ tail / (ℓ − k) for every k < ℓ, up to f32 rounding. */
function expectBound(x: Float32Array, rows: number, d: number, got: PcaSketch): void {
  const { scatter } = exactState(x, rows, d)
  const spectrum = eigenvalues(d, (i, j) => scatter[i * d + j])
  const slack = 3e-6 * spectrum[0]
  const r = got.rows.length / d
  const differences = eigenvalues(d, (i, j) => {
    let product = 0
    for (let k = 0; k < r; k++) product += got.rows[k * d + i] * got.rows[k * d + j]
    return scatter[i * d + j] - product
  })
  expect(differences[d - 1], 'S − BᵀB is not negative').toBeGreaterThan(-slack)
  expect(differences[0], 'at most shed').toBeLessThan(got.shed + slack)
  let tail = spectrum.reduce((sum, value) => sum + Math.max(0, value), 0)
  for (let k = 0; k < got.size; k++) {
    const bound = tail / (got.size - k)
    expect(differences[0], `bound of k = ${k}`).toBeLessThan(bound + slack)
    expect(got.shed, `shed against the bound of k = ${k}`).toBeLessThan(bound + slack)
    tail -= Math.max(0, spectrum[k] ?? 0)
  }
}

test.each([2, 6, 32, 66])('jacobi diagonalises a matrix of %d', async (n) => {
  const random = new Random(n)
  const a = random.normals(n * n)
  const g = Float32Array.from(a, (_, i) => a[i] + a[(i % n) * n + Math.floor(i / n)])
  using step = gpu.step()
  const values = step.upload('f32', [n, n], g)
  const vectors = await step.read(jacobiEigen(step, values))
  const diagonal = await step.read(values)
  await step.checkGuards()
  const got = Array.from({ length: n }, (_, i) => diagonal[i * n + i])
  expectClose(
    'eigenvalues',
    [...got].sort((x, y) => y - x),
    eigenvalues(n, (i, j) => g[i * n + j]),
    3e-6,
  )
  for (let i = 0; i < n; i++) {
    const image = Array.from({ length: n }, (_, r) => {
      let sum = 0
      for (let c = 0; c < n; c++) sum += g[r * n + c] * vectors[i * n + c]
      return sum / Math.abs(got[i]) || 0
    })
    const scale = Math.max(...got.map(Math.abs)) / Math.abs(got[i])
    expectClose(
      `vector ${i}`,
      image.map((value) => value / scale),
      Array.from({ length: n }, (_, c) => (Math.sign(got[i]) * vectors[i * n + c]) / scale),
      1e-5,
      1,
    )
  }
})

test('Frequent Directions keeps its bound in every run', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 0, max: 1e6 }),
      fc.constantFrom(5, 12, 21, 40),
      fc.constantFrom(2, 4, 8),
      fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 5 }),
      fc.constantFrom(0, 5, 100),
      async (seed, d, size, batches, mean) => {
        const rows = batches.reduce((a, b) => a + b, 0)
        const x = powerLaw(new Random(seed), rows, d, mean)
        const got = await sketch(x, d, size, batches)
        expect(got.count).toBe(rows)
        expectClose('mean', got.mean, exactState(x, rows, d).mean, 1e-6)
        expectBound(x, rows, d, got)
      },
    ),
    { seed: 42, numRuns: 30 },
  )
})

test('sketches merge in any order and keep the bound, the mean and the variances', async () => {
  const [d, size, rows] = [50, 8, 240]
  const x = powerLaw(new Random(12), rows, d)
  const exact = exactState(x, rows, d)
  const parts = [await sketch(x.subarray(0, 60 * d), d, size, [30, 30])]
  for (const [from, to] of [
    [60, 70],
    [70, 150],
    [150, 240],
  ])
    parts.push(await sketch(x.subarray(from * d, to * d), d, size, [to - from]))
  for (const order of [
    [0, 1, 2, 3],
    [3, 1, 0, 2],
    [2, 3, 1, 0],
  ]) {
    const merged = order.map((i) => parts[i]).reduce((a, b) => mergePcaStates(a, b))
    expect(merged.count).toBe(rows)
    expect(merged.rows.length / d).toBeLessThanOrEqual(2 * size)
    expectClose('mean', merged.mean, exact.mean, 1e-6)
    expectClose(
      'variances',
      merged.diagonal,
      exact.mean.map((_, i) => exact.scatter[i * d + i]),
      1e-6,
    )
    expectBound(x, rows, d, merged)
  }
  const saved = loadPcaState(savePcaState(parts[0]))
  expect(saved).toEqual(parts[0])
  expect(() => mergePcaStates(parts[0], { ...parts[1], size: 10 })).toThrow('they must be alike')
})

test('a sketch of 4k rows finds the subspace of a power-law spectrum', async () => {
  const [d, rows, k] = [96, 600, 4]
  const x = powerLaw(new Random(13), rows, d)
  const want = decompose(exactState(x, rows, d))
  const got = decompose(await sketch(x, d, 4 * k, [250, 350]))
  expect(largestSine(got.components, want.components, d, k)).toBeLessThan(0.05)
  for (let i = 0; i < k; i++) {
    expect(got.eigenvalues[i]).toBeLessThan(want.eigenvalues[i] * 1.0001)
    expect(got.eigenvalues[i]).toBeGreaterThan(want.eigenvalues[i] * 0.8)
  }
  const moments = decompose(await sketch(x, d, 4 * k, [rows]), { centred: false })
  // About zero the mean of 5 in every channel is the first direction by far.
  expect(Math.abs(moments.components[0])).toBeCloseTo(1 / Math.sqrt(d), 2)
  expect(moments.eigenvalues[0] / (25 * d)).toBeCloseTo(1, 2)
})
