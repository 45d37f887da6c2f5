import type { FloatType } from '../core/dtype.ts'
import { rowsAndColumns, showShape } from '../core/shape.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { inParts, rowDispatch } from './parts.ts'
import { selectQuads as quads, select as single } from './wgsl.gen.ts'

/**
 * The `k` largest elements of each row, largest first; ties go to the smaller index.
 * @param x f32 or f16 (…, C), finite.
 * @param k 1 to C.
 * @param into where the result is written, of the shapes below; new tensors unless told.
 * @returns `indices` u32 (…, k), and `values` (…, k) in the dtype of `x`. They have no gradient.
 * @throws RangeError when k is out of range.
 */
export function topK<D extends FloatType>(
  step: Step,
  x: Tensor<D>,
  k: number,
  into?: { readonly indices: Tensor<'u32'>; readonly values: Tensor<D> },
): { indices: Tensor<'u32'>; values: Tensor<D> } {
  const { rows, columns } = rowsAndColumns(x.shape)
  if (!Number.isInteger(k) || k < 1 || k > columns)
    throw new RangeError(`Cannot topK x ${showShape(x.shape)}: k must be 1 to ${columns}, got ${k}`)
  const shape = [...x.shape.slice(0, -1), k]
  const indices = into?.indices ?? step.empty('u32', shape, 'indices')
  const values = into?.values ?? step.empty(x.dtype, shape, 'values')
  const { wgsl, width } = inParts(single, quads, columns)
  const params = { rows, columns: columns / width, k, inverse_temperature: 1, seed: 0 }
  step.run(wgsl.topK, { x, indices, values }, params, rowDispatch(step.gpu, rows, params.columns, x.size * k, k))
  return { indices, values: step.node('topK', values, [x], 'none') }
}

/**
 * Index of the largest element of each row; ties go to the smaller index.
 * @param x f32 or f16 (…, C), finite.
 * @returns u32 (…). It has no gradient.
 */
export function argmax(step: Step, x: Tensor<FloatType>): Tensor<'u32'> {
  return step.reshape(topK(step, x, 1).indices, x.shape.slice(0, -1))
}

/**
 * One index of each row drawn from softmax(x / temperature). The same seed gives the same draw.
 * @param x f32 or f16 (…, C), logits.
 * @param options.temperature above 0; 1 unless told.
 * @param options.seed an integer; use another one for every draw.
 * @param options.into u32 (…), where the result is written; a new tensor unless told.
 * @returns u32 (…). It has no gradient.
 * @throws RangeError when the temperature is not positive.
 */
export function sample(
  step: Step,
  x: Tensor<FloatType>,
  { temperature = 1, seed, into }: { temperature?: number; seed: number; into?: Tensor<'u32'> },
): Tensor<'u32'> {
  if (!(temperature > 0))
    throw new RangeError(`Cannot sample at temperature ${temperature}: it must be > 0; use argmax`)
  const { rows, columns } = rowsAndColumns(x.shape)
  const indices = into ?? step.empty('u32', x.shape.slice(0, -1), 'sample')
  const { wgsl, width } = inParts(single, quads, columns)
  const params = { rows, columns: columns / width, k: 1, inverse_temperature: 1 / temperature, seed }
  step.run(wgsl.sample, { x, indices }, params, rowDispatch(step.gpu, rows, params.columns, 8 * x.size))
  return indices
}
