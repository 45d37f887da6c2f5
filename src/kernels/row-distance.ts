import type { FloatType } from '../core/dtype.ts'
import { rowsAndColumns } from '../core/shape.ts'
import { expectShape } from '../runtime/check.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { inParts, rowDispatch } from './parts.ts'
import { mean } from './reduce.ts'
import { rowDistanceQuads as quads, rowDistance as single } from './wgsl.gen.ts'

/**
 * mean((a − b)²) over the last dimension.
 * @param a f32 or f16 (…, C).
 * @param b the dtype and shape of `a`.
 * @returns f32 (…).
 * @throws RangeError when the shapes differ.
 */
export function squaredError<D extends FloatType>(step: Step, a: Tensor<D>, b: Tensor<D>): Tensor<'f32'> {
  return distance(step, 'squared', a, b)
}

/**
 * Mean squared error over all elements.
 * @param a f32 or f16, any shape of rank 1 or more.
 * @param b the dtype and shape of `a`.
 * @returns f32 [1].
 */
export function mse<D extends FloatType>(step: Step, a: Tensor<D>, b: Tensor<D>): Tensor<'f32'> {
  return mean(step, squaredError(step, a, b))
}

/**
 * Cosine of the angle between rows: a · b / (|a| |b|).
 * @param a f32 or f16 (…, C).
 * @param b the dtype and shape of `a`.
 * @returns f32 (…), 0 where a row is zero.
 * @throws RangeError when the shapes differ.
 */
export function cosine<D extends FloatType>(step: Step, a: Tensor<D>, b: Tensor<D>): Tensor<'f32'> {
  return distance(step, 'cosine', a, b)
}

function distance<D extends FloatType>(
  step: Step,
  name: 'squared' | 'cosine',
  a: Tensor<D>,
  b: Tensor<D>,
): Tensor<'f32'> {
  expectShape(name, a, 'b', b, a.shape)
  const { rows, columns } = rowsAndColumns(a.shape)
  const { wgsl, width } = inParts(single, quads, columns)
  const params = { rows, columns: columns / width }
  const dispatch = (flops: number) => rowDispatch(step.gpu, rows, params.columns, flops * a.size)
  const y = step.empty('f32', a.shape.slice(0, -1), name)
  step.run(wgsl[name], { a, b, y }, params, dispatch(6))
  return step.node(name, y, [a, b], (dy) => {
    const toward = (a: Tensor<D>, b: Tensor<D>) => {
      if (!a.requiresGrad) return null
      const da = step.empty(a.dtype, a.shape, 'da')
      step.run(wgsl[`${name}Backward`], { a, b, dy, da }, params, dispatch(8))
      return da
    }
    return [toward(a, b), toward(b, a)]
  })
}
