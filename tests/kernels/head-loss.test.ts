import { describe, expect, test } from 'vitest'
import { Random } from '../../src/core/random.ts'
import { headCrossEntropy, headDivergence, headTopKDivergence } from '../../src/kernels/head-loss.ts'
import { crossEntropy, divergence, topKDivergence } from '../../src/kernels/losses.ts'
import { linear } from '../../src/kernels/matmul.ts'
import { sum } from '../../src/kernels/reduce.ts'
import type { Step } from '../../src/runtime/step.ts'
import type { Tensor } from '../../src/runtime/tensor.ts'
import { expectClose } from '../check-op.ts'
import { gpu, withoutLeaks } from '../gpu.ts'

const [rows, columns, vocabulary] = [150, 12, 36]

/** Loss of each row and gradients of hidden and weight. */
async function run(loss: (step: Step, hidden: Tensor<'f32'>, weight: Tensor<'f32'>, random: Random) => Tensor<'f32'>) {
  using step = gpu.step()
  const random = new Random(3)
  const hidden = step.upload('f32', [2, rows / 2, columns], random.normals(rows * columns))
  const weight = step.upload('f32', [vocabulary, columns], random.normals(vocabulary * columns))
  hidden.requiresGrad = weight.requiresGrad = true
  const y = loss(step, hidden, weight, random)
  const seed = step.upload('f32', y.shape, random.normals(y.size))
  const gradients = step.backward(y, { seed })
  const result = await Promise.all([y, gradients.get(hidden), gradients.get(weight)].map((t) => step.read(t)))
  expect(y.shape).toEqual([2, rows / 2])
  await step.checkGuards()
  return result
}

const ids = (step: Step, random: Random, k: number) =>
  step.upload(
    'u32',
    k === 1 ? [2, rows / 2] : [2, rows / 2, k],
    Uint32Array.from({ length: rows * k }, (_, i) => (i % k) * 4 + random.integer(4)),
  )
const teacherOf = (step: Step, random: Random) => ({
  hidden: step.upload('f32', [2, rows / 2, 8], random.normals(rows * 8)),
  weight: step.upload('f32', [vocabulary, 8], random.normals(vocabulary * 8)),
})
const shares = (step: Step) => step.filled('f32', [2, rows / 2, 5], 0.15)
const small = { chunkBytes: 64 * vocabulary * 4 } // 64 rows of 150: three chunks, the last of them short

describe('losses over the head equal the plain ops on its logits', () => {
  test('headCrossEntropy', () =>
    withoutLeaks(async () => {
      const want = await run((step, h, w, random) => crossEntropy(step, linear(step, h, w), ids(step, random, 1)))
      const got = await run((step, h, w, random) => headCrossEntropy(step, h, w, ids(step, random, 1), small))
      for (const [i, values] of got.entries()) expectClose(`result ${i}`, values, want[i], 2e-6)
      const whole = await run((step, h, w, random) => headCrossEntropy(step, h, w, ids(step, random, 1)))
      expect(whole).toEqual(want)
    }))

  test.each(['forwardKl', 'reverseKl', 'jsd', 'skewedKl', 'skewedReverseKl'] as const)('headDivergence %s', (kind) =>
    withoutLeaks(async () => {
      const options = { kind, temperature: 2 }
      const want = await run((step, h, w, random) => {
        const teacher = teacherOf(step, random)
        return divergence(step, linear(step, h, w), linear(step, teacher.hidden, teacher.weight), options)
      })
      const got = await run((step, h, w, random) =>
        headDivergence(step, h, w, teacherOf(step, random), { ...options, ...small }),
      )
      for (const [i, values] of got.entries()) expectClose(`result ${i}`, values, want[i], 4e-6)
    }),
  )

  test('headTopKDivergence', () =>
    withoutLeaks(async () => {
      const want = await run((step, h, w, random) =>
        topKDivergence(step, linear(step, h, w), ids(step, random, 5), shares(step)),
      )
      const got = await run((step, h, w, random) =>
        headTopKDivergence(step, h, w, ids(step, random, 5), shares(step), small),
      )
      for (const [i, values] of got.entries()) expectClose(`result ${i}`, values, want[i], 4e-6)
    }))
})

test('the memory of a loss over the head does not grow with the vocabulary', () => {
  const peak = (size: number) => {
    using step = gpu.step()
    const hidden = step.filled('f32', [512, 4], 1)
    const weight = step.filled('f32', [size, 4], 1)
    hidden.requiresGrad = true
    const before = gpu.memory.liveBytes
    const most = gpu.watchPeak()
    const y = headCrossEntropy(step, hidden, weight, step.filled('u32', [512], 3), { chunkBytes: 2 ** 20 })
    step.backward(sum(step, y))
    return most() - before
  }
  const [low, high] = [peak(1024), peak(4096)]
  expect(high).toBeLessThan(low * 1.1)
})

test('losses over the head say what does not fit', () => {
  using step = gpu.step()
  const hidden = step.filled('f32', [4, 6], 1)
  const targets = step.filled('u32', [4], 0)
  expect(() => headCrossEntropy(step, hidden, step.filled('f32', [9, 5], 1), targets)).toThrow(
    'Cannot headCrossEntropy hidden [4,6] with weight [9,5]',
  )
  expect(() => headCrossEntropy(step, hidden, step.filled('f32', [9, 6], 1), step.filled('u32', [3], 0))).toThrow(
    'targets must be [4]',
  )
})
