import { expect, test } from 'vitest'
import { ropeFrequencies } from '../../src/formats/rope-scaling.ts'
import { columnSum } from '../../src/kernels/column-sum.ts'
import { embedding } from '../../src/kernels/embedding.ts'
import { gather } from '../../src/kernels/gather.ts'
import { mean, rowSum, sum } from '../../src/kernels/reduce.ts'
import { rope } from '../../src/kernels/rope.ts'
import { softmax } from '../../src/kernels/softmax.ts'
import type { Step } from '../../src/runtime/step.ts'
import type { Tensor } from '../../src/runtime/tensor.ts'
import { checkOp } from '../check-op.ts'
import { gpu } from '../gpu.ts'
import { zeros } from '../reference/array64.ts'
import { rope64 } from '../reference/attention.ts'
import { embedding64, gather64, rowSum64, softmax64, total64 } from '../reference/rows.ts'

checkOp('softmax', {
  op: softmax,
  reference: softmax64,
  shapes: [[[5, 37]], [[1, 1]], [[70, 3, 130]], [[5, 36]], [[150, 12]]],
})

const frequencies = (step: Step, turned: number) =>
  step.upload('f32', [turned / 2], ropeFrequencies(100, turned).inverse)

checkOp('rope', {
  op: (step, x) => rope(step, x, frequencies(step, x.shape[3]), { offset: 3 }),
  reference: (x) => rope64(x, ropeFrequencies(100, x.shape[3]).inverse, (_, t) => t + 3),
  shapes: [[[2, 5, 3, 6]], [[1, 1, 1, 2]], [[3, 17, 4, 8]]], // half of 8 is one quad
})

for (const [turned, shapes] of [
  [4, [[[2, 5, 3, 10]], [[3, 17, 4, 8]]]],
  [8, [[[3, 5, 3, 20]]]],
] as const)
  checkOp(`rope of ${turned} numbers of each head, from where each row stands`, {
    op: (step, x) => {
      const starts = step.upload('u32', [x.shape[0]], [7, 0, 50].slice(0, x.shape[0]))
      return rope(step, x, frequencies(step, turned), { offset: 3, starts, factor: 1.5 })
    },
    reference: (x) => rope64(x, ropeFrequencies(100, turned).inverse, (b, t) => t + 3 + [7, 0, 50][b], 1.5),
    shapes,
  })

// Ids with repeats, in no order; the same on both sides.
const idsFor = (rows: number, count: number) => Uint32Array.from({ length: count }, (_, i) => (i * i * 7 + 3) % rows)

checkOp('embedding', {
  op: (step, table) => embedding(step, table, step.upload('u32', [3, 50], idsFor(table.shape[0], 150))),
  reference: (table) => embedding64(table, { shape: [3, 50], data: idsFor(table.shape[0], 150) }),
  shapes: [[[5, 37]], [[1, 1]], [[96, 70]], [[7, 36]]],
})

test('an id past the table shows as NaN', async () => {
  using step = gpu.step()
  const y = embedding(step, step.filled('f32', [3, 2], 1), step.upload('u32', [2], [2, 3]))
  expect([...(await step.read(y))]).toEqual([1, 1, Number.NaN, Number.NaN])
})

checkOp('gather', {
  op: (step, x) => gather(step, x, step.upload('u32', [x.shape[0], 3], idsFor(x.shape[1], x.shape[0] * 3))),
  reference: (x) => gather64(x, idsFor(x.shape[1], x.shape[0] * 3), 3),
  shapes: [[[5, 37]], [[1, 1]], [[70, 9]]],
})

// Reductions give f32 whatever goes in.
checkOp('sum', {
  op: (step, x) => sum(step, x),
  reference: total64,
  shapes: [[[5, 37]], [[1, 1]], [[9000]]],
  tolerance: 1e-5,
})
checkOp('mean', {
  op: (step, x) => mean(step, x),
  reference: (x) => ({ shape: [1], data: total64(x).data.map((value) => value / x.data.length) }),
  shapes: [[[5, 37]]],
  tolerance: 1e-5,
})
checkOp('rowSum', {
  op: (step, x) => rowSum(step, x),
  reference: rowSum64,
  shapes: [[[5, 37]], [[1, 1]], [[2, 70, 130]], [[5, 36]], [[150, 12]]],
})
checkOp('columnSum', {
  op: (step, x) => columnSum(step, x as Tensor<'f32'>, 'f32'),
  reference: (x) => {
    const y = zeros(x.shape[1])
    for (const [i, value] of x.data.entries()) y.data[i % x.shape[1]] += value
    return y
  },
  shapes: [[[5, 37]], [[1, 1]], [[70, 130]]],
  dtypes: ['f32'],
  gradients: [],
})

test('training through an op without a gradient is refused', () => {
  using step = gpu.step()
  const x = step.filled('f32', [2, 2], 1)
  x.requiresGrad = true
  expect(() => step.backward(columnSum(step, x, 'f32'), { seed: step.filled('f32', [2], 1) })).toThrow(
    'Cannot differentiate columnSum: it has no gradient',
  )
})
