import { expect, test } from 'vitest'
import { causalConv1d } from '../../src/kernels/causal-conv1d.ts'
import { checkOp } from '../check-op.ts'
import { gpu } from '../gpu.ts'
import { causalConv64 } from '../reference/state-space.ts'

checkOp('causalConv1d with bias', {
  op: (step, x, weight, bias) => causalConv1d(step, x, weight, { bias }),
  reference: causalConv64,
  shapes: [
    [[2, 37, 5], [5, 4], [5]],
    [[1, 1, 1], [1, 4], [1]],
    [[3, 70, 130], [130, 4], [130]],
  ],
})

checkOp('causalConv1d without bias', {
  op: (step, x, weight) => causalConv1d(step, x, weight),
  reference: causalConv64,
  shapes: [
    [
      [2, 33, 66],
      [66, 4],
    ],
  ],
})

checkOp('causalConv1d with SiLU', {
  op: (step, x, weight, bias) => causalConv1d(step, x, weight, { bias, activation: 'silu' }),
  reference: (x, weight, bias) => {
    const y = causalConv64(x, weight, bias)
    for (const [i, value] of y.data.entries()) y.data[i] = value / (1 + Math.exp(-value))
    return y
  },
  shapes: [
    [[2, 70, 67], [67, 4], [67]],
    [[1, 5, 3], [3, 8], [3]],
  ],
  dtypes: ['f32'],
})

test('causalConv1d says what does not fit', () => {
  using step = gpu.step()
  const x = step.filled('f32', [2, 5, 6], 1)
  expect(() => causalConv1d(step, x, step.filled('f32', [7, 4], 1))).toThrow(
    'Cannot causalConv1d x [2,5,6]: weight must be [6,4], got [7,4]',
  )
  expect(() => causalConv1d(step, x, step.filled('f32', [6, 9], 1))).toThrow('weight must have 2 to 8 taps, got 9')
  expect(() => causalConv1d(step, x, step.filled('f32', [6, 4], 1), { bias: step.filled('f32', [5], 1) })).toThrow(
    'bias must be [6], got [5]',
  )
})
