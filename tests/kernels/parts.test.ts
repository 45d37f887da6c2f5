import { describe, expect, test } from 'vitest'
import { Random } from '../../src/core/random.ts'
import { silu, swiglu } from '../../src/kernels/elementwise.ts'
import { embedding } from '../../src/kernels/embedding.ts'
import { crossEntropy, divergence } from '../../src/kernels/losses.ts'
import { rowDispatch } from '../../src/kernels/parts.ts'
import { rowSum } from '../../src/kernels/reduce.ts'
import { rmsNorm } from '../../src/kernels/rms-norm.ts'
import { rope } from '../../src/kernels/rope.ts'
import { cosine } from '../../src/kernels/row-distance.ts'
import { softmax } from '../../src/kernels/softmax.ts'
import type { Step } from '../../src/runtime/step.ts'
import type { Tensor } from '../../src/runtime/tensor.ts'
import { expectClose } from '../check-op.ts'
import { gpu } from '../gpu.ts'

/** Runs `work` as if `gpu` were what `software` says: the other way to deal work out. */
async function dealtOutFor<T>(software: boolean, work: () => Promise<T>): Promise<T> {
  const before = gpu.software
  Object.defineProperty(gpu, 'software', { value: software, configurable: true })
  try {
    return await work()
  } finally {
    Object.defineProperty(gpu, 'software', { value: before, configurable: true })
  }
}

type F32 = Tensor<'f32'>
const ids = (step: Step, end: number, ...shape: number[]) => {
  const random = new Random(3)
  const size = shape.reduce((a, b) => a * b, 1)
  return step.upload(
    'u32',
    shape,
    Array.from({ length: size }, () => random.integer(end)),
  )
}
const ops: Record<string, (step: Step, x: F32) => F32> = {
  silu,
  swiglu: (step, x) => swiglu(step, x, x),
  softmax,
  rowSum,
  rmsNorm: (step, x) => rmsNorm(step, x, step.filled('f32', [x.shape[1]], 0.5)),
  cosine: (step, x) => cosine(step, x, silu(step, x)),
  crossEntropy: (step, x) => crossEntropy(step, x, ids(step, x.shape[1], x.shape[0])),
  divergence: (step, x) => divergence(step, x, silu(step, x), { kind: 'jsd' }),
  embedding: (step, x) => embedding(step, x, ids(step, x.shape[0], 300)),
  rope: (step, x) =>
    rope(step, step.reshape(x, [1, x.size / 12, 3, 4]), step.upload('f32', [2], [1, 0.3])) as unknown as F32,
}

describe('work dealt out for a GPU and for one in software gives the same', () => {
  for (const [name, op] of Object.entries(ops))
    for (const shape of [
      [3, 1200], // 300 quads: a workgroup of 256 on a GPU, a subgroup in software
      [130, 36], // more rows than a workgroup has invocations
    ])
      test(`${name} [${shape}]`, async () => {
        const values = new Random(5).normals(shape[0] * shape[1])
        const run = async () => {
          using step = gpu.step()
          const x = step.upload('f32', shape, values)
          x.requiresGrad = true
          const y = op(step, x)
          const seed = step.upload('f32', y.shape, new Random(6).normals(y.size))
          const dx = step.backward(y, { seed }).get(x)
          const results = [await step.read(y), await step.read(dx)]
          await step.checkGuards()
          return results
        }
        const [there, here] = [await dealtOutFor(false, run), await dealtOutFor(true, run)]
        const bound = name === 'divergence' ? 2e-5 : 2e-6 // its terms have both signs and cancel
        expectClose('output', here[0], there[0], bound)
        expectClose('gradient', here[1], there[1], 2 * bound)
      })
})

test('sums over long rows are good to 2e-6 of every element', async () => {
  using step = gpu.step()
  const [rows, columns] = [66, 4096] // the longest rows that get one invocation each in software
  const values = new Random(8).normals(rows * columns)
  const y = await step.read(softmax(step, step.upload('f32', [rows, columns], values)))
  for (let r = 0; r < rows; r++) {
    const row = Float64Array.from(values.subarray(r * columns, (r + 1) * columns), Math.exp)
    const all = row.reduce((a, b) => a + b)
    const worst = row.reduce((most, value, c) => Math.max(most, Math.abs((y[r * columns + c] * all) / value - 1)), 0)
    expect(worst).toBeLessThan(2e-6)
  }
})

test('rows are dealt out by what the adapter is', () => {
  const software = { software: true, capabilities: { ...gpu.capabilities, subgroupSize: 8 } } as typeof gpu
  const hardware = { software: false, capabilities: { ...gpu.capabilities, subgroupSize: 32 } } as typeof gpu
  expect(rowDispatch(software, 2048, 128, 0).constants).toEqual({ lanes: 1, group_size: 64 })
  expect(rowDispatch(software, 2048, 128, 0).workgroups).toEqual([32, 1])
  expect(rowDispatch(software, 100, 128, 0).constants).toEqual({ lanes: 1, group_size: 8 })
  expect(rowDispatch(software, 100, 128, 0).workgroups).toEqual([13, 1])
  expect(rowDispatch(software, 2, 128, 0).constants).toEqual({ lanes: 8, group_size: 8 })
  expect(rowDispatch(software, 2048, 40_000, 0).constants).toEqual({ lanes: 8, group_size: 8 })
  expect(rowDispatch(software, 2, 40_000, 0, 64).constants).toEqual({ lanes: 64, group_size: 64 })
  expect(rowDispatch(hardware, 2048, 128, 0).constants).toEqual({ lanes: 64, group_size: 64 })
  expect(rowDispatch(hardware, 2048, 40_000, 0).workgroups).toEqual([2048, 1])
})
