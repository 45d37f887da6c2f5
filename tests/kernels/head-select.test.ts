import { expect, test } from 'vitest'
import { Random } from '../../src/core/random.ts'
import { headArgmax, headSamples, headTopK } from '../../src/kernels/head-select.ts'
import { linear } from '../../src/kernels/matmul.ts'
import { argmax, topK } from '../../src/kernels/select.ts'
import { softmax } from '../../src/kernels/softmax.ts'
import { expectClose } from '../check-op.ts'
import { gpu, withoutLeaks } from '../gpu.ts'

const [rows, columns, vocabulary] = [150, 12, 36]
const small = { chunkBytes: 64 * vocabulary * 4 }

test('headTopK and headArgmax give what topK and argmax give of all logits', () =>
  withoutLeaks(async () => {
    using step = gpu.step()
    const random = new Random(5)
    const hidden = step.upload('f32', [2, rows / 2, columns], random.normals(rows * columns))
    const weight = step.upload('f32', [vocabulary, columns], random.normals(vocabulary * columns))
    const want = topK(step, softmax(step, linear(step, hidden, weight)), 5)
    const got = headTopK(step, hidden, weight, 5, small)
    expect(await step.read(got.ids)).toEqual(await step.read(want.indices))
    expectClose('probabilities', await step.read(got.probabilities), await step.read(want.values), 1e-6)
    const likeliest = await step.read(argmax(step, linear(step, hidden, weight)))
    expect(await step.read(headArgmax(step, hidden, weight, small))).toEqual(likeliest)
    await step.checkGuards()
  }))

test('headSamples draws each token as often as it is likely, in every chunk', () =>
  withoutLeaks(async () => {
    using step = gpu.step()
    const random = new Random(6)
    const one = random.normals(columns)
    // All rows alike: draws of all rows together are draws from one distribution.
    const hidden = step.upload(
      'f32',
      [rows, columns],
      [...Array(rows)].flatMap(() => [...one]),
    )
    const weight = step.upload('f32', [vocabulary, columns], random.normals(vocabulary * columns, 0.5))
    const likely = await step.read(softmax(step, linear(step, step.rows(hidden, 0, 1), weight)))
    const draws = 40
    const counts = new Float64Array(vocabulary)
    const firsts: number[][] = []
    for (const draw of headSamples(step, hidden, weight, { draws, seed: 9, ...small })) {
      const ids = await step.read(draw)
      firsts.push([...ids.subarray(0, 20)], [...ids.subarray(64, 84)])
      for (const id of ids) counts[id]++
    }
    const n = rows * draws
    for (const [id, p] of likely.entries())
      expect(Math.abs(counts[id] / n - p)).toBeLessThan(5 * Math.sqrt((p * (1 - p)) / n))
    expect(new Set(firsts.map(String)).size).toBe(2 * draws)
  }))
