import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Random } from '../../src/core/random.ts'
import { adamw } from '../../src/kernels/adamw.ts'
import { argmax, sample, topK } from '../../src/kernels/select.ts'
import { expectClose } from '../check-op.ts'
import { gpu, withoutLeaks } from '../gpu.ts'
import { adamw64 } from '../reference/optimisers.ts'

test.each([200, 203])('adamw of %i weights follows the formula over five steps, with clipping and decay', (size) =>
  withoutLeaks(async () => {
    const random = new Random(1)
    const start = random.normals(size)
    using state = gpu.scope('state')
    const weight = state.upload('f32', [size], start)
    const m = state.filled('f32', [size], 0)
    const v = state.filled('f32', [size], 0)
    const oracle = { weight: Float64Array.from(start), m: new Float64Array(size), v: new Float64Array(size) }
    const { lr, decay, clip, beta1, beta2, eps } = { lr: 0.01, decay: 0.1, clip: 3, beta1: 0.9, beta2: 0.95, eps: 1e-8 }
    for (let t = 1; t <= 5; t++) {
      using step = gpu.step()
      const g = random.normals(size)
      const gradient = step.upload('f32', [size], g)
      const result = adamw(step, [{ weight, gradient, m, v, decay }], { rates: { lr, t }, clip, beta1, beta2, eps })
      const norm = adamw64(oracle, g, { lr, t, decay, clip, beta1, beta2, eps })
      expectClose('norm', [(await step.read(result))[1]], [norm], 1e-6)
    }
    expectClose('weights', await gpu.read(weight), oracle.weight, 2e-6)
  }),
)

test('topK and argmax agree with sorting, ties to the smaller index', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 5 }),
      fc.array(fc.integer({ min: -4, max: 4 }), { minLength: 1, maxLength: 150 }),
      fc.integer({ min: 1, max: 9 }),
      async (rows, row, wanted) => {
        const k = Math.min(wanted, row.length)
        using step = gpu.step()
        const values = Array.from({ length: rows }, (_, r) => row.map((value) => value + r)).flat()
        const x = step.upload('f32', [rows, row.length], values)
        const order = [...row.keys()].sort((a, b) => row[b] - row[a] || a - b)
        const top = topK(step, x, k)
        const expected = Array.from({ length: rows }, () => order.slice(0, k)).flat()
        expect([...(await step.read(top.indices))]).toEqual(expected)
        expect([...(await step.read(argmax(step, x)))]).toEqual(new Array(rows).fill(order[0]))
      },
    ),
    { numRuns: 25, seed: 42 },
  )
})

test('topK finds as many as wanted in rows as long as a vocabulary', async () => {
  using step = gpu.step()
  const [columns, k] = [60_000, 40]
  const values = new Random(3).normals(columns)
  const order = [...values.keys()].sort((a, b) => values[b] - values[a] || a - b)
  const top = topK(step, step.upload('f32', [1, columns], values), k)
  expect([...(await step.read(top.indices))]).toEqual(order.slice(0, k))
})

test('sample draws from the softmax, the same for the same seed', async () => {
  using step = gpu.step()
  const count = 20_000
  const p = [0.5, 0.25, 0.2, 0.05]
  const logits = step.upload('f32', [count, 4], Array.from({ length: count }, () => p.map(Math.log)).flat())
  const first = await step.read(sample(step, logits, { seed: 1 }))
  expect(await step.read(sample(step, logits, { seed: 1 }))).toEqual(first)
  expect(await step.read(sample(step, logits, { seed: 2 }))).not.toEqual(first)
  const counts = [0, 0, 0, 0]
  for (const i of first) counts[i]++
  // Four standard deviations of a binomial share.
  for (const [i, share] of p.entries())
    expect(Math.abs(counts[i] / count - share)).toBeLessThan(4 * Math.sqrt((share * (1 - share)) / count))
  const cold = await step.read(sample(step, logits, { seed: 3, temperature: 0.01 }))
  expect(cold.every((i) => i === 0)).toBe(true)
})
