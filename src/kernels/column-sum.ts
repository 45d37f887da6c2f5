import type { FloatType } from '../core/dtype.ts'
import { rowsAndColumns } from '../core/shape.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { columnSum as wgsl } from './wgsl.gen.ts'

/**
 * Sum over all but the last dimension, in order: the second stage of a column reduction, for few rows.
 * @param x f32 (rows, C).
 * @param dtype of the result.
 * @returns (C). It has no gradient.
 */
export function columnSum<D extends FloatType>(step: Step, x: Tensor<'f32'>, dtype: D): Tensor<D> {
  const { rows, columns } = rowsAndColumns(x.shape)
  const y = step.empty(dtype, [columns], 'columnSum')
  step.run(wgsl.forward, { x, y }, { rows, columns }, { workgroups: [Math.ceil(columns / 64)], flops: x.size })
  return step.node('columnSum', y, [x], 'none')
}
