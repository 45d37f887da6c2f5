import { expect, test } from 'vitest'
import { causalConv1d } from '../../src/kernels/causal-conv1d.ts'
import { type Array64, checkOp, zeros } from '../check-op.ts'
import { gpu } from '../gpu.ts'

function convolution(x: Array64, weight: Array64, bias?: Array64): Array64 {
  const [batch, tokens, channels] = x.shape
  const taps = weight.shape[1]
  const y = zeros(...x.shape)
  for (let b = 0; b < batch; b++)
    for (let t = 0; t < tokens; t++)
      for (let c = 0; c < channels; c++) {
        let sum = bias ? bias.data[c] : 0
        for (let k = 0; k < taps; k++) {
          const from = t - (taps - 1) + k
          if (from >= 0) sum += weight.data[c * taps + k] * x.data[(b * tokens + from) * channels + c]
        }
        y.data[(b * tokens + t) * channels + c] = sum
      }
  return y
}

checkOp('causalConv1d with bias', {
  op: (step, x, weight, bias) => causalConv1d(step, x, weight, { bias }),
  reference: convolution,
  shapes: [
    [[2, 37, 5], [5, 4], [5]],
    [[1, 1, 1], [1, 4], [1]],
    [[3, 70, 130], [130, 4], [130]],
  ],
})

checkOp('causalConv1d without bias', {
  op: (step, x, weight) => causalConv1d(step, x, weight),
  reference: convolution,
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
    const y = convolution(x, weight, bias)
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
