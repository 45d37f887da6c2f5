import type { FloatType } from '../core/dtype.ts'
import { rowsAndColumns } from '../core/shape.ts'
import { grid } from '../runtime/entry.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { softmax as wgsl } from './wgsl.gen.ts'

/**
 * exp(x) / Σ exp(x) over the last dimension.
 * @param x f32 or f16 (…, C).
 * @returns the dtype and shape of `x`; rows sum to 1.
 */
export function softmax<D extends FloatType>(step: Step, x: Tensor<D>): Tensor<D> {
  const params = rowsAndColumns(x.shape)
  const y = step.empty(x.dtype, x.shape, 'softmax')
  step.run(wgsl.forward, { x, y }, params, { workgroups: grid(params.rows), flops: 5 * x.size })
  return step.node('softmax', y, [x], (dy) => {
    const dx = step.empty(x.dtype, x.shape, 'dx')
    step.run(wgsl.backward, { out: y, dy, dx }, params, { workgroups: grid(params.rows), flops: 4 * x.size })
    return [dx]
  })
}
