import type { FloatType } from '../core/dtype.ts'
import { rowsAndColumns } from '../core/shape.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { scale } from './elementwise.ts'
import { inParts, rowDispatch } from './parts.ts'
import { reduceQuads as quads, reduce as single } from './wgsl.gen.ts'

/**
 * Sum over the last dimension.
 * @param x f32 or f16 (…, C).
 * @returns f32 (…).
 */
export function rowSum(step: Step, x: Tensor<FloatType>): Tensor<'f32'> {
  return fold(step, x, rowsAndColumns(x.shape).columns, x.shape.slice(0, -1))
}

const chunk = 2048

/**
 * Sum of all elements, by chunks in a fixed order.
 * @param x f32 or f16, any shape.
 * @returns f32 [1].
 */
export function sum(step: Step, x: Tensor<FloatType>): Tensor<'f32'> {
  let partial: Tensor<FloatType> = x
  do partial = fold(step, partial, chunk, [Math.ceil(partial.size / chunk)])
  while (partial.size > 1)
  return partial as Tensor<'f32'>
}

/**
 * Mean of all elements.
 * @param x f32 or f16, any shape.
 * @returns f32 [1].
 */
export function mean(step: Step, x: Tensor<FloatType>): Tensor<'f32'> {
  return scale(step, sum(step, x), 1 / x.size)
}

function fold(step: Step, x: Tensor<FloatType>, columns: number, shape: readonly number[]): Tensor<'f32'> {
  const y = step.empty('f32', shape, 'sum')
  const { wgsl, width } = inParts(single, quads, x.size % 4 === 0 ? columns : x.size)
  const params = { size: x.size / width, rows: y.size, columns: columns / width }
  const dispatch = (flops: number) => rowDispatch(step.gpu, y.size, params.columns, flops)
  step.run(wgsl.rowSum, { x, y }, params, dispatch(x.size))
  return step.node('sum', y, [x], (dy) => {
    const dx = step.empty(x.dtype, x.shape, 'dx')
    step.run(wgsl.spread, { dy, dx }, params, dispatch(0))
    return [dx]
  })
}
