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
import { type Array64, checkOp, zeros } from '../check-op.ts'
import { gpu } from '../gpu.ts'

checkOp('softmax', {
  op: softmax,
  reference: (x) => {
    const y = zeros(...x.shape)
    const columns = x.shape.at(-1)!
    for (let base = 0; base < x.data.length; base += columns) {
      const row = x.data.subarray(base, base + columns)
      const total = row.reduce((all, value) => all + Math.exp(value), 0)
      for (const [c, value] of row.entries()) y.data[base + c] = Math.exp(value) / total
    }
    return y
  },
  shapes: [[[5, 37]], [[1, 1]], [[70, 3, 130]], [[5, 36]], [[150, 12]]],
})

/** Rows begin at `starts`; `turned` numbers of a head are rotated. */
function ropeOracle(x: Array64, starts: readonly number[], turned: number, factor: number): Array64 {
  const [, tokens, heads, size] = x.shape
  const y = zeros(...x.shape)
  for (let i = 0; i < x.data.length; i++) {
    const d = i % size
    const token = Math.floor(i / size / heads)
    if (d >= turned) {
      y.data[i] = x.data[i]
      continue
    }
    const position = (token % tokens) + 3 + starts[Math.floor(token / tokens)]
    const angle = position * Math.fround(100 ** (-(d % (turned / 2)) / (turned / 2)))
    const partner = d < turned / 2 ? -x.data[i + turned / 2] : x.data[i - turned / 2]
    y.data[i] = factor * (x.data[i] * Math.cos(angle) + partner * Math.sin(angle))
  }
  return y
}

const frequencies = (step: Step, turned: number) =>
  step.upload('f32', [turned / 2], ropeFrequencies(100, turned).inverse)

checkOp('rope', {
  op: (step, x) => rope(step, x, frequencies(step, x.shape[3]), { offset: 3 }),
  reference: (x) => ropeOracle(x, [0, 0, 0], x.shape[3], 1),
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
    reference: (x) => ropeOracle(x, [7, 0, 50], turned, 1.5),
    shapes,
  })

// Ids with repeats, in no order; the same on both sides.
const idsFor = (rows: number, count: number) => Uint32Array.from({ length: count }, (_, i) => (i * i * 7 + 3) % rows)

checkOp('embedding', {
  op: (step, table) => embedding(step, table, step.upload('u32', [3, 50], idsFor(table.shape[0], 150))),
  reference: (table) => {
    const columns = table.shape[1]
    const y = zeros(3, 50, columns)
    for (const [i, id] of idsFor(table.shape[0], 150).entries())
      y.data.set(table.data.subarray(id * columns, (id + 1) * columns), i * columns)
    return y
  },
  shapes: [[[5, 37]], [[1, 1]], [[96, 70]], [[7, 36]]],
})

test('an id past the table shows as NaN', async () => {
  using step = gpu.step()
  const y = embedding(step, step.filled('f32', [3, 2], 1), step.upload('u32', [2], [2, 3]))
  expect([...(await step.read(y))]).toEqual([1, 1, Number.NaN, Number.NaN])
})

checkOp('gather', {
  op: (step, x) => gather(step, x, step.upload('u32', [x.shape[0], 3], idsFor(x.shape[1], x.shape[0] * 3))),
  reference: (x) => {
    const [rows, columns] = x.shape
    const y = zeros(rows, 3)
    for (const [i, id] of idsFor(columns, rows * 3).entries()) y.data[i] = x.data[Math.floor(i / 3) * columns + id]
    return y
  },
  shapes: [[[5, 37]], [[1, 1]], [[70, 9]]],
})

// Reductions give f32 whatever goes in.
const total = (x: Array64) => x.data.reduce((all, value) => all + value, 0)
checkOp('sum', {
  op: (step, x) => sum(step, x),
  reference: (x) => ({ shape: [1], data: Float64Array.of(total(x)) }),
  shapes: [[[5, 37]], [[1, 1]], [[9000]]],
  tolerance: 1e-5,
})
checkOp('mean', {
  op: (step, x) => mean(step, x),
  reference: (x) => ({ shape: [1], data: Float64Array.of(total(x) / x.data.length) }),
  shapes: [[[5, 37]]],
  tolerance: 1e-5,
})
checkOp('rowSum', {
  op: (step, x) => rowSum(step, x),
  reference: (x) => {
    const y = zeros(...x.shape.slice(0, -1))
    for (const [i, value] of x.data.entries()) y.data[Math.floor(i / x.shape.at(-1)!)] += value
    return y
  },
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
