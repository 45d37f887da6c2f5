import { expectShape } from '../runtime/check.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { mul, scale } from './elementwise.ts'
import { sum } from './reduce.ts'

/**
 * Σ values · weights / total: the mean of a loss over the tokens that count.
 * @param values f32, any shape.
 * @param weights f32, the shape of `values`, 0 where a token does not count; it gets no gradient.
 * @param total what to divide by, usually the sum of the weights, which whoever made them knows.
 * @returns f32 [1].
 * @throws RangeError when the shapes differ or `total` is not positive.
 */
export function weightedMean(step: Step, values: Tensor<'f32'>, weights: Tensor<'f32'>, total: number): Tensor<'f32'> {
  expectShape('weightedMean', values, 'weights', weights, values.shape)
  if (!(total > 0)) throw new RangeError(`Cannot take a weighted mean: the weights sum to ${total}; no token counts`)
  return scale(step, sum(step, mul(step, values, weights)), 1 / total)
}
