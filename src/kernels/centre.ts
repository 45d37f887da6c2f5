import type { FloatType } from '../core/dtype.ts'
import { rowsAndColumns } from '../core/shape.ts'
import { expectShape } from '../runtime/check.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { inParts, mapDispatch, rowDispatch } from './parts.ts'
import { centreQuads as quads, centre as single } from './wgsl.gen.ts'

/**
 * weights[r] · (x[r, c] − shift[c]): rows moved by a vector and weighed.
 * @param x f32 or f16 (…, C).
 * @param weights f32 (…), one a row.
 * @param shift f32 (C).
 * @returns f32 (rows, C). It has no gradient.
 * @throws RangeError when the sizes do not fit.
 */
export function centre(step: Step, x: Tensor<FloatType>, weights: Tensor<'f32'>, shift: Tensor<'f32'>): Tensor<'f32'> {
  const { rows, columns } = rowsAndColumns(x.shape)
  expectShape('centre', x, 'weights', weights, x.shape.slice(0, -1))
  expectShape('centre', x, 'shift', shift, [columns])
  const y = step.empty('f32', [rows, columns], 'centred')
  const { wgsl, width } = inParts(single, quads, columns)
  const params = { rows, columns: columns / width }
  step.run(wgsl.forward, { x, weights, shift, y }, params, rowDispatch(step.gpu, rows, params.columns, 2 * x.size))
  return step.node('centre', y, [x], 'none')
}

/**
 * total += part, in place.
 * @param total f32, any shape; it outlives the step.
 * @param part f32 or f16, the shape of `total`.
 */
export function accumulate(step: Step, total: Tensor<'f32'>, part: Tensor<FloatType>): void {
  expectShape('accumulate', total, 'part', part, total.shape)
  const { wgsl, width } = inParts(single, quads, total.size)
  const columns = total.size / width
  const dispatch = { ...mapDispatch(step.gpu, columns, total.size), bytes: 3 * total.bytes }
  step.run(wgsl.accumulate, { addend: part, sum: total }, { rows: 1, columns }, dispatch)
}
