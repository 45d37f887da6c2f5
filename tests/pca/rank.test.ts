import { expect, test } from 'vitest'
import { Random } from '../../src/core/random.ts'
import { FrequentDirections } from '../../src/pca/frequent-directions.ts'
import { addHeadSlopes, normaliseHeadImportance } from '../../src/pca/head-importance.ts'
import { massiveChannels, outlierTokens } from '../../src/pca/massive.ts'
import { largestNoiseEigenvalue } from '../../src/pca/parallel-analysis.ts'
import { decompose } from '../../src/pca/pca-state.ts'
import { estimateRank, estimateStateRank } from '../../src/pca/rank.ts'
import { gpu } from '../gpu.ts'
import { exactState } from './exact.ts'

interface Plant {
  readonly seed: number
  readonly rank: number
  /** Variance along each planted direction; that of the noise is 1. */
  readonly signal: number
  readonly rows?: number
  /** Factor on channel 17. */
  readonly massive?: number
  /** Deviation of the logarithm of each channel's noise. */
  readonly unequal?: number
}

const d = 96

/** Gaussian rows: `rank` orthonormal random directions over noise. */
function plant({ seed, rank, signal, rows = 1500, massive = 1, unequal = 0 }: Plant): Float32Array<ArrayBuffer> {
  const random = new Random(seed)
  const directions: Float64Array[] = []
  while (directions.length < rank) {
    const v = Float64Array.from({ length: d }, () => random.normal())
    for (const other of directions) {
      const dot = v.reduce((sum, value, c) => sum + value * other[c], 0)
      for (let c = 0; c < d; c++) v[c] -= dot * other[c]
    }
    const norm = Math.hypot(...v)
    directions.push(v.map((value) => value / norm))
  }
  const noise = Float64Array.from({ length: d }, () => Math.exp(unequal * random.normal()))
  const x = new Float32Array(rows * d)
  for (let r = 0; r < rows; r++) {
    const row = noise.map((deviation) => deviation * random.normal())
    for (const v of directions) {
      const z = Math.sqrt(signal) * random.normal()
      for (let c = 0; c < d; c++) row[c] += z * v[c]
    }
    row[17] *= massive
    x.set(row, r * d)
  }
  return x
}

const seeds = [1, 2, 3, 4]

test.each([
  ['strong', { rank: 8, signal: 20 }],
  ['strong', { rank: 24, signal: 20 }],
  ['no stronger than the noise', { rank: 8, signal: 1 }],
  ['no stronger than the noise', { rank: 24, signal: 1.2 }],
  ['absent', { rank: 0, signal: 0 }],
  ['over channels of unequal noise', { rank: 8, signal: 20, unequal: 0.5 }],
  ['absent over channels of unequal noise', { rank: 0, signal: 0, unequal: 0.5 }],
  ['seen in fewer rows than channels', { rank: 8, signal: 20, rows: 80 }],
])('a signal %s is found exactly, with and without a channel 60 times larger: %o', (_, facts) => {
  for (const seed of seeds) {
    const rows = 'rows' in facts ? facts.rows : 1500
    const plain = estimateStateRank(exactState(plant({ ...facts, seed }), rows, d))
    expect(plain.rank, `seed ${seed}`).toBe(facts.rank)
    expect(plain.massive).toEqual([])
    const state = exactState(plant({ ...facts, seed, massive: 60 }), rows, d)
    const report = estimateStateRank(state)
    expect(report.rank, `seed ${seed}, massive channel`).toBe(facts.rank)
    expect(report.massive.map(({ channel }) => channel)).toEqual([17])
    // The fragile one, had nobody looked after the channel.
    expect(estimateRank(decompose(state).eigenvalues, rows).explained95).toBeLessThan(plain.explained95 / 2)
    expect(Math.abs(report.explained95 - plain.explained95)).toBeLessThan(4)
  }
})

test('Gavish-Donoho and Marchenko-Pastur find a strong signal in the spectrum alone', () => {
  for (const rank of [8, 24]) {
    const { eigenvalues } = decompose(exactState(plant({ seed: 5, rank, signal: 20 }), 1500, d))
    const estimates = estimateRank(eigenvalues, 1500)
    expect(estimates.gavishDonoho).toBe(rank)
    expect(estimates.marchenkoPastur).toBe(rank)
    expect(estimates.parallel).toBe(rank)
    expect(estimates.rank).toBe(estimates.parallel)
  }
})

test('the rank is that of the rows when a sketch stands for them', async () => {
  const x = plant({ seed: 6, rank: 8, signal: 20, rows: 300 })
  using collector = new FrequentDirections(gpu, d, 16)
  using step = gpu.step()
  collector.update(step, step.upload('f32', [300, d], x), step.filled('f32', [300], 1), 300)
  expect(estimateStateRank(await collector.state()).rank).toBe(8)
})

test('estimates of a flat and of an empty spectrum', () => {
  const flat = estimateRank(new Float64Array(10).fill(2), 1000)
  expect(flat.participationRatio).toBeCloseTo(10)
  expect(flat.effectiveRank).toBeCloseTo(10)
  expect(flat.gavishDonoho).toBe(0)
  expect(flat.rank).toBe(0)
  const empty = estimateRank(new Float64Array(10), 1000)
  expect(empty.effectiveRank).toBe(0)
  expect(empty.rank).toBe(0)
})

test('the largest eigenvalue of noise is the one that simulated noise rarely exceeds', () => {
  const random = new Random(7)
  for (const [rows, columns, unequal] of [
    [60, 30, 0],
    [40, 60, 0],
    [200, 25, 0.4],
  ] as const) {
    const variances = Float64Array.from({ length: columns }, () => Math.exp(2 * unequal * random.normal()))
    const tops = Array.from({ length: 40 }, () => {
      const x = Float64Array.from(
        { length: rows * columns },
        (_, i) => Math.sqrt(variances[i % columns]) * random.normal(),
      )
      return decompose(exactState(x, rows, columns)).eigenvalues[0]
    }).sort((a, b) => a - b)
    const bound = largestNoiseEigenvalue(variances, rows - 1)
    expect(tops.at(-1)).toBeLessThan(bound)
    // Nor is it far off: at the median of the law it would be about as much lower as its spread says.
    expect(tops[20]).toBeGreaterThan(0.72 * bound)
  }
  expect(largestNoiseEigenvalue(new Float64Array(5), 10)).toBe(0)
})

test('the edge of noise is that of its equation solved by halving, and grows with the noise', () => {
  const random = new Random(9)
  for (const rows of [3, 40, 3000]) {
    const variances = Float64Array.from({ length: 50 }, () => Math.exp(3 * random.normal()))
    const most = Math.max(...variances)
    const gamma = 1 / rows
    // Halving finds the same root, from the equation in c = 1 / s.
    const moment = (c: number, power: number) =>
      gamma * variances.reduce((sum, t) => sum + ((t * c) / (1 - t * c)) ** power, 0)
    let [low, high] = [0, 1 / most]
    for (let i = 0; i < 60; i++) {
      const c = (low + high) / 2
      if (moment(c, 2) < 1) low = c
      else high = c
    }
    const expected = (1 + moment(low, 1)) / low + (rows ** (-2 / 3) * Math.cbrt(1 + moment(low, 3)) * 3.2724) / low
    expect(largestNoiseEigenvalue(variances, rows) / expected).toBeCloseTo(1, 11)
    const doubled = largestNoiseEigenvalue(
      variances.map((t) => 2 * t),
      rows,
    )
    expect(doubled / expected).toBeCloseTo(2, 11)
  }
})

test('massive channels are those whose deviation or mean dwarfs the others, largest first', () => {
  const random = new Random(8)
  const [rows, columns] = [200, 12]
  const x = random.normals(rows * columns)
  for (let r = 0; r < rows; r++) {
    x[r * columns + 3] *= 60
    x[r * columns + 7] += 500
  }
  const found = massiveChannels(exactState(x, rows, columns))
  expect(found.map(({ channel }) => channel)).toEqual([7, 3])
  expect(found[0].mean).toBeGreaterThan(400)
  expect(found[0].deviation).toBeLessThan(2)
  expect(found[1].deviation).toBeGreaterThan(50)
  // A mean that all channels share is none.
  expect(
    massiveChannels(
      exactState(
        random.normals(600).map((value) => value + 1000),
        100,
        6,
      ),
    ),
  ).toEqual([])
  expect(massiveChannels(exactState(new Float64Array(60), 10, 6))).toEqual([])
})

test('first tokens and delimiters whose norm dwarfs the others are found', () => {
  const norms = new Float32Array(4 * 10).fill(2).map((value, i) => value + (i % 7) / 10)
  for (let r = 0; r < 4; r++) norms[r * 10] = 300
  norms[25] = 100
  const found = outlierTokens(norms, 10)
  expect(found.rows).toEqual([0, 10, 20, 25, 30])
  expect(found.positions).toEqual([0])
  expect(() => outlierTokens(norms, 7)).toThrow('they must divide')
})

test('head importance is the mean size of slopes a text, of length 1 in every layer', () => {
  const totals = [new Float64Array(2), new Float64Array(2)]
  // Two texts of two tokens, two heads: the slopes of head 0 cancel in the first text.
  addHeadSlopes(totals[0], [1, 2, -1, 2, 3, 0, 0, 0], 2)
  expect([...totals[0]]).toEqual([3, 4])
  expect(normaliseHeadImportance(totals)).toEqual([
    [0.6, 0.8],
    [0, 0],
  ])
  expect(() => addHeadSlopes(totals[0], [1, 2, 3], 2)).toThrow('texts of 2 tokens and 2 heads')
})
