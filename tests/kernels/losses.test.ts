import { describe, expect, test } from 'vitest'
import { crossEntropy, type DivergenceOptions, divergence, topKDivergence } from '../../src/kernels/losses.ts'
import { mean } from '../../src/kernels/reduce.ts'
import { cosine, mse, squaredError } from '../../src/kernels/row-distance.ts'
import { weightedMean } from '../../src/kernels/weighted-mean.ts'
import type { Tensor } from '../../src/runtime/tensor.ts'
import { type Array64, checkOp, zeros } from '../check-op.ts'
import { gpu } from '../gpu.ts'

function rows(x: Array64): Float64Array[] {
  const columns = x.shape.at(-1)!
  return Array.from({ length: x.data.length / columns }, (_, r) => x.data.subarray(r * columns, (r + 1) * columns))
}

function logSoftmax(row: Float64Array, temperature = 1): Float64Array {
  const total = row.reduce((all, value) => all + Math.exp(value / temperature), 0)
  return row.map((value) => value / temperature - Math.log(total))
}

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
    return { shape: x.shape.slice(0, -1), data: Float64Array.from(rows(x), (row, r) => -logSoftmax(row)[targets[r]]) }
  },
  shapes: [[[5, 37]], [[1, 2]], [[2, 33, 70]], [[5, 36]], [[150, 12]]],
})

test('a target past the vocabulary shows as NaN', async () => {
  using step = gpu.step()
  expect(await step.read(crossEntropy(step, step.filled('f32', [1, 3], 0), step.upload('u32', [1], [3])))).toEqual(
    Float32Array.of(Number.NaN),
  )
})

function divergenceOracle({ kind = 'forwardKl', weight: w = 0.1, temperature = 1 }: DivergenceOptions) {
  const term = (q: number, t: number): number => {
    if (kind === 'jsd' && w === 0) return t * Math.log(t / q)
    if (kind === 'jsd' && w === 1) return q * Math.log(q / t)
    const m = kind === 'skewedReverseKl' ? (1 - w) * t + w * q : w * t + (1 - w) * q
    if (kind === 'forwardKl') return t * Math.log(t / q)
    if (kind === 'reverseKl') return q * Math.log(q / t)
    if (kind === 'jsd') return w * t * Math.log(t / m) + (1 - w) * q * Math.log(q / m)
    return kind === 'skewedKl' ? t * Math.log(t / m) : q * Math.log(q / m)
  }
  return (student: Array64, teacher: Array64): Array64 => {
    const others = rows(teacher)
    const data = Float64Array.from(rows(student), (row, r) => {
      const t = logSoftmax(others[r], temperature)
      return (
        logSoftmax(row, temperature).reduce((all, q, c) => all + term(Math.exp(q), Math.exp(t[c])), 0) *
        temperature ** 2
      )
    })
    return { shape: student.shape.slice(0, -1), data }
  }
}

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
    reference: divergenceOracle(options),
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
    reference: (student) => ({
      shape: [student.shape[0]],
      data: Float64Array.from(rows(student), (row, r) => {
        const { ids, probabilities } = likeliest(teacherRow(r, row.length), k)
        const q = logSoftmax(row)
        const tailT = 1 - probabilities.reduce((all, p) => all + p, 0)
        const tailQ = 1 - ids.reduce((all, id) => all + Math.exp(q[id]), 0)
        if (kind === 'reverseKl') {
          const known = ids.reduce((all, id, j) => all + Math.exp(q[id]) * (q[id] - Math.log(probabilities[j])), 0)
          return known + Math.max(tailQ, 1e-6) * Math.log(Math.max(tailQ, 1e-6) / Math.max(tailT, 1e-6))
        }
        const kl = ids.reduce((all, id, j) => all + probabilities[j] * (Math.log(probabilities[j]) - q[id]), 0)
        return kl + (tailT > 1e-6 ? tailT * Math.log(tailT / tailQ) : 0)
      }),
    }),
    shapes: [[[5, 37]], [[3, 4]], [[66, 70]], [[150, 12]]],
    tolerance: 1e-5,
  })

checkOp('squaredError', {
  op: squaredError,
  reference: (a, b) => {
    const others = rows(b)
    return {
      shape: a.shape.slice(0, -1),
      data: Float64Array.from(
        rows(a),
        (row, r) => row.reduce((all, v, c) => all + (v - others[r][c]) ** 2, 0) / row.length,
      ),
    }
  },
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
  reference: (a, b) => ({
    shape: a.shape.slice(0, -1),
    data: Float64Array.from(rows(a), (x, r) => {
      const y = rows(b)[r]
      const dot = x.reduce((all, v, c) => all + v * y[c], 0)
      return dot / Math.hypot(...x) / Math.hypot(...y)
    }),
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
