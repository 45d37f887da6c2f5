import { expect, test } from 'vitest'
import { rmsNorm } from '../../src/kernels/rms-norm.ts'
import { checkOp } from '../check-op.ts'
import { gpu } from '../gpu.ts'
import { rmsNorm64 } from '../reference/rows.ts'

checkOp('rmsNorm', {
  op: (step, x, weight) => rmsNorm(step, x, weight, { eps: 1e-5 }),
  reference: (x, weight) => rmsNorm64(x, weight, 1e-5),
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
