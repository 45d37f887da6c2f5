import type { FloatType } from '../core/dtype.ts'
import { rowsAndColumns } from '../core/shape.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { inParts, rowDispatch } from './parts.ts'
import { softmaxQuads as quads, softmax as single } from './wgsl.gen.ts'

/**
 * exp(x) / Σ exp(x) over the last dimension.
 * @param x f32 or f16 (…, C).
 * @returns the dtype and shape of `x`; rows sum to 1.
 */
export function softmax<D extends FloatType>(step: Step, x: Tensor<D>): Tensor<D> {
  const { rows, columns } = rowsAndColumns(x.shape)
  const { wgsl, width } = inParts(single, quads, columns)
  const params = { rows, columns: columns / width }
  const dispatch = (flops: number) => rowDispatch(step.gpu, rows, params.columns, flops * x.size)
  const y = step.empty(x.dtype, x.shape, 'softmax')
  step.run(wgsl.forward, { x, y }, params, dispatch(5))
  return step.node('softmax', y, [x], (dy) => {
    const dx = step.empty(x.dtype, x.shape, 'dx')
    step.run(wgsl.backward, { out: y, dy, dx }, params, dispatch(4))
    return [dx]
  })
}
