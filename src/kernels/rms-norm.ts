import type { FloatType } from '../core/dtype.ts'
import { rowsAndColumns } from '../core/shape.ts'
import { expectShape } from '../runtime/check.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { columnSum } from './column-sum.ts'
import { inParts, rowDispatch } from './parts.ts'
import { rmsNormQuads as quads, rmsNorm as single } from './wgsl.gen.ts'

/**
 * y = x / sqrt(mean(x²) + eps) · weight, over the last dimension.
 * @param x f32 or f16 (…, C).
 * @param weight the dtype of `x`, (C).
 * @param options.eps added to the mean square, 1e-5 unless told.
 * @returns the dtype and shape of `x`.
 * @throws RangeError when `weight` is not (C).
 * @see Zhang and Sennrich, Root Mean Square Layer Normalization, 2019, section 4.
 */
export function rmsNorm<D extends FloatType>(
  step: Step,
  x: Tensor<D>,
  weight: Tensor<D>,
  { eps = 1e-5 }: { eps?: number } = {},
): Tensor<D> {
  const { rows, columns } = rowsAndColumns(x.shape)
  expectShape('rmsNorm', x, 'weight', weight, [columns])
  const { wgsl, width } = inParts(single, quads, columns)
  const params = { rows, columns: columns / width, eps }
  const dispatch = (flops: number) => rowDispatch(step.gpu, rows, params.columns, flops * x.size)
  const y = step.empty(x.dtype, x.shape, 'rmsNorm')
  const rstd = step.empty('f32', [rows], 'rstd')
  step.run(wgsl.forward, { x, weight, y, rstd }, params, dispatch(4))

  return step.node('rmsNorm', y, [x, weight], (dy) => {
    const dx = x.requiresGrad ? step.empty(x.dtype, x.shape, 'dx') : null
    if (dx) step.run(wgsl.backwardX, { x, weight, dy, scales: rstd, dx }, params, dispatch(8))
    if (!weight.requiresGrad) return [dx, null]
    const slices = Math.min(32, rows)
    const slice_sums = step.empty('f32', [slices, columns], 'slices')
    step.run(wgsl.backwardWeight, { x, dy, scales: rstd, slice_sums }, params, {
      workgroups: [Math.ceil(params.columns / 64), slices],
      flops: 3 * x.size,
      constants: { slices },
    })
    return [dx, columnSum(step, slice_sums, weight.dtype)]
  })
}
