import type { FloatType } from '../core/dtype.ts'
import type { Step } from '../runtime/step.ts'
import type { Tensor } from '../runtime/tensor.ts'
import { add } from './add.ts'
import { scale } from './elementwise.ts'
import { linear } from './matmul.ts'

/** The two thin matrices of a low-rank update to a weight (N, K). */
export interface LoraPair<D extends FloatType = FloatType> {
  /** (R, K) */
  readonly a: Tensor<D>
  /** (N, R); zero at the start, so that the adapter begins as nothing. */
  readonly b: Tensor<D>
  /** Factor of the update. */
  readonly scale: number
}

/**
 * base + scale · (x · aᵀ) · bᵀ: what a low-rank adapter adds to a linear layer's output.
 * @param base f32 or f16 (…, N): the layer's own output for `x`, over a dense or a quantised weight.
 * @param x the dtype of `base`, (…, K).
 * @returns the dtype and shape of `base`.
 * @throws RangeError when the sizes do not fit.
 * @see Hu et al., LoRA, 2021, section 4.1.
 */
export function lora<D extends FloatType>(step: Step, base: Tensor<D>, x: Tensor<D>, pair: LoraPair<D>): Tensor<D> {
  const thin = linear(step, x, pair.a)
  return add(step, base, linear(step, pair.scale === 1 ? thin : scale(step, thin, pair.scale), pair.b))
}
