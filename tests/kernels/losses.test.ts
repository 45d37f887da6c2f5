import { describe, expect, test } from 'vitest'
import { crossEntropy, type DivergenceOptions, divergence, topKDivergence } from '../../src/kernels/losses.ts'
import { mean } from '../../src/kernels/reduce.ts'
import { cosine, mse, squaredError } from '../../src/kernels/row-distance.ts'
import { weightedMean } from '../../src/kernels/weighted-mean.ts'
import type { Tensor } from '../../src/runtime/tensor.ts'
import { checkOp } from '../check-op.ts'
import { gpu } from '../gpu.ts'
import { zeros } from '../reference/array64.ts'
import {
  cosine64,
  crossEntropy64,
  divergence64,
  logSoftmax,
  squaredError64,
  topKDivergence64,
} from '../reference/losses.ts'

const targetsOf = (count: number, columns: number) =>
  Uint32Array.from({ length: count }, (_, i) => (i * 5 + 1) % columns)

checkOp('crossEntropy', {
  op: (step, x) =>
    crossEntropy(
      step,
      x,
      step.upload('u32', x.shape.slice(0, -1), targetsOf(x.size / x.shape.at(-1)!, x.shape.at(-1)!)),
    ),
  reference: (x) => {
    const targets = targetsOf(x.data.length / x.shape.at(-1)!, x.shape.at(-1)!)
    return crossEntropy64(x, targets)
  },
  shapes: [[[5, 37]], [[1, 2]], [[2, 33, 70]], [[5, 36]], [[150, 12]]],
})

test('a target past the vocabulary shows as NaN', async () => {
  using step = gpu.step()
  expect(await step.read(crossEntropy(step, step.filled('f32', [1, 3], 0), step.upload('u32', [1], [3])))).toEqual(
    Float32Array.of(Number.NaN),
  )
})

const family: DivergenceOptions[] = [
  {},
  { temperature: 2 },
  { kind: 'reverseKl', temperature: 0.7 },
  { kind: 'jsd', weight: 0.1 },
  { kind: 'jsd', weight: 0 },
  { kind: 'jsd', weight: 1 },
  { kind: 'skewedKl', weight: 0.1 },
  { kind: 'skewedReverseKl', weight: 0.1, temperature: 3 },
]
for (const options of family)
  checkOp(`divergence ${JSON.stringify(options)}`, {
    op: (step, student, teacher) => divergence(step, student, teacher, options),
    reference: (student, teacher) => divergence64(student, teacher, options),
    shapes: [
      [
        [5, 37],
        [5, 37],
      ],
      [
        [5, 36],
        [5, 36],
      ],
      [
        [150, 12],
        [150, 12],
      ],
      [
        [1, 2],
        [1, 2],
      ],
      [
        [66, 70],
        [66, 70],
      ],
    ],
    gradients: [0],
    tolerance: 2e-5, // its terms have both signs and cancel,
  })

describe('golden values of the divergences', () => {
  const s = [1, 2, 0.5, -1, 0.2, -0.3, 0.7, 1.1]
  const t = [0.5, 2.5, -0.5, 0, 1, 0, 0, -1]
  const golden: [DivergenceOptions, number][] = [
    [{}, 0.319294703608],
    [{ kind: 'reverseKl' }, 0.38602212681],
    [{ kind: 'jsd', weight: 0.1 }, 0.028612476945],
    [{ kind: 'jsd', weight: 0.5 }, 0.08168570204],
    [{ kind: 'jsd', weight: 0.9 }, 0.032919265949],
    [{ kind: 'skewedKl', weight: 0.1 }, 0.257024267332],
    [{ kind: 'skewedReverseKl', weight: 0.1 }, 0.282677935444],
    [{ temperature: 2 }, 4 * 0.098927504111],
  ]
  test.each(golden)('%o is %d', async (options, want) => {
    using step = gpu.step()
    const student = step.upload('f32', [2, 4], s)
    const teacher = step.upload('f32', [2, 4], t)
    expect(await step.readNumber(mean(step, divergence(step, student, teacher, options)))).toBeCloseTo(want, 6)
  })
})

/** The k likeliest of softmax(row) in a fixed order, and their probabilities. */
function likeliest(row: Float64Array, k: number): { ids: number[]; probabilities: number[] } {
  const p = logSoftmax(row).map(Math.exp)
  const ids = [...p.keys()].sort((a, b) => p[b] - p[a]).slice(0, k)
  return { ids, probabilities: ids.map((id) => p[id]) }
}

const teacherRow = (r: number, columns: number) =>
  Float64Array.from({ length: columns }, (_, c) => Math.sin(r * 7 + c * 3) * 2)

for (const [kind, k] of [
  ['forwardKl', 1],
  ['forwardKl', 3],
  ['forwardKl', 4],
  ['reverseKl', 1],
  ['reverseKl', 3],
] as const)
  checkOp(`topKDivergence ${kind}, k = ${k}`, {
    op: (step, student) => {
      const [count, columns] = student.shape
      const top = Array.from({ length: count }, (_, r) => likeliest(teacherRow(r, columns), k))
      const ids = step.upload(
        'u32',
        [count, k],
        top.flatMap((row) => row.ids),
      )
      const probabilities = step.upload(
        student.dtype,
        [count, k],
        top.flatMap((row) => row.probabilities),
      )
      return topKDivergence(step, student, ids, probabilities, { kind })
    },
    reference: (student) => {
      const [count, columns] = student.shape
      const top = Array.from({ length: count }, (_, r) => likeliest(teacherRow(r, columns), k))
      const [ids, probabilities] = [top.flatMap((row) => row.ids), top.flatMap((row) => row.probabilities)]
      return topKDivergence64(student, ids, probabilities, k, kind)
    },
    shapes: [[[5, 37]], [[3, 4]], [[66, 70]], [[150, 12]]],
    tolerance: 1e-5,
  })

checkOp('squaredError', {
  op: squaredError,
  reference: squaredError64,
  shapes: [
    [
      [5, 37],
      [5, 37],
    ],
    [
      [5, 36],
      [5, 36],
    ],
    [
      [150, 12],
      [150, 12],
    ],
    [
      [1, 1],
      [1, 1],
    ],
    [
      [66, 70],
      [66, 70],
    ],
  ],
})

checkOp('mse', {
  op: mse,
  reference: (a, b) => ({
    shape: [1],
    data: Float64Array.of(a.data.reduce((all, v, i) => all + (v - b.data[i]) ** 2, 0) / a.data.length),
  }),
  shapes: [
    [
      [5, 37],
      [5, 37],
    ],
    [
      [5, 36],
      [5, 36],
    ],
    [
      [150, 12],
      [150, 12],
    ],
  ],
})

checkOp('cosine', {
  op: cosine,
  reference: cosine64,
  shapes: [
    [
      [5, 37],
      [5, 37],
    ],
    [
      [5, 36],
      [5, 36],
    ],
    [
      [150, 12],
      [150, 12],
    ],
    [
      [3, 2],
      [3, 2],
    ],
    [
      [66, 70],
      [66, 70],
    ],
  ],
  tolerance: 4e-6,
})

checkOp('weightedMean', {
  op: (step, x) =>
    weightedMean(
      step,
      x as Tensor<'f32'>,
      step.upload(
        'f32',
        x.shape,
        Float32Array.from({ length: x.size }, (_, i) => i % 2),
      ),
      7,
    ),
  reference: (x) => {
    const y = zeros(1)
    y.data[0] = x.data.reduce((all, v, i) => all + v * (i % 2), 0) / 7
    return y
  },
  shapes: [[[5, 37]]],
  dtypes: ['f32'],
})
