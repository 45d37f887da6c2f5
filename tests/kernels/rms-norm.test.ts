import { expect, test } from 'vitest'
import { rmsNorm } from '../../src/kernels/rms-norm.ts'
import { checkOp, zeros } from '../check-op.ts'
import { gpu } from '../gpu.ts'

checkOp('rmsNorm', {
  op: (step, x, weight) => rmsNorm(step, x, weight, { eps: 1e-5 }),
  reference: (x, weight) => {
    const columns = weight.shape[0]
    const y = zeros(...x.shape)
    for (let base = 0; base < x.data.length; base += columns) {
      let squares = 0
      for (let c = 0; c < columns; c++) squares += x.data[base + c] ** 2
      const rstd = 1 / Math.sqrt(squares / columns + 1e-5)
      for (let c = 0; c < columns; c++) y.data[base + c] = x.data[base + c] * rstd * weight.data[c]
    }
    return y
  },
  shapes: [
    [[5, 37], [37]],
    [[1, 1], [1]],
    [[3, 50, 130], [130]],
    [[5, 36], [36]],
    [[150, 12], [12]],
  ],
})

test('rmsNorm says which shape is wrong', () => {
  using step = gpu.step()
  const x = step.filled('f32', [5, 37], 1)
  expect(() => rmsNorm(step, x, step.filled('f32', [36], 1))).toThrow(
    'Cannot rmsNorm x [5,37]: weight must be [37], got [36]',
  )
})
